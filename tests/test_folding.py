"""Folded norms: the same outputs, and the lens of TransformerLens' tutorials is right."""

from __future__ import annotations

import copy

import jaxtyping
import pytest
import torch
from helpers.families import CASES, each_family
from helpers.models import tiny_llava_next_video
from torch import Tensor

import videolens as vl
from videolens.model.folding import fold_norms


@pytest.fixture(scope="module")
def folded() -> vl.HookedVideoTransformer:
    """The bundled model."""
    return vl.HookedVideoTransformer.from_pretrained("shapes", fold_ln=True)


@pytest.fixture(scope="module")
def question() -> vl.Question:
    return vl.load_dataset("shapes", task="moving direction", n=1)[0]


def tutorial(model: vl.HookedVideoTransformer, prompt: vl.Prompt) -> tuple[Tensor, Tensor]:
    """The lens as tutorials write it, after the last layer at the last position; and the logits there."""
    logits, cache = model.run_with_cache(prompt)
    streams = cache.accumulated_resid(layer=-1, incl_mid=False, pos_slice=-1)
    lens = cache.apply_ln_to_stack(streams, layer=-1, pos_slice=-1) @ model.W_U
    return lens[-1, 0], logits[0, -1]


def with_norms_that_matter(model: vl.HookedVideoTransformer) -> vl.HookedVideoTransformer:
    """Random norm weights, as trained models have them; those of a new model are all one."""
    generator = torch.Generator().manual_seed(0)
    for norm in [model.ln_final, *(one for block in model.blocks for one in (block.ln1, block.ln2))]:
        norm.w.copy_(0.25 + 1.5 * torch.rand(norm.w.shape, generator=generator))
    return model


def test_the_familiar_lens_gives_the_logits(shapes, folded, question) -> None:
    lens, logits = tutorial(folded, folded.prompt(question))
    assert torch.allclose(lens, logits, atol=1e-4)
    # where norms are not folded, their weight is missing there
    lens, logits = tutorial(shapes, shapes.prompt(question))
    assert float((lens - logits).abs().max()) > 1
    _, cache = shapes.run_with_cache(shapes.prompt(question))
    streams = cache.accumulated_resid(layer=-1, incl_mid=False, pos_slice=-1)
    scaled = cache.apply_ln_to_stack(streams, layer=-1, pos_slice=-1) * shapes.ln_final.w
    assert torch.allclose((scaled @ shapes.W_U)[-1, 0], logits, atol=1e-4)


def test_every_stream_and_every_pattern_is_what_it_was(shapes, folded, question) -> None:
    prompt = shapes.prompt(question)
    assert folded.prompt(question).made_by == prompt.made_by, "the front end stays as it is"
    logits, cache = shapes.run_with_cache(prompt)
    also, of_folded = folded.run_with_cache(prompt)
    assert torch.allclose(also, logits, atol=1e-4)
    for name in cache:
        assert torch.allclose(of_folded[name], cache[name], atol=1e-4), name
    cut = vl.Knockout("video", "question", layers=range(2, 6))
    one, other = (model.run_with_hooks(prompt, fwd_hooks=cut) for model in (shapes, folded))
    assert torch.allclose(one, other, atol=1e-4) and not torch.allclose(one, logits, atol=0.1)
    assert all(bool((norm.w == 1).all()) for block in folded.blocks for norm in (block.ln1, block.ln2))
    assert folded.cfg.normalization_type == "RMSPre" and shapes.cfg.normalization_type == "RMS"


def test_attributions_and_our_own_lens_stay_right(shapes, folded, question) -> None:
    prompt = folded.prompt(question)
    logits, cache = folded.run_with_cache(prompt)
    answer = prompt.answer_token
    parts = cache.decompose_resid(layer=-1, pos_slice=-1)
    attributed = cache.logit_attrs(parts, tokens=torch.tensor([answer]), pos_slice=-1, has_batch_dim=True)
    assert torch.allclose(attributed.sum(0).squeeze(), logits[0, -1, answer], atol=1e-3)
    traces = [vl.answer_trace(model, [question], samples="all", progress=False).table for model in (shapes, folded)]
    assert (traces[0]["probability"] - traces[1]["probability"]).abs().max() < 1e-5


@each_family
def test_every_family_can_be_folded(name: str) -> None:
    """Fused projections, biases, tied embeddings and norms of single heads included."""
    model = with_norms_that_matter(CASES[name].load())
    prompt = CASES[name].prompts(model)[0]
    logits, embedding, tied = model(prompt), model.W_E.clone(), model.unembed.weight is model.W_E
    heads = [None if block.attn.q_norm is None else block.attn.q_norm.w.clone() for block in model.blocks]
    before = copy.deepcopy(model)
    fold_norms(model)
    assert float((model(prompt) - logits).abs().max() / logits.std()) < 1e-4
    assert torch.equal(model.W_E, embedding) and (model.unembed.weight is not model.W_E or not tied)
    for block, was in zip(model.blocks, heads, strict=True):
        assert was is None or torch.equal(block.attn.q_norm.w, was)
    lens, last = tutorial(model, prompt)
    assert float((lens - last).abs().max() / last.std()) < 1e-4
    lens, last = tutorial(before, prompt)
    assert float((lens - last).abs().max() / last.std()) > 0.1, "the test could have failed"


def test_a_module_that_was_given_stays_as_it_was() -> None:
    module = tiny_llava_next_video()
    module.model.language_model.norm.weight.data.uniform_(0.5, 1.5)
    state = {name: weight.clone() for name, weight in module.state_dict().items()}
    model = vl.HookedVideoTransformer.from_hugging_face(module, fold_ln=True)
    assert bool((model.ln_final.w == 1).all())
    assert all(torch.equal(weight, state[name]) for name, weight in module.state_dict().items())


def test_what_cannot_be_folded_is_refused(model, monkeypatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(vl.VideolensError, match="fold_ln = 1: give True or False"):
        vl.HookedVideoTransformer.from_hugging_face(tiny_llava_next_video(), fold_ln=1)
    half = copy.deepcopy(model).half()
    half.blocks[1].ln2.w.fill_(6e4)
    half.blocks[1].mlp.gate.weight.fill_(6e4)
    with pytest.raises(vl.VideolensError, match=r"layer 1's ln2 cannot be folded in torch.float16"):
        fold_norms(half)
