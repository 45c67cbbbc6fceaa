"""Attention between segments as a figure: what each part of the prompt looks at, layer by layer."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from videolens.drawing.style import INK, MUTED, PALETTE, layer_axis, under
from videolens.experiments.segment_attention.result import SegmentAttention

GROUPS = (
    ("own frame", PALETTE[5]),
    ("(other) frames", PALETTE[0]),
    ("system and other text", "#D4D4D4"),
    ("stem", PALETTE[4]),
    ("options", PALETTE[1]),
    ("suffix and last", "#8A8A8A"),
)
TARGETS = ("frames", "stem", "options", "last")


def draw(result: SegmentAttention) -> Figure:
    """One panel per kind of target; heights are shares of attention, mean over heads and prompts."""
    figure = Figure(figsize=(10, 2.75), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(TARGETS), sharey=True)
    layers = np.arange(1, result.n_layers + 1)
    handles: dict[str, Artist] = {}
    for axes, target in zip(panels, TARGETS, strict=True):
        shares = _shares(result, target)
        bands = axes.stackplot(layers, *shares, colors=[color for _, color in GROUPS], linewidth=0)
        for (name, _), band, share in zip(GROUPS, bands, shares, strict=True):
            if float(np.max(share)) > 0:
                handles.setdefault(name, band)
        layer_axis(axes, result.n_layers)
        axes.set_xlim(1, result.n_layers)
        axes.set_xticks(np.unique(np.linspace(1, result.n_layers, 5).round().astype(int)))
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 0.5, 1], ["0", "50", "100 %"])
        for side in axes.spines.values():
            side.set_visible(False)
        axes.tick_params(length=0, labelsize=8, colors=MUTED, labelcolor=INK)
        title = "the last token looks at" if target == "last" else f"tokens of the {target} look at"
        axes.set_title(title, fontsize=9, loc="left", color=INK)
    names = [name for name, _ in GROUPS if name in handles]
    figure.legend(
        [handles[name] for name in names],
        names,
        loc="outside upper right",
        ncols=len(names),
        fontsize=7.5,
        frameon=False,
        handlelength=1,
    )
    note = (
        f"Layer from 1. {result.model}, n = {result.n} prompts. Sum over the tokens looked at; mean over the "
        f"looking tokens, {result.n_heads} heads and prompts."
    )
    under(figure, f"Attention of {result.model}", note)
    return figure


def _shares(result: SegmentAttention, target: str) -> list[Float[np.ndarray, " layer"]]:
    """For each group of sources, what the target pays to it at every layer."""
    mass = result.mass.mean(1).double()
    names = list(result.segments)
    frames = [i for i, name in enumerate(names) if name.startswith("frame ")]
    named = [names.index(target)] if target in names else []
    rows = frames if target == "frames" else named
    total = torch.zeros(len(GROUPS), result.n_layers, dtype=torch.float64)
    for row in rows:
        for column, name in enumerate(names):
            if name.startswith("frame "):
                group = 0 if column == row else 1
            elif name in ("stem", "options"):
                group = 3 if name == "stem" else 4
            elif name in ("suffix", "last", "response", "pad"):
                group = 5
            else:
                group = 2
            total[group] += mass[:, row, column] / len(rows)
    return list(total.numpy())
