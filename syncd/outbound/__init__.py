"""Out: how a local change reaches the CRM. In order, as often as is safe, and never lost.

Theory of operation. The database holds everything that matters; a drainer may die at any line.

* **Stage** (``store.outbox_stage``) moves what applications captured into entries with dense numbers per lane.
* **Claim** (``store.outbox_claim``) takes due lanes: epoch up, lease set, and after the fold the intent written, in one
  transaction. Which calls to send is decided by ``policy.fold`` alone.
* **Converse** (``converse``) holds one conversation with the CRM per step, inside half the lease. No transaction is
  open meanwhile.
* **Settle** (``settler``, ``store.outbox_settle``) writes batches of results, each lane guarded by its epoch.
* **Prove** (``prover``, ``store.outbox_proof``): what the CRM said yes to is verified by whichever pull shows it, and
  a share of it is read back on purpose. A value that may be undone by a late request is said once more
  (``policy.reassertion``, ``store.outbox_reassert``).
* **Report** (``tally``): one ``DeliveryReport`` per conversation, one ``DrainReport`` per drain.

``shift`` wires these into a feeder, workers and a settler; ``pace`` says how fast, ``watch`` says whether at all.

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
