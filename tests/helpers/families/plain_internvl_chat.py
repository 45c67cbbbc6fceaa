"""InternVLChat with Phi-3 in plain torch, from its published definition; nothing here comes from the package.

InternViT: arXiv 2312.14238 and the keys of the published checkpoints. Pixel shuffle and `mlp1`: arXiv 2404.16821.
Phi-3: arXiv 2404.14219; long and short rotary factors: arXiv 2402.13753, with the attention factor √(1 + ln s / ln L₀).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from helpers.checkpoints import special_ids
from helpers.families.plain import RMS, attend, decoder, turned

SPECIAL = ("<s>", "<|end|>", "<img>", "</img>", "<IMG_CONTEXT>")
IDS = special_ids(SPECIAL)
IMAGE, PATCH, CHANNELS = 16, 4, 16  # pixels, pixels, width of the tower
WIDTH, HEADS, KV_HEADS, HEAD, MLP, LAYERS, VOCAB = 32, 4, 2, 8, 48, 3, 264
CONTEXT, ORIGINAL = 256, 64
SHORT, LONG = [1.0, 1.1, 1.3, 1.6], [1.5, 2.5, 6.0, 12.0]
VISION: dict[str, Any] = {
    "model_type": "intern_vit_6b",
    "hidden_size": CHANNELS,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": IMAGE,
    "patch_size": PATCH,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "norm_type": "layer_norm",
    "qkv_bias": True,
    "qk_normalization": False,
    "drop_path_rate": 0.1,
    "use_flash_attn": True,
}
CONFIG: dict[str, Any] = {
    "model_type": "internvl_chat",
    "architectures": ["InternVLChatModel"],
    "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
    "downsample_ratio": 0.5,
    "ps_version": "v2",
    "select_layer": -1,
    "force_image_size": IMAGE,
    "template": "phi3-chat",
    "vision_config": VISION,
    "llm_config": {
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"},
        "attn_implementation": "flash_attention_2",
        "torch_dtype": "bfloat16",
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "su", "short_factor": SHORT, "long_factor": LONG},
        "max_position_embeddings": CONTEXT,
        "original_max_position_embeddings": ORIGINAL,
        "sliding_window": 262144,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}
"""config.json as such checkpoints are published, with their code's entries, at a tiny size."""


class VisionAttention(nn.Module):
    def __init__(self, vision: dict[str, Any]) -> None:
        super().__init__()
        self.n_heads = vision["num_attention_heads"]
        self.qkv = nn.Linear(CHANNELS, 3 * CHANNELS, bias=vision["qkv_bias"])
        self.proj = nn.Linear(CHANNELS, CHANNELS)
        if vision["qk_normalization"]:
            self.q_norm, self.k_norm = RMS(CHANNELS, 1e-6), RMS(CHANNELS, 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        # of the fused output the first third are queries, the second keys, the last values, each of all heads
        fused = self.qkv(x)
        q, k, v = fused[..., :CHANNELS], fused[..., CHANNELS : 2 * CHANNELS], fused[..., 2 * CHANNELS :]
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        return self.proj(attend(q, k, v, self.n_heads, causal=False)[0])


class VisionLayer(nn.Module):
    def __init__(self, vision: dict[str, Any]) -> None:
        super().__init__()
        norm = RMS if vision["norm_type"] == "rms_norm" else nn.LayerNorm
        self.norm1, self.norm2 = norm(CHANNELS, 1e-6), norm(CHANNELS, 1e-6)
        self.attn = VisionAttention(vision)
        inner = vision["intermediate_size"]
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(CHANNELS, inner), "fc2": nn.Linear(inner, CHANNELS)})
        self.ls1, self.ls2 = nn.Parameter(torch.ones(CHANNELS)), nn.Parameter(torch.ones(CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x)) * self.ls1
        inner = self.mlp["fc1"](self.norm2(x))
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        return x + self.mlp["fc2"](inner) * self.ls2


class Tower(nn.Module):
    def __init__(self, vision: dict[str, Any]) -> None:
        super().__init__()
        self.embeddings = nn.Module()
        self.embeddings.class_embedding = nn.Parameter(torch.zeros(1, 1, CHANNELS))
        self.embeddings.patch_embedding = nn.Conv2d(3, CHANNELS, PATCH, PATCH)
        self.embeddings.position_embedding = nn.Parameter(torch.zeros(1, (IMAGE // PATCH) ** 2 + 1, CHANNELS))
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(VisionLayer(vision) for _ in range(vision["num_hidden_layers"]))

    def forward(self, pixels: Tensor) -> Tensor:
        made = self.embeddings
        patches = made.patch_embedding(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([made.class_embedding.repeat(len(pixels), 1, 1), patches], dim=1) + made.position_embedding
        for layer in self.encoder.layers:
            x = layer(x)
        return x[:, 1:]


def angles(n: int) -> tuple[Tensor, float]:
    """[pos, head / 2], and the attention factor, of a sequence of n tokens: which factors count depends on n alone."""
    factors = torch.tensor(LONG if n > ORIGINAL else SHORT)
    wave = 1 / (factors * 10000.0 ** (torch.arange(HEAD // 2) * 2 / HEAD))
    return torch.arange(n)[:, None] * wave, math.sqrt(1 + math.log(CONTEXT / ORIGINAL) / math.log(ORIGINAL))


class TextAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv_proj = nn.Linear(WIDTH, (HEADS + 2 * KV_HEADS) * HEAD, bias=False)
        self.o_proj = nn.Linear(HEADS * HEAD, WIDTH, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.qkv_proj(x).split([HEADS * HEAD, KV_HEADS * HEAD, KV_HEADS * HEAD], dim=-1)
        turn, scale = angles(x.shape[1])
        z, pattern = attend(turned(q, turn, scale=scale), turned(k, turn, scale=scale), v, HEADS, causal=True)
        return self.o_proj(z), pattern


class TextLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = RMS(WIDTH, 1e-5), RMS(WIDTH, 1e-5)
        self.self_attn = TextAttention()
        self.mlp = nn.ModuleDict(
            {"gate_up_proj": nn.Linear(WIDTH, 2 * MLP, bias=False), "down_proj": nn.Linear(MLP, WIDTH, bias=False)}
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))[0]
        both = self.mlp["gate_up_proj"](self.post_attention_layernorm(x))
        gate, up = both[..., :MLP], both[..., MLP:]
        return x + self.mlp["down_proj"](gate * gate.sigmoid() * up)


class PlainInternVLChat(nn.Module):
    """Its `state_dict` has the keys of the published layout."""

    def __init__(self, vision: dict[str, Any], *, context: int) -> None:
        super().__init__()
        self.context = context
        self.vision_model = Tower(vision)
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(4 * CHANNELS), nn.Linear(4 * CHANNELS, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH)
        )
        self.language_model = nn.Module()
        self.language_model.model = decoder(VOCAB, WIDTH, [TextLayer() for _ in range(LAYERS)], 1e-5)
        self.language_model.lm_head = nn.Linear(WIDTH, VOCAB, bias=False)

    def shuffled(self, patches: Tensor) -> Tensor:
        """Every 2 × 2 patches become one, their channels side by side: upper row first, left before right."""
        side = IMAGE // PATCH
        square = patches.unflatten(1, (side, side))
        places = []
        for row in range(0, side, 2):
            for column in range(0, side, 2):
                corners = [square[:, row + i, column + j] for i in (0, 1) for j in (0, 1)]
                places.append(torch.cat(corners, dim=-1))
        return torch.stack(places, dim=1)

    def forward(self, ids: Tensor, pixels: Tensor) -> Tensor:
        text = self.language_model
        x = text.model.embed_tokens(ids)
        for row, clip in enumerate(pixels.expand(len(ids), *pixels.shape[1:])):
            x[row, ids[row] == self.context] = self.mlp1(self.shuffled(self.vision_model(clip))).flatten(0, 1)
        for layer in text.model.layers:
            x = layer(x)
        return text.lm_head(text.model.norm(x))
