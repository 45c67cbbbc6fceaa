"""One pathway per task, in docs/search.md: `python docs/numbers/search_tasks.py out/numbers/search_tasks`.

Every task is searched twice, each time on 50 validation questions of it that the other search does not have, in the
order of attribution, keeping 98 %. What is found on the first half is judged on 100 test questions of each task. The
second half is the control: how alike are two searches of one task?
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
from videolens.experiments.search.keeping import Effort, Keeping
from videolens.experiments.search.memory import Answers
from videolens.experiments.search.orders import ordered
from videolens.interventions.route_pathway import RoutePathway

TASKS = ("moving direction", "action antonym", "action sequence", "object count", "scene transition")
LEVEL = 0.98


def found_on(model: vl.HookedVideoTransformer, some: list[vl.Question], name: str, out: Path) -> RoutePathway:
    """The pathway that keeps 98 % of some questions."""
    judge = Judge(model, [model.prompt(one) for one in some])
    keeping, answers = Keeping(judge, 0.1), Answers(out / f"{name}.jsonl", judge, 0.1)
    units, cost = ordered(judge, "attribution", random.Random(0))
    keeping.effort += Effort(operations=cost)
    [found] = search(keeping, units, "attribution", answers, levels=[LEVEL])
    effort = keeping.effort
    plain = effort.operations / (effort.candidates * judge.n)
    print(
        f"{name}: {100 * found.live_edges:.1f} % of the live edges, {100 * found.flops:.1f} % of the operations; "
        f"{effort.candidates} candidates, {effort.operations:.0f} full forwards, {plain:.3f} of plain ones",
        flush=True,
    )
    return RoutePathway.of_units(model.cfg.n_layers, found.closed, name=name)


def losses(judge: Judge, pathways: dict[str, RoutePathway]) -> pd.DataFrame:
    """Points lost along every pathway in every task, with paired 95 % intervals."""
    asked, full, rows = np.array([task for _, task in judge.names]), judge.full.numpy() > 0, []
    for name, pathway in pathways.items():
        found = judge.judge(pathway)
        right, live = found.margins.numpy() > 0, 100 * float(found.live_edges.mean())
        for task in TASKS:
            before = 100.0 * full[asked == task]
            lost = before - 100.0 * right[asked == task]
            interval = bootstrap_mean(lost, within=(float(before.mean()) - 100, float(before.mean())))
            rows.append({"found on": name, "live": live, "task": task, "n": len(lost)} | interval.columns("lost"))
    return pd.DataFrame(rows)


def main(out: Path) -> None:
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    first, second = dict[str, RoutePathway](), dict[str, RoutePathway]()
    for task in TASKS:
        some = vl.load_dataset("shapes", task=task, split="validation", n=100)
        first[task] = found_on(model, some[:50], task, out)
        second[task] = found_on(model, some[50:], f"{task}, again", out)
    judged = Judge(
        model, [model.prompt(one) for t in TASKS for one in vl.load_dataset("shapes", task=t, split="test", n=100)]
    )
    closed = [one.units for one in first.values()]
    both = {"open in any": frozenset.intersection(*closed), "open in all": frozenset.union(*closed)}
    lost = losses(judged, first | {name: RoutePathway.of_units(12, units) for name, units in both.items()})
    with pd.option_context("display.width", 200, "display.max_columns", 20):
        print(lost.to_string(float_format="%.1f"))
        overlap = vl.pathway_overlap(first)
        print("Jaccard index of open units", overlap.to_string(float_format="%.2f"), sep="\n")
    print("open in all five:", overlap.attrs["shared"])
    print(f"open in any: {len(overlap.attrs['any'])} units")
    same = [vl.pathway_overlap({"a": first[t], "b": second[t]}).loc["a", "b"] for t in TASKS]
    other = [vl.pathway_overlap({"a": first[t], "b": second[u]}).loc["a", "b"] for t in TASKS for u in TASKS if t != u]
    print(f"one task, two searches: {np.mean(same):.2f} ({min(same):.2f} to {max(same):.2f})")
    print(f"two tasks, two searches: {np.mean(other):.2f} ({min(other):.2f} to {max(other):.2f})")
    for task, pathway in first.items():
        print(task, pathway.open_layers)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
