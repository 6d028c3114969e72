"""Which CRM, and with what credentials."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, SecretStr

from syncd.settings.group import Group
from syncd.settings.values import AccountName, BaseUrl, OptionalPath, ZoneName


class AccountSettings(Group):
    title: ClassVar[str] = "Account"

    provider: Literal["autorespond"] = Field("autorespond", description="The CRM to keep in step with.")
    base_url: BaseUrl = Field(
        "",
        description="Address of the API: https, or http to this machine; blank takes the provider's own.",
    )
    autorespond_admin: str = Field(
        "", pattern=r"^[0-9]{0,12}$", description="Number of your Autorespond administration; every request carries it."
    )
    autorespond_key: SecretStr = Field(
        SecretStr(""), description="API key of that administration; better in a secret file than in the environment."
    )
    account: AccountName = Field(
        "default", description="Name of this account in tables, logs and commands; another name is another mirror."
    )
    accounts_file: OptionalPath = Field(
        None, description="TOML file with many accounts, instead of the two credentials above; see the README."
    )
    time_zone: ZoneName = Field(
        "Europe/Amsterdam",
        description="Zone of times that the CRM gives without one; wrong, every such time is off by hours.",
    )
