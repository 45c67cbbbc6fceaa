"""An adversarial perturbation of the frames: projected gradient descent through vision tower and decoder.

Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks (2018), without a random start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.engine.full import traced_logits
from videolens.engine.stages import stage_interventions
from videolens.errors import ModelError
from videolens.experiments.common.scoring import margins_of
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

_STEP = 2.5  # the steps together could go so many times as far as they may


@dataclass(frozen=True, eq=False)
class Attacked:
    """A prompt whose frames were attacked.

    Attributes:
        prompt: with the attacked frames.
        logits: [d_vocab] of its last position.
        margins: before every step, and at last of `prompt`: logit of the right option minus that of the best other one.
    """

    prompt: Prompt
    logits: Float[Tensor, " d_vocab"]
    margins: tuple[float, ...]


def attack(
    model: HookedVideoTransformer, prompt: Prompt, interventions: Sequence[object], *, epsilon: float | int, steps: int
) -> Attacked:
    """Change every colour of every pixel by at most `epsilon` levels, so that the right option loses.

    1. In each of `steps` steps go 2.5 ε / steps levels down the sign of the margin's slope, not further than ε from the
       frames as they are, and not below level 0 or above 255.
    2. Bring the changes to whole levels: what is judged can be stored as pixels are.

    Frames are those that the tower sees: resized and cropped.

    Args:
        model: the model.
        prompt: a question's, with options and a known answer.
        interventions: under which the model is attacked, all at once.
        epsilon: in levels of 255.
        steps: at least 1.

    Raises:
        ModelError: a tower or a decoder that passes no gradient.
    """
    assert prompt.question is not None
    hooks = [each for one in stage_interventions(model, prompt, [list(interventions)]) for each in one.hooks]
    clean, level, lower, upper = _bounds(model, prompt, epsilon)
    pixels, margins = clean, []
    for _ in range(steps):
        with torch.enable_grad():
            pixels = pixels.detach().requires_grad_()
            logits = traced_logits(model, model.frontend.shown(prompt, pixels), hooks)
            margin = margins_of(logits[None], [prompt])[0]
            try:
                (slope,) = torch.autograd.grad(margin, pixels)
            except RuntimeError as error:
                raise ModelError(
                    f"no gradient passes from the answer to the pixels ({error}): an adversarial perturbation needs a "
                    "model that is differentiable; leave it out of the perturbations"
                ) from error
        margins.append(float(margin.detach()))
        pixels = pixels.detach() - _STEP * epsilon / steps * level * slope.sign()
        pixels = pixels.clamp(lower, upper)
    whole = torch.where(level > 0, (pixels - clean) / level, 0.0).round()
    with torch.no_grad():
        attacked = model.frontend.shown(prompt, (clean + whole * level).clamp(lower, upper))
        logits = traced_logits(model, attacked, hooks)
    return Attacked(attacked, logits, (*margins, float(margins_of(logits[None], [prompt])[0])))


def _bounds(
    model: HookedVideoTransformer, prompt: Prompt, epsilon: float | int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Prepared pixels [1 frame channel height width], what a level is there (0 where no frame is seen), and between
    what they may lie. However a model prepares frames, one colour stays one colour, so black and white tell."""
    video = prompt.single("an attack").question.video  # type: ignore[union-attr]
    clean, black, white = (
        model.pixels(one)[None].to(model.frontend.device) for one in (video, video.blank(0), video.blank(255))
    )
    level = (white - black) / 255
    # resizing may have gone past black and white already: not further
    lower = torch.minimum(torch.maximum(black, clean - epsilon * level), clean)
    upper = torch.maximum(torch.minimum(white, clean + epsilon * level), clean)
    return clean, level, lower, upper
