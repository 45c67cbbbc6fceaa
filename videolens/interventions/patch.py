"""Activation patching: at some positions, in some layers, a run continues with the activations of another run.

Of a clip and its counterfactual (the clip reversed, say), one is run while activations of the other are copied in.
Copying clean activations into the corrupted run asks what suffices to restore the answer (denoising); copying corrupted
ones into the clean run asks what the answer needs (noising). Which of the two it is, is only a matter of which prompt
is the source and which is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from videolens.errors import ModelError, VideolensError
from videolens.interventions.attention_mask import AsAttentionMask
from videolens.interventions.numbering import check_within, some_numbers
from videolens.interventions.sites import Places, Site, as_places, named_site
from videolens.interventions.source import SourceRun, check_same_layout
from videolens.prompt.prompt import Prompt


@dataclass(frozen=True)
class Patch(AsAttentionMask):
    """At these positions, in these layers, a site holds what it held in the source run.

    >>> source = SourceRun.record(model, clean, "resid_pre")  # doctest: +SKIP
    >>> patch = Patch("resid_pre", layers=4, positions="frame 2", source=source)  # doctest: +SKIP
    >>> model.run_with_hooks(corrupted, fwd_hooks=patch.hooks(corrupted))  # doctest: +SKIP

    Attributes:
        site: one of `SITES`: "resid_pre", "attn_out", "z", "pattern", "video_tokens", …, or the hook point's own name
            ("attn.hook_z"). Of a pattern, positions are those of the queries.
        layers: 0-based layers, sorted; none for a site that belongs to no layer.
        positions: a `TokenMap` selection ("frame 2", "stem | last", "f3 r0 c2": one patch of a frame), or positions
            counted from 0; None: every position that the site has.
        heads: 0-based heads; None: all. Of "k" and "v", key/value heads.
        source: the run that is copied from.

    Raises:
        ModelError: no such site; the message lists near ones.
        VideolensError: layers or heads that are negative, no whole numbers or not those of the source run; heads of a
            site that has none; an activation that the source run lacks; layers missing, or given where there are none.
        SelectionError: positions that are no whole numbers, or negative.
    """

    site: str
    layers: tuple[int, ...]
    positions: Places
    heads: tuple[int, ...] | None
    source: SourceRun

    def __init__(
        self,
        site: str,
        layers: Iterable[int] | int | None = None,
        positions: str | Sequence[int] | Tensor | int | None = None,
        *,
        source: SourceRun,
        heads: Iterable[int] | int | None = None,
    ) -> None:
        where = named_site(site)
        if not isinstance(source, SourceRun):
            raise VideolensError(
                f"source is {type(source).__name__}, which does not say what its positions are: give "
                "SourceRun(prompt, cache), or SourceRun.record(model, prompt, site)"
            )
        vars(self).update(
            site=where.name,
            layers=_layers(where, layers),
            positions=as_places(positions),
            heads=None if heads is None else some_numbers("head", heads),
            source=source,
        )
        if heads is not None and where.heads is None:
            raise VideolensError(f"{where.name!r} does not tell heads apart: leave heads out, or patch 'z'")
        for name in where.names(self.layers):
            value = source.activation(name, where)
            if self.heads is not None and where.heads is not None:
                check_within("head", self.heads, value.shape[where.heads])

    @property
    def _site(self) -> Site:
        return named_site(self.site)

    def where(self, prompt: Prompt) -> Int64[Tensor, " n"]:
        """The positions it patches, ascending.

        Raises:
            SelectionError: a selection that this prompt does not have, positions outside it, or positions that are not
                video tokens at a site that holds nothing else.
        """
        return self._site.positions(self.positions, prompt.tokens)

    def hooks(self, prompt: Prompt) -> list[tuple[str, Callable[[Tensor, Any], Tensor]]]:
        """Hook functions for `run_with_hooks(prompt, fwd_hooks=…)`: one per layer; none if it patches no position.

        A function takes the site's value for some rows of the prompt (and, of a pattern, some keys), which
        `hook.ctx["rows"]` and `hook.ctx["keys"]` name, and gives a new one.

        Raises:
            PromptError: the prompt's layout is not that of the source run's prompt.
            SelectionError: see `where`.
        """
        check_same_layout(self.source.prompt, prompt, "the source run's prompt", "the prompt that is patched")
        positions = self.where(prompt)
        if len(positions) == 0:
            return []
        copy = _Copy(self._site, self.source, tuple(positions.tolist()), self.heads)
        return [(name, copy) for name in self._site.names(self.layers)]

    def cone(self, prompt: Prompt) -> tuple[int, int] | None:
        """(first layer, first position) that it can change; None if it patches nothing.

        Keys and values of a position are read by rows after it only, so this holds for every site. Video tokens enter
        at layer 0.
        """
        positions = self.where(prompt)
        empty = len(positions) == 0 or self.heads == () or (self._site.layered and not self.layers)
        return None if empty else (self.layers[0] if self._site.layered else 0, int(positions[0]))

    def check(self, *, n_layers: int, n_heads: int) -> None:
        """Raise a `VideolensError` if it names a layer or a head that a model of this size does not have."""
        check_within("layer", self.layers, n_layers)
        check_within("head", self.heads or (), n_heads)


@dataclass(frozen=True)
class _Copy:
    """The hook function of a patch. Two that do the same compare equal."""

    site: Site
    source: SourceRun
    positions: tuple[int, ...]
    heads: tuple[int, ...] | None

    def __call__(self, value: Tensor, hook: Any) -> Tensor:
        rows: Tensor = hook.ctx["rows"]
        if value.shape[self.site.rows] != len(rows):
            raise VideolensError(
                f"{hook.name} has {value.shape[self.site.rows]} rows, but hook.ctx names {len(rows)}: the model must "
                "set its rows before it calls its hooks"
            )
        here = self._here(rows)
        if len(here) == 0:
            return value
        given = self._given(hook, rows[here], value)
        index: list[Any] = [slice(None)] * value.ndim
        index[self.site.rows] = here
        if self.heads is not None and self.site.heads is not None:
            heads = torch.tensor(self.heads, dtype=torch.int64, device=value.device)
            given = given.index_select(self.site.heads, heads)
            # the dimension of heads and that of rows are neighbours, in either order
            heads_first = self.site.heads < self.site.rows
            index[self.site.heads] = heads[:, None] if heads_first else heads
            index[self.site.rows] = here if heads_first else here[:, None]
        patched = value.clone()
        patched[tuple(index)] = given
        return patched

    def _here(self, rows: Int64[Tensor, " row"]) -> Int64[Tensor, " n"]:
        """Which of the rows are patched, as indices."""
        positions = torch.tensor(self.positions, device=rows.device)
        first, last = int(rows[0]), int(rows[-1])
        if last - first == len(rows) - 1:  # neighbours, as nearly always
            return positions[(positions >= first) & (positions <= last)] - first
        return torch.isin(rows, positions).nonzero().flatten()

    def _given(self, hook: Any, positions: Tensor, like: Tensor) -> Tensor:
        """The source run's value at these positions, for the keys at hand, where and as `like` is."""
        value = self.source.activation(hook.name, self.site)
        at = positions.to(value.device)
        if self.site.video:
            at = torch.searchsorted(self.source.prompt.tokens["video"].to(value.device), at)
        value = value.index_select(self.site.rows, at)
        if self.site.square:
            value = value.index_select(self.site.axes.index("key"), hook.ctx["keys"].to(value.device))
        expected = [len(positions) if i == self.site.rows else size for i, size in enumerate(like.shape)]
        if list(value.shape[1:]) != expected[1:]:
            raise ModelError(
                f"{hook.name} holds {expected[1:]} at the patched positions, the source run {list(value.shape[1:])}: "
                "the source must be a run of the model that is patched"
            )
        return value.to(like.device, like.dtype)


def _layers(site: Site, layers: Iterable[int] | int | None) -> tuple[int, ...]:
    if site.layered and layers is None:
        raise VideolensError(f"{site.name!r} is there once in every layer: say in which, layers=4 or layers=range(4)")
    if not site.layered and layers is not None:
        raise VideolensError(f"{site.name!r} belongs to no layer, so leave layers out (got {layers!r})")
    return () if layers is None else some_numbers("layer", layers)
