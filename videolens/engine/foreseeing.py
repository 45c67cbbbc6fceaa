"""What a sweep will cost, on a machine that may be another one: the same numbers that the sweep itself reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from videolens.engine.planning import Plan, Planner, Round, check_engine
from videolens.engine.stages import stage_interventions
from videolens.engine.unchanged import clean_bytes
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt


@dataclass(frozen=True)
class Foreseen:
    """What asking one prompt will cost.

    Attributes:
        forwards: computed, in plain forwards of the whole prompt.
        full_forwards: by the published procedure: one forward per intervention, and one with nothing changed.
        peak_bytes: memory needed besides the model and the prompt; None: that is not counted.
        rounds: walks through the layers; more than one only if memory is short.
    """

    forwards: float
    full_forwards: float
    peak_bytes: int | None = None
    rounds: int = 1

    @classmethod
    def plain(cls, n: int) -> Foreseen:
        """That of n plain forwards of the whole prompt, one after the other."""
        return cls(float(n), float(n))


@dataclass(frozen=True)
class Machine:
    """What a sweep will run on.

    Attributes:
        max_memory: bytes that it may use besides the model and the prompt; None: half of what is free here.
        device: where the model will be; None: where it is.
    """

    max_memory: int | None = None
    device: torch.device | None = None


def foresee(
    model: HookedVideoTransformer,
    prompt: Prompt,
    interventions: Sequence[Any],
    *,
    engine: str = "exact",
    max_memory: int | None = None,
    with_base: bool = False,
    machine: Machine | None = None,
) -> Foreseen:
    """What `sweep` will cost with the same arguments, and the errors that it would raise. Nothing is run: the model may
    be one without weights (`model_shape`), the prompt one without numbers (`prompt_shape`).

    Args:
        model, prompt, interventions, engine: as `sweep` takes them.
        max_memory: bytes that the sweep is given; None: what the machine has.
        with_base: whether the run with nothing changed is made before (`base`), which costs a forward and may spare the
            sweep most of one.
        machine: where it will run; None: here, where the model is.

    Raises:
        VideolensError: as `sweep`.
    """
    check_engine(engine)
    machine = Machine() if machine is None else machine
    staged = stage_interventions(model, prompt.single("an evaluation"), interventions)
    if engine == "full":
        return Foreseen.plain(len(staged) + 1)
    given = machine.max_memory if max_memory is None else max_memory
    alone = Planner(model, prompt, given, device=machine.device)
    held = clean_bytes(model, prompt, alone.budget) if with_base else 0
    planner = Planner(model, prompt, given, kept=held, device=machine.device)
    rounds = planner.rounds(staged)
    held = held if fits_beside(planner, rounds, held) else 0
    planned, forwards = beside(planner, planner.plan(staged, rounds), held)
    return Foreseen(forwards + with_base, float(planned.full_forwards), planned.peak_bytes, planned.rounds)


def fits_beside(planner: Planner, rounds: Sequence[Round], held: int) -> bool:
    """Whether a clean run of so many bytes fits beside the walks as they are planned."""
    return held + max(one.peak_bytes for one in rounds) <= planner.budget


def beside(planner: Planner, planned: Plan, held: int) -> tuple[Plan, float]:
    """The plan beside a clean run that holds so many bytes (0: there is none), and what is computed, in forwards: each
    walk leaves out the clean run's layers but the last."""
    if not held:
        return planned, planned.forwards
    spared = planned.rounds * planner.clean_layers() / planned.forward_flops
    return replace(planned, peak_bytes=planned.peak_bytes + held), planned.forwards - spared
