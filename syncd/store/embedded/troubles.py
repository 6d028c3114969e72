"""Say in one sentence what stopped Postgres, from what it wrote.

A full disk is nobody's misconfiguration: room is made and the same start works, so it is an InfrastructureError.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from syncd.domain.errors import ConfigurationError, InfrastructureError, SyncdError
from syncd.store.embedded.layout import Layout

NO_SPACE = ("No space left on device", "Disk quota exceeded")
_LONGEST_QUOTE = 400


def trouble(layout: Layout, user: str, output: str) -> SyncdError:
    """Turn the output of a failed program into the error to raise."""
    if any(sign in output for sign in NO_SPACE):
        return disk_full(layout)
    if "ermission denied" in output:
        return ConfigurationError(f"the user {user} may not write in {layout.data_dir}: {_last_words(output)}")
    if "could not look up effective user" in output:
        return ConfigurationError(
            f"Postgres needs its user to have a name and user id {user} has none; "
            "add it to /etc/passwd, or set SYNCD_DATABASE_URL to a Postgres server"
        )
    return InfrastructureError(f"the embedded Postgres failed: {_last_words(output)} (see {layout.log})")


def disk_full(layout: Layout) -> InfrastructureError:
    return InfrastructureError(
        f"the disk that holds {layout.data_dir} is full: free at least 200 MB on it and start again; no data was lost"
    )


@contextmanager
def explained(layout: Layout) -> Iterator[None]:
    """Turn what the operating system refuses into errors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(layout) from error
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise ConfigurationError(f"SYNCD_DATA_DIR={layout.data_dir} is not a directory") from error
        if isinstance(error, PermissionError):
            where = error.filename or layout.data_dir
            raise ConfigurationError(
                f"the embedded Postgres may not use {where}; set SYNCD_DATA_DIR to a directory that it may write"
            ) from error
        if error.errno == errno.EROFS:
            raise ConfigurationError(f"SYNCD_DATA_DIR={layout.data_dir} lies on a read-only file system") from error
        raise InfrastructureError(
            f"the embedded Postgres cannot use {error.filename or layout.data_dir} ({error.strerror}); "
            "mend that, or set SYNCD_DATA_DIR to another directory"
        ) from error


def _last_words(output: str) -> str:
    """Return the line that says why: the last FATAL, PANIC or error line, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if any(mark in line for mark in ("FATAL:", "PANIC:", "error:", "ERROR:"))]
    return (telling or lines or ["it said nothing"])[-1][:_LONGEST_QUOTE]
