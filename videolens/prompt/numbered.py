"""Selections that count something: a frame, an option, a cell of the video's grid, tokens of the answer."""

from __future__ import annotations

import re
import string
from typing import NamedTuple

from jaxtyping import Int64
from torch import Tensor

from videolens.errors import SelectionError
from videolens.prompt.selections import CODE, part_frames


class Places(NamedTuple):
    """What a token map knows of its positions; its attributes are those of `TokenMap`."""

    role: Int64[Tensor, " pos"]
    frame: Int64[Tensor, " pos"]
    row: Int64[Tensor, " pos"]
    column: Int64[Tensor, " pos"]
    option: Int64[Tensor, " pos"]
    grid: tuple[int, int, int]


def numbered(name: str, places: Places) -> Int64[Tensor, " n"] | None:
    """Positions of "frame 3", "part V frame 3", "option B", "f3 r0 c2", "response 2" or "response 0-4" (both ends
    included); None if the name is none of these, or the prompt has no such frame or option.

    Raises:
        SelectionError: a cell outside the grid, or tokens that the answer does not have.
    """
    if match := re.fullmatch(r"(part V )?frame (0|[1-9]\d*)", name):
        if (i := int(match[2])) >= places.grid[0]:
            return None
        if match[1]:
            return (part_frames(places.role, places.frame) == i).nonzero().flatten()
        return ((places.frame == i) & (places.role == CODE["video"])).nonzero().flatten()
    if match := re.fullmatch(r"option ([A-Z])", name):
        found = (places.option == string.ascii_uppercase.index(match[1])).nonzero().flatten()
        return found if len(found) else None
    if match := re.fullmatch(r"f(\d+) r(\d+) c(\d+)", name):
        cell = [int(number) for number in match.groups()]
        if all(number < size for number, size in zip(cell, places.grid, strict=True)):
            of_cell = (places.frame == cell[0]) & (places.row == cell[1]) & (places.column == cell[2])
            return of_cell.nonzero().flatten()
        frames, rows, columns = places.grid
        raise SelectionError(
            f"{name!r} is outside the grid of {frames} frames × {rows} rows × {columns} columns; they count from 0"
        )
    if match := re.fullmatch(r"response (\d+)(?:-(\d+))?", name):
        return _of_response(name, int(match[1]), int(match[2] or match[1]), places.role)
    return None


def _of_response(name: str, first: int, last: int, role: Int64[Tensor, " pos"]) -> Int64[Tensor, " n"]:
    written = (role == CODE["response"]).nonzero().flatten()
    if not first <= last < len(written):
        there = f"its tokens are 0 … {len(written) - 1}" if len(written) else "no answer follows this prompt"
        raise SelectionError(f"{name!r} is not in the answer: {there}")
    return written[first : last + 1]
