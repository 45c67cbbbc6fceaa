"""A clean run that can be resumed: what enters every layer, and every layer's keys and values.

Attention is causal: whatever acts in layer a on rows ≥ r leaves all rows before r and all layers before a as they were.
So a run under hook functions that begin there need compute nothing else.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.errors import ModelError
from videolens.model.acting import functions_of
from videolens.model.decoder.config import check_causal
from videolens.model.decoder.rows import KeyValues, Rows, Where, is_listened_to, positions_of
from videolens.model.finite import check_logits
from videolens.model.identity import Weights
from videolens.model.listening import stage_of
from videolens.model.running import Running
from videolens.model.turns import a_run
from videolens.prompt.prompt import Prompt


@dataclass(frozen=True, eq=False)
class CleanRun:
    """What a forward with nothing changed has left.

    batch: prompts; pos: positions.

    Attributes:
        prompt: what was run.
        residuals: what enters every layer, and at the end what leaves the last: n_layers + 1 tensors
            [batch pos d_model].
        keys_values: rotated keys and values of every layer.
        at: the prompt's rows.
        weights: those that the model had.
    """

    prompt: Prompt
    residuals: tuple[Float[Tensor, "batch pos d_model"], ...]
    keys_values: KeyValues
    at: Rows
    weights: Weights

    def __repr__(self) -> str:
        """In one line."""
        return f"CleanRun({self.prompt!r}, {len(self.residuals) - 1} layers, {self.n_bytes / 2**20:.1f} MiB)"

    @property
    def n_bytes(self) -> int:
        """Memory that it holds."""
        kept = [*self.residuals, *(each for pair in self.keys_values.layers.values() for each in pair)]
        return sum(each.nbytes for each in kept)

    def check(self, model: Running) -> None:
        """Raises:
        ModelError: it is a run of another model, or weights have changed since.
        """
        if not self.weights.are_those_of(model):
            raise ModelError(
                f"the clean run is not one of {model.cfg.model_name!r} as it is now: it is another model's, or weights "
                "have changed since. Run it again: model.run_clean(prompt)"
            )


@a_run()
@torch.no_grad()
def run_clean(model: Running, prompt: Prompt) -> CleanRun:
    """Run a prompt with nothing changed, and keep what `resume` needs: the residual entering every layer, and
    every layer's keys and values (`.n_bytes` of memory).

    Raises:
        ModelError: not a Prompt; a model that is not causal.
    """
    if not isinstance(prompt, Prompt):
        raise ModelError(
            f"a clean run is one of a Prompt, got {type(prompt).__name__}; model.prompt(question) makes one"
        )
    check_causal(model.cfg, "a run that can be resumed")
    past = KeyValues()
    residual, at = model.enter(prompt, past=past)
    residuals = [residual]
    for layer, block in enumerate(model.blocks):
        # a listener of the model's own may edit what enters the layer, in place
        entering = residuals[-1].clone() if is_listened_to(block.hook_resid_pre) else residuals[-1]
        residuals.append(model.run_layers(entering, at, start=layer, stop=layer + 1))
    check_logits(residuals[-1])
    return CleanRun(
        prompt, tuple(residuals), replace(past, growing=False), replace(at, past=None), Weights(model, sample=False)
    )


@a_run()
@torch.no_grad()
def resume(
    model: Running,
    clean: CleanRun,
    *,
    layer: int,
    row: int,
    fwd_hooks: Any = (),
    rows: Where = "last",
) -> Float[Tensor, "batch asked d_vocab"]:
    """Logits of some rows under hook functions that change nothing before `layer` and `row`; only what lies behind
    both is computed. The results are those of `run_with_hooks` on the whole prompt, to rounding.

    Hook functions see the rows from `row` on, which `hook.ctx["rows"]` names; in the last layer those that are
    asked for. For many interventions at once: `videolens.sweep`.

    1. Take the residual that enters `layer`, from `row` on.
    2. Run the layers from there on under the hook functions; earlier rows are the clean run's keys and values.
    3. In the last layer, and after it, compute the rows that are asked for only.

    Args:
        clean: what `run_clean` gave.
        layer: the first layer to run.
        row: the first row to run.
        fwd_hooks: as for `run_with_hooks`.
        rows: which rows' logits: a selection or positions, none before `row`.

    Raises:
        ModelError: a layer or row that does not exist, a hook point before `layer`, rows before `row`.
    """
    n_layers, n_pos = model.cfg.n_layers, clean.prompt.shape[1]
    if len(clean.residuals) != n_layers + 1 or clean.residuals[0].shape[-1] != model.cfg.d_model:
        raise ModelError(
            f"the clean run is of a model of {len(clean.residuals) - 1} layers, {clean.residuals[0].shape[-1]} wide; "
            f"this one has {n_layers} and is {model.cfg.d_model} wide: resume it with the model that made it"
        )
    clean.check(model)
    if not 0 <= layer < n_layers:
        raise ModelError(f"layer {layer} is outside the model: its layers are 0 … {n_layers - 1}")
    if not 0 <= row < n_pos:
        raise ModelError(f"row {row} is outside the prompt of {n_pos} tokens: its rows are 0 … {n_pos - 1}")
    asked = positions_of(clean.prompt, rows).to(model.frontend.device)
    if int(asked.min()) < row:
        raise ModelError(
            f"rows from {int(asked.min())} on are asked for, but the run resumes at row {row}: ask for rows from there "
            "on (those before are the clean run's), or resume earlier"
        )
    functions = functions_of(model.cfg, clean.prompt, fwd_hooks)
    for name, _ in functions:
        if isinstance(name, str) and stage_of(name, n_layers) < layer:
            raise ModelError(
                f"{name} comes before layer {layer}, where the run resumes: resume earlier, or leave it out"
            )
    at = replace(clean.at.only(slice(row, None)), past=clean.keys_values.before(row), views=clean.at.views)
    residual = clean.residuals[layer][:, row:].clone()
    with model.hooks(functions) if functions else nullcontext():
        residual = model.run_layers(residual, at, start=layer, stop=n_layers - 1)
        residual = model.run_layers(residual, replace(at, asked=asked - row), start=n_layers - 1)
        return model.read_out(residual, at.only(asked - row))
