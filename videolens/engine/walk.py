"""One walk through the layers for many interventions: the clean run, and beside it every branch that has left it.

1. In every layer, run the clean prompt first, unless its run was kept (then only in the last layer, for the row that is
   asked for). Its keys and values are what all branches see of the rows they share.
2. A branch that begins here starts from the clean residual; one that parts from another starts from that one's.
3. Branches run a few at a time, on the rows of their pass only, each under its own hook functions and seeing what its
   own masks allow.
4. In the last layer only the row that is asked for has a query.
5. Of long passes, each branch is followed to its end before the next (`descent`), so that their streams do not wait.

The walk itself keeps nothing but the residual streams of the branches and one layer's clean keys and values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.engine.descent import descent, goes_deep
from videolens.engine.full import batched_hooks, wide
from videolens.engine.passes import Pass, Sights
from videolens.engine.planning import Round
from videolens.engine.stages import Functions
from videolens.engine.tree import Branch
from videolens.model.decoder.kernels import KeyValuePiece
from videolens.model.decoder.rows import KeyValues, Rows
from videolens.model.decoder.views import HeadView
from videolens.model.resuming import CleanRun
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

Tick = Callable[[float], None]


@torch.no_grad()
def walk(
    model: HookedVideoTransformer,
    prompt: Prompt,
    one: Round,
    sights: Sights,
    logits: Tensor,
    tick: Tick,
    clean: CleanRun | None = None,
) -> Float[Tensor, " d_vocab"]:
    """Fill the rows of `logits` [intervention d_vocab] that belong to the interventions of a round.

    Args:
        model: without listeners of its own.
        prompt: a single prompt.
        one: what to run.
        sights: what branches see.
        logits: where results go.
        tick: called after every layer with the share of the work that it was.
        clean: the clean run, if it was kept.

    Returns:
        Logits of the clean run.
    """
    past, n_layers, n_pos = KeyValues(), model.cfg.n_layers, prompt.shape[1]
    if clean is None:
        residual, at = model.enter(prompt, past=past)
    else:
        residual, at = clean.residuals[0], replace(clean.at, past=past)
    running = [_Running(model, prompt, each, per_call, sights, at) for each, per_call in one.passes]
    for each in running:
        each.enter(residual)
    share = sum(each.work for each in running) + n_pos * (n_layers if clean is None else 1)
    asked = torch.tensor([sights.asked], device=residual.device)
    for layer, block in enumerate(model.blocks):
        last = layer == n_layers - 1
        for each in running:
            if each.deep:
                each.descend(layer, residual, asked, lambda rows: tick(rows / share))
        if clean is None or last:
            after = block(residual, replace(at, asked=asked) if last else at)
            k, v = past.layers.pop(layer)
            tick(n_pos / share)
        else:
            after, (k, v) = clean.residuals[layer + 1], clean.keys_values.layers[layer]
        for each in running:
            if not each.deep:
                each.run(layer, residual, (k, v), asked - each.first_row if last else None)
                tick(each.work_in(layer) / share)
        residual = after
    for each in running:
        each.read_out(residual, at.only(asked), logits)
    return wide(model.read_out(residual, at.only(asked)))[0, 0]


class _Running:
    """A pass on its way through the layers: the residual streams of its branches."""

    def __init__(
        self, model: HookedVideoTransformer, prompt: Prompt, one: Pass, per_call: int, sights: Sights, at: Rows
    ) -> None:
        self.model, self.prompt, self.one, self.at = model, prompt, one, at
        self.per_call, self.sights = per_call, sights
        self.first_row = one.first_row
        self.deep = goes_deep(one, per_call, len(at.rows))
        self.streams: list[Tensor] = []
        self._before = KeyValues()
        self._waiting: dict[tuple[int, int], tuple[Tensor, int]] = {}

    @property
    def work(self) -> int:
        """Rows × branches of all layers."""
        return sum(self.work_in(layer) for layer in range(self.model.cfg.n_layers))

    def work_in(self, layer: int) -> int:
        """Rows × branches of a layer."""
        return len(self.one.level(layer)) * (len(self.at.rows) - self.first_row)

    def enter(self, clean: Float[Tensor, "1 pos d_model"]) -> None:
        """Stage −1: run the front end under the hook functions that act there. Of a pass that goes deep, the clean rows
        before its own go through all layers."""
        level = self.one.level(-1)
        self.streams = []
        for chunk in self._chunks(level):
            with self._hooked([branch.functions for branch in chunk]):
                entered, _ = self.model.enter(self.prompt.repeated(len(chunk)))
            self.streams += entered[:, self.first_row :].unbind(0)
        if not self.deep:
            return
        if self.first_row:
            rows, at = slice(self.first_row), self.at
            alone = replace(at.only(rows), keys=at.keys[rows], past=self._before)
            self.model.run_layers(clean[:, rows], alone)
        children = Counter(branch.parent for branch in self.one.level(0))
        self._waiting = {(-1, i): (stream, children[i]) for i, stream in enumerate(self.streams)}
        self.streams = [torch.empty(0)] * len(self.one.level(self.model.cfg.n_layers - 1))

    def descend(
        self, begin: int, clean: Float[Tensor, "1 pos d_model"], asked: Tensor, done: Callable[[int], None]
    ) -> None:
        """Follow the branches that begin in a layer to their ends, in a pass that goes deep."""
        n_layers, past = self.model.cfg.n_layers, self._before.before(self.first_row)
        for step in descent(self.one, begin, n_layers):
            branch, last = self.one.level(step.layer)[step.place], step.layer == n_layers - 1
            parents = [clean[0, self.first_row :] if step.parent is None else self._taken(step.layer - 1, step.parent)]
            (x,) = self._through(step.layer, [branch], parents, past, asked - self.first_row if last else None)
            if step.n_children:
                self._waiting[step.layer, step.place] = (x, step.n_children)
            else:
                self.streams[step.place] = x
            del x
            done(len(self.at.rows) - self.first_row)

    def _taken(self, layer: int, index: int) -> Tensor:
        """What a branch leaves to those that continue it; the last of them takes it away."""
        stream, left = self._waiting.pop((layer, index))
        if left > 1:
            self._waiting[layer, index] = (stream, left - 1)
        return stream

    def run(
        self, layer: int, clean: Float[Tensor, "1 pos d_model"], keys_values: KeyValuePiece, asked: Tensor | None
    ) -> None:
        """Steps 2 to 4 in one layer."""
        level = self.one.level(layer)
        before, self.streams = self.streams, []
        uses = Counter(branch.parent for branch in level)
        entering: dict[int | None, Tensor] = dict(enumerate(before))
        del before
        past = KeyValues({layer: keys_values}).before(self.first_row)
        r = self.first_row
        for chunk in self._chunks(level):
            parents = [clean[0, r:] if b.parent is None else entering[b.parent] for b in chunk]
            for branch in chunk:
                uses[branch.parent] -= 1
                if not uses[branch.parent]:
                    entering.pop(branch.parent, None)
            self.streams += self._through(layer, chunk, parents, past, asked)

    def _through(
        self, layer: int, chunk: Sequence[Branch], parents: list[Tensor], past: KeyValues, asked: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Branches through a layer, from what enters it; the list of that is emptied."""
        functions = [branch.others for branch in chunk]
        # a copy where hook functions may edit it in place
        x = torch.stack(parents) if len(parents) > 1 or any(functions) else parents[0][None]
        parents.clear()
        at = replace(self.at.only(slice(self.first_row, None)), past=past, asked=asked, views=self._views(chunk, layer))
        with self._hooked(functions):
            x = self.model.blocks[layer](x, at)
        return x.unbind(0)

    def read_out(self, clean: Float[Tensor, "1 1 d_model"], at: Rows, logits: Tensor) -> None:
        """Stage n_layers: the final norm and the unembedding of the row that is asked for."""
        level = self.one.level(self.model.cfg.n_layers)
        for chunk in self._chunks(level, rows=1):
            x = torch.stack([clean[0] if b.parent is None else self.streams[b.parent] for b in chunk])
            with self._hooked([branch.functions for branch in chunk]):
                found = wide(self.model.read_out(x, at))[:, 0]
            for branch, row in zip(chunk, found, strict=True):
                logits[list(branch.members)] = row

    @contextmanager
    def _hooked(self, functions: Sequence[Functions]) -> Iterator[None]:
        """Each branch of a call under its own hook functions. Nobody else listens during a walk, so that what is added
        here is all that there is to remove."""
        points = [(self.model.hook_dict[name], function) for name, function in batched_hooks(functions)]
        try:
            for point, function in points:
                point.add_hook(function)
            yield
        finally:
            for point, _ in points:
                point.remove_hooks()

    def _chunks(self, level: Sequence[Branch], rows: int | None = None) -> Iterator[Sequence[Branch]]:
        size = self.per_call if rows is None else max(self.per_call, 64)
        return (level[first : first + size] for first in range(0, len(level), size))

    def _views(self, chunk: Sequence[Branch], layer: int) -> tuple[HeadView, ...]:
        """What the branches of a call see; neighbours that see the same are one view."""
        views: list[HeadView] = []
        seen = [self.sights(self.first_row, branch, layer) for branch in chunk]
        starts = [i for i, each in enumerate(seen) if i == 0 or each is not seen[i - 1]]
        for first, stop in pairwise([*starts, len(seen)]):
            part = slice(None) if stop - first == len(seen) else slice(first, stop)
            views += [(part, heads, visible) for heads, visible in seen[first]]
        return tuple(views)
