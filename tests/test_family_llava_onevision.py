"""LLaVA-OneVision is converted as transformers runs it: projected, pooled, one newline after the video."""

from __future__ import annotations

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
    write_state,
)
from PIL import Image
from test_model_pixels import clip
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor

from videolens import Knockout, Prompt, Question, Video
from videolens.errors import ModelError
from videolens.model.transformer import HookedVideoTransformer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
VIDEO = special_ids(SPECIAL)["<video>"]
SIZE, PATCH = 20, 4  # 5 × 5 patches, pooled to 3 × 3
PREPROCESSOR = {
    "do_resize": True,
    "size": {"height": SIZE, "width": SIZE},
    "resample": 3,
    "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "LlavaOnevisionImageProcessor",
}


def tiny(*, text: dict[str, Any] | None = None, **more: Any) -> Any:
    """A random `LlavaOnevisionForConditionalGeneration` with grouped-query attention."""
    settings = dict(
        vocab_size=264,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(**(settings | (text or {}))),
        vision_config=vision,
        video_token_index=VIDEO,
        image_token_index=VIDEO - 1,
        **more,
    )
    return randomise(LlavaOnevisionForConditionalGeneration(config))


def reference(module: Any) -> HuggingFaceReference:
    return HuggingFaceReference(module, lambda ids, pixels: {"input_ids": ids, "pixel_values_videos": pixels})


def two_prompts(ours: HookedVideoTransformer, *, frames: int) -> list[Prompt]:
    return [
        ours.prompt_from_ids(
            ids_around([VIDEO], before=5, after=n, bos=None, seed=n), torch.randn(1, frames, 3, SIZE, SIZE)
        )
        for n in (9, 14)
    ]


@pytest.fixture(scope="module")
def original():
    return tiny()


@pytest.fixture(scope="module")
def ours(original, tmp_path_factory) -> HookedVideoTransformer:
    directory = tmp_path_factory.mktemp("llava_onevision")
    write_module(directory, original, files={"preprocessor_config.json": PREPROCESSOR})
    byte_tokenizer(SPECIAL, eos="<|im_end|>").save_pretrained(directory)
    return HookedVideoTransformer.from_pretrained(directory)


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_parity(original, storage, tmp_path) -> None:
    write_module(tmp_path, original, storage)
    ours = HookedVideoTransformer.from_pretrained(tmp_path, dtype=torch.float32)
    prove(ours, reference(rounded(original, storage)), two_prompts(ours, frames=3))


@pytest.mark.parametrize(
    "variant",
    [
        {"vision_feature_layer": -2},
        {"vision_feature_layer": [-2, -1]},
        {"text": {"tie_word_embeddings": True, "num_key_value_heads": 1}, "tie_word_embeddings": True},
        {"multimodal_projector_bias": False, "text": {"num_key_value_heads": 4, "head_dim": 16}},
    ],
    ids=["second to last layer", "two layers", "tied, one key head", "no projector bias, wide heads"],
)
def test_parity_of_variants(variant, tmp_path) -> None:
    original = tiny(**variant)
    write_module(tmp_path, original)
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    prove(ours, reference(original), two_prompts(ours, frames=1))


def test_the_layout_that_the_hub_has(original, tmp_path) -> None:
    # keys as of transformers 4.4x
    state = {
        key.replace("model.language_model.", "language_model.model.")
        .replace("lm_head.", "language_model.lm_head.")
        .replace("model.vision_tower.", "vision_tower.vision_model.")
        .replace("model.multi_modal_projector.", "multi_modal_projector.")
        .replace("model.image_newline", "image_newline"): value
        for key, value in original.state_dict().items()
    }
    roots = {key.split(".")[0] for key in state}
    assert roots == {"language_model", "vision_tower", "multi_modal_projector", "image_newline"}
    write_state(tmp_path, state, original.config.to_dict() | {"architectures": [type(original).__name__]})
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    prove(ours, reference(original), two_prompts(ours, frames=2))


def test_the_newline_belongs_to_the_last_frame(original, ours) -> None:
    tokens = two_prompts(ours, frames=3)[0].tokens
    assert tokens.grid == (3, 3, 3)
    assert tokens["video"].tolist() == list(range(5, 32)) and tokens["newline"].tolist() == [32]
    assert int(tokens.frame[32]) == 2 and 32 not in tokens["frame 2"]
    residual = two_prompts(ours, frames=3)[0].residual[0, 32]
    assert torch.equal(residual, original.model.image_newline.data)


def test_pixels_are_felt_in_their_own_frame_only(ours) -> None:
    prompt = two_prompts(ours, frames=3)[0]
    for frame in range(3):
        other = prompt.pixel_values.clone()
        other[:, frame, :, :PATCH, :PATCH] += 1
        moved = (ours.prompt_from_ids(prompt.input_ids, other).residual != prompt.residual).any(-1)[0]
        assert moved.nonzero().flatten().tolist() == prompt.tokens[f"frame {frame}"].tolist()


def test_the_newline_is_cut_by_its_role(ours) -> None:
    prompt = two_prompts(ours, frames=2)[0]
    at = prompt.tokens["newline"]
    cut = Knockout("newline", "last", layers=[0, 1, 2])
    _, cache = ours.run_with_cache(prompt, names_filter="blocks.0.attn.hook_pattern")
    assert cache["pattern", 0][0, :, -1, at].abs().max() > 1e-4
    with ours.hooks(fwd_hooks=cut.hooks(prompt)):
        _, cache = ours.run_with_cache(prompt, names_filter="blocks.0.attn.hook_pattern")
    assert cache["pattern", 0][0, :, -1, at].abs().max() == 0


@pytest.mark.parametrize("shape", [(90, 120), (64, 31)])
def test_a_question_about_a_clip(original, ours, shape) -> None:
    frames = clip(*shape)
    question = Question(Video.from_array(frames, fps=2), "What moves?", options=["A ball", "A cube"], answer="A cube")
    prompt = ours.prompt(question, template="vicuna")
    # not cropped; PIL resizes across, then down
    resized = [
        Image.fromarray(frame)
        .resize((SIZE, shape[0]), Image.Resampling.BICUBIC)
        .resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        for frame in frames.numpy()
    ]
    plain = CLIPImageProcessorPil(**PREPROCESSOR, do_center_crop=False)(resized, return_tensors="pt", do_resize=False)
    assert (prompt.pixel_values[0] - plain["pixel_values"]).abs().max() <= 1e-5
    # transformers' own expansion; its video processor itself needs torchvision
    processor = object.__new__(LlavaOnevisionProcessor)
    processor.video_token, processor.num_image_tokens = "<video>", (SIZE // PATCH) ** 2
    expanded = processor.replace_video_token({"pixel_values_videos": prompt.pixel_values}, 0)
    assert int((prompt.input_ids == VIDEO).sum()) == expanded.count("<video>") == 2 * 9 + 1
    theirs = reference(original).logits(prompt.input_ids, prompt.pixel_values)
    with torch.no_grad():
        assert (ours(prompt) - theirs).abs().max() <= 1e-4 * theirs.std()


def test_frames_of_another_size_are_refused(ours) -> None:
    with pytest.raises(ModelError, match="20 × 20 pixels, got 24 × 20"):
        ours.prompt_from_ids(torch.tensor([[1, VIDEO, 2]]), torch.randn(1, 2, 3, 24, 20))
