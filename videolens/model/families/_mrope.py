"""Multimodal rotary positions: a video token is turned by its time, its row and its column."""

from __future__ import annotations

from collections.abc import Sequence

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
    video, frames = tokens["video"], tokens.grid[0]
    if len(video) and (past := int(video[-1]) + 1) - int(video[0]) != len(video):
        raise ModelError(
            f"{past - int(video[0]) - len(video)} other tokens lie between the {len(video)} video tokens at positions "
            f"{int(video[0])} to {past - 1}: this model takes the frames of a video one right after the other"
        )
    # in float32 and cut off, as the original counts
    return _around([video] if len(video) else [], (torch.arange(frames, dtype=torch.float32) * interval).long(), tokens)


def positions_frame_by_frame(tokens: TokenMap) -> Int64[Tensor, "3 pos"]:
    """Rotary positions along three axes of a prompt in which every frame is a block of its own, with text before it.

    1. Text counts on from what is before it, on all axes.
    2. The video token in row r and column c of a frame that begins at v is at (v, v + r, v + c), whatever its time.
    3. Text after a frame goes on from v + max(rows, columns).

    Raises:
        ModelError: two frames without a token between them, or other tokens inside a frame.
    """
    video, (frames, rows, columns) = tokens["video"], tokens.grid
    each = [tokens[f"frame {frame}"] for frame in range(frames)]
    apart = 1 + int((video.diff() > 1).sum())
    if len(video) and (apart != frames or any(int(one[-1] - one[0]) + 1 != rows * columns for one in each)):
        raise ModelError(
            f"the {len(video)} video tokens lie in {apart} pieces, and this model takes each of {frames} frames of "
            f"{rows} × {columns} tokens as a block of its own, with other tokens between them: its time, and what "
            "begins and ends it. Give input_ids a placeholder for every video token, or ask with model.prompt(question)"
        )
    return _around(each, torch.zeros(1, dtype=torch.int64), tokens)


def _around(
    blocks: Sequence[Int64[Tensor, " video"]], time: Int64[Tensor, " frames"], tokens: TokenMap
) -> Int64[Tensor, "3 pos"]:
    """Positions of blocks of video tokens, each of as many frames as there are times, and of the text around them."""
    _, rows, columns = tokens.grid
    inside = torch.cartesian_prod(time, torch.arange(rows), torch.arange(columns)).t()
    parts, done, reached = [], 0, 0
    for block in blocks:
        text = torch.arange(int(block[0]) - done) + reached
        reached += len(text)
        parts += [text.expand(3, -1), inside + reached]
        done, reached = int(block[-1]) + 1, reached + max(rows, columns)
    after = torch.arange(tokens.n_pos - done) + reached
    return torch.cat([*parts, after.expand(3, -1)], dim=1)
