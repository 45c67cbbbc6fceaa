"""What is right and where the answer flows, asked in words: models without hints, and "shapes" (docs/bundled.md).

    python docs/numbers/nohint.py [N] [OUT]     # N test questions of each temporal task (100), flow maps into OUT

Change of the right answer's probability in points, window of 3, at the deepest window; layers counted from 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

import videolens as vl
from videolens.datasets.shapes_tasks import TEMPORAL_TASKS
from videolens.experiments.common.statistics import proportion

MODELS = ("shapes-nohint", "shapes-qwen", "shapes")
ROUTES = ["cross-frame", "video -> question", "question -> last", "video -> last"]


def main(n: int, out: Path) -> None:
    """Trace every model, and print a row per route."""
    asked = vl.load_dataset("shapes", split="test", tasks=list(TEMPORAL_TASKS), n=n)
    questions = [question.open_ended() for question in asked]
    for name in MODELS:
        model = vl.HookedVideoTransformer.from_pretrained(name)
        flow = vl.trace_flow(model, questions, routes=ROUTES, window=3, samples="all", progress=False)
        flow.save(out / name, overwrite=True)
        asked_once = flow.table.drop_duplicates(["task", "question"])
        for task, right in asked_once.groupby("task", sort=False)["correct"]:
            print(f"{name:14}{task:19} right {proportion(int(right.sum()), len(right))}")
        for route in ROUTES:
            layer, deepest = flow.peak(route, measure="correct option")
            print(f"{name:14}{route:19} deepest {deepest} in layer {layer + 1}")
            print(f"{'':33} all windows {flow.effect(route, measure='correct option')}")
            print(f"{'':33} centre (from 0) {flow.centre(route, measure='correct option')}", flush=True)


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *("100", "out/numbers/nohint")[len(sys.argv) - 1 :]]
    main(int(arguments[0]), Path(arguments[1]))
