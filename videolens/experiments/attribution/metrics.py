"""What an attribution is of: a number that the logits at the last position give, and its slope."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.errors import QuestionError, VideolensError, near
from videolens.prompt.prompt import Prompt

METRICS = ("logit difference", "log-probability", "kl")
"""Of the right option's token at the last position: its logit minus the best other option's; its log-probability among
all tokens, in nats; or, of the whole distribution, KL(clean run ‖ run) in nats, which needs no answer."""


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric of one prompt.

    Attributes:
        name: one of `METRICS`.
        of: its value for logits [*run d_vocab], float32 or wider.
    """

    name: str
    of: Callable[[Float[Tensor, "*run d_vocab"]], Float[Tensor, "*run"]]

    def value(self, logits: Float[Tensor, "*run d_vocab"]) -> Float[Tensor, "*run"]:
        """The metric.

        Raises:
            VideolensError: it is not a finite number.
        """
        found = self.of(logits)
        if not bool(found.isfinite().all()):
            raise VideolensError(
                f"the {self.name} of {int((~found.isfinite()).sum())} of {found.numel()} runs is not a finite number "
                f"({found.flatten()[~found.isfinite().flatten()][0].item()}): some logits overflow; load the model "
                "with dtype=torch.float32"
            )
        return found


def check_metric(metric: str) -> None:
    """Raises:
    VideolensError: no such metric.
    """
    if metric not in METRICS:
        raise VideolensError(near(metric, METRICS, kind="metric"))


def metric_of(metric: str, prompt: Prompt, clean: Float[Tensor, " d_vocab"], name: str) -> Metric:
    """A metric by name, of one prompt.

    Args:
        metric: one of `METRICS`.
        prompt: what is asked.
        clean: logits at the last position with nothing changed.
        name: of the question, for messages.

    Raises:
        QuestionError: the answer is not known, or, of the logit difference, there are no other options.
    """
    if metric == "kl":
        expected = clean.detach().log_softmax(-1)
        return Metric(metric, lambda logits: (expected.exp() * (expected - logits.log_softmax(-1))).sum(-1))
    right = prompt.answer_token
    others = [token for token in dict.fromkeys(prompt.option_tokens) if token != right]
    if right is None or (metric == "logit difference" and not others):
        lacks = "no known answer" if right is None else "no other options to hold its answer against"
        instead = "" if right is None else ", or metric='log-probability'"
        raise QuestionError(
            f"question {name!r} has {lacks}, so it has no {metric}: give the Question an answer and options{instead}; "
            "metric='kl' (method='integrated') needs neither"
        )
    if metric == "logit difference":
        return Metric(metric, lambda logits: logits[..., right] - logits[..., others].amax(-1))
    return Metric(metric, lambda logits: logits.log_softmax(-1)[..., right])


def slope_at(
    read: Callable[[Float[Tensor, " d_model"]], Float[Tensor, ""]], resid: Float[Tensor, " d_model"]
) -> Float[Tensor, " d_model"]:
    """The slope of a metric at what leaves the last layer at the last position.

    Args:
        read: the metric of what leaves there.
        resid: what does.
    """
    with torch.enable_grad():
        leaving = resid.detach().requires_grad_()
        [slope] = torch.autograd.grad(read(leaving), leaving)
    return slope
