"""The decoder's other parts: RMS norm, gated MLP, unembedding; each with TransformerLens' hook points.

The weights are the checkpoint's own tensors and are applied as the checkpoint's code applies them, so that results
agree with the original to the last bit; the names and shapes of TransformerLens are views.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from videolens.errors import ModelError
from videolens.model.decoder.rows import Rows, fire, is_listened_to


class RMSNorm(nn.Module):
    """Root-mean-square norm: `hook_scale` [batch row 1], `hook_normalized` [batch row d_model] before the weight."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.w, self.eps = weight, eps
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()

    def normalise(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """The norm without its hook points."""
        wide = self._wide(x)
        return self.w * (wide * torch.rsqrt(self._variance(wide))).to(x.dtype)

    def forward(self, x: Float[Tensor, "*batch d_model"], at: Rows | None = None) -> Float[Tensor, "*batch d_model"]:
        """Normalise, and fire the hook points that have hook functions."""
        wide = self._wide(x)
        variance = self._variance(wide)
        normalised = wide * torch.rsqrt(variance)
        if is_listened_to(self.hook_scale):
            scale = variance.sqrt()
            edited = fire(self.hook_scale, scale.clone(), at)
            # x·rsqrt(v) and x/√v round differently: divide only where somebody has really changed the scale
            if self.hook_scale._backward_hooks or not torch.equal(edited, scale):
                normalised = wide / edited
        return self.w * fire(self.hook_normalized, normalised.to(x.dtype), at)

    @staticmethod
    def _wide(x: Tensor) -> Tensor:
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def _variance(self, wide: Tensor) -> Tensor:
        return wide.pow(2).mean(-1, keepdim=True) + self.eps


def is_quantised(linear: nn.Linear) -> bool:
    """Whether a layer's weights are packed: whole numbers of fewer bits, of a shape of their own."""
    return not linear.weight.is_floating_point()


def unpacked_shape(weight: Tensor) -> tuple[int, ...]:
    """The shape of a weight; of one that is packed, as bitsandbytes keeps two numbers in a byte, that before it was."""
    return tuple(getattr(getattr(weight, "quant_state", None), "shape", None) or weight.shape)


def matrix(linear: nn.Linear) -> Float[Tensor, "out in"]:
    """A layer's weights.

    Raises:
        ModelError: they are quantised.
    """
    if is_quantised(linear):
        raise ModelError(
            f"the weights of this layer are quantised ({linear.weight.dtype}): there is no matrix to read or to "
            "multiply by; activations are at the hook points, and weights in the checkpoint it was quantised from"
        )
    return linear.weight


def bias_or_zeros(linear: nn.Linear) -> Float[Tensor, " out"]:
    """A layer's bias, zeros where the checkpoint has none."""
    if linear.bias is not None:
        return linear.bias
    dtype = torch.float32 if is_quantised(linear) else linear.weight.dtype
    return torch.zeros(linear.out_features, dtype=dtype, device=linear.weight.device)


class GatedMLP(nn.Module):
    """down(act(gate(x)) · up(x)): `hook_pre` is the gate before its activation, `hook_pre_linear` the other factor."""

    def __init__(self, act: Callable[[Tensor], Tensor], *, gate: nn.Linear, up: nn.Linear, down: nn.Linear) -> None:
        super().__init__()
        self.act, self.gate, self.up, self.down = act, gate, up, down
        self.hook_pre = HookPoint()
        self.hook_pre_linear = HookPoint()
        self.hook_post = HookPoint()

    @property
    def W_gate(self) -> Float[Tensor, "d_model d_mlp"]:
        """Gate weights, a view."""
        return matrix(self.gate).t()

    @property
    def W_in(self) -> Float[Tensor, "d_model d_mlp"]:
        """Weights of the factor that is gated, a view."""
        return matrix(self.up).t()

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        """Output weights, a view."""
        return matrix(self.down).t()

    @property
    def b_in(self) -> Float[Tensor, " d_mlp"]:
        """Bias of the factor that is gated, zeros where the checkpoint has none."""
        return bias_or_zeros(self.up)

    @property
    def b_out(self) -> Float[Tensor, " d_model"]:
        """Output bias, zeros where the checkpoint has none."""
        return bias_or_zeros(self.down)

    def forward(self, x: Float[Tensor, "batch row d_model"], at: Rows) -> Float[Tensor, "batch row d_model"]:
        """What the MLP adds to the residual stream."""
        pre = fire(self.hook_pre, self.gate(x), at)
        post = self.act(pre)
        fresh = post is not pre and not post.requires_grad
        del pre  # not kept any longer than it is needed
        up = fire(self.hook_pre_linear, self.up(x), at)
        post = post.mul_(up) if fresh and not up.requires_grad else post * up
        return self.down(fire(self.hook_post, post, at))


class Unembed(nn.Module):
    """From the normalised residual to logits."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        """Unembedding weights, a view."""
        return self.weight.t()

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        """Zeros: these models have no unembedding bias."""
        return self.weight.new_zeros(self.weight.shape[0])

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Logits."""
        return F.linear(x, self.weight)
