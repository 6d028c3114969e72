"""Logging as in production, into a text that a test can read; everything is put back afterwards."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import structlog

from syncd import log
from syncd.log import redaction


class Captured(io.StringIO):
    """What was logged so far; ``is_terminal`` makes ``json=None`` choose the pretty form."""

    def __init__(self, *, is_terminal: bool = False) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


@contextmanager
def captured_logs(
    *, json: bool | None, level: str = "debug", talkative: Iterable[str] = (), is_terminal: bool = False
) -> Iterator[Captured]:
    """Configure logging into the yielded text; the named libraries' loggers are set to DEBUG."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook, sys.unraisablehook)
    handlers, root_level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in list(logging.root.manager.loggerDict)}
    stream = Captured(is_terminal=is_terminal)
    root.handlers.clear()
    log.configure(json=json, level=level, stream=stream)
    try:
        for name in talkative:
            levels.setdefault(name, logging.NOTSET)
            logging.getLogger(name).setLevel(logging.DEBUG)
        yield stream
    finally:
        root.handlers[:] = handlers
        root.setLevel(root_level)
        logging.captureWarnings(False)
        for name in list(logging.root.manager.loggerDict):
            logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()


@contextmanager
def registered_secrets(*secrets: str) -> Iterator[None]:
    """Register secrets for one test; the process-wide register forgets them afterwards."""
    before = set(redaction._registered)
    log.add_secrets(secrets)
    try:
        yield
    finally:
        redaction._registered.clear()
        log.add_secrets(before)
