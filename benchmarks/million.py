"""One answer of a million orders: pulled over HTTP into Postgres, and again unchanged; the memory it takes.

The CRM has neither pages nor an upper bound, so years of orders come as one answer. A server in a process of its own
writes it piece by piece and holds none of it. Measured is the process that pulls: its peak memory before, and after
each pull, everything counted. The short form pulls a hundredth.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection as Pipe

import asyncpg

from benchmarks.databases import beside
from benchmarks.figures import Figure, note, peak_mb
from benchmarks.pull import Crm, opened_puller
from syncd.domain.reports import RunReport
from syncd.store import Store
from syncd.store.migrate import upgrade
from syncd.store.throwaway import fresh_database

LIMIT_MB = 250
_AT_ONCE = 500
_LINE = {
    "lineType": "product",
    "productId": 7,
    "productName": "Course, the whole year",
    "quantity": 1,
    "subscriptionId": None,
    "subscriptionBilledUntil": None,
    "subscriptionEnds": None,
}


def serve_orders(pipe: Pipe, orders: int) -> None:
    """Answer whatever is asked with so many orders, until killed; say first on which port."""
    asyncio.run(_serve(pipe, orders))


async def _serve(pipe: Pipe, orders: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
        for piece in pieces(orders):
            writer.write(piece)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    pipe.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def pieces(orders: int) -> Iterator[bytes]:
    """Yield the answer: three orders a buyer, two lines an order, none of it in the future."""
    began, lines = datetime(2015, 1, 1, tzinfo=UTC), json.dumps([_LINE, {**_LINE, "productId": 8, "quantity": 2}])
    yield b'{"data":['
    for start in range(0, orders, _AT_ONCE):
        rows = [_row(number, began, lines) for number in range(start, min(orders, start + _AT_ONCE))]
        yield (b"," if start else b"") + ",".join(rows).encode()
    yield b"]}"


def _row(number: int, began: datetime, lines: str) -> str:
    buyer, at = number // 3, began + timedelta(minutes=5 * number % 5_000_000)
    return (
        f'{{"orderId":{number + 1},"relationId":{buyer + 1},"relationName":"Buyer {buyer}","relationEmail":'
        f'"buyer{buyer}@shop.example","invoiceNumber":"{number}","orderlines":{lines},'
        f'"purchaseDate":"{at:%Y-%m-%d %H:%M:%S}","paid":"Y"}}'
    )


async def measure(port: int, orders: int) -> None:
    name = f"syncd_bench_million_{os.getpid()}"
    server_url = os.environ["SYNCD_TEST_SERVER"]
    store = Store.open(await fresh_database(server_url, name))
    try:
        await upgrade(store)
        async with opened_puller(store, Crm(f"http://127.0.0.1:{port}/api/1.0/", "4711", "key")) as puller:
            before_mb = peak_mb()
            load = await puller.pull("orders")
            loaded_mb = peak_mb()
            again = await puller.backfill_again()
        _told(orders, load, again, before_mb, loaded_mb)
    finally:
        await store.close()
        admin = await asyncpg.connect(server_url)
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await admin.close()


def _told(orders: int, load: RunReport, again: RunReport, before_mb: float, loaded_mb: float) -> None:
    assert (load.status, load.inserted) == ("succeeded", orders), load
    assert (again.status, again.unchanged) == ("succeeded", orders), again
    size_mb = sum(map(len, pieces(orders))) / 1e6
    print(f"one answer of {orders} orders, {size_mb:.0f} MB")
    print(f"first load               {orders / load.elapsed_s:8.0f} orders/s, {load.elapsed_s:.0f} s")
    print(f"unchanged re-pull        {orders / again.elapsed_s:8.0f} orders/s, {again.elapsed_s:.0f} s")
    print(f"peak memory before       {before_mb:8.0f} MB")
    print(f"peak memory of the load  {loaded_mb:8.0f} MB")
    print(f"peak memory of both      {peak_mb():8.0f} MB")
    beside_it = f"{size_mb:.0f} MB of answer"
    figure = f"{before_mb:.0f} MB before"
    note(
        Figure(f"memory for one answer of {orders} orders", figure, beside_it, peak_mb(), LIMIT_MB, "MB", is_limit=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--orders", type=int, default=1_000_000)
    parser.add_argument("--short", action="store_true", help="a hundredth: shows that it works, measures little")
    options = parser.parse_args()
    orders = 10_000 if options.short else options.orders
    with beside(serve_orders, orders) as server:
        asyncio.run(measure(server.recv(), orders))


if __name__ == "__main__":
    main()
