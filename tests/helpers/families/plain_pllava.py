"""PLLaVA in plain torch, as it is published; nothing here comes from the package.

CLIP ViT (arXiv 2103.00020) with `quick_gelu`, hidden state −2 without class token; linear, GELU, linear; average over
time and space (arXiv 2404.16994); Llama (arXiv 2302.13971).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from helpers.checkpoints import special_ids
from helpers.families.plain import Layer, attend, decoder

SPECIAL = ("<s>", "</s>", "<image>")
VIDEO = special_ids(SPECIAL)["<image>"]
IMAGE, PATCH, SIDE, CHANNELS = 16, 4, 4, 16
WIDTH, HEADS, KV_HEADS, MLP, VOCAB = 32, 4, 2, 48, 264
FRAMES, EACH = 3, 4
CONFIG: dict[str, Any] = {
    "model_type": "llava",
    "architectures": ["PllavaForConditionalGeneration"],
    "ignore_index": -100,
    "image_token_index": VIDEO,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "pooling_method": "avg",
    "pooling_shape": [FRAMES, 2, 2],
    "frame_shape": [SIDE, SIDE],
    "num_frames": FRAMES,
    "use_pooling": True,
    "gradient_checkpointing": False,
    "vocab_size": VOCAB,
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": CHANNELS,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": IMAGE,
        "patch_size": PATCH,
        "projection_dim": 8,
        "vocab_size": VOCAB,
    },
    "text_config": {
        "_name_or_path": "lmsys/vicuna-7b-v1.5",
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float16",
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "intermediate_size": MLP,
        "num_hidden_layers": 3,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_theta": 5000.0,
        "rope_scaling": None,
        "_attn_implementation": "flash_attention_2",
    },
}
"""config.json as such checkpoints are published, at a tiny size, with fewer key heads and another base of rotation."""


class VisionLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(CHANNELS), nn.LayerNorm(CHANNELS)
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.self_attn = nn.ModuleDict({name: nn.Linear(CHANNELS, CHANNELS) for name in names})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(CHANNELS, 24), "fc2": nn.Linear(24, CHANNELS)})

    def forward(self, x: Tensor) -> Tensor:
        normed = self.layer_norm1(x)
        q, k, v = (self.self_attn[f"{name}_proj"](normed) for name in "qkv")
        x = x + self.self_attn["out_proj"](attend(q, k, v, 2, causal=False)[0])
        inner = self.mlp["fc1"](self.layer_norm2(x))
        return x + self.mlp["fc2"](inner * torch.sigmoid(1.702 * inner))


class VisionTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Module()
        self.embeddings.class_embedding = nn.Parameter(torch.zeros(CHANNELS))
        self.embeddings.patch_embedding = nn.Conv2d(3, CHANNELS, PATCH, PATCH, bias=False)
        self.embeddings.position_embedding = nn.Embedding(SIDE**2 + 1, CHANNELS)
        self.pre_layrnorm = nn.LayerNorm(CHANNELS)  # so it is written
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(VisionLayer() for _ in range(3))
        self.post_layernorm = nn.LayerNorm(CHANNELS)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.embeddings.class_embedding.expand(len(pixels), 1, -1), patches], dim=1)
        x = self.pre_layrnorm(x + self.embeddings.position_embedding.weight)
        for layer in list(self.encoder.layers)[:-1]:  # the last but one hidden state
            x = layer(x)
        return x[:, 1:]


class PlainPllava(nn.Module):
    """Its `state_dict` has the keys of the published layout."""

    def __init__(self) -> None:
        super().__init__()
        self.vision_tower = nn.Module()
        self.vision_tower.vision_model = VisionTower()
        self.multi_modal_projector = nn.ModuleDict(
            {"linear_1": nn.Linear(CHANNELS, WIDTH), "linear_2": nn.Linear(WIDTH, WIDTH)}
        )
        self.language_model = nn.Module()
        layers: list[nn.Module] = [Layer(WIDTH, HEADS, KV_HEADS, MLP, base=5000.0, eps=1e-5) for _ in range(3)]
        self.language_model.model = decoder(VOCAB, WIDTH, layers, 1e-5)
        self.language_model.lm_head = nn.Linear(WIDTH, VOCAB, bias=False)

    def video(self, clip: Tensor) -> Tensor:
        """[video d_model]: each token is the mean of the places of `FRAMES` × 2 × 2 equal boxes."""
        inner = self.multi_modal_projector["linear_1"](self.vision_tower.vision_model(clip))
        inner = self.multi_modal_projector["linear_2"](inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))))
        places = inner.unflatten(1, (SIDE, SIDE))
        each, half = len(clip) // FRAMES, SIDE // 2
        boxes = [
            places[t * each : (t + 1) * each, r * half : (r + 1) * half, c * half : (c + 1) * half].mean((0, 1, 2))
            for t in range(FRAMES)
            for r in range(2)
            for c in range(2)
        ]
        return torch.stack(boxes)

    def forward(self, ids: Tensor, pixels: Tensor) -> Tensor:
        text = self.language_model
        x = text.model.embed_tokens(ids)
        for row, clip in enumerate(pixels.expand(len(ids), *pixels.shape[1:])):
            x[row, ids[row] == VIDEO] = self.video(clip)
        for layer in text.model.layers:
            x = layer(x)
        return text.lm_head(text.model.norm(x))
