"""circuitsvis's view of attention between segments, head by head.

`circuitsvis.attention.attention_heads` gives HTML that loads its script from a content delivery network, or carries the
whole script once per view. Here the script is written once per page (`view.script`), and every view is a call to it.
"""

from __future__ import annotations

import torch

from videolens.drawing.view import View, component
from videolens.experiments.segment_attention.result import SegmentAttention

MOST_HEADS = 64
"""With more heads than this in the model, the view shows layers (mean over heads): a page must stay light."""


SATURATED = 0.5
"""Share of attention from which on the colour is full."""


def attention_view(result: SegmentAttention, *, color: str = "#0072B2", open_when: str | None = None) -> str:
    """An element and the call that fills it with one small heat map per head, ordered so that twelve stand in a row.

    Args:
        result: attention between segments.
        color: of half of the attention or more; no attention is white.
        open_when: id of a `<details>` element; the view is drawn when that is opened first. None: at once.
    """
    mass, names = result.mass, [f"L{layer + 1}" for layer in range(result.n_layers)]
    if result.n_layers * result.n_heads > MOST_HEADS:
        attention = mass.mean(1)
    else:
        # head by head, so that a row of twelve small pictures is one head through the layers
        attention = mass.transpose(0, 1).flatten(0, 1)
        names = [f"{layer} H{head + 1}" for head in range(result.n_heads) for layer in names]
    properties = {
        "attention": _rounded(attention),
        "attentionHeadNames": names,
        "tokens": list(result.segments),
        "minValue": 0,
        "maxValue": SATURATED,
        "positiveColor": color,
        # segments are sets of positions, not positions: "header" has tokens before and after the stem
        "maskUpperTri": False,
    }
    drawn = component("AttentionHeads", properties, salt=result.model + repr(names), open_when=open_when)
    return f'<div class="circuits">{drawn}</div>'


def standalone(result: SegmentAttention, *, title: str = "Attention between segments") -> str:
    """A whole page with one view, for looking at it by itself."""
    return View(title, attention_view(result)).page()


def _rounded(attention: torch.Tensor) -> list:
    """Three decimals: what a tooltip can show."""
    return [[[round(value, 3) for value in row] for row in head] for head in attention.tolist()]
