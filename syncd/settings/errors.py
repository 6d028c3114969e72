"""Settings that cannot be used: all of them at once, each by name, none by value."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from syncd.domain.errors import ConfigurationError
from syncd.settings.names import variable


class SettingsError(ConfigurationError):
    """One or more settings are wrong; ``problems`` holds one sentence for each, without its value. Exit code 78."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            self.problems[0]
            if len(self.problems) == 1
            else f"{len(self.problems)} settings cannot be used:\n" + "\n".join(f"  {line}" for line in self.problems)
        )


def sentences(error: ValidationError, name: Callable[[str], str] = variable) -> list[str]:
    """Turn a validation error into sentences that name the setting and the rule, never the value."""
    return [_sentence(detail["type"], detail["msg"], name(str(detail["loc"][0]))) for detail in _details(error)]


def _details(error: ValidationError) -> list[ErrorDetails]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [detail for detail in found if detail["loc"]]


def _sentence(kind: object, message: object, name: str) -> str:
    rule = str(message).removeprefix("Value error, ")
    match kind:
        case "string_pattern_mismatch":
            rule = "must be digits alone"
        case "int_parsing" | "int_type" | "int_from_float":
            rule = "must be a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            rule = "must be a number"
        case "bool_parsing" | "bool_type":
            rule = "must be true or false"
        case _:
            rule = (
                rule.replace("Input should be", "must be")
                .replace("Input should", "must")
                .replace("String should", "must")
            )
    return f"{name} {rule}"
