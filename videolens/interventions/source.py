"""The run that activations are copied from: a prompt and what the model's hook points held while it ran."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import ActivationCache

from videolens.errors import PromptError, SelectionError, VideolensError
from videolens.interventions.numbering import chosen_numbers
from videolens.interventions.sites import SITES, Site, named_site
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.prompt.tokens import TokenMap
from videolens.question import Question


@dataclass(frozen=True, eq=False)
class SourceRun:
    """One prompt's activations, to be copied into runs of prompts with the same layout.

    Made from what is at hand, `SourceRun(prompt, cache)`, or by running the prompt once: `SourceRun.record(model,
    prompt, "resid_pre")`. The activations need not be those of a real run: zeros, or means over many prompts, will do.

    Attributes:
        prompt: the prompt that ran; its token map says what every position of the activations is.
        activations: by hook point, as in `cache["blocks.3.attn.hook_z"]`; with or without the batch dimension of one.

    Raises:
        PromptError: a batch of several prompts.
        VideolensError: the activations are no tensors by name.
    """

    prompt: Prompt
    activations: Mapping[str, Tensor] | ActivationCache

    def __post_init__(self) -> None:
        self.prompt.single("a source run")
        kept = dict(self.activations.items()) if hasattr(self.activations, "items") else self.activations
        if not isinstance(kept, dict) or not all(isinstance(value, Tensor) for value in kept.values()):
            raise VideolensError(
                f"activations are tensors by hook point, as in the cache of run_with_cache, got {type(kept).__name__}"
            )
        object.__setattr__(self, "activations", kept)

    @classmethod
    @torch.no_grad()
    def record(
        cls,
        model: HookedVideoTransformer,
        prompt: Prompt | Question,
        sites: str | Iterable[str],
        layers: Iterable[int] | int | None = None,
    ) -> SourceRun:
        """Run a prompt once and keep what the named sites hold, and nothing else.

        Args:
            model: the model.
            prompt: what to run.
            sites: one name or several: "resid_pre", "z", "video_tokens", …
            layers: in which layers; None: in all.

        Raises:
            ModelError: there is no such site.
            VideolensError: a layer that the model does not have, or none.
        """
        named = [named_site(name) for name in ([sites] if isinstance(sites, str) else sites)]
        chosen = chosen_numbers("layer", layers, model.cfg.n_layers)
        prompt = model.prompt(prompt) if isinstance(prompt, Question) else prompt.single("a source run")
        _, cache = model.run_with_cache(prompt, names_filter=[name for site in named for name in site.names(chosen)])
        return cls(prompt, cache)

    def reordered(self, frames: Sequence[int]) -> SourceRun:
        """The same run with its frames in another order: place k holds what video tokens of frame frames[k] held.

        What is no video token stays where it was. Patched into the run that it is of, it asks whether the model still
        reads the *order* of the frames at this depth; `source.reordered(range(7, -1, -1))` plays eight backwards.

        Args:
            frames: for every place, the 0-based frame whose tokens it gets; a frame may be there twice, or not at all.

        Raises:
            SelectionError: not one frame of the prompt for every place.
            ModelError: an activation of no known site.
            VideolensError: patterns or scores, whose keys would have to move as well.
        """
        tokens = self.prompt.tokens
        order = torch.arange(len(tokens["video"])).view(tokens.grid[0], -1)
        wrong = [n for n in frames if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < len(order)]
        if len(frames) != len(order) or wrong:
            raise SelectionError(
                f"frames are {list(frames)}: give one of 0 … {len(order) - 1} for each of the prompt's {len(order)} "
                "places"
            )
        order = order[list(frames)].flatten()
        video, where = tokens["video"], torch.arange(tokens.n_pos)
        where[video] = video[order]
        moved = {}
        for name in self.activations:
            site = named_site(re.sub(r"^blocks\.\d+\.", "blocks.{layer}.", name))
            if site.square:
                raise VideolensError(
                    f"{name} holds a value for every key: record a site that does not, such as 'resid_pre', and "
                    "reorder that"
                )
            value = self.activation(name, site)
            moved[name] = value.index_select(site.rows, (order if site.video else where).to(value.device))
        return SourceRun(self.prompt, moved)

    def activation(self, name: str, site: Site) -> Float[Tensor, "1 ..."]:
        """What a hook point held, with the site's axes.

        A `VideolensError` if this run did not keep it, or kept another shape of it.
        """
        if name not in self.activations:
            raise VideolensError(
                f"the source run has no {name}; it has {self._contents()}. Record it: "
                f"SourceRun.record(model, prompt, {site.name!r})"
            )
        value = self.activations[name]
        value = value if value.ndim == len(site.axes) else value[None]
        tokens = self.prompt.tokens
        expected = {"batch": 1, "pos": tokens.n_pos, "key": tokens.n_pos, "video": len(tokens["video"])}
        wrong = value.ndim != len(site.axes) or any(
            size != expected.get(axis, size) for axis, size in zip(site.axes, value.shape, strict=True)
        )
        if wrong:
            sizes = ", ".join(f"{expected[axis]} {axis}" for axis in site.axes if axis in expected)
            raise VideolensError(
                f"the source run's {name} has shape {list(self.activations[name].shape)}, but [{' '.join(site.axes)}] "
                f"with {sizes} is what its prompt needs: cache the whole prompt, and nothing but it"
            )
        return value

    def _contents(self) -> str:
        kept = {}
        for site in SITES.values():
            layers = [int(name.split(".")[1]) for name in self.activations if site.layered and _is(name, site)]
            if layers or site.hook in self.activations:
                spread = _ranges(sorted(layers))
                kept[site.name] = f"{site.name!r}" + (f" of layers {spread}" if layers else "")
        return "; ".join(kept.values()) or "nothing that can be patched"

    def __repr__(self) -> str:
        return f"SourceRun({self.prompt.shape[1]} positions, {self._contents()})"


def check_same_layout(first: Prompt, second: Prompt, one: str = "one prompt", other: str = "the other") -> None:
    """Check that what each position *is* agrees, whatever is written there and whichever option is right.

    1. As many positions; the same grid of frames, rows and columns.
    2. At every position the same role, frame, row, column and option.
    3. Residual streams of one width, and one model that made both.

    Raises:
        PromptError: they do not; the message gives both values of the first thing that differs.
    """
    difference = _difference(first.tokens, second.tokens, one, other)
    widths = first.residual.shape[-1], second.residual.shape[-1]
    if difference is None and widths[0] != widths[1]:
        difference = f"{one} has a residual stream {widths[0]} wide, {other} {widths[1]}: one model must make both"
    if difference is not None:
        raise PromptError(
            f"{difference}. Patching copies position by position, so both prompts need one layout: the same question "
            "about another clip with as many frames has it"
        )
    second.check_maker(first, f"{one} and {other}")


def _difference(first: TokenMap, second: TokenMap, one: str, other: str) -> str | None:
    if first.n_pos != second.n_pos:
        counts = [{name: len(at) for name, at in tokens.segments()} for tokens in (first, second)]
        parts = [name for name in dict.fromkeys([*counts[0], *counts[1]]) if counts[0].get(name) != counts[1].get(name)]
        longer = "; ".join(f"{name}: {counts[0].get(name, 0)} and {counts[1].get(name, 0)}" for name in parts[:3])
        return f"{one} has {first.n_pos} positions, {other} {second.n_pos} ({longer})"
    if first.grid != second.grid:
        grids = [" × ".join(map(str, tokens.grid)) for tokens in (first, second)]
        return f"{one} has a grid of {grids[0]} (frames × rows × columns), {other} one of {grids[1]}"
    for what in ("role", "frame", "row", "column", "option"):
        values = getattr(first, what), getattr(second, what)
        if bool((differs := values[0] != values[1]).any()):
            at = int(differs.nonzero()[0])
            shown = (first.roles[at], second.roles[at]) if what == "role" else (int(values[0][at]), int(values[1][at]))
            return f"the {what} of position {at} is {shown[0]!r} in {one} and {shown[1]!r} in {other}"
    return None


def _is(name: str, site: Site) -> bool:
    before, after = site.hook.split("{layer}")
    return name.startswith(before) and name.endswith(after) and name[len(before) : -len(after)].isdigit()


def _ranges(numbers: list[int]) -> str:
    if numbers and numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) > 2:
        return f"{numbers[0]} … {numbers[-1]}"
    return ", ".join(map(str, numbers))
