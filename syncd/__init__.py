"""syncd keeps a CRM and a Postgres database the same, in both directions.

Theory of operation. Two sequences run side by side and meet only in the database:

* ``inbound`` polls the CRM and mirrors what it said into the typed tables of schema ``crm``. What has been read
  is a ledger of proven time (``syncd.coverage``); a hole in it is visible and refills itself.
* ``outbound`` drains local edits of that mirror to the CRM. Triggers capture an edit in the transaction that makes
  it (``syncd.captures``); a stager puts committed captures in order (``syncd.lanes``, ``syncd.entries``); a drainer
  claims a lane, folds its entries, converses with the API and settles, fenced by the lane's epoch.

The floors, lowest first: ``domain``, ``policy``, ``providers``, ``clock`` and ``log``, ``transport`` and ``store``,
``inbound`` and ``outbound``, ``settings``, ``ops``, ``service``, ``cli``. A floor imports only from floors below
it; ``pyproject.toml`` holds the contracts and ``tests/architecture`` runs them. No transaction is ever open across
a network call.
"""

__version__ = "0.1.0"
