"""Patching one pair of prompts: both runs as they are, every patch, and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from videolens.engine import sweep
from videolens.experiments.common.thumbnails import thumbnails
from videolens.experiments.patch_map.contrast import METRICS, contrast_of, kl_divergence, normalised, token_text
from videolens.experiments.patch_map.result import DIRECTIONS
from videolens.experiments.patch_map.units import Over, Unit, units_of
from videolens.interventions.patch import Patch
from videolens.interventions.sites import Places, Site
from videolens.interventions.source import SourceRun, check_same_layout
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

__all__ = ["Asked", "PairFound", "PairTracer", "n_heads_of"]

Asked = Question | Prompt


@dataclass(frozen=True)
class PairFound:
    """What one pair adds to the map."""

    units: list[str]
    rows: list[tuple[Any, ...]]
    run: tuple[Any, ...]
    clips: list[tuple[str, str, int, bytes]]
    forwards: float
    full_forwards: int
    verified: float | None


@dataclass(frozen=True, kw_only=True)
class PairTracer:
    """Steps 1 to 4 of `patch_map`, the same for every pair."""

    model: HookedVideoTransformer
    site: Site
    over: Over
    direction: str
    places: Places
    layers: tuple[int, ...]
    heads: tuple[int, ...] | None
    answers: Sequence[int | str] | None
    options: dict[str, Any]

    @torch.no_grad()
    def trace(self, clean: Asked, corrupted: Asked, name: str, tick: Callable[[float], Any]) -> PairFound:
        """Everything about one pair; what can be wrong is found before the decoder runs."""
        prompts = {"clean": self._prompt(clean), "corrupted": self._prompt(corrupted)}
        base, source = (prompts[which] for which in DIRECTIONS[self.direction])
        check_same_layout(prompts["clean"], prompts["corrupted"], "the clean prompt", "the corrupted one")
        contrast = contrast_of(self.model, prompts["clean"], prompts["corrupted"], self.answers)
        units = self._units(base)
        # 1. the two runs as they are
        with self._one_attention():
            kept, cache = self.model.run_with_cache(source, names_filter=self.site.names(self.layers))
            wanted = kept[0, source.tokens["last"][0]].double()
            # 2. every unit in every layer
            patches = self._patches(SourceRun(source, cache), units)
            found = sweep(self.model, base, patches, **self.options, tick=tick)
        # 3. and 4.
        logits = torch.cat([found.base[None].double(), wanted[None], found.logits.double()])
        values = {
            "logit_diff": contrast.logit_difference(logits),
            "probability": contrast.probability(logits),
            "kl": kl_divergence(wanted, logits),
        }
        measured = [values[column][2:] for column in METRICS.values()]
        measured += [normalised(column, v[2:], base=float(v[0]), source=float(v[1])) for column, v in values.items()]
        numbers = torch.stack(measured, dim=1).tolist()
        places = [(layer, unit) for layer in self.layers for unit in units]
        rows = [
            (name, self.site.name, self.direction, layer, unit.name, unit.label, len(unit.positions), *each)
            for (layer, unit), each in zip(places, numbers, strict=True)
        ]
        at = {which: row for row, which in enumerate(DIRECTIONS[self.direction])}
        both = [float(values[column][at[which]]) for column in ("logit_diff", "probability") for which in prompts]
        says = [token_text(self.model, int(logits[at[which]].argmax())) for which in prompts]
        question = prompts["clean"].question
        run = (
            name,
            "" if question is None else question.task,
            token_text(self.model, contrast.positive),
            " or ".join(token_text(self.model, token) for token in contrast.negative),
            *both,
            float(values["kl"][0]),
            *says,
            *base.tokens.grid,
        )
        clips = [
            (name, which, *frame)
            for which, prompt in prompts.items()
            for frame in thumbnails(prompt, self.model.pixel_settings)
        ]
        full = len(patches) + 1
        cost = full if found.plan is None else found.plan.forwards
        return PairFound([unit.name for unit in units], rows, run, clips, float(cost), full, found.verified)

    def _prompt(self, asked: Asked) -> Prompt:
        return self.model.prompt(asked) if isinstance(asked, Question) else asked.single("a pair")

    def _units(self, prompt: Prompt) -> list[Unit]:
        heads = self.heads if self.heads is not None else range(n_heads_of(self.model, self.site))
        return units_of(self.over, prompt.tokens, self.site, places=self.places, heads=heads)

    def _patches(self, source: SourceRun, units: Sequence[Unit]) -> list[Patch]:
        """One patch for every layer and unit, layer by layer."""
        layers = [layer if self.site.layered else None for layer in self.layers]
        return [
            Patch(self.site.name, layer, unit.positions, source=source, heads=unit.heads or self.heads)
            for layer in layers
            for unit in units
        ]

    def _one_attention(self) -> AbstractContextManager[Any]:
        """Patterns exist where attention is eager only; then all runs are, so that they differ by the patch alone."""
        eager = self.site.square and self.model.cfg.attention_path == "auto"
        return self.model.attention_path("eager") if eager else nullcontext()


def n_heads_of(model: HookedVideoTransformer, site: Site) -> int:
    """Heads that a site has in this model."""
    return (model.cfg.n_key_value_heads or model.cfg.n_heads) if site.grouped else model.cfg.n_heads
