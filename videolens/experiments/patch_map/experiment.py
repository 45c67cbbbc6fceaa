"""Patch maps: which activations of one run bring another run's answer to its own."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, replace
from math import isnan
from typing import Any, ClassVar, Literal

import pandas as pd
import torch
from torch import Tensor

from videolens.engine import Sweep, check_engine, sweep
from videolens.errors import VideolensError, check_flag, near
from videolens.experiments.common.asking import ask_all
from videolens.experiments.common.experiment import Asked, Cost, Experiment, Gathered, Row, Tick
from videolens.experiments.common.provenance import made_with
from videolens.experiments.common.thumbnails import thumbnails
from videolens.experiments.patch_map.contrast import contrast_of
from videolens.experiments.patch_map.pair import Given, Pair, effect_index, measure, pair_of, pairs_of, strongest
from videolens.experiments.patch_map.result import PatchMap
from videolens.experiments.patch_map.table import DIRECTIONS, ClipRow, PatchRow, PatchSettings, RunRow
from videolens.experiments.patch_map.units import Unit, check_over, units_of
from videolens.interventions.numbering import chosen_numbers
from videolens.interventions.patch import Patch
from videolens.interventions.protocol import Intervention
from videolens.interventions.rerounded import HALF, Rerounded
from videolens.interventions.sites import as_places, named_site
from videolens.interventions.source import SourceRun, check_same_layout
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question


def patch_map(
    model: HookedVideoTransformer,
    clean: Given | Iterable[Sequence[Given]],
    corrupted: Given | None = None,
    *,
    site: str = "resid_pre",
    over: str | Sequence[str] | Mapping[str, str] = "frame",
    direction: str = "denoise",
    metric: str = "logit difference",
    positions: str | Sequence[int] | Tensor | int | None = None,
    layers: Iterable[int] | int | None = None,
    heads: Iterable[int] | int | None = None,
    answers: Sequence[int | str] | None = None,
    engine: Literal["exact", "full"] = "exact",
    max_memory: int | None = None,
    verify: bool = False,
    progress: bool = True,
) -> PatchMap:
    """Patch every unit in every layer on its own, and measure how far the answer follows.

    1. Run the pair, clean and corrupted, unpatched; keep what `site` holds in the run that is patched from.
    2. Denoising: run the corrupted prompt and copy clean activations in, at one unit in one layer at a time: what
       suffices to bring the clean answer back? Noising: run the clean prompt and copy corrupted activations in: what
       does the clean answer need?
    3. Measure the last position's logits three ways. *Logit difference*: logit of the clean answer minus that of the
       corrupted prompt's answer; if that is the same or not known, minus the best of the clean prompt's other options.
       *Probability* of the clean answer. *KL* divergence of the patched run from the run patched from.
    4. Each also as an effect: 0 where a patched run does as it would unpatched, 1 where it does as the run it is
       patched from. Effects may lie outside 0 … 1.
    5. In half precision the strongest patch of every layer once more, rounded elsewhere (`Rerounded`): by how much its
       effect differs is the map's noise (`PatchMap.noise_floor`).

    >>> patch_map(model, question, question.reversed())  # doctest: +SKIP
    >>> patch_map(model, [(q, q.reversed()) for q in questions], over="role")  # doctest: +SKIP

    Args:
        model: the model.
        clean: a question, or a prompt; or (clean, corrupted) pairs, which are averaged in figures.
        corrupted: its counterfactual, with a prompt of the same layout.
        site: what is patched: "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v",
            "pattern", "video_tokens", … (`videolens.interventions.sites.SITES`).
        over: the units: "frame", "role", "token", "patch" (each patch of each frame), "head"; or a list of selections,
            or a dictionary of them by label.
        direction: "denoise" or "noise".
        metric: what the figure shows: "logit difference", "probability" or "kl". The table has all three.
        positions: keep to these positions: a selection, or positions.
        layers: 0-based; None: all.
        heads: patch these heads only, or, over="head", these; None: all.
        answers: two tokens, as ids or text, for the logit difference: the clean answer and the other.
        engine: "exact": only what a patch can change is computed, all side by side; "full": one forward for each.
        max_memory: bytes that the exact engine may use besides the model; None: half of what is free.
        verify: run a sample of each pair's patches in full as well, and compare.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        ModelError: no such site.
        PromptError: the two prompts' layouts differ; the message says where.
        SelectionError: positions that the prompt does not have; nothing to patch.
        VideolensError: an unknown unit, direction or metric; layers or heads that the model does not have; a logit
            difference that is not defined; pairs with different units or with one name; too little memory for one
            patch, or (with `verify`) results that differ from plain forwards.
    """
    pairs = pairs_of(clean, corrupted)
    experiment = PatchMapExperiment(
        model,
        site=site,
        over=over,
        direction=direction,
        metric=metric,
        positions=positions,
        layers=layers,
        heads=heads,
        answers=answers,
        engine=engine,
        max_memory=max_memory,
        verify=verify,
    )
    return ask_all(experiment, pairs, progress=progress, unit="pairs")


@dataclass
class PatchMapExperiment(Experiment[PatchMap]):
    """Steps 1 to 4 of `patch_map`, the same for every pair. The other arguments are those of `patch_map`.

    What is asked are pairs, or questions, each of which is held against its own `counterfactual`.

    Attributes:
        counterfactual: how the video of a question is edited: "reversed", or with what the edit takes, such as
            `["swapped", 0, 3]` (`Question.counterfactual`).

    Raises:
        ModelError: no such site.
        VideolensError: an unknown unit, direction, metric or engine; layers or heads that the model does not have.
    """

    name: ClassVar[str] = "patch_map"
    row = PatchRow
    also: ClassVar[Mapping[str, Any]] = {"runs": RunRow, "clips": ClipRow}
    unnamed: ClassVar[str] = "pair"
    pictures = sys.maxsize  # of every pair, so that each can be drawn above its frames

    model: HookedVideoTransformer
    _: KW_ONLY
    site: str = "resid_pre"
    over: str | Sequence[str] | Mapping[str, str] = "frame"
    direction: str = "denoise"
    metric: str = "logit difference"
    positions: str | Sequence[int] | Tensor | int | None = None
    layers: Iterable[int] | int | None = None
    heads: Iterable[int] | int | None = None
    answers: Sequence[int | str] | None = None
    engine: str = "exact"
    max_memory: int | None = None
    verify: bool = False
    counterfactual: str | Sequence[str | int | float] = "reversed"

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise VideolensError(near(self.direction, DIRECTIONS, kind="direction"))
        self._effect = effect_index(self.metric)
        check_engine(self.engine)
        check_flag("verify", self.verify)
        self._site = named_site(self.site)
        self._over, self._places = check_over(self.over, self._site), as_places(self.positions)
        self._layers, self._heads = self._check_layers(), self._check_heads()

    def prompts(self, item: Any) -> Iterator[Pair]:
        """The two prompts of a pair, or of a question and its counterfactual.

        Raises:
            PromptError: a batch of several prompts.
            VideolensError: neither a pair nor a question.
        """
        if isinstance(item, Question):
            edit: Any = [self.counterfactual] if isinstance(self.counterfactual, str) else self.counterfactual
            item = item, item.counterfactual(*edit)
        clean, corrupted = (self.model.prompt(each) if isinstance(each, Question) else each for each in pair_of(item))
        yield Pair(clean.single("a pair"), corrupted.single("a pair"))

    @torch.no_grad()
    def ask(self, prompt: Pair, name: str, task: str, tick: Tick) -> Asked:
        """Everything about one pair; what can be wrong is found before the decoder runs."""
        base, source = prompt.ordered(self.direction)
        check_same_layout(prompt.clean, prompt.corrupted, "the clean prompt", "the corrupted one")
        contrast = contrast_of(self.model, prompt.clean, prompt.corrupted, self.answers)
        heads = range(self._n_heads) if self._heads is None else self._heads
        units = units_of(self._over, base.tokens, self._site, places=self._places, heads=heads)
        # 1. the two runs as they are
        with self._one_attention():
            kept, cache = self.model.run_with_cache(source, names_filter=self._site.names(self._layers))
            # 2. every unit in every layer
            patches = self._patches(SourceRun(source, cache), units)
            found = self._sweep(base, patches, verify=self.verify, tick=tick)
            # 3. and 4.
            last = kept[0, source.tokens["last"][0]]
            numbers, run = measure(self.model, contrast, found.base, last, found.logits, self.direction)
            # 5. how much of it is rounding
            cost, effects = Cost.of(found), [each[self._effect] for each in numbers]
            if self.model.cfg.dtype in HALF and not isnan(effects[0]):
                at = strongest(effects, len(units))
                again = self._sweep(base, [Rerounded(patches[i]) for i in at])
                repeated, _ = measure(self.model, contrast, found.base, last, again.logits, self.direction)
                off = max(abs(new[self._effect] - effects[i]) for new, i in zip(repeated, at, strict=True))
                cost = replace(cost, forwards=cost.forwards + again.forwards, noise=100 * off)
        places = [(layer, unit) for layer in self._layers for unit in units]
        rows = [
            PatchRow(name, self._site.name, self.direction, layer, unit.name, unit.label, len(unit.positions), *each)
            for (layer, unit), each in zip(places, numbers, strict=True)
        ]
        frames, height, width = base.tokens.grid
        run |= {"pair": name, "task": task, "frames": frames, "rows": height, "columns": width}
        return Asked(rows, cost=cost, also={"runs": [RunRow(**run)]})

    def _sweep(self, prompt: Prompt, patches: Sequence[Intervention], **options: Any) -> Sweep:
        return sweep(self.model, prompt, patches, engine=self.engine, max_memory=self.max_memory, **options)

    def clips_of(self, prompt: Pair, name: str, task: str) -> list[Row]:
        """Rows of the table "clips": both clips, as the model was shown them."""
        settings = self.model.pixel_settings
        return [
            ClipRow(name, which, *frame)
            for which, one in vars(prompt).items()
            for frame in thumbnails(one, settings, longest=self.picture_size)
        ]

    def questions_in(self, table: pd.DataFrame) -> int:
        """How many pairs have rows in one of the tables."""
        return int(table["pair"].nunique())

    def result(self, gathered: Gathered) -> PatchMap:
        """The patch map of all pairs.

        Raises:
            VideolensError: no pair is left, or pairs have different units.
        """
        gathered.check_left()
        units = {name: list(rows["unit"].unique()) for name, rows in gathered.table.groupby("pair", sort=False)}
        first = next(iter(units.values()))
        for name, each in units.items():
            if each != first:
                raise VideolensError(
                    f"pair {name!r} has the units {each[:6]}, the first pair {first[:6]}: pairs that are mapped "
                    "together need the same; over='role' asks least of them"
                )
        settings = PatchSettings(
            **made_with(self.model, gathered),
            n_layers=self.model.cfg.n_layers,
            layers=self._layers,
            over=self.over if isinstance(self.over, str) else "selections",
            metric=self.metric,
            positions=str(self._places) if isinstance(self._places, tuple) else self._places,
            engine=self.engine,
        )
        return PatchMap(gathered.table, gathered.also["runs"], gathered.also["clips"], settings)

    @property
    def _n_heads(self) -> int:
        """Heads that the site has in this model."""
        cfg = self.model.cfg
        return (cfg.n_key_value_heads or cfg.n_heads) if self._site.grouped else cfg.n_heads

    def _check_layers(self) -> tuple[int, ...]:
        if not self._site.layered:
            if self.layers is not None:
                raise VideolensError(f"{self._site.name!r} belongs to no layer, so leave layers out ({self.layers!r})")
            return (0,)
        return chosen_numbers("layer", self.layers, self.model.cfg.n_layers)

    def _check_heads(self) -> tuple[int, ...] | None:
        if self.heads is None:
            return None
        if self._site.heads is None:
            raise VideolensError(f"{self._site.name!r} does not tell heads apart: leave heads out, or patch 'z'")
        return chosen_numbers("head", self.heads, self._n_heads)

    def _patches(self, source: SourceRun, units: Sequence[Unit]) -> list[Patch]:
        """One patch for every layer and unit, layer by layer."""
        layers = [layer if self._site.layered else None for layer in self._layers]
        return [
            Patch(self._site.name, layer, unit.positions, source=source, heads=unit.heads or self._heads)
            for layer in layers
            for unit in units
        ]

    def _one_attention(self) -> AbstractContextManager[Any]:
        """Patterns exist where attention is eager only; then all runs are, so that they differ by the patch alone."""
        eager = self._site.square and self.model.cfg.attention_path == "auto"
        return self.model.attention_path("eager") if eager else nullcontext()
