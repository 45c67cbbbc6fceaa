"""LLaVA-Video and the original LLaVA-OneVision: newlines in four places, three pools, times behind the video."""

from __future__ import annotations

from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from helpers.checkpoints import byte_tokenizer, randomise
from helpers.families.case import HALF, Case, Variant, of_images
from helpers.families.plain_llava_qwen import IMAGE, SIZE, SPECIAL, PlainLlavaQwen
from helpers.parity import PlainReference
from videolens import Prompt

ONEVISION = {"model_type": "llava", "mm_spatial_pool_stride": None, "add_time_instruction": None}
PREPROCESSOR = {"do_resize": True, "size": {"height": SIZE, "width": SIZE}, "resample": 3, **HALF}


def tiny(newlines: str = "grid", pool: str = "bilinear", *, tied: bool = False) -> PlainLlavaQwen:
    """A random original."""
    return randomise(PlainLlavaQwen(newlines, pool, tied=tied))


def told(prompt: Prompt) -> str:
    """What LLaVA-Video is told of times, as the authors' `video_demo.py` writes it; length as decord has it."""
    video = prompt.question.video
    length = video.n_source_frames / video.fps
    times = ",".join(f"{i / video.fps:.2f}s" for i in video.indices.tolist())
    return (
        f"The video lasts for {length:.2f} seconds, and {len(video)} frames are uniformly sampled from it. These "
        f"frames are located at {times}.Please answer the following questions related to this video."
    )


def written(prompt: Prompt) -> str:
    """A placeholder for every token and every newline, one after each row; then the times."""
    frames, rows, columns = prompt.tokens.grid
    return "<image>" * (frames * rows * (columns + 1)) + "\n" + told(prompt)


CASE = Case(
    original=tiny,
    reference=lambda module, step: PlainReference(module, list(module.text.model.layers)),
    shape=(3, SIZE, SIZE),
    placeholder=IMAGE,
    written=written,
    tokenizer=lambda: byte_tokenizer(SPECIAL, eos="<|im_end|>"),
    layout=PlainLlavaQwen.published,
    before=5,
    spread=1,
    preprocessor=PREPROCESSOR,
    published={"size": {"height": 384, "width": 384}, "resample": 3, **HALF},
    image_processor=of_images(SiglipImageProcessorPil),
    variants={
        "the original LLaVA-OneVision": Variant({"newlines": "one_token"}, config=ONEVISION),
        "a newline after each frame, averages": Variant({"newlines": "frame", "pool": "average"}),
        "no newline, maxima, tied": Variant({"newlines": "no_token", "pool": "max", "tied": True}, tied=True),
    },
    other_shapes={(2, 24, 20): "20 × 20 pixels, got 24 × 20"},
    other_configs=(
        ({"mm_projector_type": "linear"}, "mm_projector_type 'linear'"),
        ({"mm_patch_merge_type": "flat"}, "mm_patch_merge_type 'flat'.*no image_newline"),
        ({"mm_newline_position": "row"}, "mm_newline_position 'row'"),
        ({"mm_spatial_pool_mode": "nearest"}, "mm_spatial_pool_mode 'nearest'"),
        ({"mm_spatial_pool_stride": 4}, "mm_spatial_pool_stride 4.*by 2 all the same"),
        ({"mm_vision_select_layer": -1}, "mm_vision_select_layer -1"),
        ({"mm_resampler_type": "perceiver"}, "mm_resampler_type 'perceiver'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end True"),
        ({"add_faster_video": True}, "add_faster_video True.*no grid"),
        ({"mm_vision_tower": "openai/clip-vit-large-patch14-336"}, "clip-vit-large.*other towers are not read"),
        ({"vision_config": None, "mm_vision_tower": "google/siglip-base"}, "siglip-base.*as vision_config"),
    ),
)
