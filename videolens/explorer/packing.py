"""Numbers in little room: eight bits with a scale, compressed, as text that stands inside a page."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

LEVELS = 255


def packed(content: bytes) -> str:
    """Bytes, compressed and in base64. The same bytes give the same text: no time is written down."""
    return base64.b64encode(gzip.compress(content, compresslevel=6, mtime=0)).decode()


def unpacked(text: str) -> bytes:
    """The bytes of `packed`."""
    return gzip.decompress(base64.b64decode(text))


def in_8_bits(values: Float[Tensor, "*scale key"]) -> tuple[Float[Tensor, " *scale"], UInt8[Tensor, "*scale key"]]:
    """Numbers from 0 on in 255 steps, each row of keys with its own largest value as the full step.

    Read back as `scale × step / 255`, a number is wrong by half a step at most: by 1/510 where it is a share.
    """
    scale = values.amax(dim=-1)
    steps = values / scale.clamp(min=torch.finfo(values.dtype).tiny)[..., None] * LEVELS
    return scale, steps.round().to(torch.uint8)


def pack_rows(values: Float[Tensor, "layer head key"]) -> str:
    """A token's attention: the scale of every layer and head in float32, then the steps in bytes."""
    scale, steps = in_8_bits(values)
    return packed(scale.float().numpy().astype("<f4").tobytes() + steps.numpy().tobytes())


def unpack_rows(text: str, n_layers: int, n_heads: int) -> Float[np.ndarray, "layer head key"]:
    """What `pack_rows` has kept, as the page reads it."""
    content = unpacked(text)
    n = n_layers * n_heads
    scale = np.frombuffer(content[: 4 * n], "<f4").reshape(n_layers, n_heads, 1)
    return scale * np.frombuffer(content[4 * n :], np.uint8).reshape(n_layers, n_heads, -1) / LEVELS


def runs_of(positions: Int[Tensor, " n"] | Iterable[int]) -> list[list[int]]:
    """Sorted positions as [first, last] of everything that hangs together: a video of 10,000 tokens is one."""
    found: list[list[int]] = []
    for at in positions.tolist() if isinstance(positions, Tensor) else positions:
        if found and at == found[-1][1] + 1:
            found[-1][1] = at
        else:
            found.append([at, at])
    return found
