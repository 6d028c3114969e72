"""Which tests stay together when a run is spread over processes, and which of them begin.

Tests that share something dear must meet in one process, or each process makes it for itself. The mark ``xdist_group``
says so in vain: it renames tests, and pytest from 9.2 on keeps the name that it gave. So this table says it, to a
scheduler that hands out the largest groups first: nothing long is left for the end, where others would wait for it.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

# The beginnings of test names, and what those tests have in common.
TOGETHER = {
    "tests/process/test_crash_points.py": "the stage of the crash points",
    "tests/process/test_defects.py::test_a_planted_bug_is_caught_where_a_drainer_dies": "the stage of the crash points",
    "tests/process/test_crash_pulls.py": "the stage of the killed pulls",
    "tests/process/test_embedded_life.py": "a made cluster",
    "tests/process/test_world_postgres.py": "a server under load",
    "tests/process/test_world_daemon.py": "a server under load",
}


def group_of(test: str) -> str:
    """Return the group of a test; one that shares nothing is a group of its own."""
    return next((group for beginning, group in TOGETHER.items() if test.startswith(beginning)), test)


class Spread(LoadScopeScheduling):
    """Hands out groups, the largest first, then single tests in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
