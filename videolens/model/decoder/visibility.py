"""What rows see, as runs: the structure that lets masked attention run without a mask.

Most rows of a prompt, whatever is blocked, come in *runs*: neighbours that all see the same earlier keys and, causally,
one another. Attention over a run needs no mask: the earlier keys are open to all its rows, and the run itself is what
causal kernels are made for. Inside a cross-frame knockout every frame is a run that sees the text before the video and
itself; under `video -> question` the question is a run that sees everything but the video. Only rows without such a
structure keep a mask of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64
from torch import Tensor

_ROWS_AT_A_TIME = 512  # of a mask that is being read; memory for reading is this many rows × keys
_SHORT = 8  # runs below this length are not worth a kernel call each
_MASKED_ROWS = 128  # rows that share one explicit mask
_MANY_SPANS = 6

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class RowRun:
    """Neighbouring rows that see the same keys.

    Attributes:
        first, stop: which rows, as indices.
        spans: ranges of keys that every row of the run sees.
        own: index of the first row's own key, if the rows see one another causally as well; else None.
        repeat: how many equal runs, one after the other, the rows are: each sees the spans and itself.
        mask: for rows without that structure, which of the spans' keys each row sees.
    """

    first: int
    stop: int
    spans: tuple[Span, ...]
    own: int | None = None
    repeat: int = 1
    mask: Bool[Tensor, "row key"] | None = None

    @property
    def pairs(self) -> int:
        """Visible (row, key) pairs."""
        if self.mask is not None:
            return int(self.mask.sum())
        n, each = self.stop - self.first, (self.stop - self.first) // self.repeat
        own = 0 if self.own is None else self.repeat * each * (each + 1) // 2
        return n * sum(stop - first for first, stop in self.spans) + own


@dataclass(frozen=True, eq=False)
class Visible:
    """What each of some rows sees of some keys.

    Attributes:
        runs: cover the rows in order.
        n_rows, n_keys: how many there are.
    """

    runs: tuple[RowRun, ...]
    n_rows: int
    n_keys: int

    @property
    def pairs(self) -> int:
        """Visible (row, key) pairs: what attention costs."""
        return sum(run.pairs for run in self.runs)

    @classmethod
    def causal(cls, rows: Int64[Tensor, " row"], keys: Int64[Tensor, " key"]) -> Visible:
        """Every row sees the keys at its position and before."""
        n_rows, n_keys = len(rows), len(keys)
        if n_rows == 1 and bool(keys[-1] <= rows[0]):
            return cls((RowRun(0, 1, ((0, n_keys),)),), n_rows, n_keys)
        together = bool((rows[1:] == rows[:-1] + 1).all()) and torch.equal(keys[-n_rows:], rows)
        if together:
            before = n_keys - n_rows
            return cls((RowRun(0, n_rows, ((0, before),) if before else (), own=before),), n_rows, n_keys)
        return cls.of(lambda some: some[:, None] >= keys, rows, keys)

    @classmethod
    def of(
        cls,
        mask_of: Callable[[Int64[Tensor, " some"]], Bool[Tensor, "some key"]],
        rows: Int64[Tensor, " row"],
        keys: Int64[Tensor, " key"],
    ) -> Visible:
        """Read a mask a few rows at a time and find its runs.

        1. Two neighbouring rows belong to one run if both see themselves, and the later one sees what the earlier one
           does and itself, nothing else.
        2. Runs too short to be worth a call are put together under an explicit mask.
        3. Equal runs that follow one another are counted, to be computed together.

        Args:
            mask_of: positions of some rows → which keys each of them sees.
            rows: positions of all rows.
            keys: positions of the keys.
        """
        place = torch.searchsorted(keys, rows)
        runs: list[RowRun] = []
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            stop = min(start + _ROWS_AT_A_TIME, len(rows))
            found = _runs(mask_of(rows[start:stop]), place[start:stop].tolist(), start)
            if runs and found and (joined := _continued(runs[-1], found[0])) is not None:
                runs[-1], found = joined, found[1:]
            runs += found
        return cls(_counted(runs), len(rows), len(keys))

    def dense(self, device: torch.device) -> Bool[Tensor, "row key"]:
        """The same as a mask."""
        mask = torch.zeros(self.n_rows, self.n_keys, dtype=torch.bool, device=device)
        for run in self.runs:
            if run.mask is not None:
                columns = torch.cat([torch.arange(first, stop) for first, stop in run.spans]).to(device)
                mask[run.first : run.stop, columns] = run.mask.to(device)
                continue
            for first, stop in run.spans:
                mask[run.first : run.stop, first:stop] = True
            if run.own is not None:
                each = (run.stop - run.first) // run.repeat
                triangle = torch.ones(each, each, dtype=torch.bool, device=device).tril()
                for i in range(run.repeat):
                    row, key = run.first + i * each, run.own + i * each
                    mask[row : row + each, key : key + each] = triangle
        return mask


def _runs(mask: Bool[Tensor, "row key"], place: Sequence[int], offset: int) -> list[RowRun]:
    """Steps 1 and 2 for some rows; `offset` is the index of the first of them."""
    n = len(place)
    own = torch.tensor([at if at < mask.shape[1] else 0 for at in place], device=mask.device)
    index = torch.arange(n, device=mask.device)
    itself = mask[index, own]
    grown = (mask[1:] ^ mask[:-1]).sum(-1) == 1
    neighbours = own[1:] == own[:-1] + 1
    follows = grown & neighbours & itself[1:] & itself[:-1] & ~mask[index[:-1], own[1:]]
    starts = [0, *((~follows).nonzero().flatten() + 1).tolist(), n]
    runs: list[RowRun] = []
    for short, group in groupby(pairwise(starts), key=_is_short):
        spans = list(group)
        if short and len(spans) > 1:  # neighbouring short runs
            runs.extend(_masked(mask, spans[0][0], spans[-1][1], offset))
            continue
        for first, stop in spans:
            run = _regular(mask, place, first, stop, offset)
            runs.extend([run] if len(run.spans) <= _MANY_SPANS else _masked(mask, first, stop, offset))
    return runs


def _is_short(span: tuple[int, int]) -> bool:
    return span[1] - span[0] < _SHORT


def _regular(mask: Bool[Tensor, "row key"], place: Sequence[int], first: int, stop: int, offset: int) -> RowRun:
    row = mask[first]
    if stop - first == 1:
        return RowRun(first + offset, stop + offset, _spans(row))
    row = row.clone()
    row[place[first]] = False
    return RowRun(first + offset, stop + offset, _spans(row), own=place[first])


def _masked(mask: Bool[Tensor, "row key"], first: int, stop: int, offset: int) -> Iterator[RowRun]:
    for start in range(first, stop, _MASKED_ROWS):
        part = mask[start : min(start + _MASKED_ROWS, stop)]
        seen = part.any(0).nonzero().flatten()
        if not len(seen):
            yield RowRun(start + offset, start + len(part) + offset, ())
            continue
        low, high = int(seen[0]), int(seen[-1]) + 1
        yield RowRun(start + offset, start + len(part) + offset, ((low, high),), mask=part[:, low:high].clone())


def _spans(row: Bool[Tensor, " key"]) -> tuple[Span, ...]:
    """Ranges of True."""
    edges = torch.diff(F.pad(row.to(torch.int8), (1, 1)))
    starts, stops = ((edges == step).nonzero().flatten().tolist() for step in (1, -1))
    return tuple(zip(starts, stops, strict=True))


def _continued(before: RowRun, after: RowRun) -> RowRun | None:
    """One run of two that were read apart."""
    if before.own is None or before.mask is not None or after.mask is not None:
        return None
    length = before.stop - before.first
    own = (before.own, before.own + length)
    if after.own is None:
        # a single row lists itself among its spans
        if after.stop - after.first != 1 or _spans_with(before.spans, (own[0], own[1] + 1)) != after.spans:
            return None
    elif after.own != own[1] or _spans_with(before.spans, own) != after.spans:
        return None
    return replace(before, stop=after.stop)


def _spans_with(spans: tuple[Span, ...], more: Span) -> tuple[Span, ...]:
    if spans and spans[-1][1] == more[0]:
        return (*spans[:-1], (spans[-1][0], more[1]))
    return (*spans, more)


def _counted(runs: Sequence[RowRun]) -> tuple[RowRun, ...]:
    """Step 3."""
    found: list[RowRun] = []
    for run in runs:
        if found and _equal(found[-1], run):
            found[-1] = replace(found[-1], stop=run.stop, repeat=found[-1].repeat + 1)
        else:
            found.append(run)
    return tuple(found)


def _equal(counted: RowRun, run: RowRun) -> bool:
    if counted.own is None or run.own is None or counted.mask is not None or run.mask is not None:
        return False
    length = (counted.stop - counted.first) // counted.repeat
    follows = run.first == counted.stop and run.own == counted.own + counted.repeat * length
    return follows and run.stop - run.first == length and run.spans == counted.spans
