"""The part of a page that shows attention between segments."""

from __future__ import annotations

from markupsafe import Markup

from videolens.drawing.html import render
from videolens.drawing.style import PALETTE
from videolens.experiments.segment_attention.result import SegmentAttention
from videolens.experiments.segment_attention.view import attention_view

FOLDED = "attention-of-the-base"


def section(attention: SegmentAttention, *, base: SegmentAttention | None = None) -> Markup:
    """Shares of attention by layer, and circuitsvis's view of every head.

    Args:
        attention: of the model.
        base: of a second model; its view is drawn when it is unfolded.
    """
    return render(
        __file__,
        results=[attention] if base is None else [attention, base],
        view=Markup(attention_view(attention, color=PALETTE[0])),
        base=base,
        folded=FOLDED,
        base_view="" if base is None else Markup(attention_view(base, color=PALETTE[1], open_when=FOLDED)),
    )
