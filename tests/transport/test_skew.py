"""The CRM's clock, as its answers tell it: windows are asked for in its time, not in ours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from syncd.providers.contract import Auth
from syncd.transport import Transport
from syncd.transport.skew import SkewGauge
from tests.support.clock import ManualClock
from tests.support.rawserver import Connection, answer, raw_server
from tests.transport.conftest import call

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


def date(ahead_s: float) -> dict[str, str]:
    return {"date": format_datetime(NOW + timedelta(seconds=ahead_s), usegmt=True)}


def test_skew_is_unknown_until_an_answer_told_the_time() -> None:
    """Zero would be a claim."""
    assert SkewGauge().skew_s is None


def test_one_wild_answer_does_not_move_it() -> None:
    """A proxy in front of the CRM may answer with its own idea of time."""
    gauge = SkewGauge()
    for ahead_s in (120, 121, 119, 120, 86_400):
        gauge.observe(date(ahead_s), NOW)
    assert gauge.skew_s == pytest.approx(120.5)


@pytest.mark.parametrize("headers", [{"date": "yesterday"}, {"date": ""}, {}, date(500) | {"age": "500"}])
def test_what_tells_no_time_is_ignored(headers: dict[str, str]) -> None:
    """A cached answer tells when it was cached."""
    gauge = SkewGauge()
    gauge.observe(headers, NOW)
    assert gauge.skew_s is None


async def test_answers_move_the_transports_skew() -> None:
    """Measured against the injected clock, over both ways of asking."""
    clock = ManualClock(NOW)

    async def half_an_hour_ahead(connection: Connection) -> None:
        await connection.say(answer(headers=f"Date: {date(1800)['date']}\r\n"))

    async with raw_server(half_an_hour_ahead) as server:
        transport = Transport.open(server.base_url, Auth(), clock=clock)
        assert transport.clock_skew_s is None
        await transport.send(call())
        assert transport.clock_skew_s == pytest.approx(1800.5)
        async with transport.download(call()):
            assert transport.clock_skew_s == pytest.approx(1800.5)
        await transport.close()


def test_the_same_time_told_again_later_is_news() -> None:
    """A clock that was set back by just what has passed since shows the very same second, and is an hour off."""
    gauge = SkewGauge()
    gauge.observe(date(3600), NOW)
    assert not gauge.is_news(date(3600)["date"], NOW + timedelta(seconds=1))
    assert gauge.is_news(date(3600)["date"], NOW + timedelta(hours=1))
    gauge.observe(date(3600), NOW + timedelta(hours=1))
    assert gauge.latest_s == pytest.approx(0.5)


def test_the_latest_sample_knows_of_a_jump_before_the_median_does() -> None:
    """What one answer proves is judged by its own clock, not by that of the answers before it."""
    gauge = SkewGauge()
    assert gauge.latest_s is None
    for ahead_s in (0, 0, 0, 0, 3600):
        gauge.observe(date(ahead_s), NOW)
    assert gauge.skew_s == pytest.approx(0.5)
    assert gauge.latest_s == pytest.approx(3600.5)
