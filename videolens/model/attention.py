"""Grouped-query attention with TransformerLens' hook points and one more: the mask.

d_head: size of a head; n_kv: key/value heads; row: positions computed now; key: positions attended to.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from videolens.errors import ModelError
from videolens.model.config import VideoTransformerConfig
from videolens.model.layers import RMSNorm
from videolens.model.rows import Rows, fire, heard

__all__ = ["Attention"]


def rotate(
    x: Float[Tensor, "batch row heads d_head"],
    cos: Float[Tensor, "table row d_rotary"],
    sin: Float[Tensor, "table row d_rotary"],
) -> Float[Tensor, "batch row heads d_head"]:
    """Rotary position embedding of the first d_rotary dimensions, halves paired (the GPT-NeoX and Llama convention)."""
    cos, sin = cos[:, :, None], sin[:, :, None]
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat([-second, first], dim=-1) * sin
    return torch.cat([turned, rest], dim=-1) if rest.shape[-1] else turned


class Attention(nn.Module):
    """Attention of one layer. The weights are the checkpoint's own tensors; `W_Q` … `W_O` are views of them.

    1. Project the normalised residual to queries, keys and values (`hook_q`, `hook_k`, `hook_v`), rotate (`hook_rot_q`,
       `hook_rot_k`), and put the earlier positions' keys and values before the new ones.
    2. Where somebody listens to `hook_mask`, hand out a fresh boolean mask [1 1 row key], True = may attend, to be
       edited or replaced by one of shape [batch|1 head|1 row key]. Otherwise no mask exists where the causal kernel
       needs none.
    3. Fused attention; eager, with `hook_attn_scores` and `hook_pattern` [batch head row key], where somebody listens
       to those. A row with no key left gives z = 0 on either path.
    4. `hook_z`, output projection.
    """

    def __init__(self, cfg: VideoTransformerConfig, layer: int, **projections: nn.Linear) -> None:
        super().__init__()
        self.cfg, self.layer = cfg, layer
        self.n_heads, self.n_kv, self.d_head = cfg.n_heads, cfg.n_key_value_heads or cfg.n_heads, cfg.d_head
        self.q, self.k, self.v, self.o = (projections[name] for name in "qkvo")
        self.scale = cfg.d_head**-0.5
        self.hook_attn_in, self.hook_q_input, self.hook_k_input, self.hook_v_input = (HookPoint() for _ in range(4))
        self.hook_q, self.hook_k, self.hook_v, self.hook_rot_q, self.hook_rot_k = (HookPoint() for _ in range(5))
        self.hook_mask, self.hook_attn_scores, self.hook_pattern = (HookPoint() for _ in range(3))
        self.hook_z, self.hook_result = HookPoint(), HookPoint()

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        """Query weights, a view."""
        return self.q.weight.unflatten(0, (self.n_heads, self.d_head)).transpose(1, 2)

    @property
    def W_K(self) -> Float[Tensor, "n_kv d_model d_head"]:
        """Key weights, a view."""
        return self.k.weight.unflatten(0, (self.n_kv, self.d_head)).transpose(1, 2)

    @property
    def W_V(self) -> Float[Tensor, "n_kv d_model d_head"]:
        """Value weights, a view."""
        return self.v.weight.unflatten(0, (self.n_kv, self.d_head)).transpose(1, 2)

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """Output weights, a view."""
        return self.o.weight.t().unflatten(0, (self.n_heads, self.d_head))

    def _bias(self, linear: nn.Linear) -> Float[Tensor, "heads d_head"]:
        bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features)
        return bias.unflatten(0, (-1, self.d_head))

    @property
    def b_Q(self) -> Float[Tensor, "head d_head"]:
        """Query bias, zeros where the checkpoint has none."""
        return self._bias(self.q)

    @property
    def b_K(self) -> Float[Tensor, "n_kv d_head"]:
        """Key bias, zeros where the checkpoint has none."""
        return self._bias(self.k)

    @property
    def b_V(self) -> Float[Tensor, "n_kv d_head"]:
        """Value bias, zeros where the checkpoint has none."""
        return self._bias(self.v)

    @property
    def b_O(self) -> Float[Tensor, " d_model"]:
        """Output bias, zeros where the checkpoint has none."""
        return self.o.bias if self.o.bias is not None else self.o.weight.new_zeros(self.o.out_features)

    def forward(
        self, resid: Float[Tensor, "batch row d_model"], norm: RMSNorm, at: Rows
    ) -> Float[Tensor, "batch row d_model"]:
        """What the layer's heads add to the residual stream, read through `norm`."""
        q, k, v = self._project(resid, norm, at)
        q = fire(self.hook_q, q, at)
        k = fire(self.hook_k, k, at)
        v = fire(self.hook_v, v, at)
        q = fire(self.hook_rot_q, rotate(q, at.cos, at.sin), at)
        k = fire(self.hook_rot_k, rotate(k, at.cos, at.sin), at)
        if at.past is not None:
            k, v = at.past.extend(self.layer, k, v)
        z = fire(self.hook_z, self._attend(q, k, v, at), at)
        if self.cfg.use_attn_result and heard(self.hook_result):
            result = fire(self.hook_result, torch.einsum("brhd,hdm->brhm", z, self.W_O), at)
            return result.sum(2) + self.b_O
        return self.o(z.flatten(2))

    def _project(self, resid: Tensor, norm: RMSNorm, at: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [batch row heads d_head]."""
        x = norm(resid, at)
        if not (self.cfg.use_split_qkv_input or self.cfg.use_attn_in):
            q, k, v = (linear(x).unflatten(-1, (-1, self.d_head)) for linear in (self.q, self.k, self.v))
            return q, k, v
        # One copy of the residual per head, from before the norm, so that a path into one head can be patched alone.
        per_head = repeat(resid, "batch row d_model -> batch row head d_model", head=self.n_heads)
        if self.cfg.use_attn_in:
            q_in = fire(self.hook_attn_in, per_head.clone(), at)
            k_in = v_in = q_in[:, :, : self.n_kv]
        else:
            q_in = fire(self.hook_q_input, per_head.clone(), at)
            k_in = fire(self.hook_k_input, per_head[:, :, : self.n_kv].clone(), at)
            v_in = fire(self.hook_v_input, per_head[:, :, : self.n_kv].clone(), at)

        def split(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return torch.einsum("brhm,hmd->brhd", norm.normalise(x), weight) + bias

        return split(q_in, self.W_Q, self.b_Q), split(k_in, self.W_K, self.b_K), split(v_in, self.W_V, self.b_V)

    def _mask(self, at: Rows, batch: int) -> Bool[Tensor, "batch heads row key"] | None:
        """What may attend to what; None where causality is all there is."""
        if not heard(self.hook_mask):
            return None
        self.hook_mask.ctx["n_heads"] = self.n_heads
        mask = fire(self.hook_mask, at.causal.clone(), at)
        fits = mask.ndim == 4 and mask.shape[0] in (1, batch) and mask.shape[1] in (1, self.n_heads)
        if mask.dtype != torch.bool or not fits or mask.shape[-2:] != at.causal.shape[-2:]:
            raise ModelError(
                f"a hook on {self.hook_mask.name} returned {mask.dtype} {tuple(mask.shape)}; it must give a boolean "
                f"mask [batch|1 head|1 {len(at.rows)} {len(at.keys)}] for a batch of {batch} and {self.n_heads} heads, "
                "True = may attend"
            )
        # Bit for bit what it was before: take the kernel that would have been taken without a listener.
        return None if mask.shape == at.causal.shape and torch.equal(mask, at.causal) else mask

    def _attend(
        self,
        q: Float[Tensor, "batch row head d_head"],
        k: Float[Tensor, "batch key n_kv d_head"],
        v: Float[Tensor, "batch key n_kv d_head"],
        at: Rows,
    ) -> Float[Tensor, "batch row head d_head"]:
        mask = self._mask(at, q.shape[0])
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        listened = heard(self.hook_attn_scores) or heard(self.hook_pattern)
        if listened and self.cfg.attention_path == "sdpa":
            raise ModelError(
                f"somebody listens to scores or patterns of layer {self.layer}, which fused attention does not have, "
                "but the path is fixed to 'sdpa'; use the path 'auto' or 'eager', or leave those names out of "
                "names_filter"
            )
        if listened or self.cfg.attention_path == "eager":
            return self._eager(q, k, v, mask, at).transpose(1, 2)
        causal = mask is None and at.square and not at.open
        if mask is None and not causal and not at.open:
            mask = at.causal
        grouped = self.n_kv != self.n_heads
        if grouped and mask is not None and q.is_cuda:
            # No fused CUDA kernel takes both a mask and grouped heads; expanding k and v is cheaper than their scores.
            k, v, grouped = self._per_head(k), self._per_head(v), False
        z = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=self.scale, enable_gqa=grouped
        )
        if mask is not None:
            z = z.masked_fill(~mask.any(-1, keepdim=True), 0.0)
        return z.transpose(1, 2)

    def _per_head(self, x: Float[Tensor, "batch n_kv key d_head"]) -> Float[Tensor, "batch head key d_head"]:
        return repeat(x, "batch n_kv key d_head -> batch (n_kv group) key d_head", group=self.n_heads // self.n_kv)

    def _eager(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, at: Rows
    ) -> Float[Tensor, "batch head row d_head"]:
        scores = torch.matmul(q, self._per_head(k).transpose(2, 3)) * self.scale
        scores = scores.masked_fill(~(at.causal if mask is None else mask), -torch.inf)
        scores = fire(self.hook_attn_scores, scores, at)
        # The softmax of a row of −inf is NaN; a row with no key left attends to nothing.
        empty = (scores == -torch.inf).all(-1, keepdim=True)
        pattern = F.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(q.dtype)
        pattern = fire(self.hook_pattern, pattern.masked_fill(empty, 0.0), at)
        return torch.matmul(pattern, self._per_head(v))
