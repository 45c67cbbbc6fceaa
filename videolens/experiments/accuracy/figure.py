"""Accuracy as a figure: one panel per task, one row per condition, one mark per model."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from videolens.drawing.style import INK, MUTED, PALETTE, under
from videolens.errors import SelectionError, near
from videolens.experiments.accuracy.result import Accuracy


def draw(result: Accuracy, *, tasks: Sequence[str] | None = None) -> Figure:
    """Shares of right choices with their intervals, beside chance.

    Raises:
        SelectionError: a task is not in this result.
    """
    for task in tasks or []:
        if task not in result.tasks:
            raise SelectionError(near(task, result.tasks, kind="task in this result"))
    chosen = list(tasks or result.tasks)
    columns = min(5, len(chosen))
    rows = -(-len(chosen) // columns)
    height = 0.62 + 0.34 * len(result.conditions)
    figure = Figure(figsize=(2.05 * columns + 1.0, height * rows + 0.95), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for spare in panels[len(chosen) :]:
        spare.remove()
    for axes, task in zip(panels, chosen, strict=False):
        _panel(axes, result, task)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=4, fontsize=8, frameon=False, handlelength=1.2)
    under(
        figure,
        "Right choices (%), with the clip as it is and with its time changed",
        "Line: 95 % interval (Wilson). Dotted: chance. The choice is the option whose letter is ranked first among "
        "the options.",
    )
    return figure


def _panel(axes: Axes, result: Accuracy, task: str) -> None:
    conditions, models = result.conditions, result.models
    chance = 100 * result.chance(task)
    axes.axvline(chance, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1, label="chance")
    counts = set()
    for m, model in enumerate(models):
        offset = (m - (len(models) - 1) / 2) * 0.26
        found = [(c, result.share(model, task, condition)) for c, condition in enumerate(conditions)]
        shares = [(c + offset, share) for c, share in found if share is not None]
        counts |= {share.n for _, share in shares}
        at, x = [place for place, _ in shares], [100 * share.value for _, share in shares]
        # Wilson's ends can miss 0 and 1 by rounding
        spread = [
            [max(0.0, 100 * (share.value - share.low)) for _, share in shares],
            [max(0.0, 100 * (share.high - share.value)) for _, share in shares],
        ]
        color = PALETTE[m % len(PALETTE)]
        axes.errorbar(x, at, xerr=spread, fmt="os^D"[m % 4], color=color, markersize=4.5, linewidth=1.4, label=model)
    axes.set_xlim(-3, 103)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_ylim(len(conditions) - 0.45, -0.55)
    axes.set_yticks(range(len(conditions)), conditions)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8, colors=MUTED, labelcolor=INK)
    axes.set_title(task, fontsize=9, color=INK, loc="left")
    count = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)}–{max(counts)}"
    axes.set_title(f"n = {count}", fontsize=7.5, color=MUTED, loc="right")
