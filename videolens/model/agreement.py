"""How far two ways of computing the same thing are apart."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def apart(one: Float[Tensor, "*shape"], other: Float[Tensor, "*shape"]) -> float:
    """The largest difference, in standard deviations of all that `other` holds: of logits, or of residuals."""
    return float((one - other).abs().max() / other.std())
