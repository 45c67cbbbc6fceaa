"""Many interventions on one prompt: the last position's logits under each, exactly, for the price of a few forwards."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.engine.foreseeing import beside, fits_beside
from videolens.engine.full import full_logits
from videolens.engine.planning import Plan, Planner, Round, check_engine
from videolens.engine.stages import Staged, stage_interventions
from videolens.engine.unchanged import Base
from videolens.engine.walk import Tick, walk
from videolens.errors import VideolensError, check_flag
from videolens.model.agreement import apart
from videolens.model.decoder.config import check_causal
from videolens.model.decoder.rows import is_listened_to
from videolens.model.resuming import CleanRun
from videolens.model.transformer import HookedVideoTransformer
from videolens.model.turns import a_run
from videolens.prompt.prompt import Prompt

_VERIFIED = 8  # interventions that verify=True runs again in full, at most (and one of every pass at least)
# largest |Δlogit| that rounding explains, in standard deviations of the logits
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.25, torch.float16: 0.03}


@dataclass(frozen=True, eq=False)
class Sweep:
    """The last position's logits under many interventions on one prompt, and what they cost.

    Attributes:
        base: logits [d_vocab] of the last position with nothing changed.
        logits: [intervention d_vocab] under each intervention; float32 or wider.
        in_full: which interventions ran as plain forwards of the whole prompt: those that do not declare what they
            change, and all with engine="full" or where the model has listeners of its own.
        plan: the cost of the exact way without a base; its `peak_bytes` count a base's clean run that was used. None
            where all ran in full.
        forwards: what was computed, in plain forwards. A base that was given has cost one more. What `verify` runs
            again is not counted.
        verified: largest |Δlogit| to plain forwards in standard deviations; None where nothing was verified.
    """

    base: Float[Tensor, " d_vocab"]
    logits: Float[Tensor, "intervention d_vocab"]
    in_full: tuple[bool, ...]
    plan: Plan | None
    forwards: float
    verified: float | None = None

    def __repr__(self) -> str:
        """In one line."""
        checked = "" if self.verified is None else f", verified to {self.verified:.1g}"
        return (
            f"Sweep({len(self.logits)} interventions, {self.forwards:.1f} forwards instead of {self.full_forwards}"
            f"{checked}; .logits {list(self.logits.shape)})"
        )

    @property
    def full_forwards(self) -> int:
        """Forwards of the published way: one for each intervention, and one with nothing changed."""
        return len(self.logits) + 1


def evaluate(
    model: HookedVideoTransformer, prompt: Prompt, interventions: Sequence[Any], **how: Any
) -> Float[Tensor, "intervention d_vocab"]:
    """The logits of `sweep`, and nothing else."""
    return sweep(model, prompt, interventions, **how).logits


@a_run(alone=True)
@torch.no_grad()
def sweep(
    model: HookedVideoTransformer,
    prompt: Prompt,
    interventions: Sequence[Any],
    *,
    engine: str = "exact",
    max_memory: int | None = None,
    base: Base | None = None,
    verify: bool = False,
    tick: Tick | None = None,
) -> Sweep:
    """Logits at the last position of one prompt under each intervention, and with nothing changed.

    Attention is causal, so an intervention that first acts in layer a on rows ≥ r leaves every row before r and every
    layer before a as they were. Only what it can change is computed, beside one clean run, and interventions that have
    done the same so far share that too. The results are those of plain forwards, to rounding; with a base they are the
    same bit for bit as without.

    1. Check every intervention against model and prompt.
    2. Plan: what shares a pass, in which chunks, within the memory there is.
    3. Walk through the layers (once, unless memory is short).
    4. Run what does not declare its cone in full.

    Args:
        model: the model.
        prompt: a single prompt.
        interventions: `Knockout`s, `Patch`es, anything with `.hooks` and `.cone`, routes by name; or lists of (hook
            point, function), which run in full. Several in a list of their own hold at once.
        engine: "exact", or "full": one plain forward for each, the reference.
        max_memory: bytes that may be used besides the model and the prompt; None: half of what is free.
        base: the run with nothing changed, from `videolens.engine.base`, so that it is not computed again. Where its
            clean run and the sweep together need more than the memory allows, it is released.
        verify: run a sample in full as well and compare. With engine="full" there is nothing to compare with.
        tick: called after every layer with the share of the work that it was; the shares sum to one.

    Raises:
        PromptError: a batch of several prompts.
        ModelError: a model that is not causal, with engine="exact".
        VideolensError: a layer, head or hook point that the model does not have, a cone outside the prompt, a base of
            another prompt or model, too little memory for one intervention; with `verify`, one whose cone is wrong.
    """
    prompt.single("an evaluation")
    check_engine(engine)
    check_flag("verify", verify)
    if base is not None:
        base.check(model, prompt)
    tick = tick if tick is not None else lambda share: None
    staged = stage_interventions(model, prompt, interventions)
    if engine == "full" or any(is_listened_to(point) for point in model.hook_dict.values()):
        return _all_in_full(model, prompt, staged, tick, base)
    check_causal(model.cfg, "the exact engine")
    planner = Planner(model, prompt, max_memory, kept=0 if base is None else base.n_bytes)
    rounds = planner.rounds(staged)
    planned = planner.plan(staged, rounds)
    clean = _kept(base, planner, rounds)
    planned, whole = beside(planner, planned, 0 if clean is None else clean.n_bytes)
    part = (whole - planned.in_full) / whole / len(rounds)
    wide = torch.promote_types(model.cfg.dtype, torch.float32)
    logits = torch.full((len(staged), model.cfg.d_vocab), torch.nan, device=model.frontend.device, dtype=wide)
    for one in rounds:
        unchanged = walk(model, prompt, one, planner.sights, logits, lambda share: tick(share * part), clean)
    for each in staged:
        if each.first_row is None:
            logits[each.number] = full_logits(model, prompt, each.hooks)
            tick(1 / whole)
        elif not each.functions or each.first_row > planner.sights.asked:
            logits[each.number] = unchanged
    found = Sweep(unchanged, logits, tuple(each.first_row is None for each in staged), planned, whole)
    return _verified(model, prompt, staged, found) if verify else found


def _kept(base: Base | None, planner: Planner, rounds: Sequence[Round]) -> CleanRun | None:
    """The base's clean run, if it fits beside the walks as they are planned: other chunks would round differently."""
    if base is not None and not fits_beside(planner, rounds, base.n_bytes):
        base.release()
    return None if base is None else base.clean


def _all_in_full(
    model: HookedVideoTransformer, prompt: Prompt, staged: Sequence[Staged], tick: Tick, base: Base | None
) -> Sweep:
    unchanged = full_logits(model, prompt, ()) if base is None else base.logits.clone()
    logits = unchanged.new_empty(len(staged), len(unchanged))
    for each in staged:
        logits[each.number] = full_logits(model, prompt, each.hooks)
        tick(1 / len(staged))
    return Sweep(unchanged, logits, (True,) * len(staged), None, float(len(staged) + (base is None)))


def _verified(model: HookedVideoTransformer, prompt: Prompt, staged: Sequence[Staged], found: Sweep) -> Sweep:
    """Run some again, one of every pass and others at random, and compare."""
    declared = [each for each in staged if each.first_row is not None]
    one_each = list({each.first_row: each for each in declared}.values())
    others = [each for each in declared if each not in one_each]
    more = random.Random(0).sample(others, min(len(others), max(0, _VERIFIED - len(one_each))))
    worst = 0.0
    for each in [*one_each, *more]:
        full = full_logits(model, prompt, each.hooks)
        off = apart(found.logits[each.number], full)
        worst = max(worst, off)
        allowed = _TOLERANCE[model.cfg.dtype]
        if not off <= allowed:
            raise VideolensError(
                f"intervention {each.number} differs from a plain forward by {off:.2g} standard deviations of the "
                f"logits (rounding explains {allowed:g}): it changes something before row {each.first_row}, where its "
                'cone begins, or its functions do not go by hook.ctx["rows"]'
            )
    return replace(found, verified=worst)
