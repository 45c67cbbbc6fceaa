"""A prompt belongs to the front end that made it: another model refuses it, and so does its own after an edit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.prompts import tiny_model, tiny_prompt
from torch import nn

import videolens as vl
from videolens.engine import base
from videolens.errors import VideolensError
from videolens.model.identity import Weights

RUNS: dict[str, Callable[[Any, vl.Prompt], Any]] = {
    "forward": lambda model, prompt: model(prompt),
    "with cache": lambda model, prompt: model.run_with_cache(prompt, names_filter="hook_embed"),
    "generate": lambda model, prompt: model.generate(prompt, 1),
    "run_clean": lambda model, prompt: model.run_clean(prompt),
    "base": base,
    "sweep": lambda model, prompt: vl.sweep(model, prompt, ["video -> last"]),
    "sweep in full": lambda model, prompt: vl.sweep(model, prompt, ["video -> last"], engine="full"),
    "one of a batch": lambda model, prompt: model(prompt.repeated(2)[1]),
    "a batch": lambda model, prompt: model(vl.Prompt.batch([prompt, prompt])),
    "trace_flow": lambda model, prompt: vl.trace_flow(model, prompt, samples="all", progress=False),
}


def named(name: str, *, seed: int) -> Any:
    model = tiny_model(seed=seed)
    model.frontend.model_name = name
    return model


@pytest.mark.parametrize("run", RUNS)
def test_a_prompt_of_another_model_is_refused_with_both_names(run: str) -> None:
    mine, other = named("mine", seed=0), named("other", seed=1)
    prompt = tiny_prompt(mine)
    with pytest.raises(VideolensError, match=r"made by the front end of 'mine' .*this model is 'other'"):
        RUNS[run](other, prompt)
    RUNS[run](mine, prompt)


def _twice(parameter: torch.Tensor) -> None:
    with torch.no_grad():
        parameter.mul_(2)


EDITS: dict[str, Callable[[nn.Module, str], Any]] = {
    "in place": lambda part, name: _twice(getattr(part, name)),
    "in its data": lambda part, name: getattr(part, name).data.mul_(2),
    "other data": lambda part, name: setattr(getattr(part, name), "data", getattr(part, name).data * 2),
    "another parameter": lambda part, name: setattr(part, name, nn.Parameter(getattr(part, name).detach() * 2)),
    "one number": lambda part, name: getattr(part, name).detach()[1].mul_(2),
    "loaded": lambda part, name: part.load_state_dict({k: 2 * v for k, v in part.state_dict().items()}),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("part", ["tower", "projector", "embedding"])
def test_a_prompt_made_before_an_edit_is_refused(part: str, edit: str) -> None:
    model = tiny_model()
    before = tiny_prompt(model)
    front = model.frontend
    module = front.embed if part == "embedding" else front.parts[part]
    owner = next(each for each in module.modules() if isinstance(getattr(each, "weight", None), nn.Parameter))
    EDITS[edit](owner, "weight")
    with pytest.raises(VideolensError, match=r"weights have changed since.*Make the prompt"):
        model(before)
    after = tiny_prompt(model)
    assert not torch.equal(after.residual, before.residual) and model(after).isfinite().all()


def test_what_equals_the_maker_takes_its_prompts() -> None:
    model = tiny_model()
    prompt = tiny_prompt(model)
    expected = model(prompt)
    for twin in (tiny_model(), copy.deepcopy(model)):
        assert twin.frontend.maker == prompt.made_by and torch.equal(twin(prompt), expected)
    assert not pickle.loads(pickle.dumps(Weights(model))).are_those_of(model), "a copy knows nothing of its module"
    # an edit of the decoder leaves prompts as they are; one that is taken back, too
    _twice(model.blocks[0].mlp.down.weight)
    assert not torch.equal(model(prompt), expected)
    _twice(model.frontend.embed.weight)
    with torch.no_grad():
        model.frontend.embed.weight.div_(2)
    model(prompt)


def test_prompts_of_two_models_are_not_mixed(prompt) -> None:
    other = tiny_prompt(named("other", seed=1))
    with pytest.raises(VideolensError, match=r"prompts of one batch.*'other'.*'llava_next_video'"):
        vl.Prompt.batch([prompt, other])
    source = vl.SourceRun.record(named("other", seed=1), other, "resid_pre")
    with pytest.raises(VideolensError, match=r"the source run's prompt.*'other'"):
        vl.Patch("resid_pre", 1, "last", source=source).hooks(prompt)


def test_a_clean_run_belongs_to_its_weights() -> None:
    model, twin = tiny_model(), tiny_model()
    prompt = tiny_prompt(model)
    clean, kept = model.run_clean(prompt), base(model, prompt)
    model.resume(clean, layer=1, row=3)
    with pytest.raises(VideolensError, match="Run it again"):
        twin.resume(clean, layer=1, row=3)
    _twice(model.blocks[0].mlp.down.weight)
    with pytest.raises(VideolensError, match="Run it again"):
        model.resume(clean, layer=1, row=3)
    with pytest.raises(VideolensError, match="Run it again"):
        vl.sweep(model, prompt, ["video -> last"], base=kept)


def test_weights_are_read_once_not_in_every_run(model, prompt, monkeypatch) -> None:
    model(prompt)
    monkeypatch.setattr("videolens.model.vision.frontend.digest", lambda front: pytest.fail("weights were read"))
    model(prompt)
    vl.sweep(model, prompt, ["video -> last"])
    tiny_prompt(model)
