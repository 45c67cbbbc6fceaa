"""How it is drawn: `Toy.figure()` calls `draw`."""

from __future__ import annotations

from matplotlib.figure import Figure

from videolens.drawing.style import INK, MUTED, PALETTE, plain, under
from videolens.experiments.toy.result import Toy


def draw(result: Toy) -> Figure:
    """One column for each task: a small dot for every question, and the mean with its interval."""
    figure = Figure(figsize=(2 + 1.3 * len(result.tasks), 3), dpi=150, layout="constrained")
    axes = figure.subplots()
    plain(axes)
    for column, task in enumerate(result.tasks):
        entropies = result.table.loc[result.table["task"] == task, "entropy"]
        mean = result.mean(task)
        axes.plot([column] * len(entropies), entropies, "o", color=MUTED, alpha=0.4, markersize=3)
        axes.plot([column, column], [mean.low, mean.high], color=PALETTE[0], linewidth=2)
        axes.plot(column, mean.value, "o", color=PALETTE[0], markersize=6)
    axes.set_xticks(range(len(result.tasks)), result.tasks)
    axes.set_xlim(-0.6, len(result.tasks) - 0.4)
    axes.set_ylabel("entropy (bits)", fontsize=8, color=INK)
    under(figure, "How undecided the model is", f"Small: a question. Line: 95 % bootstrap interval. n = {result.n}.")
    return figure
