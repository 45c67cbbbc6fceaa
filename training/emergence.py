"""When do routes appear? Accuracy and a flow map at every checkpoint that a training run kept.

```bash
python -m training.emergence runs/unhinted --n 20 --out out/emergence        # out/emergence.csv and out/emergence.png
```

Validation questions (unless `--split` says otherwise), all of them, right or wrong. What a cut costs is measured by the
right option's probability, in points, as the mean over all windows: a guessing model has nothing to lose there, and no
window is picked.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import videolens as vl
from videolens.datasets.shapes_tasks import TEMPORAL_TASKS
from videolens.drawing.style import PALETTE, plain
from videolens.experiments.common.statistics import Interval, proportion
from videolens.model.checkpoints.bundled import bundled_names

ROUTES = ("cross-frame", "video -> question", "question -> last", "video -> last")
MEASURE = "correct option"
CENTRED_FROM = 3.0
"""Points that a route must cost before its centre is drawn: of an effect of nothing, the centre is noise."""


def kept(run: Path, stage: str) -> list[tuple[int, Path]]:
    """(step, folder) of the checkpoints of a stage, in order; of a bundled model's name, that model as step 0.

    Raises:
        SystemExit: the run kept none.
    """
    if str(run) in bundled_names():
        return [(0, vl.bundled_path(str(run)))]
    found = sorted((int(folder.name.rsplit("-", 1)[1]), folder) for folder in run.glob(f"checkpoints/{stage}-*"))
    if not found:
        raise SystemExit(f"{run / 'checkpoints'} has no checkpoint called {stage}-STEP: train with --out {run} first")
    return found


def measured(model: vl.HookedVideoTransformer, questions: Sequence[vl.Question], step: int) -> list[dict[str, object]]:
    """One row per task (its share right) and per route (its effect, and the layer it centres on)."""
    flow = vl.trace_flow(model, questions, routes=ROUTES, samples="all", progress=False)
    asked = flow.table.drop_duplicates(["task", "question"]).dropna(subset=["correct"])
    rows = [
        _row(step, "accuracy", str(task), proportion(int(right.sum()), len(right)), 100.0)
        for task, right in asked.groupby("task", sort=False)["correct"]
    ]
    for route in flow.routes:
        rows.append(_row(step, "effect", route, flow.effect(route, measure=MEASURE)))
        rows.append(_row(step, "centre", route, flow.centre(route, measure=MEASURE)))
    return rows


def _row(step: int, kind: str, name: str, at: Interval, scale: float = 1.0) -> dict[str, object]:
    return {
        "step": step,
        "kind": kind,
        "name": name,
        "value": scale * at.value,
        "low": scale * at.low,
        "high": scale * at.high,
        "n": at.n,
    }


def figure(table: pd.DataFrame) -> Figure:
    """Accuracy by task, effect by route, and where in depth each route centres, over steps."""
    drawn = Figure(figsize=(7, 8), layout="constrained")
    top, middle, bottom = drawn.subplots(3, 1, sharex=True)
    _lines(top, table[table.kind == "accuracy"])
    top.set(title="first token right (%)", ylim=(-2, 102))
    _lines(middle, table[table.kind == "effect"])
    middle.set(title="cost of a cut: the right option's probability, mean over windows (points)")
    effects = table[table.kind == "effect"].set_index(["step", "name"]).value
    centres = table[table.kind == "centre"].dropna(subset=["value"]).copy()
    there = [effects[step, name] <= -CENTRED_FROM for step, name in zip(centres.step, centres.name, strict=True)]
    centres[["value", "low", "high"]] += 1
    _lines(bottom, centres[there], lambda name: list(ROUTES).index(name))
    bottom.set(
        title=f"layer (from 1) that it centres on, where it costs {CENTRED_FROM:g} points or more", xlabel="step"
    )
    for axes in (top, middle, bottom):
        axes.title.set_fontsize(10)
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return drawn


def _lines(axes: Axes, rows: pd.DataFrame, place: Callable[[str], int] | None = None) -> None:
    plain(axes)
    for i, (name, line) in enumerate(rows.groupby("name", sort=False)):
        color = PALETTE[place(str(name)) if place else i]
        axes.plot(line.step, line.value, color=color, label=str(name).replace("->", "→"), marker="o", markersize=3)
        axes.fill_between(line.step, line.low.astype(float), line.high.astype(float), color=color, alpha=0.15, lw=0)


def main() -> None:
    """Measure what is kept and not measured yet, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="what training was given as --out, or a bundled model")
    parser.add_argument("--stage", default="shown")
    parser.add_argument("--n", type=int, default=20, help="questions of each temporal task")
    parser.add_argument("--tasks", nargs="*", default=TEMPORAL_TASKS, choices=TEMPORAL_TASKS)
    parser.add_argument("--words", action="store_true", help="ask for the answer in words, without options")
    parser.add_argument("--every", type=int, default=1, help="of the kept checkpoints, each so many-th, and the last")
    parser.add_argument("--only", type=int, nargs="*", help="steps of the checkpoints; else those that --every leaves")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--seed", type=int, default=7, help="of the questions")
    parser.add_argument("--out", type=Path, default=Path("out/emergence"), help="without its ending")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    file = args.out.with_suffix(".csv")
    table = pd.read_csv(file) if file.exists() else pd.DataFrame({"step": []})
    questions = [
        question
        for task in args.tasks
        for question in vl.load_dataset("shapes", split=args.split, task=task, n=args.n, seed=args.seed)
    ]
    if args.words:
        questions = [question.open_ended() for question in questions]
    folders = kept(args.run, args.stage)
    chosen = set(args.only or []) or {step for step, _ in folders[:-1][:: args.every] + folders[-1:]}
    for step, folder in folders:
        if step in chosen - set(table.step):
            model = vl.HookedVideoTransformer.from_pretrained(str(folder))
            table = pd.concat([table, pd.DataFrame(measured(model, questions, step))]).sort_values(
                "step", kind="stable"
            )
            table.to_csv(file, index=False)
    figure(table).savefig(args.out.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
