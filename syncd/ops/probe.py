"""``python -m syncd.ops.probe livez|readyz``: ask this machine's own health page; exit 0 when it says yes, else 1.

For container probes, which run inside a container whose pages listen on loopback and which has no curl.
"""

from __future__ import annotations

import http.client
import sys

from syncd.domain.errors import SyncdError
from syncd.settings import load_settings

TIMEOUT_S = 8.0


def probe(page: str) -> tuple[bool, str]:
    """Ask one page of the running daemon; return its verdict and its words."""
    settings = load_settings().settings
    if not settings.ops_port:
        return False, "SYNCD_OPS_PORT is 0: there are no health pages"
    host = "127.0.0.1" if settings.ops_host in ("0.0.0.0", "::") else settings.ops_host
    connection = http.client.HTTPConnection(host, settings.ops_port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", f"/{page}")
        answer = connection.getresponse()
        return answer.status == 200, answer.read(4096).decode("utf-8", "replace").strip()
    except OSError:
        return False, "no daemon answers"
    finally:
        connection.close()


def main(arguments: list[str]) -> int:
    if arguments not in (["livez"], ["readyz"]):
        print("usage: python -m syncd.ops.probe livez|readyz", file=sys.stderr)
        return 2
    try:
        is_fine, words = probe(arguments[0])
    except SyncdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(words, file=sys.stdout if is_fine else sys.stderr)
    return 0 if is_fine else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
