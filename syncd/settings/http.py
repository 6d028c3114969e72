"""How gently and how patiently to speak to the API."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from syncd.settings.group import Group


class HttpSettings(Group):
    title: ClassVar[str] = "Requests"

    rate_per_s: float = Field(
        2,
        gt=0,
        le=1000,
        description="Requests per second to one account, both directions together; replicas that deliver share it "
        "equally, and a pull on one that delivers nothing comes on top.",
    )
    concurrency: int = Field(
        1,
        ge=1,
        le=256,
        description="Deliveries to one account that may be under way at once on each replica; trouble narrows it, an "
        "outage to one, and pulls take one more request.",
    )
    request_timeout_s: float = Field(
        90,
        ge=1,
        le=3600,
        description="Total time for one request; a write that takes longer counts as perhaps applied.",
    )
    download_timeout_s: float = Field(
        1800, ge=10, le=86400, description="Total time for one large read, such as years of orders in one answer."
    )
    read_timeout_s: float = Field(
        60, ge=1, le=3600, description="Longest silence in the middle of an answer before it is given up."
    )
    connect_timeout_s: float = Field(
        10, ge=0.1, le=300, description="Longest wait for a connection before it is tried again."
    )
    response_max_mb: int = Field(
        4096,
        ge=1,
        le=1048576,
        description="Largest answer taken, in megabytes; larger ones are refused, which protects the disk.",
    )
