"""Rows of the vocabulary that no token of the tokenizer has: never chosen, and shown as what they are."""

from __future__ import annotations

import pytest
import torch
from helpers.models import D_VOCAB
from helpers.prompts import tiny_model, tiny_prompt
from helpers.tokenizer import tiny_tokenizer

import videolens as vl
from videolens.experiments.common.words import token_text

PADDED = D_VOCAB - 1


@pytest.fixture
def model() -> vl.HookedVideoTransformer:
    """The last id of its vocabulary is no token, and it wants to say nothing else."""
    model = tiny_model(tokenizer=tiny_tokenizer())
    assert PADDED in model.padded_ids
    prompt = tiny_prompt(model)
    logits, cache = model.run_with_cache(prompt, names_filter="ln_final.hook_normalized")
    last = cache["ln_final.hook_normalized"][0, -1] * model.ln_final.w
    with torch.no_grad():
        model.unembed.weight[PADDED] = (logits[0, -1].max() + 1) * last / last.square().sum()
    return model


def test_padded_ids_are_those_without_a_token(model) -> None:
    vocabulary = set(model.tokenizer.get_vocab().values())
    assert set(model.padded_ids.tolist()) == set(range(D_VOCAB)) - vocabulary
    assert len(tiny_model().padded_ids) == 0, "without a tokenizer nothing is known of ids"
    bundled = vl.HookedVideoTransformer.from_pretrained("shapes")
    assert set(bundled.padded_ids.tolist()) | set(bundled.tokenizer.get_vocab().values()) >= set(range(454))


def test_they_are_never_chosen(model) -> None:
    prompt = tiny_prompt(model)
    logits = model(prompt)[0, -1]
    assert int(logits.argmax()) == PADDED, "the control: it has the largest logit"
    known = torch.tensor(sorted(model.tokenizer.get_vocab().values()))
    best = int(known[logits[known].argmax()])
    assert int(model.chosen(logits)) == best
    tokens = model.generate(prompt, 6, stop_at_eos=False).tokens
    assert int(tokens[0, 0]) == best and torch.isin(tokens, known).all()
    flow = vl.trace_flow(model, prompt, samples="all", progress=False)
    assert flow.n == 1
    assert vl.answer_trace(model, prompt, samples="all", progress=False).n == 1


def test_they_are_shown_as_such(model) -> None:
    assert model.tokenizer.decode([PADDED]) == ""
    assert token_text(model, PADDED) == model.shown(PADDED) == f"<padded {PADDED}>"
    assert model.to_str_tokens([PADDED, 12]) == [f"<padded {PADDED}>", model.tokenizer.decode([12])]
    lens = vl.logit_lens(model, tiny_prompt(model), top=D_VOCAB, progress=False)
    words = dict(zip(lens.table["token"], lens.table["word"], strict=True))
    assert {words[token] for token in model.padded_ids.tolist()} == {f"<padded {i}>" for i in model.padded_ids.tolist()}


def test_the_lens_looks_for_no_keywords_by_itself(model) -> None:
    assert vl.logit_lens(model, tiny_prompt(model), progress=False).settings.groups == {}


@pytest.mark.parametrize("options", [["left", "right", "left"], ["up", "left ", "left"], ["a", "b", "b"]])
def test_an_option_that_stands_twice_is_refused(options: list[str]) -> None:
    video = vl.Video.from_array(torch.zeros(2, 16, 16, 3, dtype=torch.uint8))
    for more in ({"answer": options[0]}, {}):
        with pytest.raises(vl.VideolensError, match="options that stand there twice"):
            vl.Question(video, "Which way?", options, **more)
    with pytest.raises(vl.VideolensError, match="options that stand there twice"):
        vl.Question(video, "Which way?", alternatives=options)
