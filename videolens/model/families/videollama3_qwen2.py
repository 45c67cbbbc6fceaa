"""VideoLLaMA3 as it was published (DAMO-NLP-SG/VideoLLaMA3-7B): one flat Qwen2 config, the tower below the decoder.

Its arithmetic is that of transformers' `VideoLlama3ForConditionalGeneration`, so that is what is built: only the keys,
the config and the preprocessor's settings differ. As in `video_llama_3`, no token is left out of the prompt
(`use_token_compression` is not followed), and each frame is `Time 1.5s:` and its tokens, with a comma between frames.

Relied on: the code published beside the weights (`modeling_videollama3.py`, `modeling_videollama3_encoder.py`,
`configuration_videollama3.py`, `processing_videollama3.py`, `image_processing_videollama3.py`). There the tower attends
within each frame with flash attention, which the authors use; its eager variant adds the mask where it should mask,
lets frames see each other, and is not followed. Checkpoints trained with the authors' repository have
`vision_encoder` twice in their keys; both are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, floor, sqrt
from typing import Any

from torch import nn

from videolens.errors import ModelError
from videolens.model.families import About, register
from videolens.model.families.video_llama_3 import FAMILY as VIDEO_LLAMA_3
from videolens.model.families.video_llama_3 import MERGE
from videolens.model.vision.pixels import PixelSettings
from videolens.model.vision.smart_resize import SmartResize

_NOT_OF_A_PART = {"architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "model_type"}
_OF_THE_WHOLE = {"image_token_index", "mm_projector_type", "use_token_compression", "vision_encoder"}


def architecture(config: Any) -> nn.Module:
    """The module of transformers, from the flat config.

    A `ModelError` for another projector, no description of the tower, or no id of the placeholder.
    """
    from transformers import VideoLlama3Config, VideoLlama3ForConditionalGeneration

    settings = config.to_dict()
    vision = settings.get("vision_encoder_config")
    if not vision or "hidden_size" not in vision:
        raise ModelError(
            f"config.json has vision_encoder_config {vision!r} (vision_encoder: {settings.get('vision_encoder')!r}); "
            "expected the tower's hidden_size, num_hidden_layers, … there: copy them from the tower's own config.json"
        )
    if (projector := settings.get("mm_projector_type", "mlp2x_gelu")) != "mlp2x_gelu":
        raise ModelError(f"config.json has mm_projector_type {projector!r}; expected 'mlp2x_gelu', which is published")
    if (token := settings.get("image_token_index", -1)) < 0:
        raise ModelError(
            f"config.json has image_token_index {token}; expected the id of the placeholder '<image>' in the tokenizer"
        )
    left_out = _NOT_OF_A_PART | _OF_THE_WHOLE | {"vision_encoder_config"}
    decoder, tower = (
        {name: value for name, value in part.items() if name not in left_out and name[0] != "_" and value is not None}
        for part in (settings, vision)
    )
    return VideoLlama3ForConditionalGeneration(
        VideoLlama3Config(
            text_config={**decoder, "model_type": "qwen2"},
            vision_config=tower,
            image_token_id=token,
            video_token_id=token,
            tie_word_embeddings=bool(settings.get("tie_word_embeddings", False)),
        )
    )


@dataclass(frozen=True)
class TokenBudget(SmartResize):
    """Frames resized to whole blocks within a number of tokens for the clip, and at least so many for each frame."""

    def size(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """(height, width) in pixels that the frames of a clip are resized to.

        1. Round both sides to the nearest multiple of the block (halves to the even one).
        2. More than the frame's share of the clip's pixels: shrink both by the same ratio, then round down.
        3. Fewer than the least (also after 2.): grow both by the same ratio, then round up.
        """
        if not self.resize:
            return super().size(frames, height, width)
        side, most = self.factor, max(1, self.max_pixels // frames)
        # 1. the nearest multiples
        found = round(height / side) * side, round(width / side) * side
        if found[0] * found[1] > most:  # 2. shrink
            ratio = sqrt(height * width / most)
            found = floor(height / ratio / side) * side, floor(width / ratio / side) * side
        if found[0] * found[1] < self.min_pixels:  # 3. grow
            ratio = sqrt(self.min_pixels / (height * width))
            found = ceil(height * ratio / side) * side, ceil(width * ratio / side) * side
        return found


def pixels(settings: Mapping[str, Any]) -> TokenBudget:
    """From `min_tokens` for a frame and `max_tokens` for a clip, counted after merging 2 × 2 patches.

    Map the Flow gives a clip at most 1152 tokens: "max_tokens": 1152 in preprocessor_config.json. No token at all, or
    fewer for a clip than for a frame, is a `ModelError`.
    """
    side = int(settings.get("patch_size", 14)) * MERGE
    most = int(settings.get("max_tokens", 16384)) * side**2
    return TokenBudget(
        factor=side,
        min_pixels=int(settings.get("min_tokens", 16)) * side**2,
        max_pixels=most,
        clip_pixels=most,
        levels=PixelSettings.from_dict({**settings, "size": (side, side), "do_center_crop": False}),
        resize=bool(settings.get("do_resize", True)),
    )


FAMILY = register(
    replace(
        VIDEO_LLAMA_3,
        model_type="videollama3_qwen2",
        architecture=architecture,
        architectures=("Videollama3Qwen2ForCausalLM",),
        rename=(
            (r"^model\.vision_encoder\.(vision_encoder\.)?", "model.vision_model."),
            (r"^model\.mm_projector\.", "model.projector."),
            (r"^model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
        ),
        pixels=pixels,
        about=About("VideoLLaMA3, its authors' layout", "SigLIP-like, any shape, 2 × 2 averaged", "Qwen2"),
    )
)
