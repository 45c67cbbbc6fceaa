"""How the weights move: AdamW for all, or Muon for the decoder's matrices and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.precision import precision


class Muon(torch.optim.Muon):
    """Torch's Muon with its products in the faster precision: torch takes bfloat16, which some processors emulate."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Move every matrix along the orthogonalised mean of its gradients."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                mean = state.setdefault("momentum_buffer", torch.zeros_like(matrix))
                mean.lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonal(matrix.grad.lerp(mean, group["momentum"]), group["ns_coefficients"])
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                # the root mean square of an update is that of AdamW's (Liu et al. 2025)
                matrix.add_(update, alpha=-0.2 * group["lr"] * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor, coefficients: Sequence[float], steps: int = 5) -> Tensor:
    """The nearest matrix whose singular values are about one, by Newton and Schulz's iteration [n m]."""
    x = matrix.to(precision(matrix.device))
    x = x.T if x.shape[0] > x.shape[1] else x
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = coefficients
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).to(matrix.dtype)


class Optimizer:
    """One or two torch optimizers that keep step.

    Muon (Jordan et al. 2024) orthogonalises a matrix's update. From a cold start a small decoder leaves the plateau of
    guessing in fewer steps with it, and it says nothing about which layer is to do what: all are treated alike.
    """

    def __init__(self, model: Any, heads: nn.Module, lr: float, muon: float | None):
        inner = model.model
        layers = [p for p in inner.language_model.layers.parameters() if p.ndim == 2] if muon else []
        mine = {id(p) for p in layers}
        rest = [*inner.language_model.parameters(), *model.lm_head.parameters(), *heads.parameters()]
        groups = [
            {"params": [p for p in rest if id(p) not in mine], "scale": lr},
            {"params": list(inner.multi_modal_projector.parameters()), "scale": 0.3 * lr},
        ]
        self.parameters = [*layers, *groups[0]["params"], *groups[1]["params"]]
        self.parts: list[Any] = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), weight_decay=0.02, fused=True)]
        if muon:
            matrices = [{"params": layers, "scale": muon}]
            self.parts.append(Muon(matrices, lr=muon, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"))

    def set_rate(self, share: float) -> None:
        """Every group's rate as a share of its own full one."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = share * group["scale"]

    def set_gradients(self, parts: Sequence[Sequence[Tensor | None]]) -> None:
        """The mean over the parts of a step; None where a parameter had no say."""
        for parameter, grads in zip(self.parameters, zip(*parts, strict=True), strict=True):
            known = [grad for grad in grads if grad is not None]
            parameter.grad = torch.stack(known).sum(0) / len(grads) if known else None

    def step(self) -> None:
        """Clip the gradient's norm to 1 and move."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for part in self.parts:
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
