"""Resizing frames exactly as PIL does, in plain torch: filters with antialiasing, fixed-point weights, whole levels."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from jaxtyping import Float64, UInt8
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


_AT_ONCE = 16  # lines that are made together: what they are made of is read once, and nothing else is in memory
_VALUES = 2**17  # of a frame that are in float64 at a time

Block = tuple[slice, slice, Float64[Tensor, "out in"]]
"""Some lines, the lines that they are made of, and what each of these contributes to each of them."""


def resize(
    frame: UInt8[Tensor, "height width channel"], size: tuple[int, int], resample: int
) -> UInt8[Tensor, "channel h w"]:
    """A frame at another size: across first, then down, whole levels after each.

    A line of the result is made of a few lines of the frame, so only those are brought to float64, some at a time:
    for all of a 4K frame that would take 190 MiB. Sums are exact, in whatever order they are taken.

    Args:
        frame: levels 0 … 255.
        size: (height, width).
        resample: a key of `FILTERS`.
    """
    height, width, channels = frame.shape
    across = frame.permute(2, 0, 1)
    if size[1] != width:
        across = frame.new_empty(channels, height, size[1])
        for made, of, weights in _blocks(width, size[1], resample):
            n_rows = max(1, _VALUES // (channels * len(weights[0])))
            for row in range(0, height, n_rows):
                lines = frame[row : row + n_rows, of].permute(2, 0, 1)
                lines = lines.to(torch.float64, memory_format=torch.contiguous_format)
                across[:, row : row + n_rows, made] = _levels(lines @ weights.t())
    if size[0] == height:
        return across
    down = frame.new_empty(channels, *size)
    for made, of, weights in _blocks(height, size[0], resample):
        down[:, made] = _levels(weights @ across[:, of].to(torch.float64))
    return down


def _levels(pixels: Tensor) -> UInt8[Tensor, "..."]:
    return pixels.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=8)
def _blocks(n_in: int, n_out: int, resample: int) -> tuple[Block, ...]:
    """The lines of an axis, `_AT_ONCE` at a time, with the weights that are not 0."""
    found = []
    for start in range(0, n_out, _AT_ONCE):
        made = slice(start, min(start + _AT_ONCE, n_out))
        weights = _weights(n_in, n_out, resample, made)
        used = weights.any(0).nonzero().flatten()
        of = slice(int(used[0]), int(used[-1]) + 1)
        found.append((made, of, weights[:, of].clone()))
    return tuple(found)


def _weights(n_in: int, n_out: int, resample: int, made: slice) -> Float64[Tensor, "out in"]:
    """What each pixel of a line contributes to pixels of the resized line; every product with a level is exact."""
    _, reach, kernel = FILTERS[resample]
    scale = n_in / n_out
    centre = (torch.arange(made.start, made.stop, dtype=torch.float64)[:, None] + 0.5) * scale
    place = torch.arange(n_in, dtype=torch.float64)
    # A shrinking filter is stretched over the pixels that it merges: antialiasing.
    stretch = max(scale, 1.0)
    first = (centre - reach * stretch + 0.5).clamp(min=0).floor()
    past = (centre + reach * stretch + 0.5).floor()
    weights = kernel((place + 0.5 - centre) / stretch) * ((place >= first) & (place < past))
    weights = weights / weights.sum(1, keepdim=True)
    return torch.trunc(weights * _FIXED + 0.5 * weights.sign()) / _FIXED
