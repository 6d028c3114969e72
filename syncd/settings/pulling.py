"""How often and how far back to read. A cadence of 0 switches a stream off."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from syncd.settings.group import Group
from syncd.settings.values import OptionalShelf


class PullSettings(Group):
    title: ClassVar[str] = "Pulling"

    cadence_orders_s: float = Field(
        60, ge=0, le=604800, description="Seconds between reads of recent orders; the delay until a new order shows."
    )
    cadence_invoices_s: float = Field(
        300,
        ge=0,
        le=604800,
        description="Seconds between reads of recent invoices; the delay until a new invoice shows.",
    )
    cadence_invoice_details_s: float = Field(
        120,
        ge=0,
        le=604800,
        description="Seconds between rounds that fetch the detail lines of new invoices, one call each.",
    )
    cadence_invoice_files_s: float = Field(
        300,
        ge=0,
        le=604800,
        description="Seconds between rounds that fetch PDFs of invoices, one call each, where they are kept.",
    )
    cadence_invoice_relations_s: float = Field(
        3600,
        ge=0,
        le=604800,
        description="Seconds between rounds that look up whom invoices name by e-mail address alone, one call each.",
    )
    cadence_tags_s: float = Field(
        900,
        ge=0,
        le=604800,
        description="Seconds between reads of the tag list; a tag made in the CRM is unknown until then.",
    )
    cadence_fields_s: float = Field(
        3600,
        ge=0,
        le=604800,
        description="Seconds between reads of the free fields; a new field is unknown until then.",
    )
    cadence_groups_s: float = Field(
        900, ge=0, le=604800, description="Seconds between reads of the group list; a new group is unknown until then."
    )
    cadence_lists_s: float = Field(
        3600, ge=0, le=604800, description="Seconds between reads of the lists; a new list is unknown until then."
    )
    cadence_group_members_s: float = Field(
        3600,
        ge=0,
        le=604800,
        description="Seconds between reads of all group members, one call per group; relations come from here.",
    )
    cadence_administration_s: float = Field(
        86400, ge=0, le=604800, description="Seconds between reads of the administration's own name and state."
    )
    cadence_relation_details_s: float = Field(
        3600, ge=0, le=604800, description="Seconds between sweeps that re-read relations one by one, the oldest first."
    )
    cadence_relation_tags_s: float = Field(
        1800, ge=0, le=604800, description="Seconds between sweeps that re-read the tags of relations, one call each."
    )
    cadence_relation_subscriptions_s: float = Field(
        3600, ge=0, le=604800, description="Seconds between sweeps that re-read list subscriptions, one call each."
    )
    cadence_relation_orders_s: float = Field(
        1800,
        ge=0,
        le=604800,
        description="Seconds between sweeps that re-read unsettled orders; late payments show here.",
    )
    reread_every_s: float = Field(
        3600,
        ge=0,
        le=604800,
        description="Seconds between wider reads of orders and invoices; each takes the place of a short one.",
    )
    reread_hours: int = Field(
        72, ge=1, le=8760, description="How far back those wider reads reach; paid and numbers change without a date."
    )
    deep_reread_every_s: float = Field(
        86400, ge=0, le=2592000, description="Seconds between the widest reads of orders and invoices; large answers."
    )
    deep_reread_days: int = Field(90, ge=1, le=3650, description="How far back the widest reads reach.")
    sweep_budget: int = Field(
        500, ge=1, le=100000, description="Calls one sweep may make; more is fresher and takes longer at the same rate."
    )
    invoice_files: OptionalShelf = Field(
        None,
        description="Directory, or fsspec URL such as s3://bucket/pdf, for PDFs of all invoices; blank fetches none.",
    )
    absence_gap_s: float = Field(
        3600, ge=0, le=604800, description="Time between two confirmed absences before a row counts as missing."
    )
    unsettled_days: int = Field(
        400, ge=1, le=3650, description="How long an unpaid order is asked for again; older ones are taken as given up."
    )
    overlap_s: float = Field(
        7200,
        ge=0,
        le=604800,
        description="How far each window reaches back into what is known, at least; it is what unmasks a wrong answer.",
    )
    overlap_max_s: float = Field(
        86400,
        ge=0,
        le=2592000,
        description="How far it may reach when rows are seen to come late; beyond that only the wider reads find them.",
    )
    overlap_risk: float = Field(
        0.001, ge=0, le=1, description="Share of rows that may come later than that reach; less makes windows wider."
    )
    horizon_days: int = Field(
        90,
        ge=1,
        le=36500,
        description="How far back holes are refilled by the daemon; older time is read by backfill alone.",
    )
    rewrite_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Share of the known rows a pull may change or mark missing; more waits for you; 1: nothing does.",
    )
    rewrite_rows: int = Field(
        200,
        ge=0,
        le=1000000,
        description="Known rows a pull may always change; less makes small tables ask more often.",
    )
    approval_hours: float = Field(
        24, gt=0, le=720, description="Hours for which `syncd runs approve` counts; a later pull asks anew."
    )
    audit_share: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="Share of the rate for slowly re-reading everything while there is room; 0: drift may stay unseen.",
    )
    audit_days: float = Field(
        7,
        gt=0,
        le=3650,
        description="Days for which a row counts as proven to equal the CRM after an answer has shown it.",
    )
    keep_history_days: float = Field(
        0,
        ge=0,
        le=36500,
        description="Days for which every change is kept, for the past as it was known and for the feed; 0: for ever.",
    )
