"""Out: how a local change reaches the CRM. In order, as often as is safe, and never lost.

Theory of operation. The database holds everything that matters; a drainer may die at any line.

* **Stage** (``store.outbox_stage``) moves what applications captured into entries with dense numbers per lane.
* **Claim** (``store.outbox_claim``) takes due lanes: epoch up, lease set, and after the fold the intent written, in one
  transaction. Which calls to send is decided by ``policy.fold`` alone.
* **Converse** (``converse``) holds one conversation with the CRM per step, inside half the lease. No transaction is
  open meanwhile.
* **Settle** (``settler``, ``store.outbox_settle``) writes batches of results, each lane guarded by its epoch.
* **Report** (``tally``): one ``DeliveryReport`` per conversation, one ``DrainReport`` per drain.

``shift`` wires these into a feeder, workers and a settler; ``pace`` says how fast, ``watch`` says whether at all, and
``circuit`` keeps the breaker in step with what other replicas know.

Whose trouble a failure is:

| what comes back | what is done |
|---|---|
| 401, 403, 410, texts like it | a read; refused too: the account is paused until a canary is answered; else as 5xx |
| 429 | the account waits as long as asked, for every lane and replica; no try is used up |
| 5xx, 408, no answer | one try used up, back-off with full jitter; with Retry-After the account waits as well |
| the same from many different entries in a row, or from one again while a read fails too | the breaker: one incident |
| 404 or any other refusal | a read; it fails too: as 5xx; it works: the entry is dead |
| the same refusal of many different entries in a row | the breaker, and they are pending again; after six rounds dead |
| 405 on a write | its operation is suspended and tried now and then; no try is used up; one incident per operation |

After whatever stopped it the drainer begins with one conversation at a time.

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
