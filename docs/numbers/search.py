"""The table of docs/search.md: `python docs/numbers/search.py out/numbers/search` (about half an hour on one core).

Searched on 500 validation questions, judged on 1,000 test questions; goes on where it was when it is called again.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pandas as pd

import videolens as vl

TASKS = ("moving direction", "action antonym", "action sequence", "object count", "scene transition")


def questions(split: str, n: int) -> list[vl.Question]:
    return [one for task in TASKS for one in vl.load_dataset("shapes", task=task, split=split, n=n)]


def main(out: Path, orders: tuple[str, ...]) -> None:
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    by_rule = {
        "the paper's rule": ([2, 3, 4, 5], [4, 5, 6, 7], [8, 9, 10, 11]),
        "choose_pathway": (range(6), range(8), [2, 3, 4, 5, 8, 9, 10, 11]),
    }
    found = vl.find_pathway(
        model,
        questions("validation", 100),
        questions("test", 200),
        orders=orders,
        compare={name: vl.Pathway(12, *layers) for name, layers in by_rule.items()},
        resume=out / "answers.jsonl",
    )
    found.save(out / "result", overwrite=True)
    found.figure().savefig(out / "search.png")
    made = found.settings
    print(found, found.pathway, sep="\n")
    print(f"{made.candidates} candidates, {made.asked} runs, {made.operations:.0f} full forwards of one question")
    print(f"{made.operations / max(made.candidates * made.n_searched, 1):.3f} of the same candidates by plain forwards")
    columns = ["pathway", "live_edges", "flops", "accuracy", "loss_points", "loss_points_low", "loss_points_high"]
    with pd.option_context("display.width", 200, "display.max_columns", 20):
        print(found.front()[columns].to_string(float_format="%.4f"))
        for corrupt in ("all closed", "reversed clip"):
            curve = found.curve(corrupt=corrupt)
            print(corrupt, curve.attrs, curve.to_string(float_format="%.4f"), sep="\n")
    for task in found.tasks:
        print(task, found.loss(made.chosen, task=task))
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]) or ("attribution", "last layer first", "random"))
