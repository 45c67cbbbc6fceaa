"""What every position of a prompt is: its role, and for a video token its frame, row, column and time.

The base roles partition the prompt: every position has exactly one. All other names (`"frame 3"`, `"true option"`,
`"question"`, `"last"`, …) select from that partition and always give sorted, unique int64 positions.
Token sets as in Map the Flow, section "Definitions"; what the paper leaves in no set (separators between frames, the
glue between video and question, the suffix after the options) has a role of its own here.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int64
from torch import Tensor

from videolens.errors import SelectionError, check_whole, near
from videolens.notebook import Shown
from videolens.prompt.numbered import Places, numbered
from videolens.prompt.selections import (
    CODE,
    DERIVED,
    OF_FRAMES,
    PARTS,
    ROLES,
    Positions,
    arrays_from_spans,
    as_positions,
    contents_words,
    parts,
)


@dataclass(frozen=True, eq=False)
class TokenMap(Shown):
    """What every position of one prompt is.

    pos: positions of the prompt, video tokens in place.

    Attributes:
        role: index into `ROLES`.
        frame: frame of a video token, or of a newline, timestamp or separator; else −1. Frames count from 0. Where a
            model merges neighbouring frames, the merged ones are one frame.
        row, column: place of a video token in its frame's grid, else −1.
        seconds: presentation time of a video token's frame, else NaN.
        option: which option a position belongs to, counted from 0, else −1.
        grid: (frames, rows, columns).
        answer: index of the true option, if known.
        merged: sampled frames that one frame of the map stands for: 2 where the tower merges frames in pairs.
        newest: what "last" is in a prompt that the beginning of its answer follows: the newest token of that. None: the
            last token of the prompt itself.
        texts: the token at each position as a string, if known (for plots).

    Raises:
        SelectionError: the arrays disagree with each other or with the grid.
    """

    role: Int64[Tensor, " pos"]
    frame: Int64[Tensor, " pos"]
    row: Int64[Tensor, " pos"]
    column: Int64[Tensor, " pos"]
    seconds: Float64[Tensor, " pos"]
    option: Int64[Tensor, " pos"]
    grid: tuple[int, int, int]
    answer: int | None = None
    texts: tuple[str, ...] | None = None
    merged: int = 1
    newest: int | None = None

    def __post_init__(self) -> None:
        arrays = ("role", "frame", "row", "column", "seconds", "option")
        shapes = {name: tuple(getattr(self, name).shape) for name in arrays}
        if len(set(shapes.values())) > 1 or len(shapes["role"]) != 1:
            raise SelectionError(f"a token map needs one value per position in every array, got shapes {shapes}")
        if self.texts is not None and len(self.texts) != self.n_pos:
            raise SelectionError(f"{len(self.texts)} token texts were given for {self.n_pos} positions")
        if self.n_pos and not 0 <= int(self.role.min()) <= int(self.role.max()) < len(ROLES):
            raise SelectionError(f"role codes must lie in 0 … {len(ROLES) - 1}, got {self.role.unique().tolist()}")
        self._check_video()
        self._check_options()
        self._check_order()

    def _check_video(self) -> None:
        frames, rows, columns = self.grid
        video = self._of("video")
        if len(video) != frames * rows * columns:
            raise SelectionError(
                f"the grid is {frames} frames × {rows} rows × {columns} columns = {frames * rows * columns} video "
                f"tokens, but {len(video)} positions are video tokens: the grid and the video tokens must agree"
            )
        cell = (self.frame[video] * rows + self.row[video]) * columns + self.column[video]
        if not torch.equal(cell, torch.arange(len(video))):
            raise SelectionError("video tokens must run frame by frame, row by row, each cell of the grid exactly once")
        other = self.role != CODE["video"]
        if bool((self.row[other] != -1).any() or (self.column[other] != -1).any()):
            raise SelectionError("a position that is not a video token has a row or a column: it must be −1")
        of_frames = torch.isin(self.role, torch.tensor([CODE[role] for role in OF_FRAMES]))
        if bool((self.frame[~of_frames] != -1).any()):
            raise SelectionError(f"a position whose role is none of {', '.join(OF_FRAMES)} has a frame: it must be −1")

    def _check_options(self) -> None:
        labelled = self.option[self._of("option")]
        if int((self.option >= 0).sum()) != int((labelled >= 0).sum()):
            raise SelectionError("a position outside the options carries an option number: it must be −1")
        if labelled.unique().tolist() not in (list(range(self.n_options)), [-1]):
            raise SelectionError(f"options must be numbered 0, 1, … without gaps, got {labelled.unique().tolist()}")
        if self.answer is not None and not 0 <= self.answer < self.n_options:
            raise SelectionError(f"the answer is option {self.answer}, but the prompt has {self.n_options} options")

    def _check_order(self) -> None:
        prompt, response = self._prompt(), self._of("response")
        if len(prompt) == 0:
            raise SelectionError("a token map needs at least one position that is neither response nor padding")
        if len(response) and int(response[0]) < int(prompt[-1]):
            raise SelectionError(f"response position {int(response[0])} is before the prompt's last, {int(prompt[-1])}")
        if self.newest is not None and self.newest not in response.tolist():
            raise SelectionError(f"the newest token is at {self.newest}, where no response is: {response.tolist()}")

    @property
    def contents(self) -> str:
        """What there is besides positions, as `contents_words` says it."""
        return contents_words(self.grid, self.n_options)

    def __repr__(self) -> str:
        return f"TokenMap({self.n_pos} positions{self.contents})"

    @property
    def n_pos(self) -> int:
        """Positions in all."""
        return len(self.role)

    @property
    def n_options(self) -> int:
        """Numbered options; 0 in an open-ended prompt."""
        return int(self.option.max()) + 1 if self.n_pos else 0

    @property
    def roles(self) -> list[str]:
        """The role of every position by name."""
        return [ROLES[code] for code in self.role.tolist()]

    @property
    def names(self) -> list[str]:
        """Every name this map answers to, except unions."""
        frames = [f"frame {i}" for i in range(self.grid[0])]
        options = [f"option {letter}" for letter in string.ascii_uppercase[: self.n_options]]
        return [*ROLES, *frames, *options, *DERIVED, *PARTS]

    def __getitem__(self, name: str) -> Int64[Tensor, " n"]:
        """Positions of a selection, sorted and unique; `"a | b"` is the union of both.

        One video token is named as in `labels`: "f3 r0 c2" is frame 3, row 0, column 2. "part V frame 3" is all that
        stands for frame 3; "response 0-4" the first five generated tokens, both ends included. A base role that does
        not occur gives no positions; a derived name without any is an error.

        Raises:
            SelectionError: the name is unknown, or this prompt has no such thing (an option, a known answer).
        """
        if not isinstance(name, str):
            raise SelectionError(near(name, self.names, kind="selection"))
        if name not in self._selected:
            self._selected[name] = self._union(name)
        return self._selected[name].clone()

    @cached_property
    def _selected(self) -> dict[str, Int64[Tensor, " n"]]:
        """Selections that have been asked for: a sweep asks for the same ones again and again."""
        return {}

    def _union(self, name: str) -> Int64[Tensor, " n"]:
        return torch.cat([self._select(part.strip()) for part in name.split("|")]).unique()

    def _select(self, name: str) -> Int64[Tensor, " n"]:
        if name in CODE:
            return self._of(name)
        if name == "all":
            return torch.arange(self.n_pos)
        if name in PARTS:
            return (parts(self.role, self.frame) == PARTS.index(name)).nonzero().flatten()
        if name == "last":
            return self._prompt()[-1:] if self.newest is None else torch.tensor([self.newest])
        if name in ("question", "options"):
            found = self._of("option", *(("header", "stem") if name == "question" else ()))
            if len(found) == 0:
                raise SelectionError(f"{name!r}: this prompt has none; say it in `spans`, or ask another question")
            return found
        if name in ("true option", "false options"):
            if self.n_options == 0:
                raise SelectionError(f"{name!r}: this prompt has no options; ask a multiple-choice question")
            if self.answer is None:
                raise SelectionError(f"{name!r}: the answer is not known; give the Question an answer")
            same = self.option == self.answer
            return (same if name == "true option" else (self.option >= 0) & ~same).nonzero().flatten()
        places = Places(self.role, self.frame, self.row, self.column, self.option, self.grid)
        if (counted := numbered(name, places)) is not None:
            return counted
        raise SelectionError(near(name, self.names, kind="selection") + "; join several with ' | '")

    def _of(self, *roles: str) -> Int64[Tensor, " n"]:
        codes = torch.tensor([CODE[role] for role in roles])
        return torch.isin(self.role, codes).nonzero().flatten()

    def _prompt(self) -> Int64[Tensor, " n"]:
        return ((self.role != CODE["response"]) & (self.role != CODE["pad"])).nonzero().flatten()

    def labels(self) -> list[str]:
        """One short label per position for plots: "f3 r0 c2" for a video token, else its text or its role."""
        cells = zip(self.frame.tolist(), self.row.tolist(), self.column.tolist(), strict=True)
        places = [f"f{frame} r{row} c{column}" for frame, row, column in cells]
        texts = self.roles if self.texts is None else self.texts
        return [place if role == "video" else text for role, place, text in zip(self.roles, places, texts, strict=True)]

    def segments(self) -> list[tuple[str, Int64[Tensor, " n"]]]:
        """The prompt in a few named parts, in the order in which they begin; every position is in exactly one.

        "system", "frame 0" …, "separator", "glue", "header", "stem", "options", "suffix", "last", "response", "pad":
        those that occur. "last" is taken out of the part that it ends.
        """
        parts = {name: self._of("option" if name == "options" else name) for name in (*ROLES, "options")}
        parts |= {f"frame {i}": self[f"frame {i}"] for i in range(self.grid[0])}
        del parts["video"], parts["option"]
        last = self["last"]
        parts = {name: at[~torch.isin(at, last)] for name, at in parts.items()} | {"last": last}
        return sorted(((name, at) for name, at in parts.items() if len(at)), key=lambda part: int(part[1][0]))

    def with_response(self, n: int, *, texts: Sequence[str] | None = None) -> TokenMap:
        """This map with `n` generated positions after it."""
        check_whole("n", n, most=2**20, error=SelectionError)
        texts = texts if texts is not None else ("response",) * n
        return self._longer("response", (0, n), None if self.texts is None else (*self.texts, *texts))

    def answered(self, n: int, *, texts: Sequence[str] | None = None) -> TokenMap:
        """This map with the first `n` tokens of an answer after it, the newest of which is "last": where the next token
        is asked for."""
        longer = self.with_response(n, texts=texts)
        return replace(longer, newest=longer.n_pos - 1) if n else longer

    def padded(self, n: int) -> TokenMap:
        """This map with `n` positions of padding before it."""
        check_whole("n", n, most=2**20, error=SelectionError)
        return self._longer("pad", (n, 0), None if self.texts is None else (*("pad",) * n, *self.texts))

    def _longer(self, role: str, more: tuple[int, int], texts: tuple[str, ...] | None) -> TokenMap:
        fills = {"role": CODE[role], "frame": -1, "row": -1, "column": -1, "seconds": torch.nan, "option": -1}
        arrays: dict[str, Any] = {name: F.pad(getattr(self, name), more, value=fill) for name, fill in fills.items()}
        newest = None if self.newest is None else self.newest + more[0]
        return replace(self, **arrays, texts=texts, newest=newest)

    @classmethod
    def from_spans(
        cls,
        n_pos: int,
        spans: Mapping[str, Positions],
        *,
        grid: tuple[int, int, int],
        video: Positions,
        seconds: Float64[Tensor, " frames"] | None = None,
        texts: Sequence[str] | None = None,
    ) -> TokenMap:
        """A map from named positions, for a prompt that was not assembled by a template.

        1. Video positions, in order, fill the grid frame by frame, row by row.
        2. `spans` may name any base role, "option A" …, or "true option" and "false options" (each run of neighbours
           is then one option, numbered in order of position).
        3. A position that no span covers gets its role from its place: "system" before the video, "separator" inside
           it, "header" inside the question, "glue" before and "suffix" after the question.
        4. Other known names in `spans` ("last", "question", "frame 0", …) must come out as given.

        Args:
            n_pos: positions in all, video tokens in place.
            spans: positions by name: integers, a range, a slice, or a tensor.
            grid: (frames, rows, columns).
            video: the positions of the video tokens.
            seconds: time of each frame.
            texts: the token at each position.

        Raises:
            SelectionError: unknown name, positions outside the prompt, overlapping spans, or a span that disagrees.
        """
        check_whole("n_pos", n_pos, most=2**20, error=SelectionError)
        arrays = arrays_from_spans(n_pos, spans, grid=grid, video=video, seconds=seconds)
        made = cls(**arrays, grid=grid, texts=None if texts is None else tuple(texts))
        if made.answer is None and {"true option", "false options"} & spans.keys():
            raise SelectionError(
                f"the span 'true option' must be exactly one of the prompt's {made.n_options} options, and "
                "'false options' exactly the others"
            )
        for name, where in spans.items():
            given = as_positions(name, where, n_pos)
            if name not in CODE and not torch.equal(made[name], given):
                raise SelectionError(
                    f"span {name!r} was given as {given.tolist()}, but the other spans make it {made[name].tolist()}"
                )
        return made
