"""VideoLLaMA3 in plain torch, from its published definition; nothing here comes from the package."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.checkpoints import special_ids
from helpers.families.plain import Layer, attend, decoder, turned

SPECIAL = ("<image>", "<|im_start|>", "<|im_end|>")
IMAGE = special_ids(SPECIAL)["<image>"]
PATCH, D_VISION, D_MODEL, HEADS, KV_HEADS = 4, 24, 32, 4, 2

CONFIG: dict[str, Any] = {
    "architectures": ["Videollama3Qwen2ForCausalLM"],
    "model_type": "videollama3_qwen2",
    "auto_map": {"AutoModelForCausalLM": "modeling_videollama3.Videollama3Qwen2ForCausalLM"},
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": D_MODEL,
    "image_token_index": IMAGE,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 2048,
    "max_window_layers": 28,
    "mm_projector_type": "mlp2x_gelu",
    "num_attention_heads": HEADS,
    "num_hidden_layers": 3,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_cache": True,
    "use_sliding_window": False,
    "use_token_compression": True,
    "vision_encoder": None,
    "vision_encoder_config": {
        "model_type": "videollama3_vision_encoder",
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": D_VISION,
        "intermediate_size": 40,
        "layer_norm_eps": 1e-6,
        "num_attention_heads": 2,
        "num_channels": 3,
        "num_hidden_layers": 2,
        "patch_size": PATCH,
    },
    "vocab_size": 264,
}


class TowerAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(D_VISION, D_VISION) for _ in range(4))

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        q, k = turned(self.q_proj(x), angles), turned(self.k_proj(x), angles)
        return self.out_proj(attend(q, k, self.v_proj(x), 2, causal=False)[0])


class TowerLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = TowerAttention()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(D_VISION, eps=1e-6), nn.LayerNorm(D_VISION, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(D_VISION, 40), "fc2": nn.Linear(40, D_VISION)})

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), angles)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.layer_norm2(x)), approximate="tanh"))


class Tower(nn.Module):
    """One frame: patches row by row, rotary angles from row and column, halved by bilinear interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict({"patch_embedding": nn.Conv2d(3, D_VISION, PATCH, stride=PATCH)})
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(TowerLayer() for _ in range(2))})
        self.post_layernorm = nn.LayerNorm(D_VISION, eps=1e-6)

    def forward(self, frame: Tensor) -> Tensor:
        x = self.embeddings["patch_embedding"](frame[None])
        _, _, rows, columns = x.shape
        quarter = D_VISION // 2 // 4
        rates = 10000.0 ** (-torch.arange(quarter) / quarter)
        row, column = torch.arange(rows * columns) // columns, torch.arange(rows * columns) % columns
        angles = torch.cat([row[:, None] * rates, column[:, None] * rates], dim=1)
        x = x.flatten(2).mT
        for layer in self.encoder["layers"]:
            x = layer(x, angles)
        x = self.post_layernorm(x).mT.reshape(1, D_VISION, rows, columns)
        return F.interpolate(x, size=(rows // 2, columns // 2), mode="bilinear")[0].flatten(1).T


class Original(nn.Module):
    """Its parameters have the published names. Every visual token is kept."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        layer = dict(base=1e6, eps=1e-6, bias=True)
        layers: list[nn.Module] = [Layer(D_MODEL, HEADS, KV_HEADS, 48, **layer) for _ in range(3)]
        self.model = decoder(264, D_MODEL, layers, 1e-6)
        self.model.vision_encoder = Tower()
        readout = nn.Sequential(nn.Linear(D_VISION, D_MODEL), nn.GELU(), nn.Linear(D_MODEL, D_MODEL))
        self.model.mm_projector = nn.ModuleDict({"readout": readout})
        self.lm_head = nn.Linear(D_MODEL, 264, bias=False)
        if tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, ids: Tensor, pixels: Tensor) -> Tensor:
        x = self.model.embed_tokens(ids)
        seen = [[self.model.vision_encoder(frame) for frame in clip] for clip in pixels]
        video = self.model.mm_projector["readout"](torch.cat([torch.cat(clip) for clip in seen]))
        # a placeholder that the model writes itself is a word like any other
        row, place = (ids == IMAGE).nonzero()[: len(video)].T
        x[row, place] = video
        for layer in self.model.layers:
            x = layer(x)
        return self.lm_head(self.model.norm(x))
