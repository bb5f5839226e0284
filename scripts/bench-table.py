#!/usr/bin/env python3
"""Prints what criterion measured last, one row a bench, and writes it to target/bench.md. Needs only Python."""

import json
import pathlib

CRITERION = pathlib.Path(__file__).resolve().parent.parent / "target/criterion"


def row(estimates):
    """Name, time and its interval, and the throughput where the bench says how much it does."""
    bench = json.loads((estimates.parent / "benchmark.json").read_text())
    median = json.loads(estimates.read_text())["median"]
    interval = median["confidence_interval"]
    nanoseconds = [median["point_estimate"], interval["lower_bound"], interval["upper_bound"]]
    return [bench["full_id"], *map(time, nanoseconds), rate(bench.get("throughput"), nanoseconds[0])]


def time(nanoseconds):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.2f} {unit}"
    return f"{nanoseconds:.2f} ns"


def rate(throughput, nanoseconds):
    if not throughput:
        return ""
    (what, amount), = throughput.items()
    return f"{amount / nanoseconds * 1e9:,.0f} {what.lower()}/s"


rows = [["bench", "median", "from", "to", "throughput"], ["---"] * 5]
rows += sorted(row(estimates) for estimates in CRITERION.glob("**/new/estimates.json"))
table = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
(CRITERION.parent / "bench.md").write_text(table)
print(table, end="")
