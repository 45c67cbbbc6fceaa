"""The part of a page that shows accuracies."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from videolens.drawing.html import render, share_cell, two_lines
from videolens.experiments.accuracy.result import Accuracy


def section(accuracy: Accuracy, *, still: Sequence[str] = ()) -> Markup:
    """Accuracy per task under every condition.

    Args:
        accuracy: the answers.
        still: tasks that one frame answers; they stand in a table of their own, as is.
    """
    shown = [task for task in accuracy.tasks if task not in still] or accuracy.tasks
    apart = [task for task in accuracy.tasks if task not in shown]
    counts = sorted({int(n) for n in accuracy.summary()["n"]})
    pairs = [(model, condition) for model in accuracy.models for condition in accuracy.conditions]
    return render(
        __file__,
        accuracy=accuracy,
        shown=shown,
        n=f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}",
        head=["task", "chance", *(two_lines(model, condition) for model, condition in pairs)],
        rows=[_row(accuracy, task, pairs) for task in shown],
        still_head=["task", "chance", *accuracy.models],
        still_rows=[_row(accuracy, task, [(model, "as is") for model in accuracy.models]) for task in apart],
    )


def _row(accuracy: Accuracy, task: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The task, chance, and the share of right choices of each model and condition, with its interval."""
    shares = [accuracy.share(model, task, condition) for model, condition in pairs]
    cells = ["–" if share is None else share_cell(share.value, share.low, share.high) for share in shares]
    return [task, f"{100 * accuracy.chance(task):.0f}", *cells]
