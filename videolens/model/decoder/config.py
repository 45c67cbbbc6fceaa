"""The configuration of a hooked VideoLLM: TransformerLens' fields, and what a video adds to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformer_lens.config import TransformerLensConfig

from videolens.errors import ModelError

ATTENTION_PATHS = ("auto", "sdpa", "eager")
"""How attention is computed. `auto`: fused kernels, except in layers where hook functions see scores or patterns."""


@dataclass
class VideoTransformerConfig(TransformerLensConfig):
    """Shape and switches of a `HookedVideoTransformer`.

    Attributes:
        model_name: the name or directory it was loaded from.
        model_type: the architecture as Hugging Face calls it, such as `llava_next_video`.
        attention_path: one of `ATTENTION_PATHS`.
        use_attn_in: fire `attn.hook_attn_in`, one copy of the residual per head.
        use_hook_mlp_in: fire `hook_mlp_in`.
        video_token: id of the placeholder whose embedding is replaced by a video token.
        d_vision: width of the vision tower's output.
        causal: whether no token sees a later one. Whoever opens later ones by hook functions says False here: the
            engine, resumed and compiled runs then refuse to run.
    """

    normalization_type: str | None = "RMS"
    positional_embedding_type: str = "rotary"
    gated_mlp: bool = True
    uses_rms_norm: bool = True
    final_rms: bool = True
    act_fn: str = "silu"
    default_prepend_bos: bool = False
    dtype: torch.dtype = torch.float32
    use_attn_in: bool = False
    use_hook_mlp_in: bool = False
    model_name: str = ""
    model_type: str = ""
    attention_path: str = "auto"
    video_token: int = -1
    d_vision: int = -1
    causal: bool = True


def check_causal(cfg: VideoTransformerConfig, what: str) -> None:
    """Raise a `ModelError` if a model is not causal, which `what` relies on."""
    if not cfg.causal:
        raise ModelError(
            f"{what} is exact where no token sees a later one, and {cfg.model_name!r} says that its attention is not "
            'causal (model.cfg.causal): run it in full, with engine="full" or model.run_with_hooks(prompt, fwd_hooks=…)'
        )
