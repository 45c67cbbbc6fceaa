"""The front of a search: what is left against what is lost; and in which layers the chosen pathway is open."""

from __future__ import annotations

from itertools import cycle

from matplotlib.figure import Figure

from videolens.drawing.style import INK, MUTED, PALETTE, under
from videolens.experiments.pathway.figure import draw_pathway
from videolens.experiments.search.result import ALL_CLOSED, FULL, RANDOM, SIZED, PathwaySearch
from videolens.model.checkpoints.files import short_name


def draw(result: PathwaySearch) -> Figure:
    """Left: accuracy on held-out questions against the share of live edges, a line per order. Right: what is open."""
    figure = Figure(figsize=(10.6, 4.2), dpi=150, layout="constrained")
    panel, picture = figure.subplots(1, 2, width_ratios=(1.35, 1))
    front = result.front().set_index("pathway")
    sized = [name for name in front.index if name.endswith(SIZED)]
    shown = [name for name in front.index if name not in (*sized, ALL_CLOSED)]
    orders = list(dict.fromkeys(result.settings.orders))
    for i, order in enumerate(orders):
        some = front.loc[[name for name in shown if name.startswith(f"{order}, ")]].sort_values("live_edges")
        reach = (some["accuracy"] - some["accuracy_low"], some["accuracy_high"] - some["accuracy"])
        look = {"fmt": "o-", "color": PALETTE[i], "markersize": 4, "elinewidth": 0.8, "label": f"found ({order})"}
        bars = [100 * each.clip(lower=0) for each in reach]
        panel.errorbar(100 * some["live_edges"], 100 * some["accuracy"], yerr=bars, **look)
    others = [name for name in shown if not any(name.startswith(f"{order}, ") for order in orders)]
    marks = dict(zip(dict.fromkeys(map(_called, others)), cycle("sD^vP"), strict=False))
    for name in others:
        row = front.loc[name]
        spread = [[100 * (row["accuracy"] - row["accuracy_low"])], [100 * (row["accuracy_high"] - row["accuracy"])]]
        at, called = 100 * row["live_edges"], _called(name)
        label = called if name == next(one for one in others if _called(one) == called) else None
        panel.errorbar(
            [at], [100 * row["accuracy"]], yerr=spread, fmt=marks[called], color=MUTED, markersize=6, label=label
        )
    chosen = front.loc[result.settings.chosen]
    panel.plot(
        [100 * chosen["live_edges"]],
        [100 * chosen["accuracy"]],
        "o",
        color="none",
        markeredgecolor=INK,
        markersize=11,
        label="chosen",
    )
    full = 100 * result.accuracy(FULL).value
    panel.axhline(full, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), label="nothing cut")
    panel.set_xlabel("live edges that are left (%)", fontsize=8, color=INK)
    panel.set_ylabel("right choices (%)", fontsize=8, color=INK)
    panel.tick_params(labelsize=8, colors=MUTED, labelcolor=INK)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.grid(color="#E6E6E6", linewidth=0.6)
    panel.set_axisbelow(True)
    # above: wherever it lay in the panel, it could lie on a bar
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3, "borderaxespad": 0.2, "columnspacing": 1.2}
    panel.legend(fontsize=7, frameon=False, labelcolor=INK, **above)
    draw_pathway(picture, result.pathway)
    settings = result.settings
    lost = result.loss(settings.chosen)
    under(
        figure,
        f"{short_name(settings.model)}: the smallest pathway that was found",
        f"n = {result.n} questions, none of which it was found on ({settings.n_searched} others). {settings.chosen}: "
        f"{100 * chosen['live_edges']:.1f} % of the live edges, {100 * chosen['flops']:.1f} % of the operations, "
        f"{lost.value:.1f} points lost [{lost.low:.1f}, {lost.high:.1f}]. Bars: 95 % bootstrap over questions.",
    )
    return figure


def _called(name: str) -> str:
    """A name in the legend: random draws have one."""
    return RANDOM if name.startswith(f"{RANDOM} ") else name
