"""Draw the curves of a training log: `python -m training.plot runs/shapes/log.jsonl docs/training.png`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from videolens.datasets.shapes_tasks import STILL_TASKS, TEMPORAL_TASKS

PANELS = (
    ("base: still questions, as letters", "base", "mc", STILL_TASKS),
    ("base: still questions, in words", "base", "open", STILL_TASKS),
    ("tuned: temporal questions, as letters", "tuned", "mc", TEMPORAL_TASKS),
    ("tuned: temporal questions, in words", "tuned", "open", TEMPORAL_TASKS),
)


def figure(lines: list[dict[str, Any]]) -> Figure:
    """Accuracy on validation clips over steps, a panel per stage and way of asking."""
    drawn = Figure(figsize=(10, 6), layout="constrained")
    for axes, (title, stage, way, tasks) in zip(drawn.subplots(2, 2, sharey=True).flat, PANELS, strict=True):
        for task in tasks:
            name = f"{way} {task}"
            points = [(line["step"], 100 * line[name]) for line in lines if line["stage"] == stage and name in line]
            axes.plot(*zip(*points, strict=True), label=task, linewidth=1.6)
        axes.set(title=title, ylim=(-2, 102), xlabel="step")
        axes.title.set_fontsize(10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    drawn.supylabel("first token right (%)", fontsize=10)
    return drawn


def main() -> None:
    """Read a log, write a PNG."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("png", type=Path)
    args = parser.parse_args()
    figure([json.loads(line) for line in args.log.read_text().splitlines()]).savefig(args.png, dpi=110)


if __name__ == "__main__":
    main()
