"""InternViT, the vision tower of InternVL in the layout it is published in: one fused projection per attention.

A module has the names of the checkpoint's keys, so weights are taken as they lie. transformers' own class keeps
queries, keys and values apart, and its checkpoints have them apart too.

token: class token and patches; d: width of the tower.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from videolens.errors import ModelError


class _Embeddings(nn.Module):
    """Patches and a class token, each with its learned position."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        d, self.patch = settings["hidden_size"], settings["patch_size"]
        self.side = settings["image_size"] // self.patch
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, d))
        self.patch_embedding = nn.Conv2d(3, d, kernel_size=self.patch, stride=self.patch)
        self.position_embedding = nn.Parameter(torch.zeros(1, self.side**2 + 1, d))

    def forward(self, pixels: Float[Tensor, "frame 3 height width"]) -> Float[Tensor, "frame token d"]:
        """What enters the first layer: the class token, then the patches row by row, each with its position."""
        patches = self.patch_embedding(pixels)
        rows, columns = patches.shape[-2:]
        place: Tensor = self.position_embedding
        if (rows, columns) != (self.side, self.side):
            # learned on one grid, read on another: the class token's stays as it is
            grid = place[:, 1:].float().unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
            grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)
            place = torch.cat([place[:, :1], grid.flatten(2).transpose(1, 2).to(place.dtype)], dim=1)
        tokens = torch.cat([self.class_embedding.expand(len(pixels), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        return tokens + place


class _Attention(nn.Module):
    """Every token attends to every other; queries and keys are normalised over all heads where the tower says so."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        d, self.heads = settings["hidden_size"], settings["num_attention_heads"]
        self.qkv = nn.Linear(d, 3 * d, bias=settings.get("qkv_bias", True))
        self.proj = nn.Linear(d, d)
        if settings.get("qk_normalization", False):
            self.q_norm, self.k_norm = (nn.RMSNorm(d, eps=settings["layer_norm_eps"]) for _ in "qk")

    def forward(self, x: Float[Tensor, "frame token d"]) -> Float[Tensor, "frame token d"]:
        """What attention adds, for every frame on its own."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (q, k, v))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _MLP(nn.Module):
    """Two layers."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        from transformers.activations import ACT2FN

        super().__init__()
        self.fc1 = nn.Linear(settings["hidden_size"], settings["intermediate_size"])
        self.act = ACT2FN[settings.get("hidden_act", "gelu")]
        self.fc2 = nn.Linear(settings["intermediate_size"], settings["hidden_size"])

    def forward(self, x: Float[Tensor, "frame token d"]) -> Float[Tensor, "frame token d"]:
        """What the MLP adds."""
        return self.fc2(self.act(self.fc1(x)))


class _Layer(nn.Module):
    """Attention and MLP, each behind a norm, its output scaled channel by channel."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        d, eps = settings["hidden_size"], settings["layer_norm_eps"]
        norms = {"layer_norm": nn.LayerNorm, "rms_norm": nn.RMSNorm}
        kind = settings.get("norm_type", "rms_norm")
        if kind not in norms:
            raise ModelError(f"vision_config.norm_type is {kind!r}; an InternViT has one of {sorted(norms)}")
        self.norm1, self.norm2 = norms[kind](d, eps=eps), norms[kind](d, eps=eps)
        self.attn, self.mlp = _Attention(settings), _MLP(settings)
        self.ls1, self.ls2 = nn.Parameter(torch.ones(d)), nn.Parameter(torch.ones(d))

    def forward(self, x: Float[Tensor, "frame token d"]) -> Float[Tensor, "frame token d"]:
        """The states after the layer."""
        x = x + self.ls1 * self.attn(self.norm1(x))
        return x + self.ls2 * self.mlp(self.norm2(x))


class _Encoder(nn.Module):
    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(settings) for _ in range(settings["num_hidden_layers"]))


class InternViT(nn.Module):
    """Vision transformer with pre-norm layers and layer scale, and no norm after the last.

    Args:
        settings: `vision_config` of the checkpoint.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.embeddings, self.encoder = _Embeddings(settings), _Encoder(settings)

    def forward(self, pixels: Float[Tensor, "frame 3 height width"], layer: int = -1) -> Float[Tensor, "frame token d"]:
        """Hidden states after a layer: 0 is what enters the first, −1 what leaves the last."""
        states = self.embeddings(pixels)
        layers = self.encoder.layers
        for each in layers[: range(len(layers) + 1)[layer]]:
            states = each(states)
        return states
