"""The composition root: what is built, in what order, what runs when, and how it all ends.

``daemon`` reads like a table of contents. Everything that may be absent at a moment is watched by one object each: the
database by ``DatabaseWatch`` (one log line when it goes, one when it is back), the account's lease by ``Lease``, the
wish to stop by ``StopSignal``. Nothing below this package knows that there is a daemon: pipelines are given a store, a
provider and a transport, and hand back reports.

Several replicas on one database are safe: for each account one of them holds a lease by the database's clock and
pulls; all of them drain, because a lane's fence lets only one of them settle.
"""
