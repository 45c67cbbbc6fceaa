"""Names of token positions, and what each position of a prompt is: its role, and its part.

Selections named by role leave things out (separators between frames, what stands between video and question, the
suffix), and information leaks through whatever a knockout does not name. The four parts leave no position out: part P,
everything before the video; part V, the frames with their separators and timestamps; part Q, everything after the video
up to the end of the last option (of the question, if it has none); part A, the rest: the suffix, the last token, and
what is generated.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from videolens.errors import SelectionError, near

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

CODE = {role: code for code, role in enumerate(ROLES)}
"""Of every role, its index in `ROLES`."""

OF_FRAMES = ("video", "newline", "timestamp", "separator")
"""Roles whose tokens belong to a frame."""

DERIVED = ("question", "options", "true option", "false options", "last", "all")

PARTS = ("part P", "part V", "part Q", "part A")
"""Of a prompt; every position is in exactly one, except padding, which is in none."""

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
    """The arrays of a `TokenMap`, by attribute name. Rules and errors are those of `TokenMap.from_spans`."""
    frames, rows, columns = grid
    at = _positions_by_name(n_pos, spans, grid, video)
    if len(at["video"]) != frames * rows * columns:
        raise SelectionError(
            f"{len(at['video'])} video positions do not fill a grid of {frames} frames × {rows} rows × {columns} "
            f"columns = {frames * rows * columns}: the grid and the video tokens must agree"
        )
    if seconds is not None and len(seconds) != frames:
        raise SelectionError(f"{len(seconds)} frame times were given for {frames} frames: give one per frame")
    numbered = _number_options(at)
    role = _claimed_roles(n_pos, at, numbered)
    option = torch.full((n_pos,), -1)
    for i, where in enumerate(numbered):
        option[where] = i

    # 1. video positions fill the grid
    frame, row, column = torch.full((3, n_pos), -1)
    times = torch.full((n_pos,), torch.nan, dtype=torch.float64)
    if len(at["video"]):
        cells = torch.arange(frames * rows * columns)
        frame[at["video"]] = cells // (rows * columns)
        row[at["video"]] = cells // columns % rows
        column[at["video"]] = cells % columns
        times[at["video"]] = torch.nan if seconds is None else seconds[cells // (rows * columns)]

    # 3. a position that no span covers gets its role from its place
    asked = [at[name] for name in ("header", "stem", "question") if name in at]
    question = torch.cat([torch.arange(0), *numbered, *asked])
    begin, end = (int(question.min()), int(question.max())) if len(question) else (n_pos, -1)
    start, stop = (int(at["video"][0]), int(at["video"][-1])) if len(at["video"]) else (begin, -1)
    for i in (role < 0).nonzero().flatten().tolist():
        if start <= i <= stop:
            role[i], frame[i] = CODE["separator"], frame[i - 1]
        else:
            role[i] = CODE["system" if i < start else "suffix" if i > end else "header" if i >= begin else "glue"]

    places = {"frame": frame, "row": row, "column": column, "seconds": times}
    return {"role": role, **places, "option": option, "answer": _answer(at, numbered)}


def _positions_by_name(
    n_pos: int, spans: Mapping[str, Positions], grid: tuple[int, int, int], video: Positions
) -> dict[str, Int64[Tensor, " n"]]:
    """The positions of every span and of the video."""
    frames, letters = (f"frame {i}" for i in range(grid[0])), (f"option {x}" for x in string.ascii_uppercase)
    known = [*ROLES, *DERIVED, *frames, *letters]
    if not isinstance(spans, Mapping):
        raise SelectionError(f"spans are positions by name, {{'stem': [17, 18, 19], …}}, got {type(spans).__name__}")
    for name in spans:
        if name not in known:
            raise SelectionError(near(name, known, kind="span"))
    at = {name: as_positions(name, where, n_pos) for name, where in {**spans, "video": video}.items()}
    if "video" in spans and not torch.equal(as_positions("video", spans["video"], n_pos), at["video"]):
        raise SelectionError("the span 'video' is not where the video tokens are: leave it out, the model finds it")
    return at


def _claimed_roles(n_pos: int, at: Mapping[str, Tensor], numbered: Sequence[Tensor]) -> Int64[Tensor, " pos"]:
    """The role of every position that a span covers, else −1: two spans of different roles may not share one."""
    role = torch.full((n_pos,), -1)
    claims = [(name, where, name) for name, where in at.items() if name in CODE and name != "option"]
    claims += [(f"option {letter(i)}", where, "option") for i, where in enumerate(numbered)]
    for name, where, base in claims:
        if bool((taken := role[where] >= 0).any()):
            raise SelectionError(
                f"positions {where[taken].tolist()} of span {name!r} are already in "
                f"{ROLES[int(role[where][taken][0])]!r}: a position has exactly one role"
            )
        role[where] = CODE[base]
    return role


def as_positions(name: str, where: Positions, n_pos: int) -> Int64[Tensor, " n"]:
    """Sorted, unique positions from any way of writing them down.

    A `SelectionError` if they are no integers (a mask, say), or lie outside the prompt.
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


def parts(role: Int64[Tensor, " pos"], frame: Int64[Tensor, " pos"]) -> Int64[Tensor, " pos"]:
    """Index into `PARTS` of every position; −1 for padding. Without video everything before the question is part P.

    Args:
        role: index into `ROLES`.
        frame: frame that a position belongs to, else −1.
    """
    place = torch.arange(len(role))
    padding = role == CODE["pad"]
    asked = torch.isin(role, torch.tensor([CODE[name] for name in ("header", "stem", "option")]))
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
    numbered = r"(part V )?frame (0|[1-9]\d*)|option [A-Z]|f\d+ r\d+ c\d+|response \d+(-\d+)?|"
    known = re.compile(numbered + "|".join((*ROLES, *DERIVED, *PARTS)))
    return all(known.fullmatch(part.strip()) for part in name.split("|"))


def is_by_role(name: str) -> bool:
    """Whether a selection, or a union of such, is the same positions in all prompts whose roles and frames are alike:
    not so single options, and cells of the video's grid."""
    return all(
        not re.fullmatch(r"true option|false options|option [A-Z]|f\d+ r\d+ c\d+", one.strip())
        for one in name.split("|")
    )


def contents_words(grid: tuple[int, int, int], n_options: int) -> str:
    """What a prompt has: ", 128 of them video (8 frames × 4 × 4), 4 options"; nothing if nothing."""
    frames, rows, columns = grid
    video = f", {frames * rows * columns} of them video ({frames} frames × {rows} × {columns})" if frames else ""
    return video + (f", {n_options} options" if n_options else "")
