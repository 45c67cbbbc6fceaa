"""The part of a page that shows the smallest pathway that was found."""

from __future__ import annotations

from markupsafe import Markup

from videolens.drawing.html import render, two_lines
from videolens.experiments.common.statistics import Interval
from videolens.experiments.common.words import number
from videolens.experiments.search.result import ALL_CLOSED, FULL, SIZED, PathwaySearch


def section(result: PathwaySearch) -> Markup:
    """The figure, a table of all pathways, and what the chosen one loses in each task."""
    front = result.front()
    shown = front[~front["pathway"].str.endswith(SIZED) & (front["pathway"] != ALL_CLOSED)]
    rows = []
    for row in shown.itertuples():
        shares = [f"{100 * share:.1f}" for share in (row.live_edges, row.flops, row.accuracy)]
        rows.append([row.pathway, *shares, _points(result.loss(row.pathway))])
    chosen = result.settings.chosen
    return render(
        __file__,
        result=result,
        rows=rows,
        full=f"{100 * result.accuracy(FULL).value:.1f}",
        tasks=[[task or "questions", _points(result.loss(chosen, task=task))] for task in result.tasks],
    )


def _points(lost: Interval) -> Markup:
    """Points lost, and below them their interval."""
    value, low, high = (number(each, 1, sign="") for each in (lost.value, lost.low, lost.high))
    return two_lines(value, f"{low} … {high}")
