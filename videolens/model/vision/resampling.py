"""Resizing frames exactly as PIL does, in plain torch: filters with antialiasing, fixed-point weights, whole levels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

_FIXED = 2.0**22  # PIL rounds its weights to multiples of 2⁻²²


def _linear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = −1/2."""
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


FILTERS: dict[int, tuple[str, float, Callable[[Tensor], Tensor]]] = {
    1: ("lanczos", 3.0, _lanczos),
    2: ("bilinear", 1.0, _linear),
    3: ("bicubic", 2.0, _cubic),
}
"""PIL's code of a filter → its name, its reach in pixels, and the filter."""


def resize(
    pixels: Float[Tensor, "*batch height width"], size: tuple[int, int], resample: int
) -> Float64[Tensor, "*batch h w"]:
    """Levels 0 … 255 at another size: across first, then down, whole levels after each.

    Args:
        pixels: whole levels.
        size: (height, width).
        resample: a key of `FILTERS`.
    """
    pixels = pixels.to(torch.float64)
    if size[1] != pixels.shape[-1]:
        pixels = _levels(pixels @ _weights(pixels.shape[-1], size[1], resample).t())
    if size[0] != pixels.shape[-2]:
        pixels = _levels(_weights(pixels.shape[-2], size[0], resample) @ pixels)
    return pixels


def _levels(pixels: Tensor) -> Tensor:
    return (pixels + 0.5).floor().clamp(0, 255)


def _weights(n_in: int, n_out: int, resample: int) -> Float64[Tensor, "out in"]:
    """What each pixel of a line contributes to each pixel of the resized line; every product with a level is exact."""
    _, reach, kernel = FILTERS[resample]
    scale = n_in / n_out
    centre = (torch.arange(n_out, dtype=torch.float64)[:, None] + 0.5) * scale
    place = torch.arange(n_in, dtype=torch.float64)
    # A shrinking filter is stretched over the pixels that it merges: antialiasing.
    stretch = max(scale, 1.0)
    first = (centre - reach * stretch + 0.5).clamp(min=0).floor()
    past = (centre + reach * stretch + 0.5).floor()
    weights = kernel((place + 0.5 - centre) / stretch) * ((place >= first) & (place < past))
    weights = weights / weights.sum(1, keepdim=True)
    return torch.trunc(weights * _FIXED + 0.5 * weights.sign()) / _FIXED
