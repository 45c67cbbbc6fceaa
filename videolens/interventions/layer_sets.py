"""Sets of layers: windows that are cut together, and bins of neighbours, scaled to a model's depth.

Map the Flow, section "Attention knockout": 9 of 32 layers around a centre, cut off at the ends. Layers count from 0
here; the paper's text and tables count from 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral

from videolens.errors import VideolensError, near

STYLES = {
    "centre": "a window of layers around each layer",
    "inverse": "all layers but a window around each layer",
    "top-down": "each layer and all after it",
    "bottom-up": "each layer and all before it",
    "first half": "the first half of the layers",
    "second half": "the second half of the layers",
    "halves": "the first half of the layers, then the second",
}
"""Which layers are cut together. Map the Flow, sections "Attention knockout" (centre), "Cumulative blocks" (top-down,
bottom-up) and table 2 (the halves)."""

WINDOWED = ("centre", "inverse")
"""Styles that have a window, whose width can be chosen."""

HALVES = ("first half", "second half", "halves")
"""Styles that cut half of the layers at a time: one or two knockouts of a route, not one per layer."""


def default_window(n_layers: int) -> int:
    """The odd number nearest 9/32 of the layers, at least 1: the paper's 9 at 32 layers. A tie takes the smaller."""
    _check_depth(n_layers)
    return max(1, 2 * math.ceil((9 * n_layers / 32 - 1) / 2 - 0.5) + 1)


def default_bin(n_layers: int) -> int:
    """Layers in a bin: 5/32 of them, rounded, at least 1: the paper's 5 at 32 layers."""
    _check_depth(n_layers)
    return max(1, math.floor(5 * n_layers / 32 + 0.5))


def layer_bins(n_layers: int, width: int | None = None) -> list[range]:
    """Neighbouring layers in bins that do not overlap; the last one takes what is left. `width` None: `default_bin`."""
    width = default_bin(n_layers) if width is None else width
    if not isinstance(width, int) or isinstance(width, bool) or not 1 <= width <= n_layers:
        raise VideolensError(f"a bin of {width!r} layers does not fit a model of {n_layers}: choose 1 … {n_layers}")
    return [range(first, min(n_layers, first + width)) for first in range(0, n_layers, width)]


def window_layers(centre: int, window: int, n_layers: int) -> range:
    """Layers of the window around a 0-based centre: `max(0, l − k//2) … min(L, l − (−k//2)) − 1`.

    An odd k reaches (k − 1)/2 layers to both sides; an even one reaches one layer further down than up. A
    `VideolensError` if the centre is not a layer of the model, or the window does not fit into it.
    """
    check_window(window, n_layers)
    if not 0 <= centre < n_layers:
        raise VideolensError(f"layer {centre} is outside the model: its layers are 0 … {n_layers - 1}")
    return range(max(0, centre - window // 2), min(n_layers, centre - (-window // 2)))


def cut_layers(style: str, window: int | None, n_layers: int) -> dict[int, tuple[int, ...]]:
    """The layers that each knockout of a route cuts, by the 0-based layer that names it.

    "centre": the window around layer l, l = 0 … L − 1. "inverse": all but that window. "top-down":
    l … L − 1. "bottom-up": 0 … l. "first half": 0 … ⌊L/2⌋ − 1, named by its first layer, 0. "second half":
    ⌊L/2⌋ … L − 1, named ⌊L/2⌋. "halves": both.

    Raises:
        VideolensError: an unknown style, a window where there is none or none where there must be, one that does not
            fit, or half of a single layer.
    """
    return dict(_cut_layers(style, window_of(style, window, n_layers), n_layers))


@lru_cache(maxsize=64)  # figures and claims ask a thousand times
def _cut_layers(style: str, window: int | None, n_layers: int) -> dict[int, tuple[int, ...]]:
    """Of a window that fits."""
    every = range(n_layers)
    if style in HALVES:
        middle = n_layers // 2
        halves = {"first half": (0, every[:middle]), "second half": (middle, every[middle:])}
        return {at: tuple(layers) for name, (at, layers) in halves.items() if style in (name, "halves")}
    if style == "top-down":
        return {layer: tuple(every[layer:]) for layer in every}
    if style == "bottom-up":
        return {layer: tuple(every[: layer + 1]) for layer in every}
    assert window is not None
    around = {layer: window_layers(layer, window, n_layers) for layer in every}
    if style == "centre":
        return {layer: tuple(inside) for layer, inside in around.items()}
    outside = {layer: tuple(other for other in every if other not in inside) for layer, inside in around.items()}
    if empty := [layer for layer, layers in outside.items() if not layers]:
        raise VideolensError(
            f"style 'inverse' would cut nothing at layer {empty[0]}: a window of {window} layers around it holds all "
            f"{n_layers} of the model. Choose a smaller window"
        )
    return outside


def cut_words(style: str, window: int | None, n_layers: int) -> str:
    """What one point of a curve stands for, in words."""
    said = {
        "centre": f"each is the centre of a window of {window} of {n_layers}",
        "inverse": f"all {n_layers} are cut but for a window of {window} around each",
        "top-down": f"each is the first that is cut, with all after it, of {n_layers}",
        "bottom-up": f"each is the last that is cut, with all before it, of {n_layers}",
    }
    return said.get(style, f"half of the {n_layers} are cut at a time")


def layer_words(layers: Sequence[int]) -> str:
    """0-based layers in words, counted from 1: "layers 3–7", "layers 1, 4"."""
    if len(layers) > 1 and tuple(layers) == tuple(range(layers[0], layers[-1] + 1)):
        return f"layers {layers[0] + 1}–{layers[-1] + 1}"
    return f"layers {', '.join(str(layer + 1) for layer in layers)}"


def window_of(style: str, window: int | None, n_layers: int) -> int | None:
    """The width of a style's window, `default_window` where it is left open; None for styles that have no window.

    A `VideolensError` for an unknown style, a window that does not fit or is of no use, half of a single layer.
    """
    _check_depth(n_layers)
    if not isinstance(style, str) or style not in STYLES:
        raise VideolensError(near(str(style), STYLES, kind="style of window"))
    if style in HALVES and n_layers < 2:
        raise VideolensError(f"a model of {n_layers} layer has no halves: choose another style")
    if style not in WINDOWED:
        if window is not None:
            raise VideolensError(
                f"style {style!r} cuts {STYLES[style]}, whatever the window: leave out window={window}"
            )
        return None
    window = default_window(n_layers) if window is None else window
    check_window(window, n_layers)
    return int(window)


def check_window(window: int, n_layers: int) -> None:
    """Raise a `VideolensError` if the window is not between one layer and all of them."""
    _check_depth(n_layers)
    if isinstance(window, bool) or not isinstance(window, Integral) or not 1 <= window <= n_layers:
        raise VideolensError(
            f"a window of {window!r} layers does not fit a model of {n_layers}: choose 1 … {n_layers}, "
            f"or None for {default_window(n_layers)} (9 of 32 layers, to scale)"
        )


def _check_depth(n_layers: int) -> None:
    if n_layers < 1:
        raise VideolensError(f"a model has at least one layer, got {n_layers}")
