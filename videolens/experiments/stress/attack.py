"""An adversarial perturbation of the frames: projected gradient descent through vision tower and decoder.

Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks (2018), without a random start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.errors import ModelError
from videolens.experiments.common.scoring import margins_of
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

Run = Callable[[Prompt], Tensor]
"""Logits [batch d_vocab] of the last position of a batch of prompts."""

_STEP = 2.5  # the steps together could go so many times as far as they may


@dataclass(frozen=True, eq=False)
class Attacked:
    """A prompt whose frames were attacked, by so many levels.

    Attributes:
        prompt: with the attacked frames: a batch, one of each ε.
        margins: [step ε] before every step, and at last of `prompt`: logit of the right option minus that of the best
            other one.
    """

    prompt: Prompt
    margins: Float[Tensor, "step epsilon"]


def attack(
    model: HookedVideoTransformer, prompt: Prompt, run: Run, *, epsilons: Sequence[float | int], steps: int
) -> Attacked:
    """Change every colour of every pixel by at most ε levels, so that the right option loses.

    1. In each of `steps` steps go 2.5 ε / steps levels down the sign of the margin's slope, not further than ε from the
       frames as they are, and not below level 0 or above 255.
    2. Bring the changes to whole levels: what is judged can be stored as pixels are.

    Frames are those that the tower sees: resized and cropped. The attacks of all ε go side by side, in one batch; the
    first step, which starts from one place, is computed once.

    Args:
        model: the model.
        prompt: a question's, with options and a known answer.
        run: what is attacked: logits [batch d_vocab] of the last position of a batch of prompts, which pass gradients
            to the prompt's residual. In full, or along a pathway.
        epsilons: in levels of 255.
        steps: at least 1.

    Raises:
        ModelError: a tower or a decoder that passes no gradient.
    """
    assert prompt.question is not None
    far = torch.tensor(epsilons, device=model.frontend.device, dtype=torch.float32)[:, None, None, None, None]
    clean, level, lower, upper = _bounds(model, prompt, far)
    pixels, margins = clean, []
    for _ in range(steps):
        with torch.enable_grad():
            pixels = pixels.detach().requires_grad_()
            margin = _margins(run, _shown(model, prompt, pixels))
            try:
                (slope,) = torch.autograd.grad(margin.sum(), pixels)
            except RuntimeError as error:
                raise ModelError(
                    f"no gradient passes from the answer to the pixels ({error}): an adversarial perturbation needs a "
                    "model that is differentiable; leave it out of the perturbations"
                ) from error
        margins.append(margin.detach().expand(len(far)))
        pixels = pixels.detach() - _STEP * far / steps * level * slope.sign()
        pixels = pixels.clamp(lower, upper)
    whole = torch.where(level > 0, (pixels - clean) / level, 0.0).round()
    with torch.no_grad():
        attacked = _shown(model, prompt, (clean + whole * level).clamp(lower, upper))
        margins.append(_margins(run, attacked))
    return Attacked(attacked, torch.stack(margins))


def _shown(model: HookedVideoTransformer, prompt: Prompt, pixels: Tensor) -> Prompt:
    return model.frontend.shown(prompt.repeated(len(pixels)), pixels)


def _margins(run: Run, shown: Prompt) -> Float[Tensor, " batch"]:
    return margins_of(run(shown), [shown] * len(shown))


def _bounds(
    model: HookedVideoTransformer, prompt: Prompt, epsilon: Float[Tensor, "epsilon 1 1 1 1"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Prepared pixels [1 frame channel height width], what a level is there (0 where no frame is seen), and between
    what they may lie for each ε. However a model prepares frames, one colour stays one colour: black and white tell."""
    video = prompt.single("an attack").question.video  # type: ignore[union-attr]
    clean, black, white = (
        model.pixels(one)[None].to(model.frontend.device) for one in (video, video.blank(0), video.blank(255))
    )
    level = (white - black) / 255
    # resizing may have gone past black and white already: not further
    lower = torch.minimum(torch.maximum(black, clean - epsilon * level), clean)
    upper = torch.maximum(torch.minimum(white, clean + epsilon * level), clean)
    return clean, level, lower, upper
