"""The edits of the demo: plain SQL, one transaction each, just as an application would write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from syncd.store import Connection, Store

NEW_EMAIL = "nora.devries@example.org"


@dataclass(frozen=True, slots=True)
class Cast:
    """Whom the demo edits: mirrored relations by e-mail, and the tag, field and group it uses, by name."""

    renamed: str
    moved: str
    tagged: str
    untagged: str
    untagged_tag: str
    fielded: str
    joining: str
    tag: str
    field_code: str
    field_value: str
    group: str


@dataclass(frozen=True, slots=True)
class Edit:
    """One statement with its parameters, and the words for what it means."""

    meaning: str
    sql: str
    binds: tuple[object, ...]

    def shown(self) -> str:
        """The statement with its values written in, for people; what runs has binds."""
        text = self.sql
        for position, value in reversed(list(enumerate(self.binds, start=1))):
            text = text.replace(f"${position}", "'" + str(value).replace("'", "''") + "'")
        return text


async def choose_cast(store: Store) -> Cast:
    """Pick from the mirror six different relations and the tag, field and group to use on them."""
    async with store.begin() as connection:
        emails = await _column(connection, _PEOPLE)
        untagged, untagged_tag = await _row(connection, _TAGGED, tuple(emails[:5]))
        tag = (await _row(connection, _FREE_TAG, (emails[2], untagged_tag)))[0]
        code, value = await _row(connection, _FIELD, ())
        group = (await _row(connection, _GROUP, (emails[4],)))[0]
    return Cast(
        renamed=emails[0],
        moved=emails[1],
        tagged=emails[2],
        untagged=untagged,
        untagged_tag=untagged_tag,
        fielded=emails[3],
        joining=emails[4],
        tag=tag,
        field_code=code,
        field_value=value,
        group=group,
    )


def edits_of(cast: Cast) -> tuple[Edit, ...]:
    """Return the demo's edits in the order in which they are made."""
    return (
        Edit(
            "a new relation",
            "INSERT INTO crm.relations (email, first_name, suffix, last_name) VALUES ($1, $2, $3, $4)",
            (NEW_EMAIL, "Nora", "de", "Vries"),
        ),
        Edit(
            "a changed name", "UPDATE crm.relations SET last_name = $1 WHERE email = $2", ("Jansen-Bos", cast.renamed)
        ),
        Edit(
            "a changed e-mail",
            "UPDATE crm.relations SET email = $1 WHERE email = $2",
            (f"new.{cast.moved}", cast.moved),
        ),
        Edit("a tag added", "SELECT crm.add_tag($1, $2)", (cast.tagged, cast.tag)),
        Edit("a tag removed", "SELECT crm.remove_tag($1, $2)", (cast.untagged, cast.untagged_tag)),
        Edit(
            "a free field set",
            "SELECT crm.set_field($1, $2, $3)",
            (cast.fielded, cast.field_code, cast.field_value),
        ),
        Edit("a group joined", "SELECT crm.join_group($1, $2)", (cast.joining, cast.group)),
    )


async def make(store: Store, edit: Edit) -> None:
    """Run one edit in a transaction of its own."""
    async with store.begin() as connection:
        await connection.exec_driver_sql(edit.sql, edit.binds)


async def _column(connection: Connection, sql: str) -> list[str]:
    return [row[0] for row in await connection.exec_driver_sql(sql)]


async def _row(connection: Connection, sql: str, binds: tuple[object, ...]) -> Sequence[str]:
    found = (await connection.exec_driver_sql(sql, binds)).first()
    if found is None:
        raise LookupError("the seeded world is too small for the demo; ask for more relations")
    return tuple(found)


_PEOPLE = """
SELECT email FROM crm.relations r
WHERE remote_id IS NOT NULL AND first_name IS NOT NULL AND missing_since IS NULL
  AND NOT EXISTS (SELECT FROM crm.relations o
                  WHERE o.account_id = r.account_id AND o.id <> r.id AND lower(o.email) = lower(r.email))
ORDER BY id LIMIT 5
"""

_TAGGED = """
SELECT r.email, t.name
FROM crm.relation_tags rt JOIN crm.relations r ON r.id = rt.relation_id JOIN crm.tags t ON t.id = rt.tag_id
WHERE r.email <> ALL (ARRAY[$1, $2, $3, $4, $5])
  AND (SELECT count(*) FROM crm.tags twin WHERE twin.name = t.name) = 1
ORDER BY r.id, t.id LIMIT 1
"""

_FREE_TAG = """
SELECT t.name FROM crm.tags t
WHERE t.missing_since IS NULL AND t.name <> $2
  AND (SELECT count(*) FROM crm.tags twin WHERE twin.name = t.name) = 1
  AND NOT EXISTS (SELECT FROM crm.relation_tags rt JOIN crm.relations r ON r.id = rt.relation_id
                  WHERE r.email = $1 AND rt.tag_id = t.id)
ORDER BY t.id LIMIT 1
"""

_FIELD = """
SELECT code, COALESCE(options[1], CASE type WHEN 'boolean' THEN 'true' ELSE 'window seat' END)
FROM crm.fields WHERE is_writable AND missing_since IS NULL
ORDER BY type <> 'string', id LIMIT 1
"""

_GROUP = """
SELECT g.title FROM crm.groups g
WHERE g.missing_since IS NULL
  AND (SELECT count(*) FROM crm.groups twin WHERE twin.title = g.title) = 1
  AND NOT EXISTS (SELECT FROM crm.group_members m JOIN crm.relations r ON r.id = m.relation_id
                  WHERE r.email = $1 AND m.group_id = g.id)
ORDER BY g.id LIMIT 1
"""
