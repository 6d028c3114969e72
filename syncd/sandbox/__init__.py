"""The simulator: a CRM with a state, a clock that can be moved, a journal, switches for the unknown and faults.

Theory of operation. A ``World`` is the state and the only code that changes it, and writes every effect into its
``Journal``. An API package (``sandbox.autorespond``) turns a request into verbs of the world and the result into a
``Reply``. Between recognising a request and applying it stands at most one ``Fault``: it decides whether the state
changes and, apart from that, what the client gets to see. ``Sandbox`` is the server around it, ``Control`` the endpoint
by which a running one is looked at and broken.

It is the independent witness: it is written from the CRM's reference alone and imports ``domain`` at most, so that a
misreading in a provider is not repeated here.
"""

from __future__ import annotations

from syncd.sandbox.clock import MovableClock
from syncd.sandbox.faults import Fault, Faults, Kind
from syncd.sandbox.journal import Effect, Journal, RequestLine, RequestLog
from syncd.sandbox.records import (
    Event,
    Field,
    Group,
    Invoice,
    InvoiceLine,
    ListManager,
    Order,
    OrderLine,
    Relation,
    Tag,
)
from syncd.sandbox.server import Sandbox, SandboxOptions, serve
from syncd.sandbox.switches import Switches
from syncd.sandbox.world import Administration, World

__all__ = [
    "Administration",
    "Effect",
    "Event",
    "Fault",
    "Faults",
    "Field",
    "Group",
    "Invoice",
    "InvoiceLine",
    "Journal",
    "Kind",
    "ListManager",
    "MovableClock",
    "Order",
    "OrderLine",
    "Relation",
    "RequestLine",
    "RequestLog",
    "Sandbox",
    "SandboxOptions",
    "Switches",
    "Tag",
    "World",
    "serve",
]
