"""Answer traces as a figure, in the manner of Map the Flow's figure 9: true and false options, one panel per task.

Layers are numbered from 1 here, as in the paper's figures; the figure says so. Everywhere else they count from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from videolens.drawing.style import INK, MUTED, PALETTE, grid_of_axes, layer_axis, legend, note, plain, titled
from videolens.errors import SelectionError, near
from videolens.experiments.answer_trace.result import AnswerTrace
from videolens.experiments.common.conditions import CLEAN
from videolens.model.checkpoints.files import short_name

Style = Literal["-"] | tuple[float, tuple[float, ...]]
STYLES: tuple[Style, ...] = ("-", (0.0, (4.0, 1.6)), (0.0, (1.0, 1.2)), (0.0, (5.0, 1.2, 1.0, 1.2)))
COLOURS = {"true": PALETTE[0], "false": PALETTE[1], "unknown": MUTED, "model's answer": PALETTE[3]}
LABELS = {
    "true": "true option",
    "false": "false options (mean)",
    "unknown": "options, answer unknown (mean)",
    "model's answer": "the model's own answer, none of the options",
}
ALL = "all tasks"


def draw(trace: AnswerTrace, *, tasks: Sequence[str] | None = None, conditions: Sequence[str] | None = None) -> Figure:
    """Mean probability at the last token after every layer, with its 95 % band.

    Args:
        trace: what to draw.
        tasks: one panel for each; None: all, and one for all together.
        conditions: None: all. "clean" and three interventions are drawn; the small print names what is left.

    Raises:
        SelectionError: a task or a condition is not in this trace.
    """
    for what, given, known in (("task", tasks, trace.tasks), ("condition", conditions, trace.conditions)):
        for name in given or []:
            if name not in known:
                raise SelectionError(near(name, known, kind=f"{what} in this answer trace"))
    wanted = list(conditions or trace.conditions)
    shown = wanted[: len(STYLES)]
    panels: list[str | None] = list(tasks or trace.tasks)
    if tasks is None and len(panels) > 1:
        panels.append(None)
    figure, axes = grid_of_axes(len(panels))
    for panel, task in zip(axes, panels, strict=True):
        _panel(panel, trace, task, shown)
    for panel in axes:
        if panel.get_ylabel():
            panel.set_ylabel("probability at the last token", fontsize=8, color=INK)
    axes[0].set_ylim(-0.02, 1.02)
    legend(figure, "The answer, layer by layer", _keys(trace, shown))
    note(figure, _note(trace, wanted[len(STYLES) :]))
    return figure


def _panel(axes: Axes, trace: AnswerTrace, task: str | None, conditions: Sequence[str]) -> None:
    plain(axes)
    layers, n = np.arange(1, trace.settings.n_layers + 1), 0
    for condition, style in zip(conditions, STYLES, strict=False):
        for kind in trace.kinds:
            if len(trace.probabilities(kind, task=task, condition=condition)) == 0:
                continue
            curve, color = trace.curve(kind, task=task, condition=condition), COLOURS[kind]
            axes.plot(layers, curve.mean, color=color, linewidth=1.7, linestyle=style, zorder=3)
            alpha = 0.2 if style == "-" else 0.1
            axes.fill_between(layers, curve.low, curve.high, color=color, alpha=alpha, linewidth=0, zorder=2)
            n = max(n, curve.n)
    if CLEAN in conditions and "true" in trace.kinds and len(trace.probabilities("true", task=task)):
        where = trace.rise(task=task).layer
        if not np.isnan(where.value):
            axes.axvspan(where.low + 0.75, where.high + 1.25, color=PALETTE[2], alpha=0.13, linewidth=0, zorder=0)
            axes.axvline(where.value + 1, color=PALETTE[2], linewidth=0.9, zorder=1)
    layer_axis(axes, trace.settings.n_layers)
    titled(axes, (ALL if task is None else task) or "questions", f"n = {n}")


def _keys(trace: AnswerTrace, conditions: Sequence[str]) -> list[Line2D]:
    keys = [Line2D([], [], color=COLOURS[kind], linewidth=1.7, label=LABELS[kind]) for kind in trace.kinds]
    if len(conditions) > 1 or conditions != [CLEAN]:
        keys += [
            Line2D([], [], color=MUTED, linewidth=1.7, linestyle=style, label=condition)
            for condition, style in zip(conditions, STYLES, strict=False)
        ]
    if "true" in trace.kinds and CLEAN in conditions:
        keys.append(
            Line2D(
                [],
                [],
                color=PALETTE[2],
                alpha=0.35,
                linestyle="none",
                marker="s",
                markersize=7,
                label="layer that adds most (clean)",
            )
        )
    return keys


def _note(trace: AnswerTrace, undrawn: Sequence[str]) -> str:
    """The small print, and the conditions for which there was no style of line left."""
    made = trace.settings
    kept = {"correct": "answered rightly", "wrong": "answered wrongly", "all": "all"}[made.samples]
    left_out = f" Not drawn: {', '.join(undrawn)}." if undrawn else ""
    return (
        f"Hidden state after each layer, counted from 1 as in the paper, read through the lens: {made.lens}; "
        f"probability of the option's first token among all tokens. {short_name(made.model)}, questions: {kept} "
        f"({trace.n} of {made.n_asked}). Bands: 95 % bootstrap over questions.{left_out}"
    )
