"""Every stream of every provider asks sanely, ends, and believes only whole answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from syncd.domain import records
from syncd.domain.errors import MalformedAnswer
from syncd.providers.contract import Effect, Provider, Response, Stream, StreamArguments, StreamKind

NOW = datetime(2026, 10, 25, 1, 30, 7, tzinfo=UTC)
REFUSED = [
    b"",
    b"<html></html>",
    b"{",
    b"[",
    b"TRUE",
    b'{"data":',
    b"\xff",
    b"[}",
    b'{"error":"no"}',
    b"[]x",
    b"nonsense",
]


def asked(stream: Stream, **given: object) -> StreamArguments:
    match stream.kind:
        case StreamKind.WINDOW:
            return StreamArguments(NOW, asked_from=NOW - timedelta(**(given or {"hours": 3})))  # type: ignore[arg-type]
        case StreamKind.SNAPSHOT:
            return StreamArguments(NOW)
        case StreamKind.SWEEP | StreamKind.FOLLOW_UP:
            return StreamArguments(NOW, key="2026/7")


def test_streams_are_reads_with_records_of_the_domain(provider: Provider) -> None:
    for name, stream in provider.streams.items():
        assert name == stream.name
        assert provider.endpoints[stream.operation].effect is Effect.SAFE
        assert hasattr(records, stream.records), stream.records
        request = stream.request(asked(stream))
        assert request.operation == stream.operation
        assert request.is_signed
        assert (stream.covers_from is not None) == (stream.kind is StreamKind.WINDOW), name


@pytest.mark.parametrize("minutes", [0, 1, 59, 60, 61, 1439, 1440, 60 * 24 * 40, 60 * 24 * 3650])
def test_a_window_claims_no_less_than_it_was_asked_for(provider: Provider, minutes: int) -> None:
    """Less would leave a hole that every later pull leaves again."""
    for stream in provider.streams.values():
        if stream.covers_from is not None:
            arguments = asked(stream, minutes=minutes)
            assert stream.covers_from(arguments) <= arguments.asked_from
            stream.request(arguments)


def test_paginators_end(provider: Provider) -> None:
    """A paginator that goes on after an empty page never lets the pull finish."""
    for stream in provider.streams.values():
        request = stream.paginator.first(stream.request(asked(stream)))
        assert stream.paginator.after(request, Response(200, body=b"[]"), 0) is None


def test_what_cannot_be_believed_is_refused(provider: Provider) -> None:
    for stream in provider.streams.values():
        for body in REFUSED:
            with pytest.raises(MalformedAnswer):
                list(stream.decode(Response(200, body=body)))


def test_reads_are_judged(provider: Provider) -> None:
    """None means: decode it. Everything else must stop the pull before it writes."""
    for stream in provider.streams.values():
        for status in (301, 400, 401, 403, 404, 429, 500, 503):
            outcome = provider.judge(Response(status, body=b'{"error":"no"}'), stream.operation)
            assert outcome is not None, (stream.name, status)
        assert provider.judge(Response(200, body=b"[]"), stream.operation) is None


@pytest.mark.parametrize(
    ("content_type", "body", "is_one"),
    [
        ("application/pdf", b"%PDF-1.4\n%%EOF", True),
        ("Application/PDF; charset=binary", b"%PDF-1.4\n%%EOF", True),
        ("application/pdf", b"PK\x03\x04", False),
        ("application/pdf", b" %PDF-1.4", False),
        ("application/json", b"%PDF-1.4\n%%EOF", False),
        ("text/html", b"%PDF-1.4\n%%EOF", False),
        ("", b"%PDF-1.4\n%%EOF", False),
    ],
)
def test_a_file_is_a_pdf_by_its_type_and_by_its_first_bytes(
    provider: Provider, content_type: str, body: bytes, is_one: bool
) -> None:
    """Either alone is what a gateway or a broken export shows, too."""
    stream, answer = provider.streams["invoice_files"], Response(200, {"content-type": content_type}, body)
    if is_one:
        (decoded,) = stream.decode(answer)
        assert decoded.rows[0].record.content_type == "application/pdf"
    else:
        with pytest.raises(MalformedAnswer, match="no PDF"):
            list(stream.decode(answer))
