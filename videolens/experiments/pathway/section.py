"""The part of a page that prunes a model to a pathway."""

from __future__ import annotations

from markupsafe import Markup

from videolens.drawing.html import render, share_cell
from videolens.drawing.view import View
from videolens.experiments.common.statistics import Interval
from videolens.experiments.common.words import interval_text
from videolens.experiments.pathway.choice import Choice
from videolens.experiments.pathway.result import PathwayAccuracy


def section(
    found: PathwayAccuracy, *, choice: Choice | None = None, view: View | None = None, n: int | None = None
) -> Markup:
    """The pathway as a picture with its accuracies, and a table by task.

    Args:
        found: accuracies along the pathway.
        choice: how the pathway was chosen, on other questions.
        view: circuitsvis's view of the edges that it keeps and removes in one prompt.
        n: questions of each task that it was chosen on.
    """
    tasks = [None, *found.tasks] if len(found.tasks) > 1 else [None]
    return render(
        __file__,
        found=found,
        choice=choice,
        n=n,
        kept=_percent(found.edges_kept),
        live=_percent(found.live_edges_kept),
        lost=_points(found.loss()),
        lost_before="" if choice is None else _points(choice.validated.loss()),
        rows=[_row(found, task) for task in tasks],
        view=None if view is None else Markup(view.body),
    )


def _row(found: PathwayAccuracy, task: str | None) -> list[str]:
    """The accuracies of a task; None: of all."""
    shares = [found.mean("correct", condition, task=task) for condition in found.conditions]
    cells = [share_cell(share.value, share.low, share.high) for share in shares]
    return [task or "all", *cells, _points(found.loss(task=task))]


def _percent(interval: Interval) -> str:
    return f"{100 * interval.value:.0f} %"


def _points(interval: Interval) -> str:
    return interval_text(interval.value, interval.low, interval.high, sign="")
