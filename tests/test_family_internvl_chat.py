"""InternVLChat in its published layout against plain torch: both rotary regimes, every storage, the paper's prompt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.internvl_chat import CONFIG, IMAGE, ORIGINAL, VISION, PlainInternVLChat
from helpers.parity import (
    STORAGES,
    PlainReference,
    byte_tokenizer,
    ids_around,
    prove,
    randomise,
    rounded,
    special_ids,
    write_state,
)

from videolens import Prompt, Question, Video
from videolens.errors import ModelError, VideolensError
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.known_templates import template_named

SPECIAL = ("<s>", "<|end|>", "<img>", "</img>", "<IMG_CONTEXT>")
IDS = special_ids(SPECIAL)
CONTEXT = IDS["<IMG_CONTEXT>"]
PREPROCESSOR = {
    "crop_size": IMAGE,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": IMAGE,
}
FRAMES, EACH = 3, 4
FRAMED = [IDS["<img>"], *[CONTEXT] * (FRAMES * EACH), IDS["</img>"]]
SHORT, LONG = (9, 14), (60, 71)  # words after the video: prompts of 27 and 32, of 78 and 89 tokens


def original(**vision: Any) -> PlainInternVLChat:
    return randomise(PlainInternVLChat(VISION | vision, context=CONTEXT))


def write(directory, module: PlainInternVLChat, storage=STORAGES["fp32"], **changes: Any):
    files = {"preprocessor_config.json": PREPROCESSOR}
    write_state(directory, module.state_dict(), CONFIG | changes, storage, files=files)
    byte_tokenizer(SPECIAL, bos="<s>", eos="<|end|>", prepend_bos=True).save_pretrained(directory)
    return directory


def reference(module: PlainInternVLChat) -> PlainReference:
    return PlainReference(module, list(module.language_model.model.layers))


def prompts(ours: HookedVideoTransformer, lengths: tuple[int, ...]) -> list[Prompt]:
    return [
        ours.prompt_from_ids(ids_around(FRAMED, after=n, seed=n), torch.randn(1, FRAMES, 3, IMAGE, IMAGE))
        for n in lengths
    ]


@pytest.fixture(scope="module")
def plain() -> PlainInternVLChat:
    return original()


@pytest.fixture(scope="module")
def model(plain, tmp_path_factory) -> HookedVideoTransformer:
    return HookedVideoTransformer.from_pretrained(write(tmp_path_factory.mktemp("chat"), plain))


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_parity(storage, plain, tmp_path) -> None:
    ours = HookedVideoTransformer.from_pretrained(write(tmp_path, plain, storage), dtype=torch.float32)
    prove(ours, reference(rounded(plain, storage)), prompts(ours, SHORT))


def test_long_prompts_turn_by_the_long_factors(plain, model) -> None:
    short, long = prompts(model, (SHORT[0], LONG[0]))
    assert short.shape[1] <= ORIGINAL < long.shape[1]
    assert not torch.allclose(long.rotary[0][:, : short.shape[1]], short.rotary[0])
    prove(model, reference(plain), prompts(model, LONG))


def test_each_prompt_of_a_batch_has_its_own_factors(plain, model) -> None:
    prove(model, reference(plain), prompts(model, (SHORT[0], LONG[0])))


def test_a_tower_with_norms_of_queries_and_keys(tmp_path) -> None:
    changes = {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False}
    plain = original(**changes)
    ours = HookedVideoTransformer.from_pretrained(write(tmp_path, plain, vision_config=VISION | changes))
    prove(ours, reference(plain), prompts(ours, SHORT))


@torch.no_grad()
def test_frequencies_do_not_change_while_writing(model) -> None:
    (prompt,) = prompts(model, (ORIGINAL - 18 - 4,))  # four tokens short of the change
    assert prompt.shape[1] == ORIGINAL - 4
    assert model.generate(prompt, 5, stop_at_eos=False).tokens.shape == (1, 5)
    with pytest.raises(ModelError, match=r"cross position 64,.* at most 5 new tokens"):
        model.generate(prompt, 6, stop_at_eos=False)


def test_a_sliding_window_is_the_context(plain, tmp_path) -> None:
    text = CONFIG["llm_config"] | {"sliding_window": 40}
    ours = HookedVideoTransformer.from_pretrained(write(tmp_path, plain, llm_config=text))
    assert ours.cfg.n_ctx == 40
    with pytest.raises(VideolensError, match="more than the context of 40"):
        prompts(ours, LONG[:1])


def test_other_decoders_and_orders_are_refused(plain, tmp_path) -> None:
    directory = write(tmp_path, plain, llm_config=CONFIG["llm_config"] | {"model_type": "internlm2"})
    with pytest.raises(ModelError, match=r"llm_config\.model_type is 'internlm2'"):
        HookedVideoTransformer.from_pretrained(directory)
    with pytest.raises(ModelError, match="ps_version 'v1'"):
        HookedVideoTransformer.from_pretrained(write(tmp_path, plain, ps_version="v1"))


def test_the_placeholder_must_be_a_token_of_the_decoder(plain, tmp_path) -> None:
    directory = write_state(tmp_path, plain.state_dict(), CONFIG)  # no tokenizer: 32013 as published
    with pytest.raises(ModelError, match="<IMG_CONTEXT> is token 32013"):
        HookedVideoTransformer.from_pretrained(directory)
    write_state(tmp_path, plain.state_dict(), CONFIG | {"img_context_token_id": CONTEXT})
    assert HookedVideoTransformer.from_pretrained(directory).frontend.video_token == CONTEXT


def test_the_video_is_one_image(model) -> None:
    frames = torch.randint(0, 256, (FRAMES, 20, 28, 3), dtype=torch.uint8)
    question = Question(Video.from_array(frames, fps=2.0), "Which way?", ["left", "right"], "left")
    assert model.pixels(question.video.frames).shape == (FRAMES, 3, IMAGE, IMAGE)
    prompt = model.prompt(question, template=template_named("vicuna").with_system(""))
    tokens = prompt.tokens
    assert tokens.grid == (FRAMES, 2, 2)
    text = model.tokenizer.decode(prompt.input_ids[0])
    assert "<img>" + "<IMG_CONTEXT>" * (FRAMES * EACH) + "</img>\n USER:" in text
    opening, closing = tokens["separator"].tolist()
    assert tokens["video"].tolist() == list(range(opening + 1, closing))
    assert (tokens.frame[opening], tokens.frame[closing]) == (0, FRAMES - 1)
    assert prompt.input_ids[0, [opening, closing]].tolist() == [IDS["<img>"], IDS["</img>"]]
