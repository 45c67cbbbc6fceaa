"""The bundled model's architecture, and how it is written to disk: an ordinary Hugging Face checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    Qwen3Config,
)

from training.data import GRID
from videolens.datasets.shapes_world import SIZE


def config(tokenizer: Any, depth: int = 12, decoder: str = "llama") -> LlavaNextVideoConfig:
    """CLIP tower of four layers (the third is read), decoder of `depth`; 2.2 million parameters with twelve of Llama's.

    `decoder` is `"llama"`, or `"qwen3"`: two heads share a key head, and queries and keys are normed head by head.
    """
    ids = tokenizer.convert_tokens_to_ids
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=8,
        projection_dim=64,
    )
    kind, more = {
        "llama": (LlamaConfig, {"num_key_value_heads": 4}),
        "qwen3": (Qwen3Config, {"num_key_value_heads": 2, "head_dim": 32}),
    }[decoder]
    text = kind(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=depth,
        num_attention_heads=4,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=ids("<s>"),
        eos_token_id=ids("</s>"),
        pad_token_id=ids("<pad>"),
        **more,
    )
    return LlavaNextVideoConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=ids("<image>"),
        video_token_index=ids("<video>"),
        vision_feature_layer=-2,
        image_grid_pinpoints=[[SIZE, SIZE]],
        spatial_pool_mode="average",
        spatial_pool_stride=2,
        image_seq_length=4 * GRID * GRID,
        video_seq_length=8 * GRID * GRID,
        tie_word_embeddings=False,
    )


def new_model(
    tokenizer: Any, seed: int, depth: int = 12, matching: float = 0.0, decoder: str = "llama"
) -> LlavaNextVideoForConditionalGeneration:
    """A fresh model, the decoder initialised for its width.

    `matching` is the correlation of keys with queries in half of the heads of every layer: above zero, those heads
    begin by looking at what is like themselves (Trockman and Kolter 2023, "Mimetic initialization"), all layers alike.

    Hugging Face's default deviation of 0.02 suits a width of thousands. At 128 it leaves attention uniform and the
    residual of text tokens tiny: what asks for one thing among several (its colour, its place) then stays at chance
    for hundreds of steps.
    """
    torch.manual_seed(seed)
    model = LlavaNextVideoForConditionalGeneration(config(tokenizer, depth, decoder)).float()
    text = model.model.language_model
    std = text.config.hidden_size**-0.5
    writers = std * (2 * len(text.layers)) ** -0.5
    with torch.no_grad():
        text.embed_tokens.weight.normal_(0, 1)
        for layer in text.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for reader in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
                reader.weight.normal_(0, std)
            if matching:
                half = attention.k_proj.weight.shape[0] // 2
                keys = attention.k_proj.weight[:half].unflatten(0, (-1, attention.head_dim))
                alike = keys.repeat_interleave(attention.num_key_value_groups, 0).flatten(0, 1)
                queries = attention.q_proj.weight[: len(alike)]
                queries.mul_((1 - matching**2) ** 0.5).add_(alike, alpha=matching)
            attention.o_proj.weight.normal_(0, writers)
            mlp.down_proj.weight.normal_(0, 0.7 * writers)
    return model


def save(model: LlavaNextVideoForConditionalGeneration, tokenizer: Any, directory: Path) -> None:
    """Weights, tokenizer and preprocessor files, as `save_pretrained` writes them."""
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory, safe_serialization=True)
    tokenizer.save_pretrained(directory)
    _add(directory / "config.json", {"prompt_template": "shapes"})
    processor = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    processor.save_pretrained(directory)
    preprocessor = json.loads((directory / "preprocessor_config.json").read_text())
    preprocessor.pop("image_processor_type", None)
    _add(
        directory / "video_preprocessor_config.json",
        preprocessor | {"video_processor_type": "LlavaNextVideoVideoProcessor"},
    )


def _add(path: Path, values: dict[str, Any]) -> None:
    """Put keys into a JSON file."""
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | values, indent=2) + "\n")
