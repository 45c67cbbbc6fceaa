"""Patch maps: which activations of one run bring another run's answer to its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import pandas as pd
from torch import Tensor
from tqdm import tqdm

from videolens.errors import VideolensError, near
from videolens.experiments.common.provenance import made_with
from videolens.experiments.patch_map.contrast import metric_column
from videolens.experiments.patch_map.pair import Asked, PairFound, PairTracer, n_heads_of
from videolens.experiments.patch_map.result import CLIPS, COLUMNS, DIRECTIONS, RUNS, PatchMap, PatchSettings
from videolens.experiments.patch_map.units import check_over
from videolens.interventions.numbering import check_within, whole_numbers
from videolens.interventions.sites import Site, as_places, named_site
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

__all__ = ["patch_map"]

Pair = Sequence[Asked]  # clean, corrupted

_QUIET_S = 2.0  # shorter work than this needs no progress bar


def patch_map(
    model: HookedVideoTransformer,
    clean: Asked | Iterable[Pair],
    corrupted: Asked | None = None,
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
    if direction not in DIRECTIONS:
        raise VideolensError(near(direction, DIRECTIONS, kind="direction"))
    metric_column(metric)
    where, pairs = named_site(site), _pairs(clean, corrupted)
    tracer = PairTracer(
        model=model,
        site=where,
        over=check_over(over, where),
        direction=direction,
        places=as_places(positions),
        layers=_layers(model, where, layers),
        heads=_heads(model, where, heads),
        answers=answers,
        options={"engine": engine, "max_memory": max_memory, "verify": verify},
    )
    found: list[PairFound] = []
    total = len(pairs) if isinstance(pairs, Sequence) else None
    form = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} pairs [{elapsed}<{remaining}]" if total else None
    with tqdm(total=total, desc="patching", bar_format=form, delay=_QUIET_S, disable=not progress, leave=False) as bar:
        for number, (one, other) in enumerate(pairs):
            name = _name(one, number)
            found.append(tracer.trace(one, other, name, bar.update))
            bar.update(number + 1 - bar.n)
            if found[-1].units != found[0].units:
                raise VideolensError(
                    f"pair {name!r} has the units {found[-1].units[:6]}, the first pair {found[0].units[:6]}: pairs "
                    "that are mapped together need the same; over='role' asks least of them"
                )
    if not found:
        raise VideolensError("there are no pairs to patch: give a clean and a corrupted question")
    settings = PatchSettings(
        **made_with(model),
        n_layers=model.cfg.n_layers,
        layers=tracer.layers,
        over=over if isinstance(over, str) else "selections",
        metric=metric,
        positions=None if positions is None else positions if isinstance(positions, str) else str(tracer.places),
        engine=engine,
        forwards=sum(each.forwards for each in found) / len(found),
        full_forwards=found[0].full_forwards,
        verified=max((each.verified for each in found if each.verified is not None), default=None),
    )
    table = pd.DataFrame([row for each in found for row in each.rows], columns=list(COLUMNS))
    clips = pd.DataFrame([clip for each in found for clip in each.clips], columns=list(CLIPS))
    return PatchMap(table, pd.DataFrame([each.run for each in found], columns=list(RUNS)), clips, settings)


def _pairs(clean: Asked | Iterable[Pair], corrupted: Asked | None) -> Iterable[tuple[Asked, Asked]]:
    """(clean, corrupted), one pair or several."""
    if isinstance(clean, (Question, Prompt)):
        if not isinstance(corrupted, (Question, Prompt)):
            raise VideolensError(f"corrupted is {corrupted!r}: give the clean question's counterfactual")
        return [(clean, corrupted)]
    if corrupted is not None or not isinstance(clean, Iterable):
        raise VideolensError("give one clean and one corrupted Question or Prompt, or one list of such pairs")
    return [_checked(pair) for pair in clean] if isinstance(clean, Sequence) else map(_checked, clean)


def _checked(pair: Pair) -> tuple[Asked, Asked]:
    several = isinstance(pair, (tuple, list)) and len(pair) == 2
    if not several or not all(isinstance(each, (Question, Prompt)) for each in pair):
        raise VideolensError(f"a pair is (clean, corrupted), two Questions or Prompts; got {pair!r}")
    return pair[0], pair[1]


def _name(asked: Asked, number: int) -> str:
    question = asked if isinstance(asked, Question) else asked.question
    return question.id if question is not None and question.id else f"pair {number}"


def _layers(model: HookedVideoTransformer, site: Site, layers: Iterable[int] | int | None) -> tuple[int, ...]:
    if not site.layered:
        if layers is not None:
            raise VideolensError(f"{site.name!r} belongs to no layer, so leave layers out (got {layers!r})")
        return (0,)
    chosen = whole_numbers("layer", range(model.cfg.n_layers) if layers is None else layers)
    check_within("layer", chosen, model.cfg.n_layers)
    if not chosen:
        raise VideolensError("layers is empty: name at least one, or leave it out for all of them")
    return chosen


def _heads(model: HookedVideoTransformer, site: Site, heads: Iterable[int] | int | None) -> tuple[int, ...] | None:
    if heads is None:
        return None
    if site.heads is None:
        raise VideolensError(f"{site.name!r} does not tell heads apart: leave heads out, or patch 'z'")
    chosen = whole_numbers("head", heads)
    check_within("head", chosen, n_heads_of(model, site))
    if not chosen:
        raise VideolensError("heads is empty: name at least one, or leave it out for all of them")
    return chosen
