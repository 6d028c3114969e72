"""The administration: the tenant's own name and state, on the account's row."""

from __future__ import annotations

from sqlalchemy import text

from syncd.domain.records import Administration, Row
from syncd.policy.diff import diff
from syncd.store.engine import Connection
from syncd.store.history import Change, record
from syncd.store.mirror.normal import digest, raw_text
from syncd.store.mirror.scope import Scope, Written

_OLD = text("""
    SELECT remote_id, title, email, service_level, is_locked, content_hash, last_seen_at
    FROM crm.accounts WHERE id = :account_id
""")
_UPDATE = text("""
    UPDATE crm.accounts
    SET remote_id = :remote_id, title = :title, email = :email, service_level = :service_level, is_locked = :is_locked,
        content_hash = :hash, raw = CAST(CAST(:raw AS text) AS jsonb), changed_at = now(),
        last_seen_at = CASE WHEN CAST(:is_retold AS boolean) THEN accounts.last_seen_at ELSE now() END
    WHERE id = :account_id
""")


async def write(connection: Connection, scope: Scope, row: Row[Administration]) -> Written:
    """Write what differs of the administration."""
    it = row.record
    old = (await connection.execute(_OLD, {"account_id": scope.account_id})).one()._asdict()
    said = {
        "remote_id": it.remote_id,
        "title": it.title,
        "email": it.email,
        "service_level": it.service_level,
        "is_locked": it.is_locked,
    }
    if old["content_hash"] == digest(it):
        return Written(1, unchanged=1, warnings=row.warnings)
    values = {**said, "account_id": scope.account_id, "hash": digest(it), "raw": raw_text(row.raw)}
    values["is_retold"] = scope.is_retold
    await connection.execute(_UPDATE, values)
    difference = diff(old, said)
    if difference:
        change = Change(scope.account_id, "update", difference.before, difference.after)
        await record(connection, scope, "accounts", [change])
    return Written(1, updated=1, warnings=row.warnings)
