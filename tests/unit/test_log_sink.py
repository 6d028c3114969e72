"""The one way out for log lines: machine-readable off a terminal, redacted always, never the cause of a failure."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings

import pytest
import structlog

from syncd import log
from syncd.domain.errors import ConfigurationError
from tests.support.logs import captured_logs, registered_secrets

SECRET = "canary" * 3


def test_a_json_line_holds_the_event_its_fields_and_what_is_bound() -> None:
    """One canonical line per run and delivery is only useful if a machine can read it."""
    with captured_logs(json=True) as stream:
        structlog.contextvars.bind_contextvars(run_id=7)
        log.get("inbound").info("run.finished", stream="orders", rows=12, share=0.5, key="2023/001", held=None)
        line = json.loads(stream.getvalue())
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "event": "run.finished",
        "logger": "inbound",
        "stream": "orders",
        "rows": 12,
        "share": 0.5,
        "key": "2023/001",
        "held": None,
        "run_id": 7,
    }


@pytest.mark.parametrize(
    ("json_", "is_terminal", "is_json"), [(None, False, True), (None, True, False), (False, False, False)]
)
def test_json_off_a_terminal_and_pretty_on_one(json_: bool | None, is_terminal: bool, is_json: bool) -> None:
    """journald and Kubernetes get JSON without a setting; a person at a terminal gets something to read."""
    with captured_logs(json=json_, is_terminal=is_terminal) as stream:
        log.get("x").info("thing.happened")
    assert stream.getvalue().startswith("{") is is_json


def test_levels_are_obeyed_and_libraries_that_talk_are_pinned() -> None:
    """httpx logs a line with the whole URL for every request at INFO."""
    with captured_logs(json=True, level="debug") as stream:
        for name in ("httpx", "httpcore.connection", "aiohttp.client", "apscheduler.scheduler"):
            logging.getLogger(name).info("chatter")
        logging.getLogger("httpx").warning("worth knowing")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["worth knowing"]
    with captured_logs(json=True, level="warning") as stream:
        log.get("x").info("thing.happened")
        logging.getLogger("y").info("thing happened")
    assert stream.getvalue() == ""


def test_a_wrong_level_is_refused() -> None:
    """A typo must not silence the log."""
    with pytest.raises(ConfigurationError, match="log level"):
        log.configure(json=True, level="loud")


@pytest.mark.parametrize("json_", [True, False])
def test_an_address_shows_only_in_an_email_field_of_our_own_debug_events(json_: bool) -> None:
    """Whoever debugs one person's sync needs the address; nobody else's log should hold it."""
    with captured_logs(json=json_) as stream:
        logger = log.get("x")
        logger.debug("relation.seen", email="jan@example.org")
        shown = stream.getvalue()
        logger.info("relation.seen", email="jan@example.org")
        logger.debug(
            "relation.seen for jan@example.org", address="jan@example.org", rows=[{"email": "jan@example.org"}]
        )
        logging.getLogger("lib").debug("jan@example.org", extra={"email": "jan@example.org"})
        hidden = stream.getvalue().removeprefix(shown)
    assert "jan@example.org" in shown
    assert "jan@" not in hidden


@pytest.mark.parametrize("json_", [True, False])
def test_an_exception_is_shown_with_its_causes_without_its_secrets_and_variables(json_: bool) -> None:
    """A traceback with local variables holds every credential in reach; one without causes explains nothing."""

    def fail() -> None:
        local = SECRET[::-1]
        try:
            raise ValueError(f"GET https://api.example/x?key=other&admin=5 {local[::-1]}")
        except ValueError as error:
            raise RuntimeError("could not pull for jan@example.org") from error

    with registered_secrets(SECRET), captured_logs(json=json_) as stream:
        try:
            fail()
        except RuntimeError:
            log.get("x").exception("run.failed")
            logging.getLogger("lib").exception("failed")
    text = stream.getvalue()
    assert text.count("ValueError: GET https://api.example/x?key=<redacted>&admin=<redacted> <redacted>") == 2
    assert text.count("RuntimeError: could not pull for <email>") == 2
    assert SECRET not in text
    assert SECRET[::-1] not in text


def test_values_of_any_kind_are_plain_and_redacted() -> None:
    """Somebody will log an object; its text is as dangerous as any."""

    class Url:
        def __str__(self) -> str:
            return f"https://x/?key={SECRET}"

    with captured_logs(json=True) as stream:
        log.get("x").info(
            "thing.happened", url=Url(), raw=b"key=abc", nested={"password": "abc", "n": [Url()]}, token=5
        )
        line = json.loads(stream.getvalue())
    assert line["url"] == "https://x/?key=<redacted>"
    assert line["raw"] == "key=<redacted>"
    assert line["nested"] == {"password": "<redacted>", "n": ["https://x/?key=<redacted>"]}
    assert line["token"] == "<redacted>"


@pytest.mark.parametrize("json_", [True, False])
def test_a_line_that_cannot_be_rendered_is_withheld_not_raised_and_not_leaked(json_: bool) -> None:
    """Logging must never fail what it describes, nor print the arguments raw as the standard library would."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError(SECRET)

        __repr__ = __str__

    with captured_logs(json=json_) as stream:
        log.get("x").info("thing.happened", value=Broken())
        logging.getLogger("lib").warning("%d of %s", SECRET)
        logging.getLogger("lib").warning(Broken())
        log.get("x").info("thing.went_on")
    *withheld, last = stream.getvalue().splitlines()
    assert len(withheld) == 3
    assert all("line.withheld" in line and SECRET not in line for line in withheld)
    assert "thing.went_on" in last


def test_a_closed_stream_loses_the_line_only() -> None:
    """A terminal that went away must not stop the daemon."""
    with captured_logs(json=True) as stream:
        stream.close()
        log.get("x").info("thing.happened")


def test_warnings_and_crashes_leave_by_the_same_way() -> None:
    """Python prints an uncaught exception raw; its text may be a URL."""
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__
    try:
        with captured_logs(json=True) as stream:
            error = ValueError("https://x/?key=abc")
            sys.excepthook(ValueError, error, None)
            thread = threading.Thread(target=lambda: (_ for _ in ()).throw(error))
            thread.start()
            thread.join()
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn("key=abc", stacklevel=1)
            sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    finally:
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines[:2]] == ["process.crashed"] * 2
    assert len(lines) == 3
    assert "key=<redacted>" in lines[2]["event"]
    assert "abc" not in stream.getvalue()
