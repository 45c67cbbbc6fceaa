"""A stress test as a figure: accuracy by severity, one panel per perturbation, one line per condition."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from videolens.drawing.style import INK, MUTED, PALETTE, legend, note, plain, titled
from videolens.experiments.stress.result import FULL, NONE, Stress
from videolens.model.checkpoints.files import short_name

_MARKS = "os^Dv<>P"
_APART = 0.12  # of a severity, between the marks of two conditions


def draw(stress: Stress, *, task: str | None = None, perturbations: Sequence[str] | None = None) -> Figure:
    """Shares of right choices with their intervals, beside chance; severity 0 is the question as it is.

    Args:
        stress: what to draw.
        task: of one task; None: of all questions.
        perturbations: which, in this order; None: all.

    Raises:
        SelectionError: a task or a perturbation that is not in this result.
    """
    shown = list(stress.perturbations if perturbations is None else perturbations)
    columns = max(1, min(4, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(2.35 * columns + 0.5, 1.85 * rows + 1.3), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for spare in panels[len(shown) :]:
        spare.remove()
    for axes, perturbation in zip(panels, shown, strict=False):
        _panel(axes, stress, perturbation, task)
    for left in panels[: len(shown) : columns]:
        left.set_ylabel("right (%)", fontsize=8, color=INK)
    for lowest in panels[max(0, len(shown) - columns) : len(shown)]:
        lowest.set_xlabel("severity", fontsize=8, color=INK)
    about = "" if task is None else f", {task}"
    legend(figure, f"Right choices by severity, in full and along pathways{about}", _keys(stress))
    note(figure, _note(stress))
    return figure


def _panel(axes: Axes, stress: Stress, perturbation: str, task: str | None) -> None:
    plain(axes)
    axes.axhline(100 * stress.chance(task), color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    places = [(NONE, 0), *((perturbation, severity) for severity in stress.severities(perturbation))]
    counts = set()
    for number, condition in enumerate(stress.conditions):
        found = [stress.accuracy(name, at, condition=condition, task=task) for name, at in places]
        counts |= {share.n for share in found}
        middle = number - (len(stress.conditions) - 1) / 2
        ends = [  # Wilson's ends can miss 0 and 1 by rounding
            [max(0.0, 100 * (share.value - share.low)) for share in found],
            [max(0.0, 100 * (share.high - share.value)) for share in found],
        ]
        axes.errorbar(
            [at + _APART * middle for _, at in places],
            [100 * share.value for share in found],
            yerr=ends,
            color=_colour(number, condition),
            marker=_MARKS[number % len(_MARKS)],
            markersize=3.2,
            linewidth=1.2,
            elinewidth=0.8,
        )
    axes.set_ylim(-3, 103)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_xlim(-0.35, 3.35)
    axes.set_xticks([at for _, at in places])
    titled(axes, perturbation, f"n = {min(counts)}" if len(counts) == 1 else f"n = {min(counts)}–{max(counts)}")


def _colour(number: int, condition: str) -> str:
    return INK if condition == FULL else PALETTE[(number - 1) % len(PALETTE)]


def _keys(stress: Stress) -> list[Line2D]:
    keys = [
        Line2D([], [], color=_colour(i, name), marker=_MARKS[i % len(_MARKS)], markersize=4, linewidth=1.4, label=name)
        for i, name in enumerate(stress.conditions)
    ]
    return [*keys, Line2D([], [], color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), label="chance")]


def _note(stress: Stress) -> str:
    backwards = "; of a reversed clip the answer that is right backwards" if "reversed" in stress.perturbations else ""
    return (
        f"{short_name(stress.settings.model)}, {stress.n} questions; severity 0: as they are. Bars: Wilson’s 95 %. "
        "Right is the answer of the clip as it was, even where what is left of it does not show it any more"
        f"{backwards}."
    )
