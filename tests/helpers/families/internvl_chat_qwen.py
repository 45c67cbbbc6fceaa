"""InternVLChat with Qwen decoders as published: the original is transformers' InternVL, its weights renamed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from helpers.families.case import IMAGENET, Variant, relaid
from helpers.families.internvl import CASE as INTERNVL
from helpers.families.internvl import CONTEXT, EARLIER
from helpers.families.internvl_chat import PREPROCESSOR

TOWER = {
    "vision_model.encoder.layer.": "vision_model.encoder.layers.",
    ".attention.qkv.": ".attn.qkv.",
    ".attention.projection_layer.": ".attn.proj.",
    ".attention.q_norm.": ".attn.q_norm.",
    ".attention.k_norm.": ".attn.k_norm.",
    ".layernorm_before.": ".norm1.",
    ".layernorm_after.": ".norm2.",
    ".lambda_1": ".ls1",
    ".lambda_2": ".ls2",
    ".cls_token": ".class_embedding",
    ".position_embeddings": ".position_embedding",
    ".patch_embeddings.projection.": ".patch_embedding.",
}
"""What transformers calls the parts of the tower, and what the authors do."""


def published(original: Any) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """The weights under the authors' keys, queries, keys and values in one, and config.json as they write it."""
    state = relaid(
        original.state_dict(),
        ("model.vision_tower.", "vision_model."),
        ("model.multi_modal_projector.layer_norm.", "mlp1.0."),
        ("model.multi_modal_projector.linear_1.", "mlp1.1."),
        ("model.multi_modal_projector.linear_2.", "mlp1.3."),
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
    )
    for key in [key for key in state if ".attention.q_proj." in key]:
        parts = [state.pop(key.replace("q_proj", f"{name}_proj")) for name in "qkv"]
        state[key.replace("q_proj", "qkv")] = torch.cat(parts)
    for theirs, ours in TOWER.items():
        state = {key.replace(theirs, ours): value for key, value in state.items()}
    config = original.config
    if config.text_config.tie_word_embeddings:
        del state["language_model.lm_head.weight"]
    return state, {
        "model_type": "internvl_chat",
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "downsample_ratio": config.downsample_ratio,
        "force_image_size": config.vision_config.image_size[0],
        "ps_version": "v2",
        "select_layer": config.vision_feature_layer,
        "template": "internvl2_5",
        "vision_config": tower_settings(config.vision_config),
        "llm_config": decoder_settings(config.text_config),
    }


def tower_settings(vision: Any) -> dict[str, Any]:
    """`vision_config` as the authors write it."""
    same = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act")
    return {
        "model_type": "intern_vit_6b",
        **{name: getattr(vision, name) for name in (*same, "norm_type", "layer_norm_eps")},
        "image_size": vision.image_size[0],
        "patch_size": vision.patch_size[0],
        "qkv_bias": vision.attention_bias,
        "qk_normalization": vision.use_qk_norm,
        "drop_path_rate": 0.1,
        "use_flash_attn": True,
    }


def decoder_settings(text: Any) -> dict[str, Any]:
    """`llm_config` as InternVL3 has it: frequencies that would change behind the context, windows that are not used."""
    same = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")
    same = (
        *same,
        "num_key_value_heads",
        "hidden_act",
        "max_position_embeddings",
        "rms_norm_eps",
        "tie_word_embeddings",
    )
    return {
        "model_type": text.model_type,
        "architectures": [f"{text.model_type.capitalize()}ForCausalLM"],
        "attn_implementation": "flash_attention_2",
        "torch_dtype": "bfloat16",
        **{name: getattr(text, name) for name in same if hasattr(text, name)},
        "rope_theta": text.rope_parameters["rope_theta"],
        "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
        "sliding_window": None,
        "use_sliding_window": False,
        "bos_token_id": None,
        "eos_token_id": text.eos_token_id,
        "pad_token_id": None,
    }


CASE = replace(
    INTERNVL,
    layout=published,
    bare=False,
    preprocessor=PREPROCESSOR,
    preprocessor_file="preprocessor_config.json",
    published={"size": 448, "crop_size": 448, "do_center_crop": True, "resample": 3, **IMAGENET},
    image_processor=lambda said, frames: SiglipImageProcessorPil(
        **{**said, "size": {"height": said["size"], "width": said["size"]}}
    ),
    video_processor=None,
    variants={
        "Qwen2, tied": Variant({"text": {"tie_word_embeddings": True}, "tie_word_embeddings": True}, tied=True),
        "Qwen3, norms of heads wider than the model": Variant(
            {"text": {"model_type": "qwen3", "head_dim": 16}}, head_norms=True
        ),
        "tower with norms and without biases, an earlier layer": Variant(
            EARLIER | {"vision": EARLIER["vision"] | {"attention_bias": False}}
        ),
        "a token that config.json names": Variant(config={"img_context_token_id": CONTEXT}),
    },
    other_configs=(
        ({"ps_version": "v1"}, "ps_version 'v1'"),
        ({"llm_config": {"model_type": "qwen3_moe"}}, r"llm_config\.model_type is 'qwen3_moe'.*mixtures of experts"),
        ({"template": "Hermes-2"}, "template 'Hermes-2'.*'internvl2_5' are.*prompt_template"),
        ({"downsample_ratio": None}, "downsample_ratio|does not describe"),
    ),
)
