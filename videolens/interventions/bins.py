"""Neighbouring layers in bins: a twelfth or a sixth of a model at a time, as the paper's tables summarise it."""

from __future__ import annotations

import math

from videolens.errors import VideolensError

__all__ = ["default_bin", "layer_bins"]


def default_bin(n_layers: int) -> int:
    """Layers in a bin: 5/32 of them, rounded, at least 1: the paper's 5 at 32 layers."""
    if n_layers < 1:
        raise VideolensError(f"a model has at least one layer, got {n_layers}")
    return max(1, math.floor(5 * n_layers / 32 + 0.5))


def layer_bins(n_layers: int, width: int | None = None) -> list[range]:
    """Neighbouring layers in bins that do not overlap; the last one takes what is left. `width` None: `default_bin`."""
    width = default_bin(n_layers) if width is None else width
    if not 1 <= width <= n_layers:
        raise VideolensError(f"a bin of {width} layers does not fit a model of {n_layers}: choose 1 … {n_layers}")
    return [range(first, min(n_layers, first + width)) for first in range(0, n_layers, width)]
