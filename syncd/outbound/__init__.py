"""Out: how a local change reaches the CRM. In order, as often as is safe, and never lost.

Theory of operation. The database holds everything that matters; a drainer may die at any line.

* **Stage** (``store.outbox_stage``) moves what applications captured into entries with dense numbers per lane.
* **Claim** (``store.outbox_claim``) takes due lanes: epoch up, lease set, and after the fold the intent written, in one
  transaction. Which calls to send is decided by ``policy.fold`` alone.
* **Converse** (``converse``) holds one conversation with the CRM per step, inside half the lease. No transaction is
  open meanwhile.
* **Settle** (``settler``, ``store.outbox_settle``) writes batches of results, each lane guarded by its epoch.
* **Report** (``tally``): one ``DeliveryReport`` per conversation, one ``DrainReport`` per drain.

``shift`` wires these into a feeder, workers and a settler; ``pace`` says how fast, ``watch`` says whether at all.

Two sequences beside it decide no call of their own. ``planning`` folds what the outbox holds, to each lane's end, and
sends nothing; ``applying`` sends what a saved plan (``plan_file``) names, under the same claims, leases and fences, and
leaves alone whatever has moved since.

What happens when the drainer dies:

| it dies | what is left | what happens next |
|---|---|---|
| before the claim commits | the lane as it was | it is claimed again |
| after the claim, before a request | lease and intent | when the lease ends: claimed again; a barrier is read back |
| in mid-request or before the settle | the same | repeat-safe calls are sent again in order; a barrier is read back |
| while the settle commits | settled, or as above | safe either way: a settle clears the claim, so none applies twice |
"""

from syncd.outbound.drain import Drainer
from syncd.outbound.limits import DrainLimits

__all__ = ["DrainLimits", "Drainer"]
