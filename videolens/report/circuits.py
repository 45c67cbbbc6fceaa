"""circuitsvis's attention view, with the JavaScript that comes with the installed package: no network.

`circuitsvis.attention.attention_heads` gives HTML that loads its script from a content delivery network, or carries the
whole script once per view. Here the script is written once per page and every view is a call to it.
"""

from __future__ import annotations

import json
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import torch

from videolens.experiments.attention import SegmentAttention

__all__ = ["attention_view", "script", "standalone"]

MOST_HEADS = 64
"""With more heads than this in the model, the view shows layers (mean over heads): a page must stay light."""


SATURATED = 0.5
"""Share of attention from which on the colour is full."""


def script() -> str:
    """The `<script>` element that defines `CircuitsVis`: about 1.3 MB, once per page."""
    import circuitsvis

    bundle = (Path(circuitsvis.__file__).parent / "dist" / "cdn" / "iife.js").read_text(encoding="utf-8")
    # a closing tag inside a string of the script would end the script for the HTML parser
    return "<script>" + bundle.replace("</script", "<\\/script") + "</script>"


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
    name = f"circuits-vis-{uuid5(NAMESPACE_OID, result.model + repr(names) + repr(properties['attention'])).hex[:12]}"
    draw = f'CircuitsVis.render("{name}", CircuitsVis.AttentionHeads, {_script_safe(properties)})'
    if open_when is not None:
        draw = f'document.getElementById("{open_when}").addEventListener("toggle", () => {draw}, {{once: true}})'
    return f'<div class="circuits"><div id="{name}"></div></div><script>{draw}</script>'


def standalone(result: SegmentAttention, *, title: str = "Attention between segments") -> str:
    """A whole page with one view, for looking at it by itself."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>{script()}</head>'
        f"<body>{attention_view(result)}</body></html>"
    )


def _rounded(attention: torch.Tensor) -> list:
    """Three decimals: what a tooltip can show."""
    return [[[round(value, 3) for value in row] for row in head] for head in attention.tolist()]


def _script_safe(value: object) -> str:
    return json.dumps(value, separators=(",", ":")).replace("</", "<\\/")
