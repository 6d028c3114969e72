"""Out: how a local change reaches the CRM. In order, as often as is safe, and never lost.

Theory of operation. The database holds everything that matters; a drainer may die at any line.

* **Stage** (``store.outbox_stage``) moves what applications captured into entries with dense numbers per lane.
* **Claim** (``store.outbox_claim``) takes due lanes: epoch up, lease set, and after the fold the intent written, in one
  transaction. Which calls to send is decided by ``policy.fold`` alone.
* **Converse** (``converse``) holds one conversation with the CRM per step, inside half the lease. No transaction is
  open meanwhile. Right before a call that is not repeat-safe its beginning is written down (``intents``): one short
  statement, guarded by the epoch, which no other call pays for. So is what a call overwrites of the CRM's own
  (``presuming`` says what was agreed on).
* **Settle** (``settler``, ``store.outbox_settle``) writes batches of results, each lane guarded by its epoch.
* **Prove** (``prover``, ``store.outbox_proof``): what the CRM said yes to is verified by whichever pull shows it, and
  a share of it is read back on purpose. A value that may be undone by a late request is said once more
  (``policy.reassertion``, ``store.outbox_reassert``).
* **Report** (``tally``): one ``DeliveryReport`` per conversation, one ``DrainReport`` per drain.

``shift`` wires these into a feeder, workers and a settler; ``pace`` says how fast, ``watch`` says whether at all, and
``circuit`` keeps the breaker in step with what other replicas know.

Two sequences beside it decide no call of their own. ``planning`` folds what the outbox holds, to each lane's end, and
sends nothing; ``applying`` sends what a saved plan (``plan_file``) names, under the same claims, leases and fences, and
leaves alone whatever has moved since.

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

What happens when the drainer dies. These are all the boundaries there are: ``tests/process/test_crash_points.py`` kills
a drainer before, in and after each of its messages to the database and the CRM, and compares what it met with these
rows. "Not committed" holds until the server has done the COMMIT, "committed" from then on, whether the drainer heard of
it or not.

| it dies | what is left | what happens next |
|---|---|---|
| while connecting or looking | everything as it was | the next drainer looks |
| staging and claiming, not committed | captures and lanes as they were | staged and claimed as if for the first time |
| staging and claiming, committed | lease and intent | the lease ends, the lane is claimed; what is in doubt: below |
| while reading from the CRM | lease and intent; the CRM as it was | as above; a read is harmless to repeat |
| a repeat-safe call, not arrived | lease and intent; the CRM as it was | as above; the call is sent, in order |
| a repeat-safe call, done by the CRM | lease and intent; the CRM has it | as above; sent again, it changes nothing |
| beginning what is not repeat-safe, not committed | lease and intent; not begun | sent, as if for the first time |
| beginning what is not repeat-safe, committed | lease and intent; begun | not shown when read: parked |
| a call that is not repeat-safe, not arrived | lease and intent; the CRM as it was | not shown when read: parked |
| a call that is not repeat-safe, done by the CRM | lease and intent; the CRM has it | shown when read: settled |
| settling, not committed | lease and intent; the CRM has it | nothing of the settle is there: as in the rows above |
| settling, committed | cursor, entries, history; no claim, no intent | the lane goes on behind what was settled |
| pausing or resuming, not committed | the account as it was | the next refusal pauses it, the next canary resumes it |
| pausing or resuming, committed | the account paused, or not | the next canary read is due as written |
| proving, not committed | what awaits proof as it was | it is read back by the next drainer |
| proving, committed | taken for the length of a lease, or proved | what was taken and is not proved is read again |

If only the connection dies in a COMMIT, the drainer itself finds out (``leases``, ``store.outbox_lease``). Lanes of a
claim in doubt are asked for by their epochs, and sent if they are ours. A settle in doubt is settled again; a lane that
refuses is read, and counts as settled if the first try was what moved it on. A beginning in doubt does not begin: its
lane is given back. The lease governs sending alone: it is renewed by the database's time, and no request begins that it
does not cover. The epoch governs settling, however late.

A drainer that stands still instead (stopped, swapped out, cut off with its host) may do so inside a transaction. The
server ends one that is idle for seconds. Inside a statement it is not idle; if it has the stager's lock there, which
would stop every account, whoever has asked for that lock in vain for as long ends its session.

What is in doubt is told by the intent of a dropped claim. A call that is not repeat-safe is in doubt once it was
written down as begun, also if it never left: to be wrong on this side costs a look at the CRM, on the other a second
mail. Until then it is provably as it was, and is sent. All other calls of a claim are in doubt from the claim on, which
costs them no more than to be said once again; a create or a change of address is looked for in the CRM first. A new
field is the exception among the calls that are not repeat-safe: the CRM takes each name once, so it is sent again when
the list of fields does not show it.
"""

from syncd.outbound.drain import Drainer
from syncd.outbound.limits import DrainLimits

__all__ = ["DrainLimits", "Drainer"]
