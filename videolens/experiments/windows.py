"""Windows of layers: which layers are blocked together, scaled to a model's depth.

Map the Flow, section "Attention knockout": 9 of 32 layers around a centre, cut off at the ends. Layers count from 0
here; the paper's text and tables count from 1.
"""

from __future__ import annotations

import math
from numbers import Integral

from videolens.errors import VideolensError

__all__ = ["check_window", "default_bin", "default_window", "layer_bins", "window_layers"]


def default_window(n_layers: int) -> int:
    """The odd number nearest 9/32 of the layers, at least 1: the paper's 9 at 32 layers. A tie takes the smaller."""
    _check_depth(n_layers)
    return max(1, 2 * math.ceil((9 * n_layers / 32 - 1) / 2 - 0.5) + 1)


def default_bin(n_layers: int) -> int:
    """Layers in a bin: 5/32 of them, rounded, at least 1: the paper's 5 at 32 layers."""
    _check_depth(n_layers)
    return max(1, math.floor(5 * n_layers / 32 + 0.5))


def window_layers(centre: int, window: int, n_layers: int) -> range:
    """Layers of the window around a 0-based centre: `max(0, l − k//2) … min(L, l − (−k//2)) − 1`.

    An odd k reaches (k − 1)/2 layers to both sides; an even one reaches one layer further down than up.

    Raises:
        VideolensError: the centre is not a layer of the model, or the window does not fit into it.
    """
    check_window(window, n_layers)
    if not 0 <= centre < n_layers:
        raise VideolensError(f"layer {centre} is outside the model: its layers are 0 … {n_layers - 1}")
    return range(max(0, centre - window // 2), min(n_layers, centre - (-window // 2)))


def layer_bins(n_layers: int, width: int | None = None) -> list[range]:
    """Neighbouring layers in bins that do not overlap; the last one takes what is left. `width` None: `default_bin`."""
    width = default_bin(n_layers) if width is None else width
    if not 1 <= width <= n_layers:
        raise VideolensError(f"a bin of {width} layers does not fit a model of {n_layers}: choose 1 … {n_layers}")
    return [range(first, min(n_layers, first + width)) for first in range(0, n_layers, width)]


def check_window(window: int, n_layers: int) -> None:
    """Raises:
    VideolensError: the window is not between one layer and all of them.
    """
    _check_depth(n_layers)
    if isinstance(window, bool) or not isinstance(window, Integral) or not 1 <= window <= n_layers:
        raise VideolensError(
            f"a window of {window!r} layers does not fit a model of {n_layers}: choose 1 … {n_layers}, "
            f"or None for {default_window(n_layers)} (9 of 32 layers, to scale)"
        )


def _check_depth(n_layers: int) -> None:
    if n_layers < 1:
        raise VideolensError(f"a model has at least one layer, got {n_layers}")
