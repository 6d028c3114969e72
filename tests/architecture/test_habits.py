"""The habits that a reader relies on: files that fit in the head, words that mean something, no trace of a machine."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "syncd").rglob("*.py"))
VAGUE = re.compile(r"(^|_)(manager|helper|helpers|utils|common)(_|$)")


def tracked() -> list[Path]:
    """Every file that is part of the project: what git tracks, or all of them where there is no git."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    if listed.returncode:
        return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_is_small_and_says_what_it_is_for(path: Path) -> None:
    """A module past 400 lines, a function past 50, or one without a docstring holds two ideas or none."""
    text = path.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= 400
    assert ast.get_docstring(tree), "a module says what it decides"
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f.name for f in functions if f.end_lineno and f.end_lineno - f.lineno + 1 - _docstring_lines(f) > 50]
    assert not long


def _docstring_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    has_one = ast.get_docstring(function) is not None
    return (first.end_lineno or 0) - first.lineno + 1 if has_one else 0


def test_names_are_the_fields_own() -> None:
    """`utils` is where code goes that nobody finds again."""
    assert not [str(path) for path in SOURCES if VAGUE.search(path.stem)]


def test_no_file_names_a_machine_or_a_package_index() -> None:
    """The project builds anywhere, from whatever index the builder uses."""
    banned = re.compile(r"/root/|/home/[a-z]+/|(?<!no-emit-)index-url|https?://\S+\.(whl|tgz|tar\.gz)")
    mine = Path(__file__)
    texts = [path for path in tracked() if path != mine and path.suffix not in (".png", ".svg", ".gif")]
    found = [str(path.relative_to(ROOT)) for path in texts if banned.search(path.read_text(errors="ignore"))]
    assert not found


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_pinned_with_hashes(name: str) -> None:
    """A pin without a hash is a wish."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert lines
    assert all(re.match(r"[A-Za-z0-9_.\[\]-]+==\S+", line) and "--hash=sha256:" in line for line in lines)


def test_every_dependency_has_a_reason_and_a_pin() -> None:
    """Whoever wants to remove a dependency must be able to read why it is here."""
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("]\n", text.index("tzdata"))]
    wanted = re.findall(r'"([A-Za-z0-9_-]+)[\[<>=][^"]*",\s*(#.*)?', block)
    pins = (ROOT / "requirements.txt").read_text()
    assert len(wanted) > 8
    assert all(reason for _, reason in wanted)
    assert all(f"\n{name.lower()}==" in "\n" + pins for name, _ in wanted)


def test_links_in_documents_lead_somewhere() -> None:
    """A reader who follows a dead link loses trust in the living ones."""
    dead: list[str] = []
    for page in [ROOT / "README.md", *(ROOT / "deploy").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http://", "https://", "mailto:")) and not (page.parent / target).exists():
                dead.append(f"{page.name}: {target}")
    assert not dead


# What sets the size and the sample of a run, and where it may be read.
SIZES = frozenset({"SYNCD_TEST_PROVE", "SYNCD_TEST_SEED", "SYNCD_HYPOTHESIS_PROFILE"})
READERS = frozenset({"tests/support/proving.py", "tests/conftest.py"})


def test_one_place_says_whether_the_long_form_was_asked_for() -> None:
    """A test that asks for it by a name of its own plays its short form in `make prove`, and nobody sees it."""
    files = {str(path.relative_to(ROOT)): path for path in sorted((ROOT / "tests").rglob("*.py"))}
    assert files.keys() >= READERS
    others = [path for name, path in files.items() if name not in READERS and path != Path(__file__)]
    readers = [str(path.relative_to(ROOT)) for path in others if _reads_sizes(path.read_text())]
    assert not readers


@pytest.mark.parametrize(
    ("line", "is_reading"),
    [
        ('os.environ.get("SYNCD_HYPOTHESIS_PROFILE") == "prove"', True),
        ('os.environ["SYNCD_TEST_PROVE"]', True),
        ('getenv("SYNCD_TEST_SEED", "7")', True),
        ('"SYNCD_TEST_PROVE" in os.environ', True),
        ('NAME = "SYNCD_TEST_PROVE"', True),
        ('env = {**os.environ, "SYNCD_TEST_PROVE": "1"}', False),
        ('os.environ["SYNCD_TEST_PROVE"] = "1"', False),
        ('monkeypatch.setenv("SYNCD_TEST_SEED", "8")', False),
        ('given = {"x": os.environ["SYNCD_TEST_SEED"]}', True),
    ],
)
def test_what_counts_as_reading_a_size(line: str, is_reading: bool) -> None:
    """To set it for another process is no reading; to give its name another name is: that would hide one."""
    assert _reads_sizes(line) is is_reading


def _reads_sizes(source: str) -> bool:
    """Tell whether a source names a size anywhere but where it sets one: a key, what is assigned to, ``setenv``."""
    tree = ast.parse(source)
    setting: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Dict(keys=keys):
                setting |= {id(key) for key in keys}
            case ast.Subscript(slice=key, ctx=ast.Store() | ast.Del()):
                setting.add(id(key))
            case ast.Call(func=ast.Attribute(attr="setenv" | "delenv"), args=[key, *_]):
                setting.add(id(key))
    named = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in SIZES)
    return any(id(node) not in setting for node in named)
