"""InternVLChat as it is published with code of its own (`InternVLChatModel`), with a Phi-3 decoder.

The layout of Mini-InternVL-4B and its video-tuned successor in Map the Flow (section "Models"): InternViT, its class
token dropped, squares of 2 × 2 patches shuffled into channels, `mlp1` (norm and two layers), and a decoder whose
projections are fused. With Qwen decoders: `internvl_chat_qwen`. The code that comes with a checkpoint is not needed and
not run: the tower is `videolens.model.vision.internvit`, the decoder transformers' own, under the checkpoint's names.

A video is one image of all frames' tokens, `<img><IMG_CONTEXT>…</img>`, as the paper's model was tuned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from videolens.errors import ModelError
from videolens.model.families import PHI3, About, Clock, Family, Parts, register
from videolens.model.families.internvl import grid, project
from videolens.model.vision.internvit import InternViT
from videolens.prompt.video_layout import VideoLayout, VideoPiece

CONTEXT = "<IMG_CONTEXT>"
"""What stands for a video token in a prompt."""
_CONTEXT_ID = 32013  # where the published tokenizers of the Phi-3 models have it


class InternVLChat(nn.Module):
    """Tower, projector and decoder, with the names of the checkpoint's keys.

    Args:
        config: config.json as it is published.

    Raises:
        ModelError: another decoder than those that are read, or another order of shuffled patches than "v2".
    """

    decoders: ClassVar[Mapping[str, str]] = {"phi3": "Phi3"}
    """Model type of the decoder → what its classes in transformers are called, without their ends."""

    def __init__(self, config: Any) -> None:
        import transformers

        super().__init__()
        text, vision = config.llm_config.to_dict(), config.vision_config.to_dict()
        if (name := self.decoders.get(text.get("model_type"))) is None:
            raise ModelError(
                f"llm_config.model_type is {text.get('model_type')!r}; of the InternVLChat layout the models with "
                "Phi-3, Qwen2 and Qwen3 are read: take the checkpoint of the same model in transformers' layout "
                "(…-hf, model_type 'internvl'); mixtures of experts are read in neither"
            )
        if getattr(config, "ps_version", "v1") != "v2":
            raise ModelError(
                f"config.json has ps_version {getattr(config, 'ps_version', 'v1')!r}, by which rows and columns of the "
                "video tokens change places; expected 'v2'"
            )
        kind, model = (getattr(transformers, f"{name}{end}") for end in ("Config", "ForCausalLM"))
        # of what config.json says, what a decoder is made of: not which code or kernels it was trained with
        known = {*kind.__annotations__, "rope_scaling", "rope_theta", "partial_rotary_factor"}
        settings = {name: value for name, value in text.items() if name in known}
        if (scaling := settings.get("rope_scaling")) and scaling.get("type") == "su":  # what longrope was called first
            settings["rope_scaling"] = scaling | {"type": "longrope"}
        wide = vision["hidden_size"] * round(1 / config.downsample_ratio) ** 2
        d_model = settings["hidden_size"]
        self.vision_model = InternViT(vision)
        self.mlp1 = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, d_model), nn.GELU(), nn.Linear(d_model, d_model))
        self.language_model = model(kind(**settings))


def features(
    parts: Parts, pixels: Float[Tensor, "batch frame channel height width"], config: Any
) -> Float[Tensor, "batch frame patch d_vision"]:
    """Hidden states of the tower at the chosen layer, patches only."""
    states = parts["tower"](pixels.flatten(0, 1), getattr(config, "select_layer", -1))
    return states[:, 1:].unflatten(0, pixels.shape[:2])


def layout(config: Any, grid: tuple[int, int, int], clock: Clock) -> VideoLayout:
    """All frames in one image; what opens it belongs to the first frame, what closes it to the last."""
    frames, rows, columns = grid
    video = [VideoPiece("video", frame, n=rows * columns) for frame in range(frames)]
    opening, closing = VideoPiece("separator", 0, "<img>"), VideoPiece("separator", frames - 1, "</img>")
    return VideoLayout((opening, *video, closing), grid, clock.seconds)


def video_token(config: Any) -> int:
    """Of the tokenizer, else of config.json, else as published; a `ModelError` if the decoder has no such token."""
    known = getattr(config, "added_tokens", {}).get(CONTEXT, getattr(config, "img_context_token_id", None))
    found = _CONTEXT_ID if known is None else int(known)
    if found >= config.get_text_config().vocab_size:
        raise ModelError(
            f"{CONTEXT} is token {found} (of the tokenizer, else img_context_token_id of config.json), but the decoder "
            f"has {config.get_text_config().vocab_size} tokens: the checkpoint needs its own tokenizer files"
        )
    return found


FAMILY = register(
    Family(
        model_type="internvl_chat",
        architectures=("InternVLChatModel",),
        architecture=InternVLChat,
        decoder="language_model.model",
        unembed="language_model.lm_head",
        parts={"tower": "vision_model", "projector": "mlp1"},
        features=features,
        project=project,
        grid=grid,
        layout=layout,
        video_token=video_token,
        layer=PHI3,
        template="internvl",
        about=About("Mini-InternVL-4B, its video-tuned successor", "InternViT, pixel shuffle", "Phi-3"),
    )
)
