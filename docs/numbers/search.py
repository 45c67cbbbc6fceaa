"""The table of docs/search.md: `python docs/numbers/search.py out/numbers/search attribution`.

Searched on 500 validation questions, judged on 1,000 test questions; goes on where it was when it is called again. Half
an hour on one core.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

import pandas as pd

import videolens as vl

TASKS = ("moving direction", "action antonym", "action sequence", "object count", "scene transition")
COLUMNS = ["pathway", "live_edges", "flops", "accuracy", "loss_points", "loss_points_low", "loss_points_high"]


def questions(split: str, n: int) -> list[vl.Question]:
    return [one for task in TASKS for one in vl.load_dataset("shapes", task=task, split=split, n=n)]


def main(out: Path, orders: tuple[str, ...]) -> None:
    began, cpu = time.monotonic(), time.process_time()
    out.mkdir(parents=True, exist_ok=True)
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    by_rule = {
        "the paper's rule": ([2, 3, 4, 5], [4, 5, 6, 7], [8, 9, 10, 11]),
        "choose_pathway": (range(6), range(8), [2, 3, 4, 5, 8, 9, 10, 11]),
    }
    held_out = questions("test", 200)
    found = vl.find_pathway(
        model,
        questions("validation", 100),
        held_out,
        orders=orders,
        compare={name: vl.Pathway(12, *layers) for name, layers in by_rule.items()},
        resume=out / "answers.jsonl",
    )
    found.save(out / "result", overwrite=True)
    found.figure().savefig(out / "search.png")
    made = found.settings
    print(found, found.pathway, sep="\n")
    print(f"{made.candidates} candidates, {made.asked} runs, {made.operations:.0f} full forwards of one question")
    print(f"{made.cost:.3f} of the same candidates by plain forwards")
    with pd.option_context("display.width", 200, "display.max_columns", 20):
        print(found.front()[COLUMNS].to_string(float_format="%.4f"))
        for corrupt in ("all closed", "reversed clip"):
            curve = found.curve(corrupt=corrupt)
            print(corrupt, curve.attrs, curve.to_string(float_format="%.4f"), sep="\n")
    for task in found.tasks:
        print(task, found.loss(made.chosen, task=task))
    for name, seconds in times(model, found, held_out[::100]).items():
        print(f"{1000 * seconds:6.1f} ms a question by {name}")
    print(f"{time.monotonic() - began:.0f} s, {time.process_time() - cpu:.0f} s of them on the CPU")


def times(model: vl.HookedVideoTransformer, found: vl.PathwaySearch, some: list[vl.Question]) -> dict[str, float]:
    """CPU seconds of one question, median over questions and rounds, all in turn: in full and by compiled pathways."""
    prompts = [model.prompt(one) for one in some]
    shown = [name for name in found.settings.pathways if not name.endswith("live edges")]
    runs = {"full": model} | {name: model.compile(found.named(name)) for name in shown}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(4):
        for prompt in prompts:
            for name, run in runs.items():
                began = time.process_time()
                run(prompt)
                taken[name].append(time.process_time() - began)
    # the first round makes plans
    return {name: median(each[len(prompts) :]) for name, each in taken.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]) or ("attribution", "last layer first", "random"))
