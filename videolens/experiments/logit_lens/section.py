"""The part of a page that reads the video tokens as words."""

from __future__ import annotations

from markupsafe import Markup

from videolens.drawing.html import render
from videolens.experiments.logit_lens.result import LogitLens


def section(lens: LogitLens, *, layer: int | None = None, note: str = "") -> Markup:
    """Words on the frames of one clip, and the layers in which keywords are found.

    Args:
        lens: the readings.
        layer: 0-based layer whose words are written on the frames; None: `words_at`.
        note: what to keep in mind about this model.
    """
    return render(__file__, lens=lens, layer=words_at(lens) if layer is None else layer, note=note)


def words_at(lens: LogitLens) -> int:
    """0-based layer two thirds up: most of what crosses frames has done so by then."""
    return max(0, (2 * lens.settings.n_layers) // 3 - 1)
