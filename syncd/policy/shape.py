"""Shape: which keys the records of a stream have, and what to make of a key that is new, gone or of another type.

What is seen of an answer is a ``Glimpse``: a sample of every batch is taken apart, and a whole batch only where the
sample lacks a key that is always there, or where the decoder has met a key that it does not know. So an answer like
all before it costs next to nothing, whatever its length. A glimpse is held against what was learned before:

* a key that nobody declared is **unknown**: kept in ``raw``, told once, no incident;
* a key that was in nearly every record, and is in none of an answer with enough records, has **vanished**. Where
  columns are written from it the answer is not believed: what is known would be overwritten with nothing;
* a key whose value is of a type that its reader does not take has been **retyped**. Its records are written without it.

Nothing of a value is ever said in words, only names of keys and types; the offending record is kept beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import msgspec

ENOUGH = 10  # records that must speak before a key counts as usual or as vanished
_USUAL = 0.95
_SAMPLE = 20
_MOST_KEYS = 200  # an object used as a dictionary has no shape: more keys than this are not learned
_TYPES = {ord('"'): "string", ord("{"): "object", ord("["): "array", ord("t"): "boolean", ord("f"): "boolean"}
_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])

Declared = Mapping[str, frozenset[str]]


class Drift(StrEnum):
    """What is odd about a key."""

    UNKNOWN = "unknown"
    VANISHED = "vanished"
    RETYPED = "retyped"
    ENVELOPE = "envelope"  # of no key: the answer itself came in another form


@dataclass(frozen=True, slots=True)
class Known:
    """What was learned of a key. ``is_usual`` is None until enough records have spoken; ``drift`` is what is odd about
    it since the last time it was well or was accepted."""

    is_usual: bool | None = None
    types: frozenset[str] = frozenset()
    drift: Drift | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """News of a key: what is known of it from now on. ``record`` is the offending record, if there is one;
    ``is_news``: somebody should be told; ``is_well``: it was odd and is not any more; ``is_declared``: columns are
    written from it. ``words`` say what is odd, without a value."""

    key: str
    known: Known
    record: bytes | None = None
    is_news: bool = False
    is_well: bool = False
    words: str = ""
    is_declared: bool = True


@dataclass(slots=True)
class Glimpse:
    """What was seen of an answer so far. ``familiar`` records were not looked at, because their very text is known."""

    known: Mapping[str, Known] = field(default_factory=dict)
    declared: Declared = field(default_factory=dict)
    rows: int = 0
    familiar: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    of: Counter[str] = field(default_factory=Counter)
    types: dict[str, set[str]] = field(default_factory=dict)
    first: bytes = b""
    records: dict[str, bytes] = field(default_factory=dict)
    retyped: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    _passing: msgspec.json.Decoder[Any] | None = None

    def look(
        self, raws: Sequence[bytes], doubtful: Sequence[bytes] = (), *, is_strange: bool = False
    ) -> tuple[str, ...]:
        """Look at a batch of records. ``doubtful`` are those of which something could not be read; ``is_strange``: the
        decoder met keys that it does not know.

        Return the keys from which columns are written that are usual and in none of the batch, where that is certain:
        too few records to say that a key has vanished, yet no reason to overwrite what is known with nothing.
        """
        self.rows += len(raws)
        self.first = self.first or next(iter(raws), b"")
        sample = raws[:: max(1, len(raws) // _SAMPLE)][:_SAMPLE]
        present = self._take_apart(sample, is_counted=True)
        self._take_apart(doubtful[:_SAMPLE], is_counted=False)
        lacking = {key for key, known in self.known.items() if known.is_usual} - present
        if len(sample) < len(raws) and (is_strange or lacking):
            strange = {key for key in present if key not in self.declared}
            into_lists = any("[]." in key for key in lacking) or (is_strange and not strange)
            if lacking or into_lists or not self._has_but_known_keys(raws):
                self._look_through(raws, into_lists=into_lists)
        return tuple(sorted(key for key in lacking if key in self.declared and len(sample) == len(raws) and raws))

    def _take_apart(self, raws: Sequence[bytes], *, is_counted: bool) -> set[str]:
        """Note keys and types of a few records, and how many have which key where that is counted; return the keys."""
        present: set[str] = set()
        for record, raw in zip(_objects(raws), raws, strict=False):
            self.of[""] += is_counted
            self._note("", record, raw, present, is_counted=is_counted)
        return present

    def _note(
        self, prefix: str, record: Mapping[str, msgspec.Raw], whole: bytes, present: set[str], *, is_counted: bool
    ) -> None:
        self._see(prefix, record, whole, present)
        for key, raw in record.items():
            path, value = prefix + key, bytes(raw)
            self.counts[path] += is_counted
            kind = json_type(value)
            if kind != "null":
                self.types.setdefault(path, set()).add(kind)
            read = self.declared.get(path)
            if read is not None and kind not in read and kind != "null":
                self.retyped.setdefault(path, (kind, whole))
            for line in _lines_of(value) if not prefix else ():
                self.of[f"{path}[]."] += is_counted
                self._note(f"{path}[].", line, whole, present, is_counted=is_counted)

    def _has_but_known_keys(self, raws: Sequence[bytes]) -> bool:
        """Ask the decoder, which is many times quicker than looking, whether every key is one that was met before."""
        if self._passing is None:
            names = [key for key in self.known if "[]." not in key]
            fields = [(f"f{n}", msgspec.Raw, msgspec.Raw()) for n in range(len(names))]
            rename = {f"f{n}": name for n, name in enumerate(names)}
            shape: Any = msgspec.defstruct("Known", fields, rename=rename, gc=False, forbid_unknown_fields=True)
            self._passing = msgspec.json.Decoder(list[shape])
        try:
            self._passing.decode(b"[" + b",".join(raws) + b"]")
        except (msgspec.DecodeError, ValueError, RecursionError):
            return False
        return True

    def _look_through(self, raws: Sequence[bytes], *, into_lists: bool) -> None:
        """Note the keys of all records of a batch, by their distinct sets of keys."""
        told = _objects(raws)
        sets = {tuple(record): n for n, record in enumerate(told)}
        for keys, n in sets.items():
            self._see("", keys, raws[n], set())
        for name in {key for keys in sets for key in keys} if into_lists else ():
            for record, raw in zip(told, raws, strict=False):
                for line in {tuple(line) for line in _lines_of(bytes(record[name]))} if name in record else ():
                    self._see(f"{name}[].", line, raw, set())

    def _see(self, prefix: str, keys: Iterable[str], whole: bytes, present: set[str]) -> None:
        for key in keys:
            path = prefix + key
            present.add(path)
            if path not in self.seen and (path in self.known or len(self.seen) < _MOST_KEYS):
                self.seen.add(path)
                self.records[path] = whole

    @property
    def is_strange(self) -> bool:
        """Whether there is a key that nobody declared and that was never seen before."""
        return any(key not in self.known and key not in self.declared for key in self.seen)

    def vanished(self) -> tuple[str, ...]:
        """Return the keys that were always there and are in no record of all that was looked at, once there are enough
        records; one that was gone before is gone from any number. Those in lists count only where there were lists."""
        if self.familiar or not self.rows:
            return ()
        gone = [key for key, known in self.known.items() if known.is_usual and key not in self.seen]
        return tuple(sorted(key for key in gone if self.records_of(key) >= self._enough(key)))

    def lost(self) -> tuple[str, ...]:
        """Return those of them that columns are written from: the answer is not to be believed."""
        return tuple(key for key in self.vanished() if key in self.declared)

    def records_of(self, key: str) -> int:
        """Return how many records were looked at that should have the key."""
        return self.of[_prefix(key)] if "[]." in key else self.rows

    def _enough(self, key: str) -> int:
        return 1 if self.known[key].drift is Drift.VANISHED else ENOUGH


def learn(glimpse: Glimpse) -> tuple[Learned, ...]:
    """Return what an answer teaches: nothing at all when it was like those before."""
    return tuple(
        one
        for one in (
            *(_gone(glimpse, key) for key in glimpse.vanished()),
            *(_present(glimpse, key) for key in sorted(glimpse.seen)),
            *(_returned(glimpse, key) for key in sorted(glimpse.known) if glimpse.familiar and key not in glimpse.seen),
        )
        if one is not None
    )


def _gone(glimpse: Glimpse, key: str) -> Learned | None:
    known = glimpse.known[key]
    if known.drift is Drift.VANISHED:
        return None
    gone = Known(known.is_usual, known.types, Drift.VANISHED)
    words = f"the key {key} was always there and is in none of {glimpse.records_of(key)} records"
    return Learned(key, gone, glimpse.first, is_news=True, words=words, is_declared=key in glimpse.declared)


def _present(glimpse: Glimpse, key: str) -> Learned | None:
    before = glimpse.known.get(key)
    types = frozenset(glimpse.types.get(key, ()))
    usual = _usual_now(glimpse, key, before)
    drift, words, record = _oddity(glimpse, key, before)
    known = Known(usual, types | (before.types if before else frozenset()), drift)
    if known == before:
        return None
    is_news = drift is not None and (before is None or before.drift is not drift)
    is_well = drift is None and before is not None and before.drift is not None
    return Learned(key, known, record if is_news else None, is_news=is_news, is_well=is_well, words=words)


def _returned(glimpse: Glimpse, key: str) -> Learned | None:
    """What is known to the letter was believed once, so it has the key that was gone meanwhile."""
    known = glimpse.known[key]
    return Learned(key, replace(known, drift=None), is_well=True) if known.drift is Drift.VANISHED else None


def _oddity(glimpse: Glimpse, key: str, before: Known | None) -> tuple[Drift | None, str, bytes | None]:
    found = glimpse.retyped.get(key)
    if found is not None:
        kind, record = found
        read = " or ".join(sorted(glimpse.declared[key]))
        return Drift.RETYPED, f"the key {key} came with a value of type {kind}; syncd reads {read} there", record
    if key in glimpse.declared:
        return None, "", None
    if before is None:
        return Drift.UNKNOWN, f"the key {key} is new to syncd", glimpse.records[key]
    return (before.drift if before.drift is Drift.UNKNOWN else None), "", None


def _usual_now(glimpse: Glimpse, key: str, before: Known | None) -> bool | None:
    """A key that once was not in nearly every record is not usual any more, for good: else it would be learned anew
    with every answer."""
    if before is not None and before.is_usual is False:
        return False
    of = glimpse.of[_prefix(key)]
    if of < ENOUGH:
        return before.is_usual if before else None
    return glimpse.counts[key] >= _USUAL * of


def _prefix(key: str) -> str:
    return key[: key.index("[].") + 3] if "[]." in key else ""


def json_type(value: bytes) -> str:
    """Return the type of a JSON value by its first sign."""
    return "null" if value[:1] == b"n" else _TYPES.get(value[0], "number") if value else "null"


def _objects(raws: Sequence[bytes]) -> list[dict[str, msgspec.Raw]]:
    """Take records apart; what is no object has no keys, and then the batch tells nothing."""
    try:
        return _OBJECTS.decode(b"[" + b",".join(raws) + b"]")
    except (msgspec.DecodeError, ValueError, RecursionError):
        return []


def _lines_of(value: bytes) -> list[dict[str, msgspec.Raw]]:
    """Return the records of a list of records; nothing for any other value."""
    if value[:1] != b"[" or value[1:64].lstrip()[:1] != b"{":
        return []
    try:
        return _OBJECTS.decode(value)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return []
