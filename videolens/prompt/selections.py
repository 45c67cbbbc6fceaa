"""Token positions given by name, and the role that each position of a prompt gets from them."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from videolens.errors import SelectionError, near

__all__ = ["DERIVED", "OF_FRAMES", "ROLES", "Positions", "arrays_from_spans", "as_positions", "letter"]

ROLES = (
    "system",
    "video",
    "newline",
    "timestamp",
    "separator",
    "glue",
    "header",
    "stem",
    "option",
    "suffix",
    "response",
    "pad",
)
"""Base roles. `newline`, `timestamp`, `separator`: tokens around and between video tokens that end a row or a clip,
tell the time, or do neither; they belong to a frame. `glue`: between video and question; `header`: inside the question
but neither stem nor option ("Question:", "Options:"); `suffix`: after the question to the end of the prompt;
`response`: generated after the prompt."""

_CODE = {role: code for code, role in enumerate(ROLES)}

OF_FRAMES = ("video", "newline", "timestamp", "separator")
"""Roles whose tokens belong to a frame."""

DERIVED = ("question", "options", "true option", "false options", "last", "all")

Positions = Tensor | Sequence[int] | range | slice | int


def letter(option: int) -> str:
    """The letter of an option, counted from 0: "A", "B", …, "Z"."""
    if not 0 <= option < 26:
        raise SelectionError(f"option {option} has no letter: a question can have at most 26 options")
    return string.ascii_uppercase[option]


def arrays_from_spans(
    n_pos: int,
    spans: Mapping[str, Positions],
    *,
    grid: tuple[int, int, int],
    video: Positions,
    seconds: Float64[Tensor, " frames"] | None = None,
) -> dict[str, Any]:
    """The arrays of a `TokenMap`, by attribute name. The rules are those of `TokenMap.from_spans`, numbered as there.

    Raises:
        SelectionError: see `TokenMap.from_spans`.
    """
    known = [
        *ROLES,
        *DERIVED,
        *(f"frame {i}" for i in range(grid[0])),
        *(f"option {x}" for x in string.ascii_uppercase),
    ]
    if not isinstance(spans, Mapping):
        raise SelectionError(f"spans are positions by name, {{'stem': [17, 18, 19], …}}, got {type(spans).__name__}")
    for name in spans:
        if name not in known:
            raise SelectionError(near(name, known, kind="span"))
    at = {name: as_positions(name, where, n_pos) for name, where in {**spans, "video": video}.items()}
    if "video" in spans and not torch.equal(as_positions("video", spans["video"], n_pos), at["video"]):
        raise SelectionError("the span 'video' is not where the video tokens are: leave it out, the model finds it")
    frames, rows, columns = grid
    if len(at["video"]) != frames * rows * columns:
        raise SelectionError(
            f"{len(at['video'])} video positions do not fill a grid of {frames} frames × {rows} rows × {columns} "
            f"columns = {frames * rows * columns}: the grid and the video tokens must agree"
        )
    if seconds is not None and len(seconds) != frames:
        raise SelectionError(f"{len(seconds)} frame times were given for {frames} frames: give one per frame")
    numbered = _number_options(at)
    role = torch.full((n_pos,), -1)
    option = role.clone()
    claims = [(name, where, name) for name, where in at.items() if name in _CODE and name != "option"]
    claims += [(f"option {letter(i)}", where, "option") for i, where in enumerate(numbered)]
    for name, where, base in claims:
        if bool((taken := role[where] >= 0).any()):
            raise SelectionError(
                f"positions {where[taken].tolist()} of span {name!r} are already in "
                f"{ROLES[int(role[where][taken][0])]!r}: a position has exactly one role"
            )
        role[where] = _CODE[base]
    for i, where in enumerate(numbered):
        option[where] = i

    # 1. the grid
    frame, row, column = torch.full((3, n_pos), -1)
    times = torch.full((n_pos,), torch.nan, dtype=torch.float64)
    if len(at["video"]):
        cells = torch.arange(frames * rows * columns)
        frame[at["video"]] = cells // (rows * columns)
        row[at["video"]] = cells // columns % rows
        column[at["video"]] = cells % columns
        times[at["video"]] = torch.nan if seconds is None else seconds[cells // (rows * columns)]

    # 3. what no span covers, by place
    asked = [at[name] for name in ("header", "stem", "question") if name in at]
    question = torch.cat([torch.arange(0), *numbered, *asked])
    begin, end = (int(question.min()), int(question.max())) if len(question) else (n_pos, -1)
    start, stop = (int(at["video"][0]), int(at["video"][-1])) if len(at["video"]) else (begin, -1)
    for i in (role < 0).nonzero().flatten().tolist():
        if start <= i <= stop:
            role[i], frame[i] = _CODE["separator"], frame[i - 1]
        elif i < start:
            role[i] = _CODE["system"]
        elif i > end:
            role[i] = _CODE["suffix"]
        else:
            role[i] = _CODE["header" if i >= begin else "glue"]

    answer = _answer(at, numbered)
    places = {"frame": frame, "row": row, "column": column, "seconds": times}
    return {"role": role, **places, "option": option, "answer": answer}


def as_positions(name: str, where: Positions, n_pos: int) -> Int64[Tensor, " n"]:
    """Sorted, unique positions from any way of writing them down.

    Raises:
        SelectionError: they are no integers (a mask, say), or lie outside the prompt.
    """
    if isinstance(where, slice):
        where = range(n_pos)[where]
    if not isinstance(where, Tensor):
        try:
            where = torch.as_tensor([where] if isinstance(where, int) else list(where))
        except (TypeError, ValueError, RuntimeError) as error:
            raise SelectionError(
                f"span {name!r} is {where!r}: give positions, such as [17, 18] or range(17, 19)"
            ) from error
    if where.numel() and (where.dtype == torch.bool or where.dtype.is_floating_point or where.dtype.is_complex):
        raise SelectionError(
            f"span {name!r} holds values of {where.dtype}: give integer positions; of a mask, mask.nonzero()"
        )
    at = where.flatten().to("cpu", torch.int64).unique()
    if len(at) and not 0 <= int(at[0]) <= int(at[-1]) < n_pos:
        raise SelectionError(
            f"span {name!r} has positions {int(at[0])} … {int(at[-1])}, but the prompt's run from 0 to {n_pos - 1}"
        )
    return at


def _answer(at: Mapping[str, Tensor], numbered: Sequence[Tensor]) -> int | None:
    """The option that is the true one, or that the false ones leave over; None if neither says."""
    true, false = at.get("true option"), at.get("false options")
    for i, where in enumerate(numbered):
        others = torch.cat([torch.arange(0), *(each for j, each in enumerate(numbered) if j != i)]).unique()
        if torch.equal(where, true) if true is not None else false is not None and torch.equal(others, false):
            return i
    return None


def _number_options(at: Mapping[str, Tensor]) -> list[Tensor]:
    """The positions of each option, in order: from "option A" …, else from the runs of the true and false options."""
    lettered = [at[f"option {one}"] for one in string.ascii_uppercase if f"option {one}" in at]
    if lettered:
        return lettered
    runs = [at["true option"]] if "true option" in at else []
    for name in ("false options",) if runs or "false options" in at else ("option", "options"):
        where = at.get(name, torch.arange(0))
        breaks = (where.diff() != 1).nonzero().flatten() + 1
        runs += [run for run in where.tensor_split(breaks) if len(run)]
    return sorted(runs, key=lambda run: int(run[0]))
