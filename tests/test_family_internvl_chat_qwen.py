"""InternVLChat with Qwen decoders: told by its decoder, its placeholder, its frames, and the words it is asked in."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.families import CASES, family_named
from helpers.families.internvl import CONTEXT, SIDE
from helpers.families.plain_internvl_chat import CONFIG as PHI3_CONFIG

from videolens import Question, Video
from videolens.errors import ModelError
from videolens.model.families import family_of
from videolens.model.transformer import HookedVideoTransformer

CASE = CASES["internvl_chat_qwen"]
FRAMES = CASE.shape[0]
CHAT = ("internvl_chat", ["InternVLChatModel"])


def test_the_decoder_says_which_of_two_families_it_is() -> None:
    phi3, qwen = family_named("internvl_chat"), family_named("internvl_chat_qwen")
    assert [family_of(*CHAT, decoder) for decoder in ("qwen2", "qwen3")] == [qwen, qwen]
    assert [family_of(*CHAT, decoder) for decoder in ("phi3", "internlm2", None)] == [phi3, phi3, phi3]
    assert (phi3.template, qwen.template) == ("internvl", "internvl2_5")


def test_frequencies_do_not_change_within_the_context() -> None:
    """The checkpoints name factors for what is longer than the context, which is refused."""
    said, rotary = CASE.layout(CASE.plain)[1]["llm_config"], CASE.ours.frontend.rotary
    assert said["rope_scaling"]["rope_type"] == "dynamic" == rotary.module.rope_type
    assert CASE.ours.cfg.n_ctx == said["max_position_embeddings"]
    last = torch.tensor([[CASE.ours.cfg.n_ctx - 1]])
    first = rotary.module.inv_freq.clone()
    rotary(torch.zeros(1), last)
    assert torch.equal(rotary.module.inv_freq, first)
    base, half = said["rope_theta"], CASE.ours.cfg.d_head // 2
    torch.testing.assert_close(first, base ** (-torch.arange(half) / half))


def test_nothing_is_assumed_about_the_placeholder(tmp_path) -> None:
    directory = CASE.write(tmp_path, CASE.plain, bare=True)  # no tokenizer
    with pytest.raises(ModelError, match=r"which token <IMG_CONTEXT> is.*tokenizer files, or img_context_token_id"):
        HookedVideoTransformer.from_pretrained(directory)
    config = json.loads((directory / "config.json").read_text()) | {"img_context_token_id": CONTEXT}
    (directory / "config.json").write_text(json.dumps(config))
    assert HookedVideoTransformer.from_pretrained(directory).frontend.video_token == CONTEXT


def test_another_template_is_asked_for_by_name(tmp_path) -> None:
    directory = CASE.write(tmp_path, CASE.plain, template="Hermes-2", prompt_template="vicuna")
    assert HookedVideoTransformer.from_pretrained(directory).template == "vicuna"


@pytest.mark.parametrize("size", [SIDE, {"shortest_edge": SIDE}, {"height": SIDE, "width": SIDE}])
def test_nothing_is_cut_off_frames(size) -> None:
    found = family_named("internvl_chat_qwen").pixels({"size": size, "crop_size": SIDE, "do_center_crop": True})
    assert (found.crop, found.size) == (None, (SIDE, SIDE))


def test_a_question_in_the_authors_words(tmp_path) -> None:
    frames = torch.randint(0, 256, (FRAMES, 20, 28, 3), dtype=torch.uint8)
    model = HookedVideoTransformer.from_pretrained(CASE.write(tmp_path, CASE.plain))
    prompt = model.prompt(Question(Video.from_array(frames, fps=2.0), "Which way?", ["left", "right"], "left"))
    text = model.tokenizer.decode(prompt.input_ids[0])
    one = "<img>" + "<IMG_CONTEXT>" * 4 + "</img>\n"
    assert f"<|im_end|>\n<|im_start|>user\nFrame1: {one}Frame2: {one}Frame3: {one}Question: Which way?\n" in text
    assert text.startswith("<|im_start|>system\n你是书生")
    assert text.endswith("best option.<|im_end|>\n<|im_start|>assistant\nBest option:(")
    assert prompt.tokens.grid == (FRAMES, 2, 2) and torch.isfinite(model(prompt)).all()


def test_the_other_family_says_what_is_read(tmp_path) -> None:
    directory = CASE.write(tmp_path, CASE.plain, llm_config=PHI3_CONFIG["llm_config"] | {"model_type": "internlm2"})
    with pytest.raises(ModelError, match=r"'internlm2'; .* Phi-3, Qwen2 and Qwen3 are read.*transformers' layout"):
        HookedVideoTransformer.from_pretrained(directory)
