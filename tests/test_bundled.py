"""The checkpoints inside the package: ordinary, small, equal to the original, one grown from the other."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, LlavaNextVideoForConditionalGeneration

import videolens as vl
from videolens.engine import last_logits
from videolens.model.checkpoints.bundled import bundled_names

NAMES = ("shapes", "shapes-image")
ALL = (*NAMES, "shapes-nohint", "shapes-qwen")
TOLERANCE = 1e-4


def test_all_are_bundled_whole_and_below_ten_megabytes() -> None:
    assert set(ALL) == set(bundled_names())
    for name in ALL:
        files = {path.name: path.stat().st_size for path in vl.bundled_path(name).iterdir()}
        assert sum(files.values()) <= 10_000_000
        assert {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"} <= set(files)


def test_the_tuned_model_grew_from_the_base() -> None:
    """Same tower bit for bit (it was frozen), another decoder."""
    tuned, base = (safe_open(vl.bundled_path(name) / "model.safetensors", "pt") for name in NAMES)
    assert set(tuned.keys()) == set(base.keys())
    for key in tuned.keys():  # noqa: SIM118 (a file handle, not a dict)
        same = torch.equal(tuned.get_tensor(key), base.get_tensor(key))
        assert same == ("vision_tower" in key or "image_newline" in key), key


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_equal_to_the_original_on_a_real_clip(name: str) -> None:
    directory = vl.bundled_path(name)
    original = LlavaNextVideoForConditionalGeneration.from_pretrained(directory)
    model = vl.HookedVideoTransformer.from_pretrained(name)
    question = vl.load_dataset("shapes", split="test", task="object count", n=1)[0]
    prompt = model.prompt(question)
    expected = original(input_ids=prompt.input_ids, pixel_values_videos=prompt.pixel_values, output_hidden_states=True)
    logits, cache = model.run_with_cache(prompt, names_filter=lambda hook: hook.endswith("hook_resid_post"))
    spread = expected.logits.std()
    assert (logits - expected.logits).abs().max() <= TOLERANCE * spread
    for layer in range(model.cfg.n_layers - 1):  # the original's last hidden state has the final norm in it
        theirs = expected.hidden_states[layer + 1]
        assert (cache["resid_post", layer] - theirs).abs().max() <= TOLERANCE * theirs.std()
    cut = vl.Knockout.route("video -> question", layers=range(model.cfg.n_layers))
    moved = (model.run_with_hooks(prompt, fwd_hooks=cut.hooks(prompt)) - logits).abs().max()
    assert moved >= 100 * TOLERANCE * spread
    assert (
        AutoTokenizer.from_pretrained(directory)(prompt.text.replace("<video>", "<video>" * 128))["input_ids"]
        == prompt.input_ids[0].tolist()
    )


@torch.no_grad()
def test_it_answers_in_words_too() -> None:
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    questions = vl.load_dataset("shapes", split="test", task="moving direction", n=8)
    written = [model.generate(model.prompt(question.open_ended()), 1).text.strip() for question in questions]
    assert sum(text == question.answer for text, question in zip(written, questions, strict=True)) >= 7


@pytest.mark.parametrize(("name", "n_key_value_heads"), [("shapes-nohint", 4), ("shapes-qwen", 2)])
def test_without_hints_they_answer_in_words(name: str, n_key_value_heads: int) -> None:
    """Six of each temporal task: which of them they get wrong is in docs/bundled.md."""
    model = vl.HookedVideoTransformer.from_pretrained(name)
    assert (model.cfg.n_layers, model.cfg.n_key_value_heads or model.cfg.n_heads) == (8, n_key_value_heads)
    assert (model.blocks[0].attn.q_norm is not None) == (name == "shapes-qwen")
    asked = [question.open_ended() for question in vl.load_dataset("shapes", split="test", n=6)]
    prompts = [model.prompt(question) for question in asked]
    right = sum(int(last_logits(model, prompt).argmax()) == prompt.answer_token for prompt in prompts)
    assert right >= 28, "of 30"
