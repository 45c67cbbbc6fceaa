"""One layer of the decoder."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from videolens.model.decoder.attention import Attention
from videolens.model.decoder.config import VideoTransformerConfig
from videolens.model.decoder.layers import GatedMLP, RMSNorm
from videolens.model.decoder.rows import Rows, fire, is_listened_to
from videolens.model.finite import check_stage


class Block(nn.Module):
    """Attention and MLP, each reading the residual stream through a norm and adding to it.

    Where a model has deepstack features for the layer, they are added last, behind `hook_resid_post`: so that this is
    what the layer gives, and `hook_resid_pre` of the next one what it reads. `hook_deepstack` [batch row d_model] is
    what is added: zeros at every position that is no video token.
    """

    # TransformerLens asks this before it reads `hook_resid_post` as the whole stream.
    hook_out_is_single_residual_stream = True

    def __init__(
        self,
        cfg: VideoTransformerConfig,
        *,
        ln1: RMSNorm,
        attn: Attention,
        ln2: RMSNorm,
        mlp: GatedMLP,
        deepstack: bool = False,
    ) -> None:
        super().__init__()
        self.cfg = cfg
        self.ln1, self.attn, self.ln2, self.mlp = ln1, attn, ln2, mlp
        self.hook_resid_pre, self.hook_resid_mid, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_out, self.hook_mlp_in, self.hook_mlp_out = HookPoint(), HookPoint(), HookPoint()
        self.hook_deepstack = HookPoint() if deepstack else None

    @property
    def device(self) -> torch.device:
        """Where its weights are, and so where it computes."""
        return self.ln1.w.device

    def forward(self, resid: Float[Tensor, "batch row d_model"], at: Rows) -> Float[Tensor, "batch asked d_model"]:
        """The residual stream after the layer, at the rows of `at` that are asked for, on the device that it came from.

        A layer that lies elsewhere takes the stream there and gives it back: all that runs layers finds it in one
        place. Its hook functions, keys and values see and stay on the layer's own device.
        """
        home = resid.device
        if self.device == home:
            return self._computed(resid, at)
        return self._computed(resid.to(self.device), at.on(self.device)).to(home)

    def _computed(self, resid: Float[Tensor, "batch row d_model"], at: Rows) -> Float[Tensor, "batch asked d_model"]:
        resid = fire(self.hook_resid_pre, resid, at)
        attn_out = self.attn(resid, self.ln1, at)
        if at.asked is not None:
            resid, at = resid[:, at.asked], at.queries
        resid = resid + fire(self.hook_attn_out, attn_out, at)
        resid = fire(self.hook_resid_mid, resid, at)
        mlp_in = fire(self.hook_mlp_in, resid.clone(), at) if self.cfg.use_hook_mlp_in else resid
        resid = resid + fire(self.hook_mlp_out, self.mlp(self.ln2(mlp_in, at), at), at)
        resid = fire(self.hook_resid_post, resid, at)
        if self.hook_deepstack is not None:
            resid = self._stacked(self.hook_deepstack, resid, at)
        check_stage(resid, self.attn.layer, self)
        return resid

    def _stacked(self, point: HookPoint, resid: Float[Tensor, "batch row d_model"], at: Rows) -> Tensor:
        """The stream with deepstack features added. New tokens, and prompts without a video, have none."""
        added = at.added_after(self.attn.layer)
        if is_listened_to(point):
            added = torch.zeros_like(resid) if added is None else added.expand_as(resid).clone()
            added = fire(point, added, at)
        return resid if added is None else resid + added
