"""InternVL in transformers' layout is converted as transformers runs it; prompts are as its processor writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from helpers.parity import (
    STORAGES,
    HuggingFaceReference,
    byte_tokenizer,
    ids_around,
    prove,
    randomise,
    rounded,
    special_ids,
    write_module,
)
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    Qwen2Config,
    Qwen3Config,
)

from videolens import Question, Video
from videolens.errors import VideolensError
from videolens.model.families import family_of
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.known_templates import template_named

SPECIAL = ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
IDS = special_ids(SPECIAL)
CONTEXT = IDS["<IMG_CONTEXT>"]
FRAMES, SIDE, EACH = 3, 16, 4  # 4 × 4 patches a frame, shuffled to 2 × 2
PREPROCESSOR = {
    "do_resize": True,
    "size": {"height": SIDE, "width": SIDE},
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "video_processor_type": "InternVLVideoProcessor",
}
TEXT = dict(
    vocab_size=264,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=None,
    eos_token_id=IDS["<|im_end|>"],
    tie_word_embeddings=False,
)
VISION = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=4)
VARIANTS: dict[str, dict[str, Any]] = {
    "Qwen2": {},
    "Qwen2, tied": {"text": {"tie_word_embeddings": True}, "tie_word_embeddings": True},
    "Qwen3, norms of heads wider than the model": {"text": {"model_type": "qwen3", "head_dim": 16}},
    "tower with norms and biases, an earlier layer": {
        "vision": {"attention_bias": True, "use_qk_norm": True, "norm_type": "rms_norm"},
        "vision_feature_layer": -2,
    },
}


def tiny(*, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **rest: Any) -> Any:
    settings = TEXT | (text or {})
    kind = Qwen3Config if settings.pop("model_type", "qwen2") == "qwen3" else Qwen2Config
    config = InternVLConfig(
        text_config=kind(**settings),
        vision_config=InternVLVisionConfig(image_size=SIDE, **(VISION | (vision or {}))),
        image_token_id=CONTEXT,
        **({"tie_word_embeddings": False} | rest),
    )
    return randomise(InternVLForConditionalGeneration(config))


def inputs(ids: torch.Tensor, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"input_ids": ids, "pixel_values": pixels.flatten(0, 1)}


def prompts(ours: HookedVideoTransformer, *, side: int = SIDE, each: int = EACH) -> list[Any]:
    framed = [IDS["<img>"], *[CONTEXT] * each, IDS["</img>"], 10] * FRAMES
    return [
        ours.prompt_from_ids(ids_around(framed, after=n, bos=None, seed=n), torch.randn(1, FRAMES, 3, side, side))
        for n in (9, 14)
    ]


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_parity(storage, tmp_path) -> None:
    original = tiny()
    write_module(tmp_path, original, storage)
    ours = HookedVideoTransformer.from_pretrained(tmp_path, dtype=torch.float32)
    prove(ours, HuggingFaceReference(rounded(original, storage), inputs), prompts(ours))


@pytest.mark.parametrize("variant", list(VARIANTS)[1:])
def test_parity_of_variants(variant, tmp_path) -> None:
    original = tiny(**VARIANTS[variant])
    write_module(tmp_path, original)
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    prove(ours, HuggingFaceReference(original, inputs), prompts(ours))
    assert (ours.blocks[0].attn.q_norm is not None) == variant.startswith("Qwen3")


def test_larger_frames_have_interpolated_places(tmp_path) -> None:
    original = tiny()
    write_module(tmp_path, original)
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    prove(ours, HuggingFaceReference(original, inputs), prompts(ours, side=24, each=9))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> HookedVideoTransformer:
    directory = tmp_path_factory.mktemp("internvl")
    write_module(directory, tiny(), files={"video_preprocessor_config.json": PREPROCESSOR})
    byte_tokenizer(SPECIAL, eos="<|im_end|>").save_pretrained(directory)
    return HookedVideoTransformer.from_pretrained(directory)


@pytest.fixture(scope="module")
def question() -> Question:
    frames = torch.randint(0, 256, (FRAMES, 20, 28, 3), dtype=torch.uint8)
    return Question(Video.from_array(frames, fps=2.0), "Which way?", ["left", "right"], "left")


def test_the_video_is_written_as_the_processor_writes_it(model, question) -> None:
    prompt = model.prompt(question, template=template_named("vicuna").with_system(""))
    text = model.tokenizer.decode(prompt.input_ids[0])
    one = "<img>" + "<IMG_CONTEXT>" * EACH + "</img>"  # replace_video_token of transformers' InternVLProcessor
    assert "\n".join(f"Frame{i + 1}: {one}" for i in range(FRAMES)) + "\n USER:" in text
    tokens = prompt.tokens
    assert tokens.grid == (FRAMES, 2, 2) and len(tokens["video"]) == FRAMES * EACH
    for frame in range(FRAMES):
        at = (tokens.frame == frame).nonzero().flatten().tolist()
        assert at == list(range(at[0], at[-1] + 1))
        end = "\n" if frame < FRAMES - 1 else ""
        assert model.tokenizer.decode(prompt.input_ids[0, at]) == f"Frame{frame + 1}: {one}{end}"
        assert tokens.seconds[at].unique().tolist() == [frame / 2]
    assert model.tokenizer.decode(prompt.input_ids[0, tokens["timestamp"]]) == "Frame1: Frame2: Frame3: "
    assert model.tokenizer.decode(prompt.input_ids[0, tokens["separator"]]) == "<img></img>\n<img></img>\n<img></img>"


def test_frames_are_squares_and_nothing_is_cut_off(model, question) -> None:
    assert model.pixels(question.video.frames).shape == (FRAMES, 3, SIDE, SIDE)
    cut = family_of("internvl").pixels(json.loads(json.dumps(PREPROCESSOR)) | {"do_center_crop": None})
    assert cut.crop is None and cut.size == (SIDE, SIDE)


@pytest.mark.parametrize("shape", [(16, 20), (12, 12), (4, 4)])
def test_frames_that_do_not_fit_are_refused(model, shape) -> None:
    with pytest.raises(VideolensError, match=rf"{shape[0]} × {shape[1]} pixels .* prepare square frames"):
        model.prompt_from_ids([5, CONTEXT, 6], torch.randn(1, FRAMES, 3, *shape))
