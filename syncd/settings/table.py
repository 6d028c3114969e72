"""The settings as pages for people: the commented example file and the README's table, from the same fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from syncd.settings.names import variable
from syncd.settings.root import GROUPS

_HEAD = """\
# Every setting of syncd with its default. Generated from the code: python -m syncd.settings.example
# A setting is taken from the environment, else from this file as .env, else from a secret file of the same name,
# else from its default. A blank value counts as not given.
"""


def example_env() -> str:
    """Return ``config.example.env``: every setting with its meaning, bounds and default."""
    return _HEAD + "".join(_example_group(title, rows) for title, rows in _groups())


def settings_table() -> str:
    """Return the Markdown tables of the README, one for each group."""
    return "\n".join(_markdown_group(title, rows) for title, rows in _groups())


def _groups() -> Iterator[tuple[str, Mapping[str, FieldInfo]]]:
    for group in GROUPS:
        yield str(getattr(group, "title", group.__name__)), group.model_fields


def _example_group(title: str, fields: Mapping[str, FieldInfo]) -> str:
    lines = [f"\n# ---- {title} ----\n"]
    for name, field in fields.items():
        rule = _bounds(field)
        lines.append(
            f"\n# {field.description}{f' ({rule})' if rule else ''}\n{variable(name)}={spelled(field.default)}\n"
        )
    return "".join(lines)


def _markdown_group(title: str, fields: Mapping[str, FieldInfo]) -> str:
    rows = [f"#### {title}\n", "| setting | default | what it does |", "|---|---|---|"]
    for name, field in fields.items():
        rule = _bounds(field)
        default = spelled(field.default)
        shown = f"`{default}`" if default else "blank"
        rows.append(f"| `{variable(name)}` | {shown} | {field.description}{f' ({rule})' if rule else ''} |")
    return "\n".join(rows) + "\n"


def spelled(value: object) -> str:
    """Write a default the way the environment spells it."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case SecretStr():
            return value.get_secret_value()
        case Path() | str() | int():
            return str(value)
        case float():
            return f"{value:g}"
        case frozenset():
            return ",".join(sorted(map(str, value)))
        case Mapping():
            return ",".join(f"{key}={word}" for key, word in value.items())
        case _:
            raise TypeError(f"a default of type {type(value).__name__} has no spelling")


def _bounds(field: FieldInfo) -> str:
    """Say which values are allowed, where the field has numeric bounds or a closed choice."""
    choices = getattr(field.annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return "one of " + ", ".join(choices)
    limits = {
        kind: getattr(rule, kind) for rule in field.metadata for kind in ("ge", "gt", "le") if hasattr(rule, kind)
    }
    if "ge" in limits and "le" in limits:
        return f"{limits['ge']:g} to {limits['le']:g}"
    if "gt" in limits and "le" in limits:
        return f"above {limits['gt']:g}, at most {limits['le']:g}"
    return ""
