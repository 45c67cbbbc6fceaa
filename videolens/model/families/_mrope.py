"""Multimodal rotary positions: a video token is turned by its time, its row and its column."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from videolens.errors import ModelError
from videolens.prompt.tokens import TokenMap


def multimodal_positions(tokens: TokenMap, *, interval: float = 1.0) -> Int64[Tensor, "3 pos"]:
    """Rotary positions along three axes (time, height, width) of a prompt with one video.

    1. Text before the video counts 0, 1, 2, … on all axes, up to v − 1.
    2. The video token in row r and column c of frame t is at (v + ⌊t · interval⌋, v + r, v + c).
    3. Text after the video goes on from v + max(rows, columns), on all axes.

    In 3. this follows transformers from version 5 on. Earlier versions, as Qwen2-VL's report has it, went on after the
    largest position on any axis, which is another one where a clip is longer than its frames are high and wide.

    Args:
        tokens: what each position is.
        interval: from one frame of the grid to the next, on the time axis.

    Raises:
        ModelError: other tokens lie between the video tokens.
    """
    video, (frames, rows, columns) = tokens["video"], tokens.grid
    text = torch.arange(tokens.n_pos)
    if not len(video):
        return text.expand(3, -1)
    first, past = int(video[0]), int(video[-1]) + 1
    if past - first != len(video):
        raise ModelError(
            f"{past - first - len(video)} other tokens lie between the {len(video)} video tokens at positions {first} "
            f"to {past - 1}: this model takes the frames of a video one right after the other"
        )
    # in float32 and cut off, as the original counts
    time = (torch.arange(frames, dtype=torch.float32) * interval).long()
    along = torch.cartesian_prod(time, torch.arange(rows), torch.arange(columns)).t() + first
    after = text[: tokens.n_pos - past] + first + max(rows, columns)
    return torch.cat([text[:first].expand(3, -1), along, after.expand(3, -1)], dim=1)
