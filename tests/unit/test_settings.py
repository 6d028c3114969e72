"""Settings: what wins over what, what is refused, and that no refusal repeats a value."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncd.settings import Settings, SettingsError, load_settings
from syncd.settings.names import variable

CANARY = "canary-8f2d1c"


@pytest.fixture(autouse=True)
def bare_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty working directory and no setting of ours in the environment."""
    for name in list(os.environ):
        if name.upper().startswith("SYNCD_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.chdir(tmp_path)


def secret_files(directory: Path, **values: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name, value in values.items():
        (directory / name).write_text(value + "\n")
    return directory


def problems() -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert caught.value.exit_code == 78
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.problems


def test_defaults_need_nothing() -> None:
    """A first start without any file must work as far as it can."""
    assert load_settings().settings == Settings()


def test_environment_wins_over_env_file_over_secret_file_over_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The order in the README is the order in which an operator overrides."""
    monkeypatch.setenv(
        "SYNCD_SECRETS_DIR", str(secret_files(tmp_path / "s", SYNCD_ACCOUNT="secret", SYNCD_OVERLAP_S="3"))
    )
    assert load_settings().settings.account == "secret"
    (tmp_path / ".env").write_text("SYNCD_ACCOUNT=dotenv\n")
    assert load_settings().settings.account == "dotenv"
    monkeypatch.setenv("SYNCD_ACCOUNT", "environment")
    loaded = load_settings()
    assert (loaded.settings.account, loaded.settings.overlap_s) == ("environment", 3)
    assert loaded.origins == {"account": "environment", "overlap_s": "secret file", "secrets_dir": "environment"}


def test_systemd_credentials_are_read_in_either_case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LoadCredential= is how the shipped unit hands over the key."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secret_files(tmp_path / "c", syncd_autorespond_key=CANARY)))
    settings = load_settings().settings
    assert settings.autorespond_key.get_secret_value() == CANARY
    assert CANARY not in repr(settings)


def test_blank_value_counts_as_not_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """config.example.env copied as it stands must not hide the mounted secret behind an empty line."""
    monkeypatch.setenv("SYNCD_SECRETS_DIR", str(secret_files(tmp_path / "s", SYNCD_AUTORESPOND_KEY=CANARY)))
    (tmp_path / ".env").write_text("SYNCD_AUTORESPOND_KEY=\nSYNCD_RATE_PER_S=\n")
    assert load_settings().settings.autorespond_key.get_secret_value() == CANARY


@pytest.mark.parametrize("name", ["SYNCD_DATABSE_URL", "syncd_databse_url"])
def test_unknown_variable_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A typo that is ignored is a database that silently is the wrong one."""
    monkeypatch.setenv(name, CANARY)
    assert problems() == (f"{name} is not a setting; did you mean SYNCD_DATABASE_URL?",)


def test_unknown_names_in_files_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same typo is as silent in a file; a name that lacks only the prefix is ours too, other programs' are not."""
    (tmp_path / ".env").write_text(f"SYNCD_ACOUNT={CANARY}\nDATABASE_URL={CANARY}\nPGPASSWORD=x\nnonsense line\n")
    monkeypatch.setenv("SYNCD_SECRETS_DIR", str(secret_files(tmp_path / "s", SYNCD_AUTORESPOND_KEYS=CANARY, other="x")))
    assert problems() == (
        "line 4 of .env is not of the form NAME=value",
        "SYNCD_ACOUNT in .env is not a setting; did you mean SYNCD_ACCOUNT?",
        "DATABASE_URL in .env is not read; did you mean SYNCD_DATABASE_URL?",
        "secret file SYNCD_AUTORESPOND_KEYS is not a setting; did you mean SYNCD_AUTORESPOND_KEY?",
    )


def test_kubernetes_service_variables_are_let_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service named syncd puts these into every pod; refusing them would be a crash loop."""
    monkeypatch.setenv("SYNCD_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("SYNCD_SERVICE_PORT_HTTP", "80")
    monkeypatch.setenv("SYNCD_PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("SYNCD_PORT_80_TCP_ADDR", "10.0.0.1")
    assert load_settings().settings == Settings()
    monkeypatch.setenv("SYNCD_PORT", "9464")
    assert problems()[0].startswith("SYNCD_PORT is not a setting")


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("SYNCD_RATE_PER_S", CANARY, "must be a number"),
        ("SYNCD_RATE_PER_S", "0", "must be greater than 0"),
        ("SYNCD_RATE_PER_S", "nan", "must be a number"),
        ("SYNCD_CONCURRENCY", "257", "must be less than or equal to 256"),
        ("SYNCD_CONCURRENCY", CANARY, "must be a whole number"),
        ("SYNCD_MIGRATE_ON_START", CANARY, "must be true or false"),
        ("SYNCD_LOG_FORMAT", CANARY, "must be 'auto', 'json' or 'pretty'"),
        ("SYNCD_AUTORESPOND_ADMIN", CANARY, "must be digits alone"),
        ("SYNCD_BASE_URL", f"http://crm.example/{CANARY}", "must start with https://"),
        ("SYNCD_BASE_URL", f"https://u:{CANARY}@crm.example/", "must hold no user name, password"),
        ("SYNCD_BASE_URL", f"https://crm.example/?key={CANARY}", "must hold no user name, password"),
        ("SYNCD_BASE_URL", f"https://crm.example:{CANARY}/", "is not a URL"),
        ("SYNCD_BASE_URL", f"ftp://{CANARY}", "must be a URL such as"),
        ("SYNCD_TIME_ZONE", f"../{CANARY}", "is not a time zone name"),
        ("SYNCD_ACCOUNT", f"Shop {CANARY}", "must be lower-case letters"),
        ("SYNCD_ALLOWED_OPERATIONS", f"subscribe,{CANARY}", "may name subscribe,"),
        ("SYNCD_AUTORESPOND_VERBS", CANARY, "must read like name=value,name=value"),
        ("SYNCD_AUTORESPOND_VERBS", f"tag_add={CANARY}", "each verb must be one of"),
        ("SYNCD_AUTORESPOND_PLACES", f"tag_add={CANARY}", "each place must be one of"),
        ("SYNCD_ENV_FILE", f"/nowhere/{CANARY}", "names a file that cannot be read"),
        ("SYNCD_SECRETS_DIR", f"/nowhere/{CANARY}", "names no directory"),
    ],
)
def test_bad_value_is_named_and_never_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, rule: str
) -> None:
    """The wrong value is often the secret that was pasted into the wrong line."""
    monkeypatch.setenv(name, value)
    (problem,) = problems()
    assert problem.startswith(f"{name} {rule}")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/api", "http://[::1]:1/", "http://localhost/x", "https://crm.example"]
)
def test_base_url_ends_in_one_slash(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Paths are joined to it; a missing slash would drop its last segment."""
    monkeypatch.setenv("SYNCD_BASE_URL", url)
    assert load_settings().settings.base_url == url.rstrip("/") + "/"


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One restart for each mistake is how evenings are lost."""
    monkeypatch.setenv("SYNCD_RATE_PER_S", "x")
    monkeypatch.setenv("SYNCD_CONCURRENCY", "x")
    monkeypatch.setenv("SYNCD_NO_SUCH", "x")
    assert len(problems()) == 3


def test_bounds_hold_on_both_sides() -> None:
    """A bound that is not enforced is a comment."""
    for name, field in Settings.model_fields.items():
        limits = {kind: getattr(rule, kind) for rule in field.metadata for kind in ("ge", "le") if hasattr(rule, kind)}
        for kind, outside in (("ge", -1), ("le", 1)):
            if kind in limits:
                with pytest.raises(ValueError, match=name):
                    Settings.model_validate({name: limits[kind] + outside})


def test_every_setting_says_its_consequence() -> None:
    """A setting without a sentence is a setting nobody dares to touch."""
    for name, field in Settings.model_fields.items():
        assert (field.description or "").endswith("."), variable(name)
        assert "|" not in str(field.description), "would break the table"


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("/srv/pdf", Path("/srv/pdf")),
        ("file:///srv/a%20b", Path("/srv/a b")),
        ("file://localhost/srv", Path("/srv")),
        ("s3://bucket/pdf/", "s3://bucket/pdf"),
        (" ", None),
    ],
)
def test_files_of_invoices_go_to_a_directory_or_a_storage(
    monkeypatch: pytest.MonkeyPatch, given: str, path: Path | str | None
) -> None:
    monkeypatch.setenv("SYNCD_INVOICE_FILES", given)
    assert load_settings().settings.invoice_files == path


@pytest.mark.parametrize(
    "given", ["https://x.example/", "ftp://me:secret@x.example/pdf", "file://other/srv", "pdf", "./pdf"]
)
def test_files_of_invoices_go_nowhere_else(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """Refused at the start, in one sentence: not after the first thousand requests."""
    monkeypatch.setenv("SYNCD_INVOICE_FILES", given)
    (problem,) = problems()
    assert problem.startswith("SYNCD_INVOICE_FILES must ")
    assert given not in problem
