"""One forward and one backward through the decoder, layer by layer: what every layer's attention did, and how much the
metric depends on it.

The forward keeps what enters each layer and nothing else; the backward runs one layer at a time again, so that the
graph of a single layer is all that exists at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from videolens.engine.full import wide
from videolens.errors import ModelError
from videolens.experiments.attribution.gating import gate_hooks
from videolens.experiments.attribution.metrics import Metric, slope_at
from videolens.experiments.common.gradients import check_passes_gradients
from videolens.model.decoder.block import Block
from videolens.model.decoder.rows import Rows, is_listened_to
from videolens.model.transformer import HookedVideoTransformer
from videolens.model.turns import a_run
from videolens.prompt.prompt import Prompt


@dataclass(frozen=True, eq=False)
class LayerRun:
    """One layer of a run of one prompt, at the rows that the metric depends on.

    row: those rows; pos: positions of the prompt; head: query heads; n_kv: key/value heads.

    Attributes:
        layer: 0-based.
        block: the layer.
        rows: positions of the rows, ascending.
        q, k, v: rotated queries, rotated keys, values.
        resid_mid: the residual stream between attention and MLP.
        slope_z: ∂ metric / ∂ z, the heads' results before the output projection.
        slope_out: ∂ metric / ∂ what leaves the layer.
        gate: on every weight but each token's own (`gating`); 1: as it is.
        read: of the last layer, the metric of what leaves it [*run d_model] at its only row; None of the others.
    """

    layer: int
    block: Block
    rows: Int64[Tensor, " row"]
    q: Float[Tensor, "row head d_head"]
    k: Float[Tensor, "pos n_kv d_head"]
    v: Float[Tensor, "pos n_kv d_head"]
    resid_mid: Float[Tensor, "row d_model"]
    slope_z: Float[Tensor, "row head d_head"]
    slope_out: Float[Tensor, "row d_model"]
    gate: float = 1.0
    read: Callable[[Float[Tensor, "*run d_model"]], Float[Tensor, "*run"]] | None = None


_LOGITS_AT_ONCE = 2**23
_WORDS_AT_ONCE = 2**14
_POINTS = ("attn.hook_rot_q", "attn.hook_rot_k", "attn.hook_v", "attn.hook_z", "hook_resid_mid")


def check_differentiable(model: HookedVideoTransformer) -> None:
    """Raises:
    ModelError: the model has listeners of its own, or weights that no gradient passes.
    """
    listened = [name for name, point in model.hook_dict.items() if is_listened_to(point)]
    if listened:
        raise ModelError(
            f"the model has hook functions of its own ({', '.join(listened[:3])}), and what they do to attention has "
            "no gate: scores are those of the model as it is. Remove them, model.reset_hooks()"
        )
    check_passes_gradients(model, "blocks.")


@a_run(alone=True)
def run_backward(
    model: HookedVideoTransformer,
    prompt: Prompt,
    metric: Metric,
    each: Callable[[LayerRun], None],
    *,
    gate: float = 1.0,
) -> None:
    """Run a prompt forward, and hand out its layers from the last to the first, each with the metric's slopes.

    Args:
        model: the model.
        prompt: a single prompt.
        metric: of the logits at the last position.
        each: called with every layer; what it is handed is gone when it returns.
        gate: on every attention weight but each token's own, above 0 and up to 1, in all layers.

    Raises:
        ModelError: attention that passes no gradient; numbers that are not finite.
    """
    last = int(prompt.single("an attribution").tokens["last"][0])
    with torch.no_grad():
        residual, at = model.enter(prompt)
        entering = []
        for layer in range(model.cfg.n_layers):
            entering.append(residual)
            with model.hooks(gate_hooks(model.blocks[layer].attn, gate)):
                residual = model.run_layers(residual, at, start=layer, stop=layer + 1)
        model.read_out(residual[:, [last]], at.only(slice(last, last + 1)))  # says where numbers are not finite

    def read(resid: Tensor) -> Tensor:
        several = model.ln_final.normalise(wide(resid)).reshape(-1, resid.shape[-1])
        parts = several.split(max(1, _LOGITS_AT_ONCE // model.cfg.d_vocab))
        values = [metric.value(_logits(part, model.unembed.weight)) for part in parts]
        return torch.cat(values).view(resid.shape[:-1])

    def read_last(resid: Tensor) -> Tensor:  # of what the last layer gives, before deepstack features
        return read(resid if (added := at.added_after(model.cfg.n_layers - 1)) is None else resid + added[0, last])

    slope = torch.zeros_like(residual)
    slope[0, last] = slope_at(read, residual[0, last])
    del residual
    for layer in reversed(range(model.cfg.n_layers)):
        slope, kept = _backward(model, layer, entering.pop(), at, slope, gate)
        each(replace(kept, read=read_last) if layer == model.cfg.n_layers - 1 else kept)


def _logits(resid: Tensor, weight: Tensor) -> Tensor:
    """The unembedding in float32 or wider, which differences between runs need: a part of the weights at a time."""
    if weight.dtype == resid.dtype:
        return resid @ weight.t()
    return torch.cat([resid @ part.to(resid.dtype).t() for part in weight.split(_WORDS_AT_ONCE)], dim=-1)


def _backward(
    model: HookedVideoTransformer, layer: int, entering: Tensor, at: Rows, slope_out: Tensor, gate: float
) -> tuple[Tensor, LayerRun]:
    """The slope of what enters a layer from that of what leaves it, and the layer."""
    seen: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: Any) -> None:
        seen[hook.name.rpartition(".")[2]] = value

    points = [(f"blocks.{layer}.{point}", keep) for point in _POINTS]
    with torch.enable_grad(), model.hooks([*gate_hooks(model.blocks[layer].attn, gate), *points]):
        entering = entering.detach().requires_grad_()
        leaving = model.run_layers(entering, at, start=layer, stop=layer + 1)
        try:
            slope_in, slope_z = torch.autograd.grad(leaving, [entering, seen["hook_z"]], slope_out)
        except RuntimeError as error:
            raise ModelError(
                f"layer {layer} (from 0) passes no gradient ({error}): an attribution needs a model whose layers are "
                "differentiable, such as one loaded with dtype=torch.bfloat16 or float32"
            ) from error
    rows = slope_out[0].abs().amax(-1).nonzero().flatten()
    kept = {name: value.detach()[0] for name, value in seen.items()}
    return slope_in, LayerRun(
        layer=layer,
        block=model.blocks[layer],
        rows=rows,
        q=kept["hook_rot_q"][rows],
        k=kept["hook_rot_k"],
        v=kept["hook_v"],
        resid_mid=kept["hook_resid_mid"][rows],
        slope_z=slope_z[0, rows],
        slope_out=slope_out[0, rows],
        gate=gate,
    )
