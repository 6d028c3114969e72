"""Identities. Local ones are our own bigint, remote ones are text as the CRM gave them, however it spells numbers."""

from __future__ import annotations

from typing import NewType

AccountId = NewType("AccountId", int)
RelationId = NewType("RelationId", int)
RemoteId = NewType("RemoteId", str)
LaneId = NewType("LaneId", int)
EntryId = NewType("EntryId", int)
RunId = NewType("RunId", int)
Seq = NewType("Seq", int)
Epoch = NewType("Epoch", int)
