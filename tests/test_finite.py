"""Numbers that are not finite are an error, wherever they begin and whatever runs, and the error names the place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.prompts import tiny_model, tiny_prompt
from helpers.report import letter_model, questions

import videolens as vl
from videolens.engine import base
from videolens.errors import ModelError
from videolens.experiments.common.scoring import option_probabilities

RUNS: dict[str, Callable[[Any, vl.Prompt], Any]] = {
    "forward": lambda model, prompt: model(prompt),
    "loss": lambda model, prompt: model(prompt, return_type="loss"),
    "with hooks": lambda model, prompt: model.run_with_hooks(prompt, fwd_hooks=[("hook_embed", lambda x, hook: None)]),
    "with cache": lambda model, prompt: model.run_with_cache(prompt, names_filter="hook_embed"),
    "generate": lambda model, prompt: model.generate(prompt, 2),
    "run_clean": lambda model, prompt: model.run_clean(prompt),
    "sweep": lambda model, prompt: vl.sweep(model, prompt, [vl.Knockout("video", "last", 1)]),
    "sweep in full": lambda model, prompt: vl.sweep(model, prompt, ["video -> last"], engine="full"),
    "base": base,
    "trace_flow": lambda model, prompt: vl.trace_flow(model, prompt, samples="all", progress=False),
    "evaluate_pathway": lambda model, prompt: vl.evaluate_pathway(model, prompt, vl.Pathway(3, [1]), progress=False),
    "measure_accuracy": lambda model, prompt: option_probabilities(model, prompt),
}


def broken(place: str, value: float) -> tuple[Any, vl.Prompt]:
    """A model with one such value in a weight that the last row meets, and a prompt made before it was broken."""
    model = tiny_model()
    prompt = tiny_prompt(model)
    weight = model.get_parameter(place)
    with torch.no_grad():
        weight[0 if weight.ndim == 1 else (0, 0)] = value
    return model, prompt


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("run", RUNS)
def test_every_run_names_the_first_layer(run: str, value: float) -> None:
    model, prompt = broken("blocks.1.mlp.down.weight", value)
    with pytest.raises(ModelError, match=r"layer 1 \(from 0\).*mlp.down.weight are not finite"):
        RUNS[run](model, prompt)


def test_a_pathway_is_not_chosen_by_broken_weights() -> None:
    model = letter_model()
    with torch.no_grad():
        model.blocks[1].mlp.down.weight[0, 0] = math.nan
    with pytest.raises(ModelError, match=r"layer 1 \(from 0\)"):
        vl.choose_pathway(model, questions(2), progress=False)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("blocks.0.ln1.w", r"layer 0 \(from 0\).*ln1.w are"),
        ("blocks.2.attn.v.weight", r"layer 2 \(from 0\).*attn.v.weight"),
        ("ln_final.w", "the final norm or the unembedding"),
        ("unembed.weight", "the final norm or the unembedding"),
    ],
)
def test_every_place_is_named(place: str, said: str) -> None:
    model, prompt = broken(place, math.nan)
    for run in (model, lambda one: vl.sweep(model, one, [vl.Knockout("video", "last", 1)])):
        with pytest.raises(ModelError, match=said):
            run(prompt)


@pytest.mark.parametrize(("part", "said"), [("tower", "vision tower"), ("projector", "projector")])
def test_a_broken_front_end_makes_no_prompt(part: str, said: str) -> None:
    model = tiny_model()
    with torch.no_grad():
        next(model.frontend.parts[part].parameters()).fill_(math.nan)
    with pytest.raises(ModelError, match=f"{said}.*not finite.*the checkpoint is damaged"):
        tiny_prompt(model)


def test_a_word_whose_embedding_is_broken() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.frontend.embed.weight[1] = math.nan  # which every tiny prompt begins with
    with pytest.raises(ModelError, match=r"embeddings of this prompt's words.*not finite"):
        tiny_prompt(model)
    with pytest.raises(ModelError, match="what enters layer 0, where it begins"):
        model(torch.tensor([[1, 5]]))


def test_what_an_intervention_breaks_is_told_from_broken_weights(model, prompt) -> None:
    def spoil(value: torch.Tensor, hook: Any) -> torch.Tensor:
        return value * math.inf

    for run in (
        lambda: model.run_with_hooks(prompt, fwd_hooks=[("blocks.1.hook_mlp_out", spoil)]),
        lambda: vl.sweep(model, prompt, [[("blocks.1.hook_mlp_out", spoil)]]),
        lambda: model.generate(prompt, 2, [("blocks.1.hook_mlp_out", spoil)]),
        lambda: model.resume(model.run_clean(prompt), layer=1, row=3, fwd_hooks=[("blocks.1.hook_mlp_out", spoil)]),
    ):
        with pytest.raises(ModelError, match=r"layer 1 \(from 0\).*weights are finite.*hook function"):
            run()
    assert model(prompt).isfinite().all(), "and nothing of it is left"


def test_overflow_in_float16_says_what_to_do() -> None:
    model = tiny_model()
    model.to(torch.float16)
    prompt = tiny_prompt(model)
    with torch.no_grad():
        model.blocks[1].mlp.down.weight.mul_(2.0**14).clamp_(-6e4, 6e4)
    with pytest.raises(ModelError, match=r"layer 1 \(from 0\).*float16 ends at 65504, load the model with dtype"):
        model(prompt)
