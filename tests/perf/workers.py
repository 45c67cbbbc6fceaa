"""One worker against two, on Ray: flow maps of the bundled model, `python tests/perf/workers.py [--n 200]`.

Seconds of the asking (of all parts, as the run's log says, over the number of workers) and of the whole run by the
clock, with Ray's start and all loading. One thread each, in turn, in one process; the tables of all runs are compared
byte by byte.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[i]) for i in (0, 2)]

from perf_timing import machine, median, table

import videolens as vl


def timed(config: dict[str, object], out: Path, workers: int) -> tuple[float, float, bytes]:
    """Seconds of asking and of the whole run, and the result's table."""
    began = time.perf_counter()
    vl.run(config, out, workers=workers, progress=False)
    whole = time.perf_counter() - began
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    asking = sum(event["seconds"] for event in events if event["event"] == "part") / workers
    return asking, whole, (out / "results/flow/flow.parquet").read_bytes()


def main() -> None:
    """Print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200, help="questions, over the five temporal tasks")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    config = {
        "model": "shapes",
        "dataset": {"name": "shapes", "n": args.n // 5},
        "threads": 1,
        "figures": False,
        "experiments": ["flow"],
    }
    seconds: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    tables = set()
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.rounds):
            for workers in seconds:
                asking, whole, content = timed(config, Path(folder) / f"{workers}-{i}", workers)
                seconds[workers].append((asking, whole))
                tables.add(content)
    print(machine("cpu"))
    rows = []
    for what, which in (("asking", 0), ("whole run", 1)):
        one, two = (median([each[which] for each in seconds[workers]]) for workers in seconds)
        rows.append([what, f"{one:.1f}", f"{two:.1f}", f"{two / one:.2f}"])
    print(table("Two workers against one", ["median seconds", "one worker", "two workers", "ratio"], rows))
    print(f"{args.n} questions, {args.rounds} rounds; tables of all runs byte-identical: {len(tables) == 1}")


if __name__ == "__main__":
    main()
