"""What closing each route would change, in one layer: estimated from one run, without closing any.

A gate of 1 multiplies every unnormalised attention weight exp(score); closing a route sets its gates to 0, and what is
left is normalised again, as in a knockout. So the derivative by a route's gate, in a row q and a head, is
Σ over the route's keys k of A_qk · (v_k − z_q) · ∂m/∂z_q: the values' mean over the route, less the mean over all keys.

Everything is a sum over *groups* of keys (`Partition.targets`): of each group, the logarithm of its share of the
softmax, and the mean of its values under the softmax within. No tensor has rows × keys of the whole prompt.

row: rows of a chunk; group: of keys; head: query heads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from videolens.errors import VideolensError, near
from videolens.experiments.attribution.backward import LayerRun, run_backward
from videolens.experiments.attribution.metrics import Metric
from videolens.interventions.partition import KeyGroup, Partition
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

METHODS = ("layer", "local", "gradient", "integrated")
"""How the change is estimated, one run for all routes: "gradient": the derivative by the gate, at 1. "local": the
heads' results without the route, exactly, times the metric's slope there. "layer": what leaves the layer without the
route, exactly, through its norm and MLP, times the metric's slope there; in the last layer the metric itself.
"integrated": the derivative by the gate, its mean over runs with the gates of all pairs between 0 and 1 (`gating`)."""

_AT_ONCE = 2**22  # numbers in the largest tensor of a chunk of rows


def check_method(method: str) -> None:
    """Raises:
    VideolensError: no such method.
    """
    if method not in METHODS:
        raise VideolensError(near(method, METHODS, kind="method"))


def unit_scores(
    model: HookedVideoTransformer,
    prompt: Prompt,
    partition: Partition,
    metric: Metric,
    *,
    method: str,
    heads: bool = False,
    steps: int = 5,
    tick: Callable[[float], Any] = lambda share: None,
) -> Float[Tensor, "layer head_or_1 route"]:
    """The estimated change of a metric when each route is closed in each layer, in every head by itself or in all at
    once. Float64, on the CPU.

    Args:
        model: the model.
        prompt: a single prompt.
        partition: of its causal pairs.
        metric: of the logits at its last position.
        method: one of `METHODS`.
        heads: every head by itself.
        steps: of "integrated": gates (i + ½) / steps.
        tick: called with shares of the work, which sum to one.

    Raises:
        ModelError: attention that passes no gradient, numbers that are not finite.
    """
    gates = [(step + 0.5) / steps for step in range(steps)] if method == "integrated" else [1.0]
    n_heads = model.cfg.n_heads if heads else 1
    found = torch.zeros(model.cfg.n_layers, n_heads, len(partition.routes), dtype=torch.float64)

    def add(run: LayerRun) -> None:
        found[run.layer] += layer_scores(run, partition, method=method, heads=heads).cpu() / len(gates)
        tick(1 / len(found) / len(gates))

    for gate in gates:
        run_backward(model, prompt, metric, add, gate=gate)
    return found


@torch.no_grad()
def layer_scores(run: LayerRun, partition: Partition, *, method: str, heads: bool) -> Float[Tensor, "head_or_1 route"]:
    """The estimated change of the metric when each route is closed in this layer, in every head by itself or in all at
    once. Float64.

    Args:
        run: the layer.
        partition: of the prompt's causal pairs.
        method: one of `METHODS`.
        heads: every head by itself.
    """
    n_heads = run.q.shape[1]
    found = torch.zeros(n_heads if heads else 1, len(partition.routes), dtype=torch.float64, device=run.q.device)
    through = _Through(run, heads) if method == "layer" else None
    for chosen, stop, groups in _chunks(run, partition, wide=through is not None and heads):
        share, means = _groups(run, chosen, groups, stop, own=method == "integrated")
        moved = _gated(share, means, run.gate) if method == "integrated" else _moved(share, means, method)
        if through is not None:
            by_head = through.change(moved, chosen)
        else:
            by_head = torch.einsum("hrgd,rhd->hrg", moved, run.slope_z[chosen].to(moved.dtype))
        change = by_head.double().sum(1)
        change = change if heads else change.sum(0, keepdim=True)
        found.index_add_(1, torch.tensor([group.route for group in groups], device=found.device), change)
    return found


def _chunks(
    run: LayerRun, partition: Partition, *, wide: bool
) -> Iterator[tuple[Int64[Tensor, " row"], int, tuple[KeyGroup, ...]]]:
    """Indices of some rows of one target, the first key that none of them sees, and the groups of keys they read."""
    n_heads, d_head, d_mlp = run.q.shape[1], run.q.shape[2], run.block.mlp.gate.weight.shape[0]
    for first, stop, groups in partition.targets:
        chosen = ((run.rows >= first) & (run.rows < stop)).nonzero().flatten()
        largest = n_heads * max(stop, len(groups) * (d_head + len(groups)))
        largest = max(largest, len(groups) * d_mlp * (n_heads if wide else 1))
        if len(chosen):
            for some in chosen.split(max(1, _AT_ONCE // largest)):
                yield some, stop, groups


def _groups(
    run: LayerRun, chosen: Int64[Tensor, " row"], groups: tuple[KeyGroup, ...], stop: int, *, own: bool
) -> tuple[Float[Tensor, "head row group"], Float[Tensor, "head row group d_head"]]:
    """Of every group of keys, the logarithm of its share of each row's attention, and the mean of its values. With
    `own`, a row's own key is a group of its own, the last."""
    dtype = torch.promote_types(run.q.dtype, torch.float32)
    group = run.q.shape[1] // run.k.shape[1]
    q = run.q[chosen].to(dtype).unflatten(1, (-1, group))
    scores = torch.einsum("rngd,knd->ngrk", q, run.k[:stop].to(dtype)) * run.block.attn.scale
    rows = run.rows[chosen]
    logs, means = [], []
    for _, first, end in groups:
        some = scores[..., first:end]
        if end > int(rows[0]):  # the rows' own segment
            keys = torch.arange(first, end, device=rows.device)
            some = some.masked_fill(keys >= rows[:, None] if own else keys > rows[:, None], -torch.inf)
        logs.append(some.logsumexp(-1))
        # where a row has no key in the group, every weight is NaN
        weights = torch.exp(some - logs[-1][..., None]).nan_to_num(0.0)
        means.append(torch.einsum("ngrk,knd->ngrd", weights, run.v[first:end].to(dtype)))
    if own:
        logs.append(scores.gather(-1, rows[:, None].expand(*scores.shape[:3], 1))[..., 0])
        means.append(run.v[rows].to(dtype).transpose(0, 1)[:, None].expand(means[0].shape))
    log, mean = torch.stack(logs, -1).flatten(0, 1), torch.stack(means, -2).flatten(0, 1)
    return log - log.logsumexp(-1, keepdim=True), mean


def _moved(
    share: Float[Tensor, "head row group"], means: Float[Tensor, "head row group d_head"], method: str
) -> Float[Tensor, "head row group d_head"]:
    """How far z moves when each group is closed: exactly, or by the derivative of its gate."""
    z = torch.einsum("hrg,hrgd->hrd", share.exp(), means)[:, :, None]
    return share.exp()[..., None] * (z - means) if method == "gradient" else _without_each(share, means) - z


def _gated(
    share: Float[Tensor, "head row groups_and_own"], means: Float[Tensor, "head row groups_and_own d_head"], gate: float
) -> Float[Tensor, "head row group d_head"]:
    """The same by the derivative, where all groups but the last, the row's own key, are under a gate."""
    weight = share.exp()
    weight = torch.cat([gate * weight[..., :-1], weight[..., -1:]], -1)
    weight = weight / weight.sum(-1, keepdim=True)
    z = torch.einsum("hrg,hrgd->hrd", weight, means)[:, :, None]
    return weight[..., :-1, None] / gate * (z - means[..., :-1, :])


def _without_each(
    share: Float[Tensor, "head row group"], means: Float[Tensor, "head row group d_head"]
) -> Float[Tensor, "head row group d_head"]:
    """z with each group closed and the others normalised again, exactly; 0 where no other group is left."""
    n = share.shape[-1]
    if n == 1:
        return torch.zeros_like(means)
    others = share[..., None, :].masked_fill(torch.eye(n, dtype=torch.bool, device=share.device), -torch.inf)
    return torch.einsum("hrgo,hrod->hrgd", others.softmax(-1), means)


Part = TypeVar("Part", bound=nn.Module)


class _Through:
    """The rest of a layer behind its attention, for rows whose heads' results have moved."""

    def __init__(self, run: LayerRun, heads: bool) -> None:
        self.run, self.heads = run, heads
        # in half precision the rest of a layer would round away what one route moves
        self.ln2, self.mlp, self.o = _wide(run.block.ln2), _wide(run.block.mlp), _wide(run.block.attn.o)

    def change(
        self, moved: Float[Tensor, "head row group d_head"], chosen: Int64[Tensor, " row"]
    ) -> Float[Tensor, "head_or_1 row group"]:
        """How far what leaves the layer moves, times the metric's slope there."""
        weight = self.o.weight.unflatten(1, (moved.shape[0], -1))
        way = "hrgd,mhd->hrgm" if self.heads else "hrgd,mhd->rgm"
        by = torch.einsum(way, moved, weight)
        by = by if self.heads else by[None]
        before = self.run.resid_mid[chosen].to(moved.dtype)
        by = by + self._mlp(before[:, None] + by) - self._mlp(before)[:, None]
        if self.run.read is None:
            return torch.einsum("hrgm,rm->hrg", by, self.run.slope_out[chosen].to(moved.dtype))
        # nothing but the final norm and the unembedding follows: the metric itself
        leaving = before + self._mlp(before)
        return self.run.read(leaving[:, None] + by) - self.run.read(leaving)[:, None]

    def _mlp(self, resid: Tensor) -> Tensor:
        x = self.ln2.normalise(resid)
        return self.mlp.down(self.mlp.act(self.mlp.gate(x)) * self.mlp.up(x))


def _wide(module: Part) -> Part:
    """The module as it is in float32 or wider, else a copy of it in float32."""
    dtype = next(module.parameters()).dtype
    return module if torch.promote_types(dtype, torch.float32) == dtype else copy.deepcopy(module).float()
