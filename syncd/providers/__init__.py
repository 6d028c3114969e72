"""One package per CRM behind one contract. A provider translates; it never waits, retries, sleeps or writes.

Pure like ``policy``: no I/O, no clock, no randomness, no third party but msgspec. A third party can add a provider
through the entry-point group ``syncd.providers``: the object it names is a function that returns a
``contract.Provider``.
"""
