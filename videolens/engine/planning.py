"""What evaluating interventions will cost, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from videolens.engine.descent import goes_deep, most_waiting
from videolens.engine.memory import budget_of
from videolens.engine.passes import Pass, Sights, make_passes
from videolens.engine.stages import Staged, stage_interventions
from videolens.errors import VideolensError, near
from videolens.model.cost import Cost
from videolens.model.transformer import HookedVideoTransformer
from videolens.notebook import Shown
from videolens.prompt.prompt import Prompt

ENGINES: tuple[str, ...] = ("exact", "full")

# Rows in one call of a layer: enough to keep the cores busy, few enough to stay near the caches.
_ROWS_PER_CALL = {"cpu": 2048, "cuda": 16384}


@dataclass(frozen=True)
class PassPlan:
    """One pass in numbers.

    Attributes:
        first_row: its first row.
        rows: how many rows it computes.
        interventions: how many it evaluates.
        branches: residual streams in it, at most, in any layer.
        layer_runs: layers × branches: how often it runs a layer on its rows.
        per_call: branches in one call of a layer.
        forwards: its cost in plain forwards.
    """

    first_row: int
    rows: int
    interventions: int
    branches: int
    layer_runs: int
    per_call: int
    forwards: float


@dataclass(frozen=True)
class Plan(Shown):
    """The cost of evaluating interventions on one prompt.

    Attributes:
        interventions: how many there are; `in_full` of them do not declare what they change.
        in_full: how many run as plain forwards of their own.
        n_pos: tokens of the prompt.
        forward_flops: operations of one plain forward that reads out one row.
        flops: operations of the exact engine, the clean run included.
        peak_bytes: memory needed besides the model and the prompt.
        rounds: walks through the layers; more than one only if memory is short.
        passes: what is computed together, for all rounds.
    """

    interventions: int
    in_full: int
    n_pos: int
    forward_flops: int
    flops: int
    peak_bytes: int
    rounds: int
    passes: tuple[PassPlan, ...]

    @property
    def full_forwards(self) -> int:
        """Forwards of the published way: one for each intervention, and one with nothing changed."""
        return self.interventions + 1

    @property
    def forwards(self) -> float:
        """Cost of the exact engine, in plain forwards."""
        return self.flops / self.forward_flops

    @property
    def ratio(self) -> float:
        """Cost of the published way over that of the exact engine: how many times faster it can be at most."""
        return self.full_forwards / self.forwards

    def __repr__(self) -> str:
        """In one line; `print` tells more."""
        return f"Plan({self.interventions} interventions, {self.forwards:.1f} forwards; print(plan) tells more)"

    def __str__(self) -> str:
        lines = [
            f"{self.interventions} interventions on {self.n_pos} tokens: {self.forwards:.1f} forwards instead of "
            f"{self.full_forwards}, {self.ratio:.1f} times fewer operations ({self.flops / 1e9:,.0f} of "
            f"{self.full_forwards * self.forward_flops / 1e9:,.0f} GFLOP)",
            f"memory besides model and prompt: {self.peak_bytes / 2**20:,.0f} MiB, in {self.rounds} "
            f"round{'s' if self.rounds > 1 else ''}",
        ]
        if self.in_full:
            lines.append(f"{self.in_full} of them do not say what they change and run in full")
        lines.append(" first row    rows  interventions  branches  layer runs  per call  forwards")
        lines += [
            f"{each.first_row:10d} {each.rows:7d} {each.interventions:14d} {each.branches:9d} {each.layer_runs:11d} "
            f"{each.per_call:9d} {each.forwards:9.2f}"
            for each in self.passes
        ]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Round:
    """Passes that walk through the layers together.

    Attributes:
        passes: with the branches in one call, for each.
        peak_bytes: memory needed.
    """

    passes: tuple[tuple[Pass, int], ...]
    peak_bytes: int


def check_engine(engine: str) -> None:
    """Raise a `VideolensError` if there is no such engine."""
    if engine not in ENGINES:
        raise VideolensError(near(engine, ENGINES, kind="engine"))


def plan(
    model: HookedVideoTransformer, prompt: Prompt, interventions: Sequence[Any], *, max_memory: int | None = None
) -> Plan:
    """What `sweep` would cost with the same arguments, and the errors that it would raise. Nothing is run."""
    prompt.single("an evaluation")
    staged = stage_interventions(model, prompt, interventions)
    planner = Planner(model, prompt, max_memory)
    return planner.plan(staged, planner.rounds(staged))


class Planner:
    """Counts operations and bytes, and fits the work into the memory there is.

    Args:
        model, prompt: what will run.
        max_memory: bytes that may be used besides both; None: half of what is free.
        kept: bytes of them that a clean run holds already.
        device: where it will run; None: where the model is.
    """

    def __init__(
        self,
        model: HookedVideoTransformer,
        prompt: Prompt,
        max_memory: int | None,
        *,
        kept: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self.n_layers, self.n_pos = model.cfg.n_layers, prompt.shape[1]
        self.cost = Cost.of(model.cfg)
        self.device = model.frontend.device if device is None else device
        self.budget = budget_of(model, max_memory, kept=kept, device=device)
        held = model.frontend.device  # of the rows and keys that hook functions get, as in a forward
        self.sights = Sights(
            n_pos=self.n_pos,
            asked=int(prompt.tokens["last"][0]),
            n_layers=self.n_layers,
            n_heads=model.cfg.n_heads,
            device=torch.device("cpu") if held.type == "meta" else held,
        )

    def plan(self, staged: Sequence[Staged], rounds: Sequence[Round]) -> Plan:
        """The plan of interventions that have passed their checks, in these rounds."""
        in_full = sum(each.first_row is None for each in staged)
        forward = self.cost.forward(self.n_pos, self.n_layers)
        passes = tuple(self._pass_plan(each, per_call, forward) for one in rounds for each, per_call in one.passes)
        flops = sum(self._flops(each) for one in rounds for each, _ in one.passes)
        flops += sum(
            self.cost.rows_alone(each.first_row, self.n_layers)
            for one in rounds
            for each, per_call in one.passes
            if goes_deep(each, per_call, self.n_pos)
        )
        return Plan(
            interventions=len(staged),
            in_full=in_full,
            n_pos=self.n_pos,
            forward_flops=forward,
            flops=flops + len(rounds) * self._clean_flops() + in_full * forward,
            peak_bytes=max(one.peak_bytes for one in rounds),
            rounds=len(rounds),
            passes=passes,
        )

    def rounds(self, staged: Sequence[Staged]) -> list[Round]:
        """All in one round if the memory allows it, else in as few as it takes.

        1. As many branches in a call as keep the device busy; fewer where memory is short.
        2. Where one branch in a call still needs too much, half of the interventions at a time. Those that begin at the
           same row and layer stay together as long as possible, for they share their work.

        Raises:
            VideolensError: one intervention alone does not fit.
        """
        declared = [each for each in staged if each.first_row is not None and each.first_row <= self.sights.asked]
        ordered = sorted(declared, key=lambda each: (each.first_row, min(each.functions, default=0)))
        passes = make_passes(ordered, self.n_layers)
        target = _ROWS_PER_CALL.get(self.device.type, 8192)
        while True:
            calls = tuple((each, max(1, target // (self.n_pos - each.first_row))) for each in passes)
            peak = self._peak(calls)
            if peak <= self.budget:
                return [Round(calls, peak)]
            if all(per_call == 1 for _, per_call in calls):
                break
            target //= 2
        if len(ordered) <= 1:
            raise VideolensError(
                f"max_memory of {self.budget:,} bytes is too small: one intervention alone needs {peak:,} bytes on "
                f"this prompt of {self.n_pos} tokens; give max_memory={peak} or more, or shorten the prompt"
            )
        half = len(ordered) // 2
        return [*self.rounds(ordered[:half]), *self.rounds(ordered[half:])]

    def clean_layers(self) -> int:
        """Operations of the clean run in all layers but the last: what a walk saves if it is kept."""
        return (self.n_layers - 1) * self.cost.layer(self.n_pos, self.n_pos, self.sights.clean.pairs)

    def _clean_flops(self) -> int:
        return self.clean_layers() + self.cost.layer(self.n_pos, 1, self.n_pos) + self.cost.read_out(1)

    def _flops(self, each: Pass) -> int:
        rows, total, n_heads = self.n_pos - each.first_row, 0, self.sights.n_heads
        for layer in range(self.n_layers):
            queries = 1 if layer == self.n_layers - 1 else rows
            for branch in each.level(layer):
                seen = self.sights(each.first_row, branch, layer)
                pairs = sum((n_heads if heads is None else len(heads)) * visible.pairs for heads, visible in seen)
                total += self.cost.layer(rows, queries, pairs // n_heads)
        return total + self.cost.read_out(len(each.level(self.n_layers)))

    def _pass_plan(self, each: Pass, per_call: int, forward: int) -> PassPlan:
        levels = [each.level(layer) for layer in range(self.n_layers)]
        return PassPlan(
            first_row=each.first_row,
            rows=self.n_pos - each.first_row,
            interventions=sum(len(branch.members) for branch in each.level(self.n_layers)),
            branches=max(map(len, levels)),
            layer_runs=sum(map(len, levels)),
            per_call=min(per_call, max(map(len, levels))),
            forwards=self._flops(each) / forward,
        )

    def _peak(self, calls: Sequence[tuple[Pass, int]]) -> int:
        """Bytes at the worst moment of a walk through the layers."""
        cost, n = self.cost, self.n_pos
        deep = [each for each, per_call in calls if goes_deep(each, per_call, n)]
        level_by_level = [(each, per_call) for each, per_call in calls if each not in deep]
        kept = sum(self.n_layers * cost.keys_values(each.first_row) for each in deep)
        descents = max((self._descent(each) for each in deep), default=0)
        clean = 2 * cost.stream(n) + cost.keys_values(n) + kept
        peak = clean + cost.working(n)
        for layer in range(self.n_layers):
            streams = sum(cost.stream(len(each.level(layer)) * (n - each.first_row)) for each, _ in level_by_level)
            # deep passes run before the clean run has gone through the layer
            peak = max(peak, streams + clean + cost.working(n), streams + kept + cost.stream(n) + descents)
            for each, per_call in level_by_level:
                branches = min(per_call, len(each.level(layer)))
                rows = branches * (n - each.first_row)
                # the CPU's kernels read shared keys where they lie; elsewhere every branch has its own copy
                copies = 0 if self.device.type == "cpu" else branches * cost.keys_values(n)
                copies += branches * self._gates(each, layer)
                peak = max(peak, streams + clean + copies + cost.working(rows) + 2 * cost.stream(rows))
        return peak

    def _gates(self, each: Pass, layer: int) -> int:
        """Bytes of a branch's gates, where some are asked for: the most that a branch of the layer needs."""
        gates = [f for branch in each.level(layer) for name, f in branch.others if name.endswith("attn.hook_gate")]
        # functions of some heads say so, and make the gates one layer of rows × keys per head
        heads = self.sights.n_heads if any(getattr(f, "heads", None) is not None for f in gates) else 1
        return heads * self.cost.gates(self.n_pos - each.first_row, self.n_pos) if gates else 0

    def _descent(self, each: Pass) -> int:
        """Bytes of a deep pass: the streams that wait, and a layer of one branch."""
        rows = self.n_pos - each.first_row
        copies = 0 if self.device.type == "cpu" else self.cost.keys_values(self.n_pos)
        streams = self.cost.stream((most_waiting(each, self.n_layers) + 1) * rows)
        gates = max(self._gates(each, layer) for layer in range(self.n_layers))
        return streams + copies + gates + self.cost.working(rows)
