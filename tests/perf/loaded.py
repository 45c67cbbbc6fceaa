"""What a busy machine does to a flow map: the bundled model, one question, beside a process that keeps a core busy.

`python tests/perf/loaded.py [--quick] [--rounds 3]`: with torch as it comes ("default"), as the command line starts it
("passive": threads sleep while they wait for one another), and with one thread. Each way is a process of its own, which
answers in turn, quiet and loaded; figures are medians. Other people's work on the machine disturbs the quiet ones, too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[i]) for i in (0, 2)]

from perf_timing import machine, median, table

from videolens.__main__ import PASSIVE

ONE = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
WAYS: dict[str, dict[str, str]] = {"default": {}, "passive": PASSIVE, "one thread": dict.fromkeys(ONE, "1")}
BOUND = 2.0


class Answering:
    """A process that has the model, and times a flow map when it is asked to."""

    def __init__(self, environment: dict[str, str], quick: bool) -> None:
        unset = {name: value for name, value in os.environ.items() if name not in {*PASSIVE, *ONE}}
        root = {"PYTHONPATH": str(HERE.parents[2])}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE), "--answer", *(["--quick"] if quick else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=unset | root | environment,
        )
        self.ask()  # once to warm up

    def ask(self) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline()))

    def end(self) -> None:
        self.process.communicate()


def answer(quick: bool) -> None:
    """Time one flow map for each line that is read."""
    import videolens as vl

    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    question = vl.load_dataset("shapes", split="test", task="moving direction", n=1)[0]
    routes = ["video -> last"] if quick else None
    for _ in sys.stdin:
        began = time.perf_counter()
        vl.trace_flow(model, question, samples="all", progress=False, **({} if routes is None else {"routes": routes}))
        sys.stdout.write(json.dumps(time.perf_counter() - began) + "\n")
        sys.stdout.flush()


@contextmanager
def busy(n: int) -> Iterator[None]:
    """So many processes, each of which keeps a core busy."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run and print; the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one route, once")
    parser.add_argument("--rounds", type=int, default=5, help="medians are of this many")
    parser.add_argument("--busy", type=int, default=1, help="cores that are kept busy")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.answer:
        answer(options.quick)
        os._exit(0)  # nothing is left to do, and taking torch apart takes seconds
    found: dict[str, dict[str, list[float]]] = {name: {"quiet": [], "loaded": []} for name in WAYS}
    ways = {name: Answering(environment, options.quick) for name, environment in WAYS.items()}
    try:
        for _ in range(1 if options.quick else options.rounds):
            for name, one in ways.items():
                found[name]["quiet"].append(one.ask())
            with busy(options.busy):
                for name, one in ways.items():
                    found[name]["loaded"].append(one.ask())
    finally:
        for one in ways.values():
            one.end()
    figures = {
        name: {
            "quiet, s": median(times["quiet"]),
            "loaded, s": median(times["loaded"]),
            "loaded, worst, s": max(times["loaded"]),
            f"loaded / quiet (≤ {BOUND:g})": median(times["loaded"]) / median(times["quiet"]),
        }
        for name, times in found.items()
    }
    print(machine("cpu"))
    rows = [[name, *row.values()] for name, row in figures.items()]
    print(table(f"one flow map, {options.busy} core(s) kept busy", ["threads", *figures["default"]], rows))
    return figures


if __name__ == "__main__":
    main()
