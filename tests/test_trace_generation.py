"""Long answers: a prompt with the beginning of its answer, which words are followed, and what cutting routes does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.families import CASES
from helpers.prompts import tiny_model, tiny_prompt
from test_architecture import PACKAGE

import videolens as vl
from videolens.engine.full import full_logits, last_logits
from videolens.errors import ModelError, PromptError, SelectionError, VideolensError
from videolens.experiments.generation.anchors import Anchor, anchors_in, check_anchors, words_in
from videolens.experiments.generation.result import ROUTES
from videolens.experiments.generation.verbs import is_verb
from videolens.interventions.layer_sets import window_layers
from videolens.prompt.batched_tokens import TokenMaps

SAVED = Path(__file__).parent / "data" / "saved" / "generation"
WINDOW, NEW = 2, 12
SCENES = ["night", "grass", "sand", "sea", "snow", "brick"]
FOLLOWED = [0, 1, 4, 5]
"""Places of tokens: before the first nothing is written, before the second one token, before the others several."""


@pytest.fixture(scope="module")
def nohint() -> vl.HookedVideoTransformer:
    return vl.HookedVideoTransformer.from_pretrained("shapes-nohint")


@pytest.fixture(scope="module")
def questions() -> list[vl.Question]:
    return list(vl.load_dataset("shapes", task="scene transition", n=3))


@pytest.fixture(scope="module")
def trace(nohint: vl.HookedVideoTransformer, questions: list[vl.Question]) -> vl.GenerationTrace:
    return vl.trace_generation(nohint, questions, anchors=SCENES, max_new_tokens=NEW, verify=True, progress=False)


def by_hand(model: vl.HookedVideoTransformer, prompt: vl.Prompt, written: torch.Tensor) -> vl.Prompt:
    """The prompt with tokens after it, as `helpers` of generation put it together: "last" is still the prompt's own."""
    embedded = model.frontend.embed_text(written[None])
    along = prompt.shape[1] + torch.arange(len(written))
    tables = model.frontend.rotary(embedded, along[None])
    return replace(
        prompt,
        input_ids=torch.cat([prompt.input_ids, written[None]], dim=1),
        tokens=prompt.tokens.with_response(len(written)),
        residual=torch.cat([prompt.residual, embedded], dim=1),
        rotary=tuple(torch.cat(pair, dim=1) for pair in zip(prompt.rotary, tables, strict=True)),
    )


def closed(rows: Sequence[int], keys: Sequence[int], mask: torch.Tensor, hook: Any) -> torch.Tensor:
    """A mask in which some rows do not see some keys."""
    mask = mask.clone()
    for row in rows:
        mask[..., row, list(keys)] = False
    return mask


# -- the numbers ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_every_number_is_that_of_a_plain_forward_with_the_mask_set_by_hand(model, prompt) -> None:
    written = model.generate(prompt, NEW, stop_at_eos=False).tokens[0]
    model.ends = ()
    found = vl.trace_generation(
        model, prompt, anchors=FOLLOWED, n_anchors=4, max_new_tokens=NEW, window=WINDOW, progress=False
    )
    n, n_layers = prompt.shape[1], model.cfg.n_layers
    video, question = prompt.tokens["video"].tolist(), prompt.tokens["question"].tolist()
    for anchor, place in enumerate(FOLLOWED):
        longer = by_hand(model, prompt, written[:place]) if place else prompt
        last, token = n + place - 1, int(written[place])
        p_base = float(model(longer)[0, -1].softmax(-1)[token])
        before, spared = range(n, last), range(n, last - 1)
        pairs = {
            "video -> question": (question, video),
            "video -> response": (before, video),
            "video -> last": ([last], video),
            "question -> last": ([last], question),
            "response -> last": ([last], spared),
        }
        there = {route for route, (rows, keys) in pairs.items() if len(rows) and len(keys)}
        rows = found.table[found.table["anchor"] == anchor]
        assert set(rows["route"]) == there and set(rows["place"]) == {place}
        assert rows["p_base"].tolist() == pytest.approx([p_base] * len(rows), rel=1e-4)
        for route in there:
            of_route = rows[rows["route"] == route]
            for layer in range(n_layers):
                cut = partial(closed, *pairs[route])
                hooks = [(f"blocks.{at}.attn.hook_mask", cut) for at in window_layers(layer, WINDOW, n_layers)]
                p = float(model.run_with_hooks(longer, fwd_hooks=hooks)[0, -1].softmax(-1)[token])
                [mine] = of_route.loc[of_route["layer"] == layer, "change_percent"]
                assert mine == pytest.approx((p / p_base - 1) * 100, abs=0.02), (anchor, route, layer)
    assert found.table["change_percent"].abs().max() > 1, "the routes are felt"


def test_both_engines_say_the_same_and_a_sample_is_verified(nohint, questions, trace) -> None:
    full = vl.trace_generation(nohint, questions[:1], anchors=SCENES, max_new_tokens=NEW, engine="full", progress=False)
    mine = trace.table[trace.table["question"] == questions[0].id].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, full.table, rtol=1e-3, atol=0.02)
    assert 0 <= trace.settings.verified < 1e-4 and trace.settings.forwards < trace.settings.full_forwards / 5


def test_a_word_shown_in_the_video_rests_on_it_and_a_filler_does_not(nohint, questions, trace) -> None:
    assert trace.n == 3 and trace.anchors == [0, 1, 2]
    assert trace.flow(0).peak("video -> last")[1].value < -30
    filler = vl.trace_generation(nohint, questions, anchors=["to"], n_anchors=1, max_new_tokens=NEW, progress=False)
    assert set(filler.table["word"]) == {"to"} and set(filler.table["place"]) == {1}
    assert filler.flow(0).peak("video -> last")[1].value > -5


def test_what_is_there_per_anchor_and_what_is_left_out_is_said(nohint, questions, trace) -> None:
    first, second = trace.flow(0), trace.flow(1)
    assert first.routes == ["video -> question", "video -> last", "question -> last"]
    assert second.routes == ["video -> question", "video -> response", "video -> last", "question -> last"]
    assert trace.routes == list(ROUTES) and first.n == 3
    left = trace.skipped()
    assert set(left["route"]) == {
        "video -> response, anchor 0",
        "response -> last, anchor 0",
        "response -> last, anchor 1",
    }
    assert set(first.skipped()["route"]) == {"video -> response", "response -> last"} and (left["questions"] == 3).all()
    answers = trace.answers
    assert list(answers["question"]) == [each.id for each in questions] and (answers["tokens"] == NEW).all()
    for answer, question in zip(answers["answer"], questions, strict=True):
        assert answer.split()[:3] == question.answer.split(), "it was asked in words, and the answer is right"
    summary = trace.summary()
    assert list(summary.columns[:3]) == ["anchor", "task", "route"]
    assert summary.loc[0, "peak_percent"] == pytest.approx(first.peak("video -> question")[1].value)
    assert repr(trace).startswith("GenerationTrace('shapes-nohint', 3 of 3 answers with 3 anchors (words: night, ")


def test_answers_with_too_few_anchors_are_left_out(nohint, questions) -> None:
    with pytest.raises(
        VideolensError, match=r"none of the 3 questions is left: its answer has 0 of 3 anchors\. Ask for"
    ):
        vl.trace_generation(nohint, questions, max_new_tokens=NEW, progress=False)
    words = [word for each in questions for word in each.answer.split()]
    rare = next(word for word in words if words.count(word) == 1 and word != "to")
    some = vl.trace_generation(nohint, questions, anchors=[rare], n_anchors=1, max_new_tokens=3, progress=False)
    assert some.n == 1 and len(some.answers) == 3 and sorted(some.answers["anchors"]) == [0, 0, 1]
    assert some.skipped().query("route == 'all'")["reason"].tolist() == ["its answer has 0 of 1 anchors"]


def test_half_precision_says_its_noise(nohint, questions) -> None:
    rounded = vl.HookedVideoTransformer.from_pretrained("shapes-nohint", dtype="bfloat16")
    found = vl.trace_generation(rounded, questions[:1], anchors=SCENES, max_new_tokens=NEW, progress=False)
    assert found.settings.noise is not None and found.flow(0).noise_floor("video -> last") > 0


def test_it_is_saved_drawn_and_contradicts_nothing(trace, tmp_path) -> None:
    again = vl.GenerationTrace.load(trace.save(tmp_path / "trace"))
    assert repr(again) == repr(trace) and again.settings == trace.settings
    pd.testing.assert_frame_equal(again.table, trace.table)
    assert len(trace.figure().axes) == 3
    with pytest.raises(SelectionError, match="unknown task in this trace of generation 'scene'"):
        trace.figure(task="scene")
    with pytest.raises(VideolensError, match="anchor = 3"):
        trace.flow(3)
    table, answers = trace.table, trace.answers
    for wrong, message in (
        ({"table": table.assign(anchor=table["anchor"] + 1)}, r"anchors count from 0 to 2, got \[1, 2, 3\]"),
        ({"table": table.iloc[1:]}, "needs the layers 0 … 7"),
        ({"table": table.assign(route="video -> stem")}, "the routes are"),
        ({"table": table.assign(change_percent=0.0)}, "change_percent is not"),
        ({"answers": answers.iloc[1:]}, "1 questions are traced whose answer is not there"),
        ({"answers": answers.assign(anchors=2)}, "fewer than 3 anchors"),
        ({"answers": pd.concat([answers, answers])}, "an answer is there twice"),
    ):
        with pytest.raises(VideolensError, match=message):
            replace(trace, **wrong)


# -- which words ------------------------------------------------------------------------------------------------------


def test_verbs_are_forms_on_a_list() -> None:
    text = "moves moving moved stops stopped squatting carries carried tying mixes went thrown Opening waved hopped"
    assert [word for word in text.split() if not is_verb(word)] == []
    others = "circle cross is has left quickly mover stoping openning night a"
    assert [word for word in others.split() if is_verb(word)] == []


def test_anchors_by_verbs_words_places_and_a_function(nohint) -> None:
    tokens = nohint.to_tokens(" the red circle moves to the left and goes up", prepend_bos=False)[0].tolist()
    words = [one.word for one in words_in(tokens, nohint.tokenizer)]
    assert " ".join(words) == "the red circle moves to the left and goes up"

    def found(given: Any) -> list[str]:
        check_anchors(given, nohint)
        return [one.word for one in anchors_in(tokens, given, nohint)]

    assert found("verbs") == ["moves", "goes"]
    assert found(["THE", "up", "down"]) == ["the", "the", "up"]
    assert found([9, 2, 40]) == ["circle", "up"]
    assert found(lambda given: [i for i, word in enumerate(given) if len(word) == 2]) == ["to", "up"]
    # a word of several tokens is followed by its first
    several = nohint.to_tokens(" a zebra moves", prepend_bos=False)[0].tolist()
    assert len(several) > 3 and words_in(several, nohint.tokenizer)[1].word == "zebra"
    [moves] = anchors_in(several, "verbs", nohint)
    assert moves == Anchor("moves", len(several) - 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("verb", "unknown kind of anchors 'verb'; did you mean 'verbs'"),
        ("sea", r"Words are a list: \['sea'\]"),
        ([], "anchors are"),
        (["sea", 3], "give 'verbs', a list of words, a list of places"),
        ([True], "anchors are"),
        ([-1, 2], "places of tokens count from 0"),
        ([2, 2], "each is named once"),
        (None, "anchors are None"),
        (7, "anchors are 7"),
    ],
)
def test_anchors_that_are_none(nohint, questions, given: Any, said: str) -> None:
    with pytest.raises(SelectionError, match=said):
        vl.trace_generation(nohint, questions, anchors=given, progress=False)


def test_a_function_that_gives_no_places_and_a_model_without_words(nohint, questions, model, prompt) -> None:
    for function, said in (
        (lambda words: words, "must give the places of words"),
        (lambda words: [99], r"names the words \[99\]"),
        (lambda words: None, "must give the places of words"),
    ):
        with pytest.raises(SelectionError, match=said):
            vl.trace_generation(nohint, questions, anchors=function, max_new_tokens=3, progress=False)
    with pytest.raises(SelectionError, match="has no tokenizer, so its answers have no words: give places"):
        vl.trace_generation(model, prompt, progress=False)
    for option in ({"n_anchors": 0}, {"max_new_tokens": 0}, {"window": 99}, {"engine": "fast"}):
        with pytest.raises(
            VideolensError,
            match=next(iter(option)).replace("_", "."),
        ):
            vl.trace_generation(model, prompt, anchors=[1], progress=False, **option)


# -- a prompt with the beginning of its answer ------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("family", ["llava_next_video", "qwen2_5_vl", "qwen3_vl", "internvl"])
def test_it_says_what_the_next_step_of_decoding_says(family: str) -> None:
    case = CASES[family]
    model = case.load()
    prompt = case.prompts(model)[0]
    steps: list[torch.Tensor] = []
    with model.hooks(fwd_hooks=[("ln_final.hook_normalized", lambda value, hook: steps.append(value[:, -1:]))]):
        written = model.generate(prompt, 5, stop_at_eos=False).tokens[0]
    for n in range(5):
        longer = model.prompt_with_answer(prompt, written[:n])
        assert longer.shape[1] == prompt.shape[1] + n and int(longer.tokens["last"]) == longer.shape[1] - 1
        logits = last_logits(model, longer)
        assert int(model.chosen(logits)) == int(written[n])
        _, cache = model.run_with_cache(longer, names_filter="ln_final.hook_normalized")
        now, then = cache["ln_final.hook_normalized"][0, -1], steps[n][0, 0]
        assert (now - then).abs().max() <= 1e-4 * then.std()
    # and so it goes on from there
    on = model.generate(model.prompt_with_answer(prompt, written[:2]), 3, stop_at_eos=False).tokens[0]
    assert torch.equal(on, written[2:])


def test_what_it_knows_and_refuses(model, prompt) -> None:
    longer = model.prompt_with_answer(prompt, [3, 4, 7])
    tokens = longer.tokens
    assert tokens["response"].tolist() == [25, 26, 27] and tokens["response 1-2"].tolist() == [26, 27]
    assert tokens["response 0 | response 2"].tolist() == [25, 27] and tokens["last"].tolist() == [27]
    assert longer.answer_token is None and longer.option_tokens == () and prompt.answer_token == 5
    assert model.prompt_with_answer(prompt, []) is prompt or model.prompt_with_answer(prompt, []).shape == prompt.shape
    for name in ("response 3", "response 2-1", "response 0-9"):
        with pytest.raises(SelectionError, match=r"is not in the answer: its tokens are 0 … 2"):
            tokens[name]
    with pytest.raises(SelectionError, match="no answer follows this prompt"):
        prompt.tokens["response 0"]
    padded = vl.Prompt.batch([longer, model.prompt_with_answer(prompt, [3, 4, 7, 8])]).tokens.maps[0]
    assert padded["last"].tolist() == [28] and padded["response"].tolist() == [26, 27, 28]
    with pytest.raises(SelectionError, match="the newest token is at 3, where no response is"):
        replace(tokens, newest=3)
    # a batch of prompts that differ in nothing but what "last" is
    assert not TokenMaps((tokens, replace(tokens, newest=None))).alike
    with pytest.raises(PromptError, match="give their ids"):
        model.prompt_with_answer(prompt, ["a"])
    with pytest.raises(PromptError, match="single prompt"):
        model.prompt_with_answer(vl.Prompt.batch([prompt, longer]), [3])
    with pytest.raises(ModelError, match="outside the vocabulary"):
        model.prompt_with_answer(prompt, [10**6])
    with pytest.raises(ModelError, match="do not fit the context"):
        model.prompt_with_answer(prompt, [3] * model.cfg.n_ctx)


@torch.no_grad()
def test_last_is_the_newest_token_for_cuts_and_the_engine(model, prompt) -> None:
    longer = model.prompt_with_answer(prompt, [3, 4, 7])
    cut = vl.Knockout("video", "last", layers=range(model.cfg.n_layers))
    found = vl.sweep(model, longer, [cut], verify=True)
    assert torch.allclose(found.logits[0], full_logits(model, longer, cut.hooks(longer)), atol=1e-4)

    row = partial(closed, [27], longer.tokens["video"].tolist())
    hooks = [(f"blocks.{layer}.attn.hook_mask", row) for layer in range(model.cfg.n_layers)]
    assert torch.allclose(found.logits[0], model.run_with_hooks(longer, fwd_hooks=hooks)[0, -1].float(), atol=1e-4)
    own = tiny_prompt(tiny_model())
    assert own.tokens.newest is None


def test_a_saved_trace_is_of_the_bundled_model() -> None:
    saved = vl.GenerationTrace.load(SAVED)
    assert saved.settings.model == "shapes-nohint" and np.isfinite(saved.table["change_percent"]).all()
    assert (PACKAGE / "experiments" / "generation" / "section.html").is_file()
