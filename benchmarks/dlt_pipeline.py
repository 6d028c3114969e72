"""Load orders as dlt does it: run by ``dlt_load`` under an interpreter that has dlt, and under no other.

Reads from standard input what to load and into what (JSON: the URL of the answer, its key, a libpq URL), writes to
standard output how many seconds the run took, imports and start left out. The pipeline is what dlt's manual shows for a
JSON API: a resource that yields the rows, merged by their primary key, its files in CSV.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"

import dlt
import requests


def load(answer: str, key: str, database: str) -> float:
    """Load the rows of an answer into the schema ``dlt_mirror``; return the seconds."""

    @dlt.resource(name="orders", primary_key="orderId", write_disposition="merge")
    def orders() -> Iterator[object]:
        response = requests.get(answer, timeout=300)
        response.raise_for_status()
        yield response.json()[key]

    with tempfile.TemporaryDirectory() as directory:
        destination = dlt.destinations.postgres(credentials=database)
        pipeline = dlt.pipeline("bench", destination=destination, dataset_name="dlt_mirror", pipelines_dir=directory)
        started = time.perf_counter()
        pipeline.run(orders(), loader_file_format="csv").raise_on_failed_jobs()
        return time.perf_counter() - started


if __name__ == "__main__":
    json.dump({"seconds": load(**json.load(sys.stdin))}, sys.stdout)
