"""What stands in a prompt for its video: runs of placeholders, and the text that a model wants around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from videolens.errors import PromptError
from videolens.prompt.selections import OF_FRAMES


class VideoPiece(NamedTuple):
    """Part of what stands for the video.

    Attributes:
        role: "video": placeholders, one for every video token; "newline", "timestamp" or "separator": anything else.
        frame: the frame that it belongs to.
        text: what is tokenized; None: placeholders.
        n: how many placeholders. A newline that the model's own parameters stand for is a placeholder too.
    """

    role: str
    frame: int
    text: str | None = None
    n: int = 0


@dataclass(frozen=True, eq=False)
class VideoLayout:
    """The video in a prompt.

    Attributes:
        pieces: in order.
        grid: (frames, rows, columns) of the video tokens; they fill it frame by frame, row by row.
        seconds: time of each frame; of merged frames, the time of the first.
        merged: sampled frames that one frame of the grid stands for.

    Raises:
        PromptError: a role that belongs to no frame, placeholders that do not fill the grid, times that do not fit it.
    """

    pieces: tuple[VideoPiece, ...]
    grid: tuple[int, int, int]
    seconds: Float64[Tensor, " frames"]
    merged: int = 1

    def __post_init__(self) -> None:
        frames, rows, columns = self.grid
        if wrong := [piece.role for piece in self.pieces if piece.role not in OF_FRAMES]:
            raise PromptError(f"pieces of a video have the roles {', '.join(OF_FRAMES)}, not {wrong[0]!r}")
        found = sum(piece.n for piece in self.pieces if piece.role == "video")
        if found != frames * rows * columns:
            raise PromptError(
                f"the layout holds {found} video tokens, but its grid of {frames} frames × {rows} rows × {columns} "
                f"columns has {frames * rows * columns}: the family contradicts itself"
            )
        if len(self.seconds) != frames:
            raise PromptError(
                f"{len(self.seconds)} frame times were given for a grid of {frames} frames: give one per frame"
            )

    @property
    def n_placeholders(self) -> int:
        """Tokens whose residual comes from the projector."""
        return sum(piece.n for piece in self.pieces)

    @classmethod
    def plain(
        cls, grid: tuple[int, int, int], *, seconds: Float64[Tensor, " frames"] | None = None, merged: int = 1
    ) -> VideoLayout:
        """Video tokens, frame by frame, with nothing between them. Times are NaN where omitted."""
        frames, rows, columns = grid
        times = torch.full((frames,), torch.nan, dtype=torch.float64) if seconds is None else seconds
        return cls(tuple(VideoPiece("video", i, n=rows * columns) for i in range(frames)), grid, times, merged)
