"""InternVL2.5, 3 and 3.5 as they are published with code of their own (`InternVLChatModel`), with Qwen decoders.

Tower, shuffle and projector are those of `internvl_chat`. Every frame is one square tile, and a prompt says its number:
`Frame1: <img>…</img>`, a line for each. The words around them are those of the authors' conversation template
"internvl2_5". Checkpoints with InternLM decoders, and mixtures of experts, are not read.

Relied on: the repository OpenGVLab/InternVL (`modeling_internvl_chat.py`, `conversation.py`, the README's `load_video`
with `max_num=1`). Its training code also writes `Frame-1: `; its evaluation and transformers write `Frame1: `, its
READMEs either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from videolens.errors import ModelError
from videolens.model.families import LLAMA, About, register
from videolens.model.families.internvl import layout
from videolens.model.families.internvl_chat import CONTEXT, InternVLChat
from videolens.model.families.internvl_chat import FAMILY as INTERNVL_CHAT
from videolens.model.vision.pixels import PixelSettings

TEMPLATE = "internvl2_5"


class InternVLChatQwen(InternVLChat):
    """As `InternVLChat`, with Qwen2 or Qwen3.

    Raises:
        ModelError: besides, a template of prompts other than `TEMPLATE`.
    """

    decoders: ClassVar[Mapping[str, str]] = {"qwen2": "Qwen2", "qwen3": "Qwen3"}

    def __init__(self, config: Any) -> None:
        named = getattr(config, "template", None) or TEMPLATE
        if named != TEMPLATE and not hasattr(config, "prompt_template"):
            raise ModelError(
                f"config.json has template {named!r}, whose words around a question are not known here: those of "
                f'{TEMPLATE!r} are. To ask with these, or others that are known, add "prompt_template": "{TEMPLATE}" '
                "to config.json"
            )
        super().__init__(config)


def video_token(config: Any) -> int:
    """Of the tokenizer, else of config.json; a `ModelError` if neither says it, or the decoder has no such token."""
    if CONTEXT not in getattr(config, "added_tokens", {}) and getattr(config, "img_context_token_id", None) is None:
        raise ModelError(
            f"nothing says which token {CONTEXT} is, which stands for a video: add the checkpoint's tokenizer files, "
            "or img_context_token_id to config.json"
        )
    return INTERNVL_CHAT.video_token(config)


def pixels(settings: Mapping[str, Any]) -> PixelSettings:
    """Frames are resized to a square, whatever their shape, as the authors' `load_video` does.

    The preprocessor file is made for an image processor that they do not use, which would cut off what is longer.
    """
    size = settings.get("size", 448)
    size = size.get("shortest_edge", size) if isinstance(size, Mapping) else size
    square = (size, size) if isinstance(size, int) else size
    return PixelSettings.from_dict({**settings, "size": square, "do_center_crop": False})


FAMILY = register(
    replace(
        INTERNVL_CHAT,
        architecture=InternVLChatQwen,
        decoders=tuple(InternVLChatQwen.decoders),
        layer=LLAMA,
        layout=layout,
        pixels=pixels,
        unlike_processor="the authors' code resizes frames to a square, and does not use it",
        video_token=video_token,
        template=TEMPLATE,
        about=About(
            "InternVL2.5, 3, 3.5 with Qwen, their authors' layout",
            "InternViT, pixel shuffle, a number before each frame",
            "Qwen2 or Qwen3",
            "transformers",
        ),
    )
)
