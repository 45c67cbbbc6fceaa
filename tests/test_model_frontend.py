"""From pixels and ids to a prompt, and the front end's hook points."""

from __future__ import annotations

import pytest
import torch
from helpers.models import VIDEO, tiny_inputs, tiny_llava_next_video
from helpers.tokenizer import tiny_tokenizer

from videolens.errors import ModelError, PromptError, SelectionError
from videolens.model.transformer import HookedVideoTransformer
from videolens.model.vision.pixels import PixelSettings
from videolens.question import Question
from videolens.video.video import Video

PIXELS = PixelSettings(size=16, crop=(16, 16))


@pytest.fixture(scope="module")
def model():
    return HookedVideoTransformer.from_hugging_face(tiny_llava_next_video(), tokenizer=tiny_tokenizer(), pixels=PIXELS)


@pytest.fixture(scope="module")
def bare():
    return HookedVideoTransformer.from_hugging_face(tiny_llava_next_video())


@pytest.fixture
def tower_calls(model, monkeypatch):
    """One entry per run of the vision tower."""
    calls = []
    tower = type(model.frontend.parts["tower"])
    forward = tower.forward
    monkeypatch.setattr(tower, "forward", lambda self, *args, **kw: (calls.append(1), forward(self, *args, **kw))[1])
    return calls


# -- prompts from ids


def test_one_placeholder_or_all_of_them_give_the_same_prompt(bare) -> None:
    one, each, pixels = tiny_inputs(frames=3, rows=2)
    short, full = bare.prompt_from_ids(one, pixels), bare.prompt_from_ids(each, pixels)
    assert torch.equal(short.input_ids, each)
    assert torch.equal(short.input_ids, full.input_ids)
    assert torch.equal(short.residual, full.residual)
    assert short.shape == (2, 25)


def test_the_prompt_holds_what_its_fields_say(bare) -> None:
    one, _, pixels = tiny_inputs(frames=3)
    prompt = bare.prompt_from_ids(
        one, pixels, spans={"stem": range(17, 20)}, seconds=[0.0, 0.5, 1.0], answer_token=7, option_tokens=[7, 8]
    )
    assert prompt.pixel_values.shape == (1, 3, 3, 16, 16)
    assert prompt.video_features.shape == (1, 3, 16, 16)
    assert prompt.residual.shape == (1, 25, 32)
    assert [table.shape for table in prompt.rotary] == [(1, 25, 8), (1, 25, 8)]
    tokens = prompt.tokens
    assert tokens.grid == (3, 2, 2)
    assert tokens["video"].tolist() == list(range(4, 16))
    assert tokens["frame 1"].tolist() == [8, 9, 10, 11]
    assert tokens["stem"].tolist() == [17, 18, 19]
    assert tokens["last"].tolist() == [24]
    assert tokens.seconds[tokens["frame 1"]].tolist() == [0.5] * 4
    assert (prompt.answer_token, prompt.option_tokens) == (7, (7, 8))
    text = [i for i in range(25) if not 4 <= i < 16]
    assert torch.equal(prompt.residual[0, text], bare.W_E[prompt.input_ids[0, text]])


def test_no_spans_at_all_and_ids_as_a_list_and_one_clip_for_all_rows(bare) -> None:
    one, _, pixels = tiny_inputs(frames=3)
    prompt = bare.prompt_from_ids(one[0].tolist(), pixels[0])
    assert prompt.tokens["last"].tolist() == [24]
    assert {role for role in prompt.tokens.roles} == {"system", "video", "suffix"}
    two = bare.prompt_from_ids(one.expand(2, -1), pixels)
    assert torch.equal(two.residual[0], two.residual[1])
    assert torch.equal(bare(two)[:1], bare(two[0])) or torch.allclose(bare(two)[:1], bare(two[0]), atol=1e-5)


def test_text_alone_can_be_a_prompt(bare) -> None:
    ids = torch.randint(3, 90, (1, 9))
    prompt = bare.prompt_from_ids(ids, None, spans={"stem": range(3, 6)})
    assert torch.equal(bare(prompt), bare(ids))
    assert len(prompt.tokens["video"]) == 0


def test_changing_one_patch_changes_its_frame_and_nothing_else(bare) -> None:
    one, _, pixels = tiny_inputs(frames=3)
    changed = pixels.clone()
    changed[0, 1, :, :4, :4] += 1.0
    before, after = bare.prompt_from_ids(one, pixels), bare.prompt_from_ids(one, changed)
    moved = (before.residual != after.residual).any(-1)[0].nonzero().flatten()
    assert moved.tolist() == before.tokens["frame 1"].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids, pixels: (ids.float(), pixels), "must be integers"),
        (lambda ids, pixels: (ids.masked_fill(ids == VIDEO, 5), pixels), "0 placeholders"),
        (lambda ids, pixels: (torch.cat([ids, ids], 1), pixels), "2 placeholders"),
        (lambda ids, pixels: (ids, None), "no pixel_values"),
        (lambda ids, pixels: (ids, pixels[0, 0]), "batch frame channel height width"),
        (lambda ids, pixels: (ids, pixels[:, :, :1]), "3 channels"),
        (lambda ids, pixels: (ids, (pixels * 0).to(torch.uint8)), "floating point"),
        (lambda ids, pixels: (ids, pixels.repeat(3, 1, 1, 1, 1)), "1 or 1 clips"),
        (lambda ids, pixels: (ids, pixels / 0), "not finite"),
        (lambda ids, pixels: (ids, torch.zeros(1, 3, 3, 32, 32)), "vision tower does not take"),
        (lambda ids, pixels: (ids, torch.zeros(1, 3, 3, 16, 24)), "square"),
        (lambda ids, pixels: (ids.masked_fill(ids == 1, 400), pixels), "outside the vocabulary"),
        (lambda ids, pixels: (ids, torch.zeros(1, 32, 3, 16, 16)), "141 tokens .* context of 128.*fewer frames"),
    ],
)
def test_bad_ids_and_pixels_are_one_clear_error(bare, change, message) -> None:
    ids, _, pixels = tiny_inputs(frames=3)
    with pytest.raises((PromptError, ModelError), match=message):
        bare.prompt_from_ids(*change(ids, pixels))


def test_rows_of_a_batch_share_one_layout(bare) -> None:
    ids, _, pixels = tiny_inputs(frames=3, rows=2)
    ids[1] = ids[1].roll(1)
    with pytest.raises(ModelError, match="share one layout"):
        bare.prompt_from_ids(ids, pixels)


def test_bad_spans_are_clear_errors(bare) -> None:
    ids, _, pixels = tiny_inputs(frames=3)
    with pytest.raises(SelectionError, match="stem"):
        bare.prompt_from_ids(ids, pixels, spans={"stemm": [17]})
    with pytest.raises(SelectionError):
        bare.prompt_from_ids(ids, pixels, spans={"stem": [5]})
    with pytest.raises(PromptError, match="2 frame times"):
        bare.prompt_from_ids(ids, pixels, seconds=[0.0, 1.0])


TWO_OPTIONS = {"option A": [19, 20], "option B": range(21, 23)}


def test_the_answers_token_says_which_option_is_true(bare) -> None:
    ids, _, pixels = tiny_inputs(frames=3)
    told = bare.prompt_from_ids(ids, pixels, spans=TWO_OPTIONS, answer_token=6, option_tokens=[5, 6])
    assert told.tokens["true option"].tolist() == [21, 22] and told.tokens["false options"].tolist() == [19, 20]
    untold = bare.prompt_from_ids(ids, pixels, spans=TWO_OPTIONS, answer_token=6)
    assert untold.tokens.answer is None


@pytest.mark.parametrize(
    ("spans", "answer", "options", "message"),
    [
        ({}, 96, (), r"answer_token \[96\] lies outside the vocabulary, 0 … 95"),
        ({}, 5, (5, -1), "option_tokens .* outside the vocabulary"),
        ({}, 7, (5, 6), r"7 is not among option_tokens \[5, 6\]"),
        ({"true option": [19, 20]}, 6, (5, 6), "'true option' is option 0 .* that of option 1"),
    ],
)
def test_answer_tokens_that_contradict_are_clear_errors(bare, spans, answer, options, message) -> None:
    ids, _, pixels = tiny_inputs(frames=3)
    with pytest.raises(PromptError, match=message):
        bare.prompt_from_ids(ids, pixels, spans=TWO_OPTIONS | spans, answer_token=answer, option_tokens=options)


def test_a_prompt_of_another_model_is_refused(bare) -> None:
    wide = HookedVideoTransformer.from_hugging_face(tiny_llava_next_video(text={"hidden_size": 40}))
    ids, _, pixels = tiny_inputs()
    with pytest.raises(ModelError, match="belongs to the model"):
        wide(bare.prompt_from_ids(ids, pixels))


# -- hook points of the front end


def test_the_tower_runs_once_per_prompt(model, tower_calls) -> None:
    one, _, pixels = tiny_inputs(frames=2)
    prompt = model.prompt_from_ids(one, pixels)
    assert len(tower_calls) == 1
    model(prompt)
    model.generate(prompt, 2)
    model.run_with_cache(prompt)
    model.run_with_hooks(prompt, fwd_hooks=[("frontend.hook_video_features", lambda value, hook: value)])
    assert len(tower_calls) == 1


@pytest.mark.parametrize("name", ["frontend.hook_video_features", "frontend.hook_video_tokens"])
def test_listening_to_the_front_end_changes_no_bit(model, name) -> None:
    one, _, pixels = tiny_inputs(frames=2)
    prompt = model.prompt_from_ids(one, pixels)
    logits, cache = model.run_with_cache(prompt, names_filter=name)
    assert torch.equal(logits, model(prompt))
    expected = prompt.video_features if "features" in name else prompt.residual[:, prompt.tokens["video"]]
    assert torch.equal(cache[name], expected)
    seen = []
    model.run_with_hooks(prompt, fwd_hooks=[(name, lambda value, hook: seen.append(hook.ctx["rows"].tolist()))])
    assert seen == [prompt.tokens["video"].tolist()]


def test_patching_the_front_end_changes_the_residual_and_not_the_prompt(model) -> None:
    one, _, pixels = tiny_inputs(frames=2)
    prompt, other = model.prompt_from_ids(one, pixels), model.prompt_from_ids(one, pixels.flip(1))
    stored, features = prompt.residual.clone(), prompt.video_features.clone()
    expected = model(other)

    def swap_tokens(value, hook):
        value[:] = other.residual[:, other.tokens["video"]]
        return value

    def swap_features(value, hook):
        value[:] = other.video_features
        return value

    for name, swap in (("tokens", swap_tokens), ("features", swap_features)):
        hooks = [(f"frontend.hook_video_{name}", swap)]
        torch.testing.assert_close(model.run_with_hooks(prompt, fwd_hooks=hooks), expected, rtol=0, atol=1e-5)
        assert torch.equal(prompt.residual, stored)
        assert torch.equal(prompt.video_features, features)


def test_features_are_made_again_if_the_prompt_has_dropped_them(model, tower_calls) -> None:
    from dataclasses import replace

    one, _, pixels = tiny_inputs(frames=2)
    prompt = model.prompt_from_ids(one, pixels)
    slim = replace(prompt, video_features=None)
    _, cache = model.run_with_cache(slim, names_filter="frontend.hook_video_features")
    torch.testing.assert_close(cache["frontend.hook_video_features"], prompt.video_features)
    with pytest.raises(PromptError, match="video_features or pixel_values"):
        model.run_with_cache(replace(slim, pixel_values=None), names_filter="frontend.hook_video_features")


# -- prompts from questions


@pytest.fixture(scope="module")
def question():
    frames = torch.randint(0, 256, (4, 24, 32, 3), dtype=torch.uint8)
    video = Video.from_array(frames, fps=2.0)
    return Question(
        video, "where does the red ball move ?", ["left", "right", "up"], "right", task="direction", id="q0"
    )


def test_a_question_becomes_a_prompt(model, question) -> None:
    prompt = model.prompt(question, template="shapes")
    tokens = prompt.tokens
    words = [tokens.texts[i] for i in tokens["stem"]]
    assert words == ["where", "does", "the", "red", "ball", "<unk>", "?"]
    assert [tokens.texts[i] for i in tokens["true option"]][-1] == "right"
    assert tokens.grid == (4, 2, 2)
    assert tokens.seconds[tokens["frame 1"]].tolist() == pytest.approx(question.video.seconds[[1]].tolist() * 4)
    assert model.tokenizer.convert_ids_to_tokens(prompt.answer_token) == "B"
    assert model.tokenizer.convert_ids_to_tokens(list(prompt.option_tokens)) == ["A", "B", "C"]
    assert prompt.text.count("<video>") == 1
    assert torch.equal(prompt.pixel_values[0], model.pixels(question.video.frames))
    assert model(prompt).shape == (*prompt.shape, 96)
    again = model.prompt_from_ids(prompt.input_ids, prompt.pixel_values)
    assert torch.equal(again.residual, prompt.residual)


def test_what_is_missing_for_a_question_is_named(bare, model, question) -> None:
    with pytest.raises(ModelError, match="no tokenizer"):
        bare.prompt(question)
    blind = HookedVideoTransformer.from_hugging_face(tiny_llava_next_video(), tokenizer=tiny_tokenizer())
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        blind.prompt(question)
    with pytest.raises(PromptError, match="no options"):
        model.prompt(Question(question.video, "where ?", []), template="shapes")
    with pytest.raises(PromptError, match="shapes"):
        model.prompt(question, template="shape")
