"""Planted bugs: a proof is worth what it catches, so each of these must make a named test of the suite fail.

Theory of operation. A **defect** (``planting``) is one mistake that a drainer could have been written with. It exists
in test code alone: nothing in syncd knows of it, no setting turns it on. It is planted by replacing a function, a
method or a statement in the running process; most are written around the sound thing, by calling it and undoing a
part, because a changed copy would grow old. ``lanes``, ``marks``, ``doubt``, ``trouble``, ``mirror``, ``merging`` and
``pulls`` hold them by subject.

``tests/process/test_defects.py`` plants each of them, runs the test that it names, and wants it to fail by an
assertion; then it plays crash points and schedules of the faulty world with those that these are to catch as well. The
same registry serves the drainers of ``tests.support.crashing``, which plant in a process of their own.

``tests/DEFECTS.md`` shows all of them as a table (``table``): a page of its own, because its rows are longer than a
line of code may be. A test compares it with the registry.

To add one: write it where it belongs, name its test, run ``python -m tests.support.defects.table > tests/DEFECTS.md``.
"""

from tests.support.defects.doubt import DOUBT
from tests.support.defects.lanes import LANES
from tests.support.defects.marks import MARKS
from tests.support.defects.merging import MERGING
from tests.support.defects.mirror import MIRROR
from tests.support.defects.planting import Defect, planted
from tests.support.defects.pulls import PULLS
from tests.support.defects.trouble import TROUBLE

DEFECTS: dict[str, Defect] = LANES | MARKS | DOUBT | TROUBLE | MIRROR | MERGING | PULLS

__all__ = ["DEFECTS", "Defect", "planted"]
