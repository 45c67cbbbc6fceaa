"""Who attends to whom: attention mass between the segments of a prompt, per layer and head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import reduce
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from videolens.engine.foreseeing import Foreseen, Machine
from videolens.errors import VideolensError
from videolens.experiments.common.asking import ask_all
from videolens.experiments.common.experiment import Asked, Experiment, Gathered, Tick
from videolens.experiments.common.provenance import made_with
from videolens.experiments.common.readout import listeners
from videolens.experiments.segment_attention.result import SegmentAttention, SegmentSettings
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

HookFunctions = Sequence[tuple[str, Callable[..., Any]]]


def measure_attention(
    model: HookedVideoTransformer,
    questions: Question | Prompt | Iterable[Question | Prompt],
    *,
    name: str | None = None,
    fwd_hooks: HookFunctions = (),
    progress: bool = True,
) -> SegmentAttention:
    """Attention between segments, averaged over prompts with equal weight.

    1. Per prompt, layer and head: for every pair of segments, sum the attention over the source's tokens, then average
       over the target's. Only these sums are kept, so a long prompt costs one layer's pattern at a time.
    2. Average over prompts.

    Args:
        model: the model.
        questions: questions, or prompts; all with the same segments (`TokenMap.segments`).
        name: what to call the model; None: what it was loaded as.
        fwd_hooks: hook functions to run under, such as a knockout's.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        VideolensError: no questions, or prompts whose segments differ.
    """
    experiment = SegmentAttentionExperiment(model, called=name, fwd_hooks=fwd_hooks)
    return ask_all(experiment, questions, progress=progress)


class _QuestionRow(NamedTuple):
    """What one question gave: names of its segments, one a line, and float64 [layer head target source] as bytes."""

    question: str
    task: str
    segments: str
    mass: bytes


@dataclass
class SegmentAttentionExperiment(Experiment[SegmentAttention]):
    """Steps 1 and 2 of `measure_attention`, whose `name` is called `called` here.

    Attributes:
        called: the model's name in the result; None: what it was loaded as.
    """

    name: ClassVar[str] = "segment_attention"
    row = _QuestionRow

    model: HookedVideoTransformer
    _: KW_ONLY
    called: str | None = None
    fwd_hooks: HookFunctions = ()

    @torch.no_grad()
    def ask(self, prompt: Prompt, name: str, task: str, tick: Tick) -> Asked:
        """Step 1, for one question."""
        segments = prompt.tokens.segments()
        mass = self._of_prompt(prompt, [positions for _, positions in segments])
        names = "\n".join(segment for segment, _ in segments)
        return Asked([_QuestionRow(name, task, names, mass.cpu().numpy().tobytes())])

    def foresee(self, prompt: Prompt, machine: Machine) -> Foreseen:
        """One forward."""
        return Foreseen.plain(1)

    def result(self, gathered: Gathered) -> SegmentAttention:
        """Step 2.

        Raises:
            VideolensError: no question is left, or segments differ.
        """
        gathered.check_left()
        first, *others = (tuple(names.split("\n")) for names in gathered.table["segments"].unique())
        if others:
            raise VideolensError(
                f"prompts with the segments {others[0]} and {first} cannot be averaged: go through them apart"
            )
        cfg, n = self.model.cfg, len(gathered.table)
        total: Float64[np.ndarray, " all"] = reduce(np.add, map(np.frombuffer, gathered.table["mass"]))
        mass = (total / n).reshape(cfg.n_layers, cfg.n_heads, len(first), len(first))
        made = made_with(self.model, gathered)
        made["model"] = self.called if self.called is not None else made["model"] or "model"
        return SegmentAttention(torch.from_numpy(mass), first, SegmentSettings(**made, n=n))

    def _of_prompt(self, prompt: Prompt, segments: Sequence[Tensor]) -> Float[Tensor, "layer head target source"]:
        """Step 1."""
        member = torch.zeros(len(segments), prompt.shape[1], dtype=torch.float64, device=prompt.device)
        for i, positions in enumerate(segments):
            member[i, positions] = 1
        each = member / member.sum(-1, keepdim=True)
        kept: dict[int, Tensor] = {}

        def keep(layer: int, pattern: Float[Tensor, "1 head query key"]) -> None:
            kept[layer] = torch.einsum("tq,hqk,sk->hts", each, pattern[0].double(), member)

        layers = range(self.model.cfg.n_layers)
        listening = listeners(layers, keep, point="attn.hook_pattern", to=prompt.device)
        self.model.run_with_hooks(prompt, fwd_hooks=[*self.fwd_hooks, *listening])
        return torch.stack([kept[layer] for layer in layers])
