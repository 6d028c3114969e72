"""How a command ends: the one map from exceptions to exit codes and to what standard error says."""

from __future__ import annotations

import errno
import os
import sys

import click

from syncd.domain.errors import SyncdError

OK, FAILED, USAGE, TRY_LATER, CONFIGURATION, INTERRUPTED = 0, 1, 2, 75, 78, 130
_BROKEN_PIPE = 141


def run_to_exit_code() -> int:
    """Run the command line; return its exit code, having said what went wrong in one sentence.

    The log is set up before anything else: an error that comes earlier must not reach a log that redacts nothing.
    """
    from syncd import log
    from syncd.cli.app import app

    log.configure(json=None, level="warning")
    try:
        code = app.main(prog_name="syncd", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _interrupted()
    except click.exceptions.NoArgsIsHelpError as asked:
        print(asked.format_message(), file=sys.stderr)
        return USAGE
    except click.ClickException as error:
        return _misused(error)
    except SyncdError as error:
        return _failed(error, str(error), error.exit_code)
    except OSError as error:
        return _os_error(error)
    except Exception as error:  # noqa: BLE001 (the one boundary between the program and its caller)
        return _failed(error, f"unexpected {type(error).__name__}: {error}", FAILED)


def _interrupted() -> int:
    """What is under way is either committed or will be done again; there is nothing to clean up."""
    print("\nsyncd: stopped by Ctrl-C; nothing is lost, the same command goes on from here", file=sys.stderr)
    return INTERRUPTED


def _misused(error: click.ClickException) -> int:
    """Say what was wrong with the command line, and where its help is."""
    where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "syncd"
    print(f"syncd: {error.format_message()}\nTry: {where} --help", file=sys.stderr)
    return USAGE


def _os_error(error: OSError) -> int:
    """End in silence when the reader of our output has gone; everything else is a failure with the system's words."""
    if error.errno == errno.EPIPE:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    code = TRY_LATER if error.errno in (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EAGAIN) else FAILED
    where = f": {error.filename}" if error.filename else ""
    return _failed(error, f"{error.strerror or type(error).__name__}{where}", code)


def _failed(error: BaseException, text: str, code: int) -> int:
    from syncd import log

    print(f"syncd: {log.redact(text)}", file=sys.stderr)
    log.get("syncd.cli").debug("command.failed", exc_info=error)
    return code
