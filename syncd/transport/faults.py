"""What can go wrong on the wire, and the clause a person reads about it.

A clause is chosen from the fault's type and number alone. The text of an exception is never used: aiohttp puts host
names into its own, and a parser quotes what the server sent, which may be our request with its credentials.
"""

from __future__ import annotations

import errno
import os
import ssl

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientError,
    ClientPayloadError,
    ServerDisconnectedError,
)
from aiohttp.http_exceptions import HttpProcessingError


class TransportClosed(Exception):
    """The transport was closed before the request was sent."""


class Truncated(Exception):
    """The answer ended before it was complete."""


class TooLarge(Exception):
    """The answer is larger than it may be."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes


FAULTS = (ClientError, HttpProcessingError, OSError, TransportClosed, Truncated, TooLarge)
"""Everything that a socket, a handshake, a timer (TimeoutError is an OSError), a parser or a limit raises. Anything
else is a bug and passes through."""

_CERTIFICATE = {
    10: "it has expired",
    18: "it is self-signed",
    19: "its chain ends in an unknown authority",
    20: "its authority is unknown",
    62: "it is for another host name",
    64: "it is for another address",
}


def reason(fault: BaseException, *, is_sent: bool, has_status: bool) -> str:
    """Return one clause without address, secret or server text."""
    if not is_sent:
        return _before_sending(fault)
    match fault:
        case TooLarge():
            return f"the answer is larger than {fault.limit_bytes} bytes"
        case TimeoutError():
            return "the answer stopped coming in time" if has_status else "no answer came in time"
        case HttpProcessingError():
            return "the answer is not valid HTTP"
        case ClientPayloadError() | Truncated():
            return "the answer was cut off or cannot be unpacked"
        case ServerDisconnectedError():
            return "the connection was closed before an answer came"
        case OSError():
            return f"the connection broke{' inside the answer' if has_status else ' before an answer came'}"
    return "the exchange failed after the request was sent"


def _before_sending(fault: BaseException) -> str:
    match fault:
        case TransportClosed():
            return "the transport is closed"
        case TimeoutError():
            return "no connection in time"
        case ClientConnectorCertificateError():
            return _certificate(fault.certificate_error)
        case ClientConnectorSSLError():
            return "the TLS handshake failed"
        case ClientConnectorDNSError():
            return "the host name cannot be resolved"
        case ClientConnectorError():
            return _refused(fault.os_error)
        case OSError():
            return _refused(fault)
    return "no connection"


def _refused(error: OSError) -> str:
    if error.errno == errno.ECONNREFUSED:
        return "the connection was refused"
    return f"no connection: {os.strerror(error.errno)}" if error.errno else "no connection"


def _certificate(error: Exception) -> str:
    detail = _CERTIFICATE.get(error.verify_code, "") if isinstance(error, ssl.SSLCertVerificationError) else ""
    return f"the TLS certificate is not accepted{': ' + detail if detail else ''}"
