"""Inbound: sequences that pull. What the CRM says becomes rows, and the time it speaks for becomes proven.

Theory of operation. A **stream** is a remote collection; its kind says how it is read:

* *window* (``window``): asked by time. The earliest unproven time inside the horizon, less an overlap, is asked for;
  a believed answer proves the time up to the start of its request, in the transaction that writes its rows. Time lost
  to a downtime is a hole like any other, so the next window widens by itself. The overlap is learned from how late rows
  came (``policy.lateness``); now and then a round reaches back days or months instead, because orders change without a
  sign (``policy.ladder``): what is due is in the database, so a restart or another replica goes on from there.
* *snapshot* (``snapshot``): read whole.
* *sweep* (``sweep``, ``parents``): asked one parent at a time, within a budget: the recently active first, then those
  read longest ago. Orders are asked for only where something may still change: an unpaid order, a running subscription.
  A relation is looked up by e-mail address only where nothing but an invoice names it.
* *follow-up* (``details``, ``files``): one call per new row, with its own tries; the list it belongs to never waits
  for it.

Every pull is the same story (``puller``): is the account held? plan; open a run; fetch the whole answer to disk, no
transaction being open; then in one transaction decode, diff and write batch by batch (``ahead`` decodes the next batch
meanwhile), hear the witnesses, prove coverage, close the run. Whatever is wrong, however late in the answer it shows,
undoes all of it: the run is ``refused`` (an answer came and is not believed) or ``failed`` (none came), and the hole
stays.

Answers change their shape (``drift``). A record that cannot be read is kept unread beside its window's proof, and read
when a later syncd can (``reproject``); a key that has vanished from all of an answer is never believed.

What an answer may never do is decided in ``policy`` and kept in ``store.mirror``: overwrite an undelivered local
change, null what its endpoint does not carry, or delete by silence.
"""

from syncd.inbound.context import Progress
from syncd.inbound.inspection import Inspection
from syncd.inbound.policy import PullPolicy
from syncd.inbound.puller import ORDER, PER_RELATION, Puller

__all__ = ["ORDER", "PER_RELATION", "Inspection", "Progress", "PullPolicy", "Puller"]
