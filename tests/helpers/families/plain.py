"""Pieces of the originals that transformers has no class for, in plain torch; nothing here comes from the package."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RMS(nn.Module):
    """x divided by its root mean square, times a weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """Over the last dimension."""
        return x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.weight


def attend(q: Tensor, k: Tensor, v: Tensor, n_heads: int, *, causal: bool) -> tuple[Tensor, Tensor]:
    """[batch pos width] of q, k and v → output and pattern [batch head query key], every head by itself.

    Keys and values are shared by as many heads as there are more of them.
    """
    size = q.shape[-1] // n_heads
    sharing = q.shape[-1] // k.shape[-1]
    outputs, patterns = [], []
    for h in range(n_heads):
        own, shared = (slice(i * size, (i + 1) * size) for i in (h, h // sharing))
        scores = q[..., own] @ k[..., shared].transpose(1, 2) / math.sqrt(size)
        if causal:
            scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -torch.inf)
        patterns.append(scores.softmax(-1))
        outputs.append(patterns[-1] @ v[..., shared])
    return torch.cat(outputs, dim=-1), torch.stack(patterns, dim=1)


def turned(flat: Tensor, angles: Tensor, *, scale: float = 1.0) -> Tensor:
    """Rotary: coordinate i of a head and coordinate i + half are a point in the plane, turned by an angle [pos half].

    flat [… pos width], of any number of heads.
    """
    cos, sin = (scale * turn[:, None] for turn in (angles.cos(), angles.sin()))
    a, b = flat.unflatten(-1, (-1, 2 * angles.shape[-1])).chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions, as Llama's and, with biases, Qwen2's."""

    def __init__(self, width: int, n_heads: int, n_key_heads: int, *, base: float, bias: bool) -> None:
        super().__init__()
        narrow = width // n_heads * n_key_heads
        self.q_proj = nn.Linear(width, width, bias=bias)
        self.k_proj, self.v_proj = nn.Linear(width, narrow, bias=bias), nn.Linear(width, narrow, bias=bias)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.n_heads, self.base = n_heads, base

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Output and pattern."""
        half = x.shape[-1] // self.n_heads // 2
        angles = torch.arange(x.shape[1])[:, None] * self.base ** (-torch.arange(half) / half)
        q, k = turned(self.q_proj(x), angles), turned(self.k_proj(x), angles)
        z, pattern = attend(q, k, self.v_proj(x), self.n_heads, causal=True)
        return self.o_proj(z), pattern


class Layer(nn.Module):
    """A layer of Llama (arXiv 2302.13971), or of Qwen2: the same with biases."""

    def __init__(
        self, width: int, n_heads: int, n_key_heads: int, mlp: int, *, base: float, eps: float, bias: bool = False
    ) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = RMS(width, eps), RMS(width, eps)
        self.self_attn = Attention(width, n_heads, n_key_heads, base=base, bias=bias)
        sizes = {"gate_proj": (width, mlp), "up_proj": (width, mlp), "down_proj": (mlp, width)}
        self.mlp = nn.ModuleDict({name: nn.Linear(*size, bias=False) for name, size in sizes.items()})

    def forward(self, x: Tensor) -> Tensor:
        """The residual after it."""
        x = x + self.self_attn(self.input_layernorm(x))[0]
        normed = self.post_attention_layernorm(x)
        gate = self.mlp["gate_proj"](normed)
        return x + self.mlp["down_proj"](gate * gate.sigmoid() * self.mlp["up_proj"](normed))


def decoder(vocab: int, width: int, layers: list[nn.Module], eps: float) -> nn.Module:
    """Embedding, layers and final norm under the names that checkpoints have."""
    made = nn.Module()
    made.embed_tokens = nn.Embedding(vocab, width)
    made.layers = nn.ModuleList(layers)
    made.norm = RMS(width, eps)
    return made
