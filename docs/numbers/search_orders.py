"""Attribution's order against orders by chance: `python docs/numbers/search_orders.py out/numbers/search_orders`.

For docs/search.md. Searched on 60 validation questions, 12 of each task, keeping 98 %; judged on 250 test questions.
Units are (layer, route), and (layer, head, route).
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

import videolens as vl
from videolens.experiments.common.statistics import bootstrap_mean
from videolens.experiments.search.experiment import search
from videolens.experiments.search.judging import Judge
from videolens.experiments.search.keeping import Keeping
from videolens.experiments.search.memory import Answers
from videolens.experiments.search.orders import ordered
from videolens.interventions.route_pathway import RoutePathway

TASKS = ("moving direction", "action antonym", "action sequence", "object count", "scene transition")
LEVEL, SEEDS = 0.98, {False: 5, True: 3}


def judge_of(model: vl.HookedVideoTransformer, split: str, n: int) -> Judge:
    some = [one for task in TASKS for one in vl.load_dataset("shapes", task=task, split=split, n=n)]
    return Judge(model, [model.prompt(one) for one in some])


def main(out: Path) -> None:
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    judge, other = judge_of(model, "validation", 12), judge_of(model, "test", 50)
    full, before = other.full.numpy() > 0, time.process_time()
    assert judge.full is not None
    plain = time.process_time() - before  # CPU seconds of all questions by plain forwards
    rows = []
    for heads, n_seeds in SEEDS.items():
        for order, seed in [
            ("attribution", 0),
            *(("random", seed) for seed in range(n_seeds)),
        ]:
            name = f"{'heads' if heads else 'routes'}, {order}, {seed}"
            units, _ = ordered(judge, order, random.Random(seed), heads=heads)
            keeping, answers = Keeping(judge, 0.1), Answers(out / f"{name}.jsonl", judge, 0.1)
            before = time.process_time()
            [found] = search(keeping, units, order, answers, levels=[LEVEL])
            seconds = time.process_time() - before
            pathway = RoutePathway.of_units(model.cfg.n_layers, found.closed, n_heads=model.cfg.n_heads)
            judged = other.judge(pathway)
            lost = 100.0 * (full.astype(float) - (judged.margins.numpy() > 0))
            row = {"units": "heads" if heads else "routes", "order": order, "seed": seed}
            row |= {"live_edges": float(judged.live_edges.mean()), "flops": float(judged.flops.mean())}
            row |= bootstrap_mean(lost).columns("lost")
            n = keeping.effort.candidates
            row |= {"candidates": n, "operations": keeping.effort.operations / (n * judge.n)}
            rows.append(row | {"time": (seconds + plain) / (n * plain)})  # both as shares of plain forwards
            print(rows[-1], f"{time.monotonic() - began:.0f} s", flush=True)
    table = pd.DataFrame(rows)
    with pd.option_context("display.width", 200, "display.max_columns", 20):
        print(table.to_string(float_format="%.3f"))
    for units, some in table.groupby("units", sort=False):
        drawn = some[some["order"] == "random"]["live_edges"]
        [ranked] = some[some["order"] == "attribution"]["live_edges"]
        print(
            f"{units}: attribution {100 * ranked:.1f} %, random {100 * drawn.mean():.1f} % "
            f"({100 * drawn.min():.1f} to {100 * drawn.max():.1f}, {np.size(drawn)} orders)"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
