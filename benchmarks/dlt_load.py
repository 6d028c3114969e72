"""The first load of orders by dlt, beside our own: the same answer of the same simulator, into the same Postgres.

dlt is what one would otherwise write a mirror with. It knows nothing of windows, proof or history; it has orders and
their lines in tables in the end, and that is compared. The best of the rounds counts, which alternate. It gets an
environment of its own beside ours, made once from ``benchmarks/dlt-requirements.txt``: it is a yardstick and no
dependency, and a run without names leaves it out. Needs ``SYNCD_TEST_SERVER``.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from sqlalchemy.engine import make_url

from benchmarks.databases import beside, connected, database
from benchmarks.figures import Figure, note, peak_mb
from benchmarks.pull import Crm, opened_puller, simulate, sizes
from syncd.store import Store

HERE = Path(__file__).parent
HOURS = 20 * 365 * 24
COUNTS = "SELECT (SELECT count(*) FROM {schema}.orders), (SELECT count(*) FROM {schema}.{lines})"


def environment() -> Path:
    """Return an interpreter that has dlt, after installing it if need be."""
    home = Path(sys.prefix) / "dlt"
    python, done = home / "bin" / "python", home / ".done"
    if not done.exists():
        print("(installing dlt into an environment of its own)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r"]
        subprocess.run([*install, HERE / "dlt-requirements.txt"], check=True)
        done.touch()
    return python


async def by_dlt(python: Path, crm: Crm, url: str) -> float:
    """Load by dlt; return its seconds."""
    where = make_url(url)
    host = where.query.get("host", where.host)  # a socket's directory is no host that dlt would take
    login = f"{where.username}:{where.password or '-'}"
    native = f"postgresql://{login}@localhost/{where.database}?host={host}&port={where.query.get('port', 5432)}"
    answer = f"{crm.base_url.rstrip('/')}/orders?admin={crm.admin}&key={crm.key}&paid=-&hours={HOURS}"
    asked = json.dumps({"answer": answer, "key": "data", "database": native})
    command = [python, "-I", HERE / "dlt_pipeline.py"]
    ran = await asyncio.to_thread(subprocess.run, command, input=asked, text=True, capture_output=True, check=False)
    if ran.returncode:
        sys.exit(f"dlt ended with {ran.returncode}: {ran.stderr.strip().splitlines()[-1]}")
    return float(json.loads(ran.stdout)["seconds"])


async def by_syncd(crm: Crm, url: str) -> float:
    """Load by syncd; return its seconds."""
    store = Store.open(url)
    try:
        async with opened_puller(store, crm) as puller:
            report = await puller.pull("orders")
        assert report.status == "succeeded", report
        return report.elapsed_s
    finally:
        await store.close()


async def one_round(python: Path, crm: Crm) -> tuple[float, float, int]:
    """Return the seconds of both, and how many orders each has loaded; they must have loaded the same."""
    async with database() as (url, _):
        ours_s, theirs_s = await by_syncd(crm, url), await by_dlt(python, crm, url)
        async with connected(url) as connection:
            ours = tuple(await connection.fetchrow(COUNTS.format(schema="crm", lines="order_lines")))
            theirs = tuple(await connection.fetchrow(COUNTS.format(schema="dlt_mirror", lines="orders__orderlines")))
    assert ours == theirs, (ours, theirs)
    return ours_s, theirs_s, ours[0]


async def measure(python: Path, crm: Crm, rounds: int) -> None:
    found = [await one_round(python, crm) for _ in range(rounds)]
    ours_s, theirs_s, orders = min(row[0] for row in found), min(row[1] for row in found), found[0][2]
    print(f"first load by dlt                {orders / theirs_s:10.0f} orders/s")
    print(f"first load by syncd              {orders / ours_s:10.0f} orders/s, {theirs_s / ours_s:.1f} x dlt")
    print(f"peak memory                      {peak_mb():10.0f} MB")
    rate = f"{orders / ours_s:.0f} orders/s"
    note(Figure(f"first load of {orders} orders", rate, f"{orders / theirs_s:.0f} by dlt", theirs_s / ours_s, 3.0, "x"))


def main() -> None:
    orders, rounds = sizes(__doc__ or "")
    python = environment()
    with beside(simulate, orders) as simulator:
        asyncio.run(measure(python, simulator.recv(), rounds))


if __name__ == "__main__":
    main()
