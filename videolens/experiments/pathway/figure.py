"""A pathway as a picture, and what is left of the accuracy: in the manner of the paper's tables 3 and E(a)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from videolens.drawing.style import INK, LAYER, MUTED, PALETTE, layer_ticks, under
from videolens.experiments.common.words import number
from videolens.experiments.pathway.result import FULL, PATHWAY, PathwayAccuracy
from videolens.interventions.cut_routes import CutRoutes
from videolens.model.checkpoints.files import short_name


def draw(result: PathwayAccuracy) -> Figure:
    """Left: open layers of each route. Right: accuracy under every condition, with intervals, all tasks and each."""
    conditions, tasks = result.conditions, result.tasks
    figure = Figure(
        figsize=(10.2, 1.75 + 0.42 * max(len(conditions), len(result.pathway.open_layers))),
        dpi=150,
        layout="constrained",
    )
    picture, panel = figure.subplots(1, 2, width_ratios=(1, 1.25))
    draw_pathway(picture, result.pathway)
    marks = "osD^vPX<>pd*h8"
    for i, condition in enumerate(conditions):
        if len(tasks) > 1:
            for t, task in enumerate(tasks):
                value = 100 * result.mean("correct", condition, task=task).value
                panel.plot(
                    [value],
                    [i + 0.22],
                    marks[t % len(marks)],
                    color=MUTED,
                    markersize=3.5,
                    label=task if i == 0 else None,
                )
        shown = result.mean("correct", condition)
        spread = [[100 * (shown.value - shown.low)], [100 * (shown.high - shown.value)]]
        color = {FULL: INK, PATHWAY: PALETTE[0]}.get(condition, PALETTE[1])
        panel.errorbar([100 * shown.value], [i], xerr=spread, fmt="o", color=color, markersize=6, linewidth=1.8)
        panel.annotate(
            f"{100 * shown.value:.1f}",
            (100 * shown.value, i),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=color,
        )
    chance = 100 * float((1 / result.table["n_options"]).mean())
    panel.axvline(chance, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1, label="chance")
    kept = result.summary().query("task == 'all'").set_index("condition")["live_edges_kept"]
    panel.set_yticks(
        range(len(conditions)), [f"{condition}\n{100 * kept[condition]:.0f} % live" for condition in conditions]
    )
    panel.set_ylim(len(conditions) - 0.45, -0.55)
    panel.set_xlim(-4, 104)  # a mark at 0 is whole
    _bare(panel)
    panel.grid(axis="x", color="#E6E6E6", linewidth=0.6)
    panel.set_xlabel("right choices (%)", fontsize=8, color=INK)
    figure.legend(loc="outside right lower", fontsize=7, frameon=False, labelcolor=INK, handlelength=1.2)
    lost, seeds = result.loss(), result.settings.seeds
    random = f", {seeds} draw{'s' if seeds > 1 else ''} each" if result.settings.random else ""
    under(
        figure,
        f"{short_name(result.settings.model)} along one pathway: {number(-lost.value, 1)} points",
        f"n = {result.n} questions, none left out{random}. Line: 95 % bootstrap over questions; small marks: single "
        f"tasks. Loss along the pathway, paired: {lost.value:.1f} points [{lost.low:.1f}, {lost.high:.1f}].",
    )
    return figure


def draw_pathway(axes: Axes, pathway: CutRoutes) -> None:
    """One strip per route, filled where it is open. Layers count from 1, as in the paper."""
    shown = pathway.open_layers
    for row, (name, chosen) in enumerate(shown.items()):
        for layer in range(pathway.n_layers):
            is_open = layer in chosen
            axes.barh(
                row,
                0.92,
                left=layer + 1 - 0.46,
                height=0.62,
                color=PALETTE[row % len(PALETTE)] if is_open else "#EFEFEF",
                linewidth=0,
            )
        axes.annotate(
            f"{name}: {_ranges(chosen)}", (0.54, row - 0.36), fontsize=8, color=INK, va="bottom", annotation_clip=False
        )
    axes.set_xlim(0.5, pathway.n_layers + 0.5)
    axes.set_ylim(len(shown) - 0.5, -0.75)
    axes.set_xticks(layer_ticks(pathway.n_layers))
    axes.set_yticks([])
    _bare(axes)
    axes.set_xlabel(LAYER, fontsize=8, color=INK)
    axes.set_title(f"open layers ({pathway.name})", fontsize=9, color=INK, loc="left")


def _ranges(layers: tuple[int, ...]) -> str:
    """ "1–6, 9–12", from 1."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(r[0] + 1) if len(r) == 1 else f"{r[0] + 1}–{r[-1] + 1}" for r in runs) or "nowhere"


def _bare(axes: Axes) -> None:
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8, colors=MUTED, labelcolor=INK)
