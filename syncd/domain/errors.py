"""The exceptions: bugs, misconfiguration and lost infrastructure only. What an API answers is a value, not an error.

Each class carries the exit code that a command ends with, so that ``cli`` maps no class by hand.
"""

from __future__ import annotations


class SyncdError(Exception):
    """Root of every exception that syncd raises on purpose; the text is one clear sentence without secrets."""

    exit_code = 1


class UserError(SyncdError):
    """The command line asked for something that cannot be; the text says what to do next. Exit code 2."""

    exit_code = 2


class ConfigurationError(SyncdError):
    """The settings, the schema or the machine must be changed before syncd can work. Exit code 78."""

    exit_code = 78


class InfrastructureError(SyncdError):
    """Something that was there is gone for now (database, network, disk); the same run may work later. Exit code 75."""

    exit_code = 75


class MalformedAnswer(SyncdError):
    """An answer of the CRM that cannot be believed: not JSON, cut off, or of the wrong shape. Nothing is written."""

    exit_code = 1


class ShapeChanged(MalformedAnswer):
    """A whole answer in JSON of another form than ever before: another envelope, or records of other keys and types. No
    waiting mends that. The text names keys and types, never values; ``record`` is the offending record or the beginning
    of the answer, for the database alone."""

    def __init__(self, text: str, record: bytes = b"") -> None:
        super().__init__(text)
        self.record = record


class KeyVanished(MalformedAnswer):
    """An answer in which a key that was always there is in no record. Nothing of it is written: it would take
    away what is known."""


class Fenced(SyncdError):
    """Another worker has taken over since the lease was given; whatever this one holds is dropped."""
