"""``syncd --help``: the list of commands, grouped by what one wants to do, and how they are found."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import click

from syncd import __version__


@dataclass(frozen=True, slots=True)
class Door:
    """One command: where it is listed, where it lives, and its one line."""

    section: str
    name: str
    module: str
    line: str


_KEEP, _SEE, _MEND, _TRY = "Keep both sides the same", "See what is going on", "Set up and mend", "Try it"

DOORS = (
    Door(_KEEP, "run", "run", "Run the daemon: pull on schedule, deliver edits as they come."),
    Door(_KEEP, "pull", "pull", "Pull streams once, now."),
    Door(_KEEP, "backfill", "backfill", "Pull history, as far back as you say; resumable."),
    Door(_KEEP, "drain", "drain", "Deliver edits until none is left that can be sent."),
    Door(_KEEP, "apply", "apply", "Send exactly what a saved plan names."),
    Door(_SEE, "status", "status", "Accounts, streams, holes and the outbox at a glance."),
    Door(_SEE, "streams", "streams", "How stale the mirror may be, and what it costs in requests."),
    Door(_SEE, "outbox", "outbox", "List undelivered edits; show, retry or skip one."),
    Door(_SEE, "runs", "held_runs", "List pulls that wait for you; approve or reject one."),
    Door(_SEE, "conflicts", "conflicts", "List fields that both sides changed; decide about one."),
    Door(_SEE, "shapes", "shapes", "List what is odd about the CRM's answers; accept it."),
    Door(_SEE, "plan", "plan", "Show what would be sent now; change nothing."),
    Door(_SEE, "explain", "explain", "Tell how a relation's values came to be."),
    Door(_SEE, "changes", "changes", "Follow every change, one line each, from a cursor."),
    Door(_SEE, "check", "check", "Test settings, database, credentials, clocks; change nothing."),
    Door(_MEND, "erase", "erase", "Remove a person for good, and keep them out."),
    Door(_MEND, "reproject", "reproject", "Read again what is kept of the CRM's words; after an upgrade."),
    Door(_MEND, "migrate", "migrate", "Create or upgrade the tables."),
    Door(_TRY, "demo", "demo", "Show the whole circle on a simulated CRM."),
    Door(_TRY, "sandbox", "sandbox", "Serve a simulated CRM to try an integration on."),
)

_EPILOG = """\
Examples:
  syncd check                                  is everything in order?
  syncd migrate && syncd backfill --since 2024-01-01
  syncd run                                    from then on
  syncd outbox list --status dead              what the CRM refused, and why

Settings come from the environment (SYNCD_...), else from .env, else from secret
files, else from defaults. config.example.env lists them all; `syncd check` shows
which are in effect.

Exit codes: 0 done, 1 failed, 2 wrong command line, 75 try again later,
78 change the configuration, 130 stopped by Ctrl-C.
"""


def imported(name: str) -> ModuleType:
    """Import a command with all that it stands on, without looking for garbage among what only comes into being.

    It is a tenth of the start; and what is there now stays, so no later search need look through it again.
    """
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()


class Commands(click.Group):
    """A group whose commands are imported when they are needed and listed by section."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [door.name for door in DOORS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        door = next((door for door in DOORS if door.name == cmd_name), None)
        if door is None:
            return None
        command = imported(f"syncd.cli.{door.module}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was probably meant."""
        from difflib import get_close_matches

        if args and self.get_command(ctx, args[0]) is None:
            close = get_close_matches(args[0], self.list_commands(ctx), n=1)
            advice = f"; did you mean {close[0]}?" if close else ""
            raise click.UsageError(f"there is no command {args[0]!r}{advice}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(door.section for door in DOORS):
            with formatter.section(section):
                for door in (door for door in DOORS if door.section == section):
                    formatter.write(f"  {door.name:<10} {door.line}\n")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write(_EPILOG)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="syncd", message="%(prog)s %(version)s")
def app() -> None:
    """syncd keeps a CRM and a Postgres database the same, in both directions, without losing a change.

    Your applications read and edit ordinary tables in schema crm; syncd does the rest.
    """
