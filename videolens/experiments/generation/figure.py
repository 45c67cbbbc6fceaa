"""How it is drawn: `GenerationTrace.figure()` calls `draw`. Layers and anchors are counted from 1 here."""

from __future__ import annotations

from matplotlib.figure import Figure

from videolens.drawing.style import grid_of_axes, legend, note
from videolens.experiments.flow.lines import arrow, color_of, counts, key, level_flat, line, panel
from videolens.experiments.generation.result import ROUTES, GenerationTrace
from videolens.model.checkpoints.files import short_name

MOST = 6


def draw(trace: GenerationTrace, *, task: str | None = None) -> Figure:
    """One panel for each of the first six anchors, one line per route, with 95 % bands.

    Args:
        trace: what to draw.
        task: of the questions; None: all.

    Raises:
        SelectionError: the task is not in this trace.
    """
    if task is not None:
        trace._known("task", task, trace.tasks)
    shown = [anchor for anchor in trace.anchors if anchor in set(trace.table["anchor"])][:MOST]
    figure, panels = grid_of_axes(len(shown))
    for axes, anchor in zip(panels, shown, strict=True):
        flow = trace.flow(anchor)
        for i, route in enumerate(ROUTES):
            if route in flow.routes:
                line(axes, flow, route, task, color_of(i), measure="answer", alpha=0.15)
        panel(axes, flow, f"anchor {anchor + 1}", counts(flow, flow.routes, [task], "answer"))
    legend(figure, "What a word of the answer rests on", [key(arrow(r), color_of(i)) for i, r in enumerate(ROUTES)])
    level_flat(panels[0], "percent")
    note(figure, _note(trace, task, len(trace.anchors) - len(shown)))
    return figure


def _note(trace: GenerationTrace, task: str | None, undrawn: int) -> str:
    made = trace.settings
    which = "all tasks" if task is None else task
    parts = [
        f"Layers count from 1; each is the centre of a window of {made.window} of {made.n_layers}.",
        f"{short_name(made.model)}, {which}: answers with at least {made.n_anchors} anchors ({made.anchors}), "
        f"{trace.n} of {made.n_asked}.",
        "“response”: the answer's tokens before the last; the one just before the last may always be read.",
        "Band: 95 % bootstrap over questions.",
    ]
    return " ".join(parts + ([f"{undrawn} more anchors are not drawn."] if undrawn else []))
