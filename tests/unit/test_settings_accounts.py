"""Accounts: one from the settings or many from a file, never half of either."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from syncd.settings import Accounts, Settings, SettingsError, resolve_accounts

CANARY = "canary-8f2d1c"


def accounts_file(tmp_path: Path, text: str, mode: int = 0o600) -> Settings:
    path = tmp_path / "accounts.toml"
    path.write_text(text)
    path.chmod(mode)
    return Settings(accounts_file=path, rate_per_s=5, overlap_s=60)


def problems(settings: Settings) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        resolve_accounts(settings)
    assert CANARY not in str(caught.value)
    return caught.value.problems


def test_single_account_comes_from_the_settings() -> None:
    """The common case needs no file."""
    settings = Settings(autorespond_admin="1234", autorespond_key=SecretStr(CANARY), rate_per_s=3)
    (config,) = resolve_accounts(settings).configs
    assert (config.name, config.base_url) == ("default", "https://api.e-act.nl/api/1.0/")
    assert (config.credentials, config.http.rate_per_s) == ({"admin": "1234", "key": CANARY}, 3)
    assert CANARY not in repr(config)


def test_missing_credentials_are_named_together() -> None:
    """The first start fails with everything that is needed for the second."""
    assert [line.split(" is not set")[0] for line in problems(Settings())] == [
        "SYNCD_AUTORESPOND_ADMIN",
        "SYNCD_AUTORESPOND_KEY",
    ]


def test_file_holds_many_accounts_with_their_own_values(tmp_path: Path) -> None:
    """Each account inherits the plain settings and may differ in what concerns it alone."""
    (tmp_path / "key.txt").write_text(CANARY + "\n")
    settings = accounts_file(
        tmp_path,
        f"""
        [accounts.shop]
        admin = 12
        key = "{CANARY}"
        cadence_orders_s = 30
        allowed_operations = ["subscribe"]
        [accounts.club]
        admin = "13"
        key_file = "key.txt"
        base_url = "https://other.example/api"
        rate_per_s = 1
        """,
    )
    shop, club = resolve_accounts(settings).configs
    assert (shop.name, shop.credentials["admin"], shop.pull.cadence_orders_s, shop.http.rate_per_s) == (
        "shop",
        "12",
        30,
        5,
    )
    assert (shop.send.allowed_operations, shop.pull.overlap_s) == (frozenset({"subscribe"}), 60)
    assert (club.credentials["key"], club.base_url, club.http.rate_per_s) == (CANARY, "https://other.example/api/", 1)
    assert club.pull.cadence_orders_s == 60


def test_unknown_keys_and_bad_values_are_refused_together(tmp_path: Path) -> None:
    """A typo in the file is as silent as one in the environment."""
    settings = accounts_file(
        tmp_path,
        f"""
        [accounts.shop]
        admin = "12"
        keyfile = "{CANARY}"
        key = "k"
        concurrency = "{CANARY}"
        [accounts.Club]
        admin = "x{CANARY}"
        key = "k"
        database_url = "{CANARY}"
        [accounts.empty]
        """,
    )
    assert problems(settings) == (
        "accounts.toml: accounts.shop.keyfile is not known; did you mean key_file?",
        "accounts.toml: accounts.shop.concurrency must be a whole number",
        *(line for line in problems(settings) if "accounts.Club" in line),
        "accounts.toml: accounts.empty.admin is not set",
        "accounts.toml: accounts.empty wants either key or key_file",
    )
    club = " ".join(line for line in problems(settings) if "accounts.Club" in line)
    for words in ("Club.database_url is not known", "Club.admin must be digits", "Club.name must be lower-case"):
        assert words in club


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"key = {CANARY}", "is not TOML"),
        ("", "holds no account"),
        ("[account.shop]\nadmin='1'", "account is not known"),
        ("[accounts]\nshop = 1", "accounts.shop must be a table"),
        ("[accounts.a]\nadmin='1'\nkey_file='nowhere'", "key_file cannot be read"),
        ("[accounts.a]\nadmin='1'\nkey=''", "empty key"),
    ],
)
def test_broken_files_are_explained(tmp_path: Path, text: str, words: str) -> None:
    """Every way to get the file wrong ends in one sentence, not in a traceback."""
    assert any(words in line for line in problems(accounts_file(tmp_path, text)))


def test_absent_file_is_explained(tmp_path: Path) -> None:
    """The most common mistake is the path itself."""
    assert "cannot be read" in problems(Settings(accounts_file=tmp_path / "none.toml"))[0]


def test_file_and_single_account_together_are_refused(tmp_path: Path) -> None:
    """Guessing which of two keys is meant would send one customer's data to another's CRM."""
    settings = Settings(accounts_file=tmp_path / "a.toml", autorespond_admin="1")
    assert "both set" in problems(settings)[0]


def test_keys_readable_by_all_are_warned_about(tmp_path: Path) -> None:
    """The file works, and the operator hears about its mode."""
    text = f"[accounts.a]\nadmin='1'\nkey='{CANARY}'"
    found = resolve_accounts(accounts_file(tmp_path, text, 0o644))
    assert "chmod 600" in found.warnings[0]
    assert resolve_accounts(accounts_file(tmp_path, text, 0o600)) == Accounts(found.configs)
