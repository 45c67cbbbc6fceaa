"""Masks read as runs, and attention over runs: both equal the mask they came from."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from videolens.model.decoder import kernels
from videolens.model.decoder.kernels import attend
from videolens.model.decoder.views import dense_mask, views_of
from videolens.model.decoder.visibility import RowRun, Visible

N = 70


def causal(n: int = N) -> Tensor:
    return torch.ones(n, n, dtype=torch.bool).tril()


def read(mask: Tensor, rows: Tensor | None = None) -> Visible:
    keys = torch.arange(mask.shape[1])
    rows = keys[-len(mask) :] if rows is None else rows
    at = {int(row): i for i, row in enumerate(rows)}
    return Visible.of(lambda some: mask[[at[int(row)] for row in some]], rows, keys)


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    """Causal masks with some blocks of rows × keys cut out, as knockouts do, or with single entries."""
    mask = causal()
    for _ in range(draw(st.integers(0, 4))):
        spans = [sorted(draw(st.tuples(st.integers(0, N), st.integers(0, N)))) for _ in range(2)]
        mask[spans[0][0] : spans[0][1], spans[1][0] : spans[1][1]] = False
    if draw(st.booleans()):
        generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
        first = draw(st.integers(0, N))
        mask[first : first + 20] &= torch.rand(len(mask[first : first + 20]), N, generator=generator) < 0.8
    return mask


def frames(first: int, size: int, count: int) -> Tensor:
    mask = causal()
    for i in range(count):
        mask[first + i * size : first + (i + 1) * size, first : first + i * size] = False
    return mask


def reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention written out, in float64."""
    group = q.shape[2] // k.shape[2]
    k, v = (x.double().expand(len(q), -1, -1, -1).repeat_interleave(group, dim=2) for x in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q.double(), k) / math.sqrt(q.shape[-1])
    pattern = scores.masked_fill(~mask, -torch.inf).softmax(-1).nan_to_num(0.0)
    return torch.einsum("bhqk,bkhd->bqhd", pattern, v)


@given(masks(), st.integers(0, N - 1))
@settings(max_examples=60, deadline=None)
def test_runs_are_the_mask(mask: Tensor, first: int) -> None:
    visible = read(mask[first:])
    assert torch.equal(visible.dense(torch.device("cpu")), mask[first:])
    assert visible.pairs == int(mask[first:].sum())
    assert [run.first for run in visible.runs] == [0, *(run.stop for run in visible.runs[:-1])]
    assert visible.runs[-1].stop == N - first


WAYS = {
    "as it comes": {},
    "two calls, joined": {"SMALL": 0},
    # the way that gradients and other devices take
    "keys put together": {"_joinable": lambda q, pieces: False},
}


@pytest.mark.parametrize("way", WAYS)
@given(masks(), st.integers(0, N - 1), st.sampled_from([1, 3]), st.sampled_from([1, 2, 4]))
@settings(max_examples=30, deadline=None)
def test_attention_over_runs_is_attention_under_the_mask(
    way: str, mask: Tensor, first: int, batch: int, n_kv: int
) -> None:
    generator = torch.Generator().manual_seed(first)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    q = random(batch, N - first, 4, 8)
    past = (random(1, first, n_kv, 8), random(1, first, n_kv, 8))
    own = (random(batch, N - first, n_kv, 8), random(batch, N - first, n_kv, 8))
    pieces = [past, own] if first else [own]
    whole = [torch.cat([past[i].expand(batch, -1, -1, -1), own[i]], dim=1) for i in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WAYS[way].items():
            patch.setattr(kernels, name, value)
        z = attend(q, pieces, read(mask[first:]), scale=8**-0.5)
    assert z.shape == q.shape
    assert (z - reference(q, *whole, mask[first:])).abs().max() <= 2e-6
    assert not z[:, ~mask[first:].any(-1)].any(), "a row that sees nothing gives zeros"


def test_long_runs_are_read_across_borders() -> None:
    n = 1300
    visible = read(causal(n))
    assert [(run.first, run.stop, run.spans, run.own) for run in visible.runs] == [(0, n, (), 0)]
    mask = causal(n)
    mask[300:, 100:250] = False
    runs = read(mask).runs
    assert [(run.first, run.stop, run.spans, run.own) for run in runs] == [
        (0, 300, (), 0),
        (300, n, ((0, 100), (250, 300)), 300),
    ]


def test_frames_are_one_run_repeated() -> None:
    visible = read(frames(first=10, size=12, count=4))
    own = [(run.first, run.stop, run.spans, run.own, run.repeat) for run in visible.runs]
    assert own == [(0, 22, (), 0, 1), (22, 58, ((0, 10),), 22, 3), (58, 70, ((0, 58),), 58, 1)]
    assert all(run.mask is None for run in visible.runs)


def test_one_row_alone_needs_no_mask() -> None:
    keys = torch.arange(9)
    assert Visible.causal(keys[8:], keys).runs[0].spans == ((0, 9),)
    mask = causal(9)[8:]
    mask[0, 3:5] = mask[0, 8] = False
    run = read(mask).runs[0]
    assert run.spans == ((0, 3), (5, 8)) and run.own is None and run.mask is None


def test_scattered_rows_see_what_is_before_them() -> None:
    keys = torch.arange(N)
    rows = torch.tensor([3, 4, 5, 40, 69])
    assert torch.equal(Visible.causal(rows, keys).dense(torch.device("cpu")), causal()[rows])


def test_irregular_rows_keep_a_mask_of_few_rows() -> None:
    n = 600
    mask = causal(n) & (torch.rand(n, n, generator=torch.Generator().manual_seed(0)) < 0.5)
    runs = read(mask).runs
    assert max(run.stop - run.first for run in runs) <= 128
    assert sum(run.mask.shape[0] for run in runs if run.mask is not None) > n - 20


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 1), (2, 4)])
def test_views_are_the_mask_of_every_copy_and_head(shape: tuple[int, int]) -> None:
    mask = causal().expand(*shape, N, N).clone()
    mask[-1, -1, 30:, :20] = False
    keys = torch.arange(N)
    views = views_of(mask, keys, keys)
    assert len(views) == (2 if shape[1] == 4 else 1) + (shape[0] == 2)
    assert torch.equal(dense_mask(views, shape[0], shape[1], torch.device("cpu")).expand_as(mask), mask)


def test_gradients_flow_through_masked_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, N, 4, 8, generator=generator, requires_grad=True) for _ in range(3))
    mask = frames(first=10, size=12, count=4)
    visible = read(mask)
    weights = torch.randn(1, N, 4, 8, generator=generator)
    found = torch.autograd.grad((attend(q, [(k, v)], visible, 8**-0.5) * weights).sum(), (q, k, v))
    expected = torch.autograd.grad((reference(q, k, v, mask) * weights).sum(), (q, k, v))
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-14), (torch.bfloat16, 2e-2)])
def test_other_number_types(dtype: torch.dtype, allowed: float) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, N, 4, 8, generator=generator).to(dtype) for _ in range(3))
    mask = frames(first=10, size=12, count=4)
    z = attend(q, [(k, v)], read(mask), 8**-0.5)
    assert z.dtype == dtype
    assert (z - reference(q, k, v, mask)).abs().max() <= allowed


def test_pairs_of_a_run() -> None:
    assert RowRun(0, 6, ((0, 2),), own=2, repeat=2).pairs == 6 * 2 + 2 * 6
