"""VideoLLaMA3, in the layout of transformers, is converted as transformers runs it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
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
from transformers import VideoLlama3Config, VideoLlama3ForConditionalGeneration
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import smart_resize
from transformers.models.video_llama_3.processing_video_llama_3 import VideoLlama3Processor

from videolens import Question, Video
from videolens.errors import ModelError
from videolens.model.families import Clock, family_of
from videolens.model.transformer import HookedVideoTransformer

SPECIAL = ("<|video_pad|>", "<|image_pad|>", "<|im_start|>", "<|im_end|>")
VIDEO = special_ids(SPECIAL)["<|video_pad|>"]
PATCH = 4
PREPROCESSOR = {
    "video_processor_type": "VideoLlama3VideoProcessor",
    "size": {"shortest_edge": 2 * 64, "longest_edge": 24 * 64},
    "patch_size": PATCH,
    "merge_size": 2,
    "temporal_patch_size": 1,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "use_token_compression": True,
}


def tiny_config(**text: Any) -> VideoLlama3Config:
    return VideoLlama3Config(
        text_config={
            "model_type": "qwen2",
            "vocab_size": 264,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_theta": 1e6,
            **text,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": PATCH,
        },
        video_token_id=VIDEO,
        image_token_id=VIDEO + 1,
    )


def inputs(ids: torch.Tensor, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the original takes: patches in the order of transformers' video processor, every token kept."""
    clips, frames, channels, height, width = pixels.shape
    rows, columns = height // PATCH, width // PATCH
    blocks = pixels.reshape(clips, frames, channels, rows // 2, 2, PATCH, columns // 2, 2, PATCH)
    patches = blocks.permute(0, 1, 3, 6, 4, 7, 2, 5, 8).reshape(-1, channels * PATCH * PATCH)
    return {
        "input_ids": ids,
        "pixel_values_videos": patches,
        "video_grid_thw": torch.tensor([[frames, rows, columns]] * clips),
        "video_merge_sizes": torch.tensor([2] * clips),
        "video_compression_mask": torch.ones(clips * frames * rows * columns // 4, dtype=torch.bool),
    }


def prompts_of(ours: HookedVideoTransformer) -> list[Any]:
    """Three frames of 2 × 3 tokens, with other tokens between the frames, in prompts of unequal length."""
    frame = [5, 9, *[VIDEO] * 6]
    return [
        ours.prompt_from_ids(ids_around([*frame, 7, *frame, 7, *frame], after=n, seed=n), torch.randn(1, 3, 3, 16, 24))
        for n in (9, 14)
    ]


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_parity(storage, tmp_path) -> None:
    original = randomise(VideoLlama3ForConditionalGeneration(tiny_config()))
    write_module(tmp_path, original, storage)
    ours = HookedVideoTransformer.from_pretrained(tmp_path, dtype=torch.float32)
    reference = HuggingFaceReference(rounded(original, storage), inputs, decoder="model.language_model")
    worst = prove(ours, reference, prompts_of(ours))
    assert {"logits", "residual", "pattern", "batch", "padded batch"} <= set(worst)


def test_tied_embeddings(tmp_path) -> None:
    original = randomise(VideoLlama3ForConditionalGeneration(tiny_config(tie_word_embeddings=True)))
    write_module(tmp_path, original)
    ours = HookedVideoTransformer.from_pretrained(tmp_path)
    assert ours.unembed.weight is ours.frontend.embed.weight
    prove(ours, HuggingFaceReference(original, inputs, decoder="model.language_model"), prompts_of(ours))


@pytest.fixture(scope="module")
def with_files(tmp_path_factory) -> tuple[Any, HookedVideoTransformer]:
    """(original, ours) from a directory with tokenizer and preprocessor files."""
    directory = tmp_path_factory.mktemp("video_llama_3")
    original = randomise(VideoLlama3ForConditionalGeneration(tiny_config()))
    write_module(directory, original, files={"video_preprocessor_config.json": PREPROCESSOR})
    byte_tokenizer(SPECIAL, eos="<|im_end|>").save_pretrained(directory)
    return original, HookedVideoTransformer.from_pretrained(directory)


def clip(frames: int = 3, height: int = 40, width: int = 70, fps: float = 2.0) -> Video:
    levels = np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Video.from_array(levels, fps=fps)


@torch.no_grad()
def test_a_question_is_what_the_original_processor_writes(with_files) -> None:
    original, ours = with_files
    question = Question(clip(), "What moves?", ["a dog", "a cat"], "a cat")
    prompt = ours.prompt(question, "vicuna")
    frames, rows, columns = prompt.tokens.grid
    assert frames == 3 and rows * columns <= 24 // 3 and rows != columns
    written = VideoLlama3Processor.replace_video_token(
        SimpleNamespace(video_token="<|video_pad|>"),
        {
            "video_grid_thw": torch.tensor([[3, 2 * rows, 2 * columns]]),
            "video_merge_sizes": torch.tensor([2]),
            "video_compression_mask": torch.ones(frames * rows * columns, dtype=torch.bool),
            "video_metadata": [SimpleNamespace(fps=2.0, timestamps=question.video.seconds.tolist())],
        },
        0,
    )
    assert written.startswith("Time 0.0s:<|video_pad|>") and ",Time 0.5s:" in written
    whole = prompt.text.replace("<|video_pad|>", written)
    assert prompt.input_ids[0].tolist() == ours.tokenizer(whole)["input_ids"]
    wanted = original(**inputs(prompt.input_ids, prompt.pixel_values)).logits
    assert (ours(prompt) - wanted).abs().max() <= 1e-4 * wanted.std()


def test_times_and_commas_belong_to_their_frame(with_files) -> None:
    _, ours = with_files
    tokens = ours.prompt(Question(clip(), "What moves?", ["a dog", "a cat"]), "vicuna").tokens
    _, rows, columns = tokens.grid
    for frame, time in enumerate(("Time 0.0s:", "Time 0.5s:", "Time 1.0s:")):
        here = tokens[f"frame {frame}"]
        assert len(here) == rows * columns and set(tokens.seconds[here].tolist()) == {0.5 * frame}
        stamp = [i for i in tokens["timestamp"].tolist() if tokens.frame[i] == frame]
        # bytes: one token a letter, the space written Ġ
        assert "".join(tokens.texts[i] for i in stamp).replace("Ġ", " ") == time
        assert stamp[-1] + 1 == here[0]
    commas = tokens["separator"].tolist()
    assert [int(tokens.frame[i]) for i in commas] == [0, 1] and {tokens.texts[i] for i in commas} == {","}


def test_unknown_times_are_a_second_apart() -> None:
    family = family_of("video_llama_3")
    clock = Clock(torch.full((2,), torch.nan, dtype=torch.float64))
    layout = family.layout(tiny_config(), (2, 1, 1), clock)
    assert [piece.text for piece in layout.pieces] == ["Time 0.0s:", None, ",", "Time 1.0s:", None]


@pytest.mark.parametrize("size", [(40, 70), (16, 16), (5, 9), (130, 24), (97, 211)])
@pytest.mark.parametrize("frames", [1, 4])
def test_frames_share_the_largest_number_of_pixels(with_files, size, frames) -> None:
    _, ours = with_files
    least, most = PREPROCESSOR["size"].values()
    height, width = ours.pixels(clip(frames, *size).frames).shape[-2:]
    assert (height, width) == smart_resize(*size, factor=2 * PATCH, min_pixels=least, max_pixels=most // frames)


def test_frames_do_not_see_each_other_in_the_tower(with_files) -> None:
    _, ours = with_files
    one = torch.randn(1, 3, 3, 16, 24)
    other = one.clone()
    other[:, 1, :, 3, 5] += 1
    before, after = (ours.frontend.encode(pixels) for pixels in (one, other))
    moved = (before - after).abs().amax((0, 2, 3))
    assert moved[1] > 0 and moved[0] == moved[2] == 0


@torch.no_grad()
def test_rotary_frequencies_of_the_tower_stay_exact_in_bfloat16() -> None:
    original = randomise(VideoLlama3ForConditionalGeneration(tiny_config()))
    ours = HookedVideoTransformer.from_hugging_face(original)
    exact = ours.frontend.parts["tower"].rotary_pos_emb.inv_freq.clone()
    ours.to(torch.bfloat16)
    kept = ours.frontend.parts["tower"].rotary_pos_emb.inv_freq
    assert kept.dtype == torch.float32 and torch.equal(kept, exact)
    assert ours.frontend.encode(torch.randn(1, 1, 3, 16, 24)).dtype == torch.bfloat16


def test_frames_that_no_grid_fits(with_files) -> None:
    _, ours = with_files
    with pytest.raises(ModelError, match=r"20 × 24 .* 8 × 8"):
        ours.prompt_from_ids(ids_around([VIDEO]), torch.randn(1, 3, 3, 20, 24))


def test_an_image_preprocessor_is_refused(tmp_path) -> None:
    original = VideoLlama3ForConditionalGeneration(tiny_config())
    settings = {**PREPROCESSOR, "merge_size": 1}
    write_module(tmp_path, original, files={"preprocessor_config.json": settings})
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["merge_size"] == 1
    with pytest.raises(ModelError, match=r"video_preprocessor_config\.json"):
        HookedVideoTransformer.from_pretrained(tmp_path)
