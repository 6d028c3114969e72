"""Small parts of the service whose mistakes would be seen late: exit codes, jobs, the rate, the notifier."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from apscheduler.events import EVENT_JOB_MAX_INSTANCES
from pydantic import SecretStr

from syncd.clock import SystemClock
from syncd.service.cadences import cadences
from syncd.service.checkup import Finding, Verdict, exit_code_of
from syncd.service.notify import Notifier
from syncd.service.pacing import Pacer
from syncd.service.providers import build_provider
from syncd.service.schedule import Job, Schedule
from syncd.settings import PullSettings, Settings, SettingsError, resolve_accounts


class Moved:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.at = 100.0

    def now(self) -> object:
        raise AssertionError("nothing here asks for the date")

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds

    def random(self) -> float:
        return 0.5


async def test_both_directions_share_one_rate() -> None:
    """Two requests a second means two, however many ask."""
    clock = Moved()
    pacer = Pacer(2.0, clock)  # type: ignore[arg-type]
    for _ in range(11):
        await pacer.turn()
    assert clock.at - 100.0 == pytest.approx(5.0, abs=0.6)


async def test_a_pull_keeps_to_its_replicas_share_of_the_rate() -> None:
    """The drainer knows how many replicas are sending; the promise to the CRM is about all of them."""
    clock = Moved()
    pacer = Pacer(2.0, clock)  # type: ignore[arg-type]
    pacer.share(4)
    for _ in range(6):
        await pacer.turn()
    assert clock.at - 100.0 == pytest.approx(10.0, abs=2.1)


async def test_a_turn_that_comes_too_late_is_left_to_others() -> None:
    """A delivery that waits for its turn past its lease would be sent beside another worker's."""
    clock = Moved()
    pacer = Pacer(0.1, clock)  # type: ignore[arg-type]
    assert await pacer.turn(5) == 0
    assert await pacer.turn(5) is None
    assert clock.slept == []
    assert await pacer.turn(20) == pytest.approx(10)


def test_findings_end_in_the_code_that_needs_a_person_most() -> None:
    """What must be changed outweighs what may pass; a warning is no failure."""
    wrong, away = Finding("a", Verdict.FAIL, "", "", 78), Finding("b", Verdict.FAIL, "", "", 75)
    doubtful = Finding("c", Verdict.WARN, "", "", 78)
    assert [exit_code_of(found) for found in ([], [doubtful], [away], [away, wrong])] == [0, 0, 75, 78]


def test_every_cadence_names_a_stream_of_the_provider() -> None:
    """A cadence for a stream that does not exist is a setting that does nothing."""
    settings = Settings(autorespond_admin="1", autorespond_key=SecretStr("k"))
    provider = build_provider(resolve_accounts(settings).configs[0])
    assert set(cadences(PullSettings())) == set(provider.streams)


def test_verb_and_place_overrides_reach_the_endpoint() -> None:
    """The CRM's reference names no verbs: this setting is how an operator mends a wrong guess."""
    settings = Settings.model_validate(
        {
            "autorespond_admin": "1",
            "autorespond_key": "k",
            "autorespond_verbs": "tag_add=PUT",
            "autorespond_places": "field_set=json",
        }
    )
    provider = build_provider(resolve_accounts(settings).configs[0])
    assert provider.endpoints["tag_add"].verb == "PUT"
    assert provider.endpoints["field_set"].place == "json"


def test_override_of_a_write_that_does_not_exist_is_refused() -> None:
    """With the nearest right name, like every other typo; a read is no write."""
    with pytest.raises(ValueError, match="did you mean tag_add"):
        Settings.model_validate({"autorespond_verbs": "tagadd=PUT"})
    with pytest.raises(ValueError, match="names a write that does not exist"):
        Settings.model_validate({"autorespond_verbs": "groups=PUT"})


async def test_jobs_never_pile_up_and_are_never_dropped_for_being_late() -> None:
    """Coalesce, one instance, no misfire limit: a slept-through night is made up by one round."""
    schedule = Schedule(SystemClock())
    ran = asyncio.Event()

    async def work() -> None:
        ran.set()

    schedule.add(Job("due", 3600, work))
    schedule.add(Job("off", 0, work))
    schedule.start()
    try:
        (job,) = schedule._scheduler.get_jobs()
        assert (job.coalesce, job.max_instances, job.misfire_grace_time) == (True, 1, None)
        async with asyncio.timeout(10):
            await ran.wait()
    finally:
        schedule.stop()


async def test_round_longer_than_its_cadence_is_not_worth_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """It is the plan that a round waits for the last one; a log full of that hides what matters."""
    schedule, rounds, enough, release = Schedule(SystemClock()), 0, asyncio.Event(), asyncio.Event()
    looked = asyncio.Event()
    schedule._scheduler.add_listener(lambda _: looked.set(), EVENT_JOB_MAX_INSTANCES)

    async def long_round() -> None:
        nonlocal rounds
        rounds += 1
        enough.set()
        await release.wait()

    schedule.add(Job("long", 0.01, long_round))
    schedule.start()
    try:
        async with asyncio.timeout(10):
            await enough.wait()
            await looked.wait()
    finally:
        schedule.stop()
        release.set()
    assert rounds == 1
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_notifier_speaks_to_its_socket_and_survives_its_absence(tmp_path: Path) -> None:
    """A supervisor that has gone is no reason to fail."""
    address = str(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(address)
        Notifier(address, "").tell("READY=1", "STATUS=x")
        assert channel.recv(100) == b"READY=1\nSTATUS=x"
    Notifier(address, "").tell("READY=1")
    Notifier("", "").tell("READY=1")
    assert Notifier("", "3000000").watchdog_s == 3.0


def test_settings_error_is_one_line_for_one_problem() -> None:
    """A list is for lists."""
    assert str(SettingsError(["a"])) == "a"
    assert str(SettingsError(["a", "b"])).count("\n") == 2
