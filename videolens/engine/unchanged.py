"""The run of a prompt with nothing changed, kept so that a sweep need not compute it again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.engine.full import full_logits, wide
from videolens.engine.memory import budget_of
from videolens.engine.planning import check_engine
from videolens.errors import VideolensError
from videolens.model.cost import Cost
from videolens.model.decoder.rows import is_listened_to
from videolens.model.resuming import CleanRun
from videolens.model.transformer import HookedVideoTransformer
from videolens.model.turns import a_run
from videolens.prompt.prompt import Prompt

_SHARE = 4  # a clean run is kept if it takes no more than this part of the memory budget


@dataclass(eq=False)
class Base:
    """The run of one prompt with nothing changed. It costs one forward.

    Attributes:
        model: the model that ran.
        prompt: what it ran on.
        logits: [d_vocab] at the last position, in float32 or wider: those of `last_logits`, bit for bit.
        clean: what entered every layer, and every layer's keys and values; None where that is not kept.
    """

    model: HookedVideoTransformer
    prompt: Prompt
    logits: Float[Tensor, " d_vocab"]
    clean: CleanRun | None = None

    @property
    def n_bytes(self) -> int:
        """Memory that the clean run holds."""
        return 0 if self.clean is None else self.clean.n_bytes

    def release(self) -> None:
        """Forget the clean run, and give its memory back."""
        self.clean = None

    def check(self, model: HookedVideoTransformer, prompt: Prompt) -> None:
        """Raise a `VideolensError` if it is another model's or prompt's, or weights have changed since it was kept."""
        for what, own, asked in (("model", self.model, model), ("prompt", self.prompt, prompt)):
            if own is not asked:
                raise VideolensError(
                    f"the base is a run of another {what}: make it with the {what} of the sweep, "
                    "base(model, prompt), or leave it out"
                )
        if self.clean is not None:
            self.clean.check(model)


def clean_bytes(model: HookedVideoTransformer, prompt: Prompt, budget: int) -> int:
    """Memory that the clean run of a prompt will hold; 0: more than its part of the budget, so that it is not kept."""
    size = Cost.of(model.cfg).clean_run(prompt.shape[1], model.cfg.n_layers)
    return size if size <= budget // _SHARE else 0


@a_run()
@torch.no_grad()
def base(
    model: HookedVideoTransformer, prompt: Prompt, *, engine: str = "exact", max_memory: int | None = None
) -> Base:
    """Run one prompt with nothing changed: for its answer, and to hand it to `sweep`.

    The clean run is kept for engine="exact", if it takes no more than a quarter of the memory and the model has no
    listeners of its own. Until the sweep, leave the model's weights and listeners as they are.

    Args:
        model: the model.
        prompt: a single prompt.
        engine: which engine the sweep will use.
        max_memory: bytes that the sweep may use; None: half of what is free.

    Raises:
        PromptError: a batch of several prompts.
        VideolensError: an unknown engine, or a memory that is no number of bytes.
    """
    prompt.single("an evaluation")
    check_engine(engine)
    fits = clean_bytes(model, prompt, budget_of(model, max_memory))
    if engine == "full" or not fits or any(is_listened_to(point) for point in model.hook_dict.values()):
        return Base(model, prompt, full_logits(model, prompt, ()))
    clean = model.run_clean(prompt)
    last = prompt.tokens["last"].to(model.frontend.device)
    return Base(model, prompt, wide(model.read_out(clean.residuals[-1][:, last], clean.at.only(last)))[0, 0], clean)
