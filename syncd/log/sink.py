"""The one way out for log lines, for structlog and for the standard library's ``logging`` alike."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from syncd.domain.errors import ConfigurationError
from syncd.log.redaction import redact, redact_field, redact_registered

_TALKATIVE = ("httpx", "httpcore", "aiohttp", "aiohttp.client", "asyncio", "apscheduler", "alembic")
_FIRST = ("timestamp", "level", "event")


def configure(*, json: bool | None, level: str, stream: TextIO | None = None) -> None:
    """Set up logging for the whole process; may be called again.

    ``json`` None means: JSON unless the stream (standard error) is a terminal. ``level`` is a name such as ``info``.
    Libraries that talk at INFO are pinned to WARNING; a person who raises one of them still sees redacted lines.
    """
    threshold = logging.getLevelNamesMapping().get(level.upper())
    if threshold is None:
        raise ConfigurationError("the log level must be one of debug, info, warning, error, critical")
    sink = Sink(stream or sys.stderr, json)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, sink.write_event],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    _capture_stdlib(sink, threshold)
    _capture_crashes()


def get(name: str) -> FilteringBoundLogger:
    """Return the logger of one part of syncd; events are named ``noun.past_tense``."""
    logger: FilteringBoundLogger = structlog.get_logger(logger_name=name)
    return logger


class Sink:
    """Turns one event into one redacted line on one stream. Never raises."""

    def __init__(self, stream: TextIO, json: bool | None) -> None:
        is_terminal = stream.isatty()
        colours = is_terminal and "NO_COLOR" not in os.environ
        self._stream = stream
        self._is_json = not is_terminal if json is None else json
        self._pretty = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
        self._stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)

    def write_event(self, logger: object, method: str, event: EventDict) -> str:
        """Write one of our own events: the last structlog processor."""
        event["logger"] = event.pop("logger_name", "")
        self._write(lambda: event, is_own=True)
        return ""

    def write_record(self, record: logging.LogRecord) -> None:
        """Write one record of the standard library."""
        self._write(lambda: _event(record), is_own=False)

    def _write(self, event: Callable[[], EventDict], *, is_own: bool) -> None:
        try:
            line = self._line(event(), is_own=is_own)
        except Exception as error:  # noqa: BLE001 (a value whose own text raises must not stop who logs it)
            line = f'{{"level":"error","event":"line.withheld","reason":"{type(error).__name__}"}}'
        with contextlib.suppress(OSError, ValueError):  # a closed or full stream loses the line, not the program
            self._stream.write(line + "\n")
            self._stream.flush()

    def _line(self, event: EventDict, *, is_own: bool) -> str:
        clean = _redacted(self._stamp(None, "", event), may_show_email=is_own and event.get("level") == "debug")
        if not self._is_json:
            return redact_registered(str(self._pretty(None, "", clean)))
        ordered = {name: clean.pop(name) for name in _FIRST if name in clean} | dict(clean)
        return redact_registered(msgspec.json.encode(ordered).decode())


def _redacted(event: EventDict, *, may_show_email: bool) -> EventDict:
    """Return the event with every value redacted and its exception, if any, as redacted text."""
    exception = _exception_text(event.pop("exc_info", None))
    clean: EventDict = {name: redact_field(name, value) for name, value in event.items()}
    clean["timestamp"] = event["timestamp"]
    if may_show_email and "email" in event:
        clean["email"] = str(event["email"])
    if exception:
        clean["exception"] = redact(exception)
    return clean


def _exception_text(given: Any) -> str:
    """Format a traceback with its causes. Frames show code, never the values of variables."""
    if given is True:
        given = sys.exc_info()[1]
    elif isinstance(given, tuple):
        given = given[1]
    return "".join(traceback.format_exception(given)).rstrip() if isinstance(given, BaseException) else ""


class _Handler(logging.Handler):
    """Feeds records of the standard library to the sink."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        self._sink.write_record(record)


def _event(record: logging.LogRecord) -> EventDict:
    return {
        **structlog.contextvars.get_contextvars(),
        "level": record.levelname.lower(),
        "event": record.getMessage(),
        "logger": record.name,
        "exc_info": record.exc_info,
    }


def _capture_stdlib(sink: Sink, threshold: int) -> None:
    root = logging.getLogger()
    for handler in tuple(root.handlers):
        if isinstance(handler, _Handler) or type(handler) is logging.StreamHandler:
            root.removeHandler(handler)
    root.addHandler(_Handler(sink))
    root.setLevel(threshold)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, threshold))
    logging.captureWarnings(True)


def _capture_crashes() -> None:
    """Log what nobody caught, in place of Python's own unredacted tracebacks; hooks that others set stay theirs."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = lambda kind, error, trace: _log_crash(error)
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda crash: _log_crash(crash.exc_value)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = lambda crash: _log_crash(crash.exc_value)


def _log_crash(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
        get("syncd").critical("process.crashed", exc_info=error)
