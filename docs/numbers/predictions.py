"""What knockouts predict of frame swaps, written down before any was asked, and judged: docs/predictions.md.

    python docs/numbers/predictions.py [OUT] [N]     # N questions of each task; asks frame_swaps.py for what OUT lacks

A prediction is a range. It is *held* if the 95 % interval of what is measured lies within it, *refuted* if the interval
lies outside, else it *cannot be told*. Layers count from 1; a patch is at what enters a layer. Effects: 0 as the clean
run, 1 as the run of the clip backwards.

Ranges of layers come from centres of knockouts: what is read around layer c is half read where layer c + ½ begins, and
windows of three layers place c to within 1.5 layers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import frame_swaps
import pandas as pd
from frame_swap_measures import (
    TIMED,
    Measure,
    Prediction,
    at,
    beside,
    curves,
    half_within,
    last,
    right_at_random,
    right_within,
    straight,
    turn,
    video,
    where,
)
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from videolens.drawing.style import INK, PALETTE, RULE, layer_ticks, legend, note, plain, titled
from videolens.experiments.common.statistics import bootstrap_curve
from videolens.experiments.common.words import interval_text, number

Tables = dict[str, pd.DataFrame]
FOUR = ("moving direction", "action sequence", "object count")  # tasks with options that a swap leaves wrong
S, N, SW, NW = "shapes", "shapes-nohint", "shapes in words", "shapes-nohint in words"
BASE, STILL, WITHIN = "shapes-image", "shapes, still clips", "shapes, pathway"


def several(claim: str, says: str, measure: Measure, **ranges: tuple[float, float]) -> list[Prediction]:
    """One statement about several models: by the name of a constant, (low, high)."""
    return [Prediction(claim, says, globals()[name], *ends, measure) for name, ends in ranges.items()]


UP = float("inf")
MIDDLE = ("moving direction", "scene transition")  # of "shapes-nohint": straight into the options, by knockouts
PREDICTIONS: list[Prediction] = [
    # 1. attention between frames comes first: cross-frame centres on 3.4, 1.7; in words on 3.3, 1.7
    *several(
        "1",
        "layer where what tokens carry outweighs their order",
        where(turn),
        S=(2.4, 5.4),
        N=(1, 3.7),
        SW=(2.3, 5.3),
        NW=(1, 3.7),
    ),
    *several("1", "carried − order, entering layer 6", at("carried", 6, minus="order", tasks=TIMED), S=(0.25, UP)),
    *several("1", "carried − order, entering layer 6", at("carried", 6, minus="order", tasks=TIMED), SW=(0.25, UP)),
    *several("1", "carried − order, entering layer 4", at("carried", 4, minus="order", tasks=TIMED), N=(0.25, UP)),
    *several("1", "carried − order, entering layer 4", at("carried", 4, minus="order", tasks=TIMED), NW=(0.25, UP)),
    # knockouts: scene transition needs no cross-frame attention
    *several(
        "1",
        "carried, scene transition, entering layers 4–6",
        at("carried", 4, 5, 6, tasks=("scene transition",)),
        S=(-0.25, 0.25),
    ),
    # the base has none; a swap that changes no answer; the half of a clip that is not asked about
    *several("1", "order, points, entering layer 1", at("order", 1, of="points", every=True), BASE=(-3, 3)),
    *several("1", "order, points, mean of all layers", at("order", of="points", every=True), BASE=(-3, 3)),
    *several("1", "order, answer kept, mean of all layers", at("order", of="kept", every=True), STILL=(0.95, 1)),
    *several(
        "1",
        "asked half − other half, points, entering layer 1",
        at("asked half", 1, minus="other half", of="points"),
        S=(-100, -30),
        N=(-100, -30),
        SW=(-100, -30),
        NW=(-100, -30),
    ),
    *several("1", "asked half, points, entering layer 6", at("asked half", 6, of="points"), S=(-25, 5), SW=(-25, 5)),
    *several("1", "asked half, points, entering layer 4", at("asked half", 4, of="points"), N=(-25, 5), NW=(-25, 5)),
    # 2a. then video → question: 5.9, 4.8; in words video → last: 4.7, 4.5; after cross-frame by 2.5, 3.1, 1.4, 2.8
    *several(
        "2a",
        "layer where half of the video's effect is over",
        where(video),
        S=(4.9, 7.9),
        N=(3.8, 6.8),
        SW=(3.7, 6.7),
        NW=(3.5, 6.5),
    ),
    *several(
        "2a",
        "… later than order turns, in layers",
        where(video, turn),
        S=(1, 4),
        N=(1.6, 4.6),
        SW=(-0.1, 2.9),
        NW=(1.3, 4.3),
    ),
    *several("2a", "question, entering layer 3", at("question", 3), S=(-0.1, 0.1), N=(-0.1, 0.1)),
    *several("2a", "question, entering layer 9", at("question", 9), S=(0.5, UP)),
    *several("2a", "… minus random positions", at("question", 9, minus="random"), S=(0.3, UP)),
    *several("2a", "question, entering layers 5–6", at("question", 5, 6), N=(0.2, UP)),
    *several("2a", "… minus random positions", at("question", 5, 6, minus="random"), N=(0.1, UP)),
    *several("2a", "question, mean of all layers", at("question"), SW=(-0.1, 0.1), NW=(-0.1, 0.1)),
    *several(
        "2a",
        "options whose truth changes − others, entering layers 9–11",
        at("changed options", 9, 10, 11, minus="same options", tasks=FOUR),
        S=(0.1, UP),
    ),
    # 2b. through the stem, or straight into the options; video ↛ stem costs in the four, options in scene transition
    *several("2b", "stem − options, entering layer 8", at("stem", 8, minus="options", tasks=TIMED), S=(0.1, UP)),
    *several(
        "2b",
        "stem − options, scene transition, entering layer 8",
        at("stem", 8, minus="options", tasks=("scene transition",)),
        S=(-UP, -0.1),
    ),
    *several(
        "2b",
        "stem − options, direction and scene transition, entering layers 5–6",
        at("stem", 5, 6, minus="options", tasks=MIDDLE),
        N=(-UP, -0.05),
    ),
    # 3. question → last: 11.1, 4.9, after video → question by 5.3, 0.1; nothing straight; in words all of it
    *several(
        "3",
        "layer where half of the effect has come to the last token",
        where(last),
        S=(10.1, 13),
        N=(3.9, 6.9),
        SW=(3.7, 6.7),
        NW=(3.5, 6.5),
    ),
    *several(
        "3",
        "… later than it has left the video, in layers",
        where(last, video),
        S=(3.8, 6.8),
        N=(-1.4, 1.6),
        SW=(-1.5, 1.5),
        NW=(-1.5, 1.5),
    ),
    *several(
        "3",
        "video with all between it and last held",
        straight,
        S=(-0.1, 0.1),
        N=(-0.1, 0.5),
        SW=(0.5, UP),
        NW=(0.5, UP),
    ),
    *several("3", "last, entering layer 9", at("last", 9), S=(-0.1, 0.1)),
    # 4. the answer appears when integration is over: level up to layer 9, then 49, 68, 100 %
    *several("4", "last, entering layer 10", at("last", 10), S=(-0.1, 0.25)),
    *several("4", "last, entering layer 12", at("last", 12), S=(0.5, UP)),
    *several("4", "video, entering layer 9", at("video", 9), S=(-0.05, 0.05)),
    # 5. the pathway alone: it keeps 99.7 % of single answers, as much at random loses 46 points
    *several("5", "pairs right both ways within the pathway", right_within, WITHIN=(0.95, 1)),
    *several("5", "… with as much cut at random", right_at_random, WITHIN=(0, 0.7)),
    *several("5", "video's half, within the pathway later by, in layers", half_within, WITHIN=(-1, 1)),
]


def tables(out: Path, n: int) -> Tables:
    """What was asked of the first n questions of each task, by name."""
    found = {}
    for name in frame_swaps.ASKED:
        blocks = [path for path in sorted((out / name).glob("*.parquet")) if int(path.stem) < n]
        found[name] = pd.concat(map(pd.read_parquet, blocks))
    return found | {WITHIN: beside(found[WITHIN], found[S])}


def judged(found: Tables) -> pd.DataFrame:
    """A row per prediction: claim, what, asked, predicted, measured, n, verdict."""
    rows = []
    for each in PREDICTIONS:
        measured = each.measure(found[each.asked])
        ends = [
            f"{'−' if end < 0 else ''}∞" if abs(end) == UP else number(float(end), 2, sign="")
            for end in (each.low, each.high)
        ]
        text = interval_text(measured.value, measured.low, measured.high, 2, sign="")
        row = (each.claim, each.says, each.asked, " … ".join(ends), text, measured.n)
        rows.append((*row, each.verdict(measured)))
    return pd.DataFrame(rows, columns=["claim", "what", "model", "predicted", "measured", "n", "verdict"])


def by_task(found: Tables) -> pd.DataFrame:
    """Where curves cross one half, task by task: nothing of this was predicted. "–": tokens never carry a quarter."""
    kinds = {"order turns": turn, "video half over": video, "last half there": last}
    rows = []
    for name in (S, N, SW, NW):
        for task in frame_swaps.ASKED[name].tasks:
            measured = [where(kind, tasks=(task,))(found[name]) for kind in kinds.values()]
            texts = [interval_text(each.value, each.low, each.high, 1, sign="") for each in measured]
            if curves(found[name], "carried", (task,)).mean(0).max() < 0.25:
                texts[0] = "–"
            rows.append((name, task, *texts, measured[0].n))
    return pd.DataFrame(rows, columns=["model", "task", *kinds, "n"])


def draw(found: Tables) -> Figure:
    """Mean effects of what is patched, by the layer that is entered; shaded: where order is predicted to turn."""
    shaded = {each.asked: (each.low, each.high) for each in PREDICTIONS if each.says.startswith("layer where what")}
    units = {"order": "order", "carried": "carried", "question": "question", "last": "last token"}
    figure = Figure(figsize=(9.4, 5.6), dpi=150, layout="constrained")
    for panel, name in zip(figure.subplots(2, 2, sharey=True).flat, shaded, strict=True):
        table = found[name][found[name]["task"].isin(TIMED)]
        panel.axvspan(*shaded[name], color=RULE, alpha=0.6, linewidth=0)
        for unit, colour in zip(units, PALETTE, strict=False):
            mean, low, high = bootstrap_curve(curves(table, unit))
            layers = range(1, len(mean) + 1)
            panel.plot(layers, mean, color=colour, linewidth=1.7)
            panel.fill_between(layers, low, high, color=colour, alpha=0.18, linewidth=0)
        plain(panel)
        titled(panel, name, f"n = {len(curves(table, 'order'))}")
        panel.set_xticks(layer_ticks(len(mean)))
        panel.set_xlabel("layer that is entered (from 1)", fontsize=8, color=INK)
    for panel in figure.axes[::2]:
        panel.set_ylabel("effect (0: clip, 1: backwards)", fontsize=8, color=INK)
    keys = [Line2D([], [], color=colour, label=label) for colour, label in zip(PALETTE, units.values(), strict=False)]
    legend(figure, "Frames change places: what still turns the answer", keys)
    tasks = ", ".join(task for task in TIMED)
    note(
        figure,
        f"Pairs of {tasks}, answered rightly both ways (shapes-nohint as letters: without object count). Mean, "
        "95 % bootstrap over pairs. Shaded: where order and carried are to cross, by knockouts.",
    )
    return figure


def lines(table: pd.DataFrame) -> None:
    """Print a table as Markdown."""
    for row in (table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)):
        print("| " + " | ".join(map(str, row)) + " |")


def main(out: Path, n: int) -> None:
    """Ask what is missing, judge, print tables as Markdown, and draw."""
    frame_swaps.main(out, n)
    found = tables(out, n)
    judgement = judged(found)
    lines(judgement)
    print(judgement["verdict"].value_counts().to_string(), end="\n\n")
    lines(by_task(found))
    draw(found).savefig(out / "predictions.png")


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *("out/numbers/predictions", "100")[len(sys.argv) - 1 :]]
    main(Path(arguments[0]), int(arguments[1]))
