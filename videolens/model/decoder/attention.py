"""Grouped-query attention with TransformerLens' hook points and two more: the mask, and gates.

d_head: size of a head; n_kv: key/value heads; row: positions computed now; key: positions attended to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from videolens.errors import ModelError
from videolens.model.decoder.config import VideoTransformerConfig
from videolens.model.decoder.gates import attend_biased, bias_of, biased_rows
from videolens.model.decoder.kernels import KeyValuePiece, attend
from videolens.model.decoder.layers import RMSNorm, bias_or_zeros, matrix
from videolens.model.decoder.rows import Rows, fire, is_listened_to
from videolens.model.decoder.views import HeadView, dense_mask, views_of

_KNOWN_MASKS = 4  # that a forward remembers: each is rows × keys, in all heads where they differ


def rotate(
    x: Float[Tensor, "batch row heads d_head"],
    cos: Float[Tensor, "table row d_rotary"],
    sin: Float[Tensor, "table row d_rotary"],
) -> Float[Tensor, "batch row heads d_head"]:
    """Rotary position embedding of the first d_rotary dimensions, halves paired (the GPT-NeoX and Llama convention)."""
    cos, sin = cos[:, :, None], sin[:, :, None]
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    half = cos.shape[-1] // 2
    first, second = turned[..., :half], turned[..., half:]
    # a·cos + rotated·sin with the halves rotated where they lie: the same bits, half the memory traffic
    turned = turned * cos
    turned[..., :half] -= second * sin[..., :half]
    turned[..., half:] += first * sin[..., half:]
    return torch.cat([turned, rest], dim=-1) if rest.shape[-1] else turned


class Attention(nn.Module):
    """Attention of one layer. The weights are the checkpoint's own tensors; `W_Q` … `W_O` are views of them.

    1. Project the normalised residual to queries, keys and values (`hook_q`, `hook_k`, `hook_v`), rotate (`hook_rot_q`,
       `hook_rot_k`), and put the earlier positions' keys and values before the new ones. Queries are those of the rows
       that are asked for, keys and values those of all.
    2. Where `hook_mask` has hook functions, hand out a fresh boolean mask [1 1 row key], True = may attend, to be
       edited or replaced by one of shape [batch|1 head|1 row key]; what it lets rows see is read from it once and then
       computed without it. Otherwise no mask exists. Where `hook_gate` has hook functions, hand out ones [1 1 row key],
       which the unnormalised attention weights are multiplied by: 0 is a closed edge, 2 doubles a weight before the
       row is normalised. Rows whose gates are all 1 are computed as without them.
    3. Fused attention; eager, with `hook_attn_scores` and `hook_pattern` [batch head row key], where hook
       functions see those, and then only for the watched rows if there are such. A row with no key left gives z = 0
       on any path.
    4. `hook_z`, output projection.
    """

    def __init__(self, cfg: VideoTransformerConfig, layer: int, **projections: nn.Linear) -> None:
        super().__init__()
        self.cfg, self.layer = cfg, layer
        self.n_heads, self.n_kv, self.d_head = cfg.n_heads, cfg.n_key_value_heads or cfg.n_heads, cfg.d_head
        self.q, self.k, self.v, self.o = (projections[name] for name in "qkvo")
        self.q_norm: RMSNorm | None = None
        self.k_norm: RMSNorm | None = None
        self.scale = cfg.d_head**-0.5
        self.hook_attn_in, self.hook_q_input, self.hook_k_input, self.hook_v_input = (HookPoint() for _ in range(4))
        self.hook_q, self.hook_k, self.hook_v, self.hook_rot_q, self.hook_rot_k = (HookPoint() for _ in range(5))
        self.hook_mask, self.hook_gate = HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()
        self.hook_z, self.hook_result = HookPoint(), HookPoint()

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        """Query weights, a view."""
        return matrix(self.q).unflatten(0, (self.n_heads, self.d_head)).transpose(1, 2)

    @property
    def W_K(self) -> Float[Tensor, "n_kv d_model d_head"]:
        """Key weights, a view."""
        return matrix(self.k).unflatten(0, (self.n_kv, self.d_head)).transpose(1, 2)

    @property
    def W_V(self) -> Float[Tensor, "n_kv d_model d_head"]:
        """Value weights, a view."""
        return matrix(self.v).unflatten(0, (self.n_kv, self.d_head)).transpose(1, 2)

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """Output weights, a view."""
        return matrix(self.o).t().unflatten(0, (self.n_heads, self.d_head))

    def _bias(self, linear: nn.Linear) -> Float[Tensor, "heads d_head"]:
        return bias_or_zeros(linear).unflatten(0, (-1, self.d_head))

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
        return bias_or_zeros(self.o)

    def forward(
        self, resid: Float[Tensor, "batch row d_model"], norm: RMSNorm, at: Rows
    ) -> Float[Tensor, "batch query d_model"]:
        """What the layer's heads add to the residual stream, read through `norm`, at the rows that are asked for."""
        q, k, v = self._project(resid, norm, at)
        asked = at.queries
        # norms of single heads, where a model has them, come before hook_q and hook_k: as in TransformerLens
        q = fire(self.hook_q, q if self.q_norm is None else self.q_norm(q, asked), asked)
        k = fire(self.hook_k, k if self.k_norm is None else self.k_norm(k, at), at)
        v = fire(self.hook_v, v, at)
        q = fire(self.hook_rot_q, rotate(q, asked.cos, asked.sin), asked)
        k = fire(self.hook_rot_k, rotate(k, at.cos, at.sin), at)
        pieces = [(k, v)] if at.past is None else at.past.join(self.layer, k, v)
        z = fire(self.hook_z, self._attend(q, pieces, asked), asked)
        if self.cfg.use_attn_result and is_listened_to(self.hook_result):
            result = fire(self.hook_result, torch.einsum("brhd,hdm->brhm", z, self.W_O), asked)
            return result.sum(2) + self.b_O
        return self.o(z.flatten(2))

    def _project(self, resid: Tensor, norm: RMSNorm, at: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the rows that are asked for, keys and values of all rows, each [batch row heads d_head]."""
        asked = slice(None) if at.asked is None else at.asked
        x = norm(resid, at)
        if not (self.cfg.use_split_qkv_input or self.cfg.use_attn_in):
            read = ((self.q, x[:, asked]), (self.k, x), (self.v, x))
            q, k, v = (linear(seen).unflatten(-1, (-1, self.d_head)) for linear, seen in read)
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

        q = split(q_in[:, asked], self.W_Q, self.b_Q)
        return q, split(k_in, self.W_K, self.b_K), split(v_in, self.W_V, self.b_V)

    def _views(self, at: Rows, batch: int) -> Sequence[HeadView]:
        """What each part of the batch may attend to, in each head."""
        if not is_listened_to(self.hook_mask):
            return at.open if at.views is None else at.views
        self.hook_mask.ctx["n_heads"] = self.n_heads
        fresh = at.causal.clone() if at.views is None else dense_mask(at.views, batch, self.n_heads, at.causal.device)
        mask = fire(self.hook_mask, fresh, at, may_grow=True)
        fits = mask.ndim == 4 and mask.shape[0] in (1, batch) and mask.shape[1] in (1, self.n_heads)
        if mask.dtype != torch.bool or not fits or mask.shape[-2:] != at.causal.shape[-2:]:
            raise ModelError(
                f"a hook on {self.hook_mask.name} returned {mask.dtype} {tuple(mask.shape)}; it must give a boolean "
                f"mask [batch|1 head|1 {len(at.rows)} {len(at.keys)}] for a batch of {batch} and {self.n_heads} heads, "
                "True = may attend"
            )
        for before, views in [(at.causal, at.open), *at.known]:
            # Bit for bit what it was before, where a listener leaves it as it is.
            if mask.shape == before.shape and torch.equal(mask, before):
                return views
        views = views_of(mask, at.rows, at.keys)
        at.known.append((mask.clone(), views))
        del at.known[:-_KNOWN_MASKS]
        return views

    def _attend(
        self, q: Float[Tensor, "batch query head d_head"], pieces: Sequence[KeyValuePiece], at: Rows
    ) -> Float[Tensor, "batch query head d_head"]:
        views, bias = self._views(at, len(q)), bias_of(self.hook_gate, at, len(q), self.n_heads)
        listened = is_listened_to(self.hook_attn_scores) or is_listened_to(self.hook_pattern)
        if listened and self.cfg.attention_path == "sdpa":
            raise ModelError(
                f"hook functions see scores or patterns of layer {self.layer}, which fused attention does not have, "
                "but the path is fixed to 'sdpa'; use the path 'auto' or 'eager', or leave those names out of "
                "names_filter"
            )
        if self.cfg.attention_path == "eager" or (listened and at.watched is None):
            z = self._eager(q, pieces, self._mask(views, at, len(q)), bias, at if at.watched is None else None)
        else:
            z = self._fused(q, pieces, views)
            if bias is not None and len(some := biased_rows(bias)):
                mask = self._mask(views, at, len(q))[:, :, some]
                z = z.index_copy(1, some, attend_biased(q[:, some], pieces, mask, bias[:, :, some], self.scale))
        if listened and at.watched is not None:
            # Patterns exist for the watched rows only, and count there: a listener may edit them.
            watched = at.only(at.watched)
            mask = watched.causal if views is at.open else self._mask(views, at, len(q))[:, :, at.watched]
            bias = None if bias is None else bias[:, :, at.watched]
            z = z.index_copy(1, at.watched, self._eager(q[:, at.watched], pieces, mask, bias, watched))
        return z

    def _mask(self, views: Sequence[HeadView], at: Rows, batch: int) -> Bool[Tensor, "batch_or_1 head_or_1 query key"]:
        return at.causal if views is at.open else dense_mask(views, batch, self.n_heads, at.causal.device)

    def _fused(
        self, q: Tensor, pieces: Sequence[KeyValuePiece], views: Sequence[HeadView]
    ) -> Float[Tensor, "batch query head d"]:
        if len(views) == 1 and views[0][0] == slice(None) and views[0][1] is None:
            return attend(q, pieces, views[0][2], self.scale)
        z = torch.zeros_like(q)
        for part, heads, visible in views:
            seen = [(k, v) if len(k) == 1 else (k[part], v[part]) for k, v in pieces]
            if heads is None:
                z[part] = attend(q[part], seen, visible, self.scale)
                continue
            groups = heads // (self.n_heads // self.n_kv)
            seen = [(k[:, :, groups], v[:, :, groups]) for k, v in seen]
            z[part, :, heads] = attend(q[part][:, :, heads], seen, visible, self.scale)
        return z

    def _per_head(self, x: Float[Tensor, "batch n_kv key d_head"]) -> Float[Tensor, "batch head key d_head"]:
        return repeat(x, "batch n_kv key d_head -> batch (n_kv group) key d_head", group=self.n_heads // self.n_kv)

    def _eager(
        self,
        q: Float[Tensor, "batch query head d_head"],
        pieces: Sequence[KeyValuePiece],
        mask: Bool[Tensor, "batch_or_1 head_or_1 query key"],
        bias: Float[Tensor, "batches heads query key"] | None,
        at: Rows | None,
    ) -> Float[Tensor, "batch query head d_head"]:
        """Attention with scores and patterns; without `at`, no listener is shown them."""
        k, v = (torch.cat([piece[i].expand(len(q), -1, -1, -1) for piece in pieces], dim=1) for i in (0, 1))
        k, v = self._per_head(k.transpose(1, 2)), self._per_head(v.transpose(1, 2))
        scores = torch.matmul(q.transpose(1, 2), k.transpose(2, 3)) * self.scale
        scores = scores if bias is None else scores + bias.to(scores.dtype)
        scores = scores.masked_fill(~mask, -torch.inf)
        scores = scores if at is None else fire(self.hook_attn_scores, scores, at)
        # The softmax of a row of −inf is NaN; a row with no key left attends to nothing.
        empty = (scores == -torch.inf).all(-1, keepdim=True)
        pattern = F.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(q.dtype)
        pattern = pattern.masked_fill(empty, 0.0)
        pattern = pattern if at is None else fire(self.hook_pattern, pattern, at)
        return torch.matmul(pattern, v).transpose(1, 2)
