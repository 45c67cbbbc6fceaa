"""A prompt in four parts that leave no position out: before the video, the video, what is asked, and the rest.

Named selections leave things out (separators between frames, what stands between video and question, the suffix), and
information leaks through whatever a knockout does not name. These parts do not: part P, everything before the video;
part V, the frames with their separators and timestamps; part Q, everything after the video up to the end of the last
option (of the question, if it has none); part A, the rest: the suffix, the last token, and what is generated.
"""

from __future__ import annotations

import re

import torch
from jaxtyping import Int64
from torch import Tensor

from videolens.prompt.selections import DERIVED, ROLES

__all__ = ["PARTS", "is_selection", "part_frames", "parts"]

PARTS = ("part P", "part V", "part Q", "part A")

_CODE = {role: code for code, role in enumerate(ROLES)}


def parts(role: Int64[Tensor, " pos"], frame: Int64[Tensor, " pos"]) -> Int64[Tensor, " pos"]:
    """Index into `PARTS` of every position; −1 for padding. Without video everything before the question is part P.

    Args:
        role: index into `ROLES`.
        frame: frame that a position belongs to, else −1.
    """
    place = torch.arange(len(role))
    padding = role == _CODE["pad"]
    asked = torch.isin(role, torch.tensor([_CODE[name] for name in ("header", "stem", "option")]))
    of_frame = (frame >= 0).nonzero().flatten()
    first_asked = int(asked.nonzero()[0]) if bool(asked.any()) else int(place[-1]) + 1
    begin, stop = (int(of_frame[0]), int(of_frame[-1]) + 1) if len(of_frame) else (first_asked, first_asked)
    end = max(stop, int(asked.nonzero()[-1]) + 1 if bool(asked.any()) else 0)
    part = (place >= begin).long() + (place >= stop) + (place >= end)
    return torch.where(padding, -1, part)


def part_frames(role: Int64[Tensor, " pos"], frame: Int64[Tensor, " pos"]) -> Int64[Tensor, " pos"]:
    """The frame of every position of part V, else −1: a token inside the video that names no frame goes with the frame
    before it."""
    inside = parts(role, frame) == PARTS.index("part V")
    place = torch.where(frame >= 0, torch.arange(len(frame)), -1)
    before = place.cummax(0).values if len(place) else place
    return torch.where(inside, frame[before.clamp(min=0)], -1)


def is_selection(name: str) -> bool:
    """Whether some prompt may have a selection of this name, or a union of such: "stem", "frame 3 | last"."""
    known = re.compile(r"frame (0|[1-9]\d*)|option [A-Z]|f\d+ r\d+ c\d+|" + "|".join((*ROLES, *DERIVED, *PARTS)))
    return all(known.fullmatch(part.strip()) for part in name.split("|"))
