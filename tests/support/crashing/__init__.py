"""Crashing: a drainer is killed at every boundary, and what is left must be what the edits say.

Theory of operation. A **drainer** runs in a process that ``child`` forks, and reaches its two other sides, Postgres and
the CRM, through ``doors`` alone. The doors read along and ask a ``gate`` at the end of every message and every answer;
at its **point** the gate stops the world and the parent kills the process. Nothing is hooked into syncd. ``rehearsal``
plays a **take**: edits of an application (``story``, which also is the model), a drainer per point, a restart, a person
for what waits for one; then ``witness`` compares the CRM's journal, its state and the outbox with the story. ``survey``
finds the points of an undisturbed drain and names them as the docs do.

To extend it: edits go into ``story.FIRST``, faults into ``story.FAULTS``; points follow by themselves. A transaction of
a new kind needs a line in ``survey`` and a row in the table of ``syncd.outbound``, and the test of the table says so.
Planted bugs go into ``tests.support.defects``.
"""
