"""What stays open when routes are cut in some layers: the common part of all pathways."""

from __future__ import annotations

from abc import abstractmethod
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Bool
from torch import Tensor

from videolens.errors import VideolensError
from videolens.interventions.edges import Allowed, OpenEdges, causal_mask, check_parts
from videolens.interventions.knockout import Knockout, MaskFunction
from videolens.notebook import Shown
from videolens.prompt.prompt import Prompt
from videolens.prompt.tokens import TokenMap


class CutRoutes(Shown, OpenEdges):
    """A pathway, said by the knockouts of all that it cuts. An intervention.

    Attributes:
        n_layers: depth of the model it is for.
        name: what to call it in tables.
    """

    by_layout: ClassVar[bool] = True
    """Hook functions depend on what a prompt's positions are, and on nothing else of it."""

    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """What to call it in tables."""

    @property
    @abstractmethod
    def knockouts(self) -> tuple[Knockout, ...]:
        """What it cuts, as knockouts."""

    @property
    @abstractmethod
    def open_layers(self) -> dict[str, tuple[int, ...]]:
        """The 0-based layers in which each of its routes is open, by a name for people."""

    @property
    def by_roles(self) -> bool:
        """Whether it cuts the same in all prompts whose roles and frames are alike."""
        return all(knockout.by_roles for knockout in self.knockouts)

    @property
    def leaks(self) -> bool:
        """Whether positions without a name stay open. Those that do not take any prompt with a video and a question."""
        return False

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain data, for `pathway_from`."""

    def hooks(self, prompt: Prompt) -> list[tuple[str, MaskFunction]]:
        """Hook functions for `run_with_hooks(prompt, fwd_hooks=…)`.

        Raises:
            SelectionError: a prompt without a question, or (closed masks) without a video before it.
        """
        if not self.leaks:
            check_parts(prompt.tokens)
        return [pair for knockout in self.knockouts for pair in knockout.functions(prompt)]

    def cone(self, prompt: Prompt) -> tuple[int, int] | None:
        """(first layer, first query row) that it can change; None if it cuts nothing."""
        cones = [cone for knockout in self.knockouts if (cone := knockout.cone(prompt)) is not None]
        return (min(layer for layer, _ in cones), min(row for _, row in cones)) if cones else None

    def check(self, *, n_layers: int, n_heads: int) -> None:
        """Raise a `VideolensError` if it is for a model of another depth."""
        if n_layers != self.n_layers:
            raise VideolensError(
                f"the pathway {self.name!r} is for {self.n_layers} layers, the model has {n_layers}: choose one for "
                "this model, by Pathway.from_flow or with ranges to its scale"
            )

    # -- edges ---------------------------------------------------------------------------------------------------------

    def allowed(self, prompt: Prompt | TokenMap, layer: int) -> Bool[Tensor, "query key"]:
        """Causal pairs that are open in a 0-based layer.

        Raises:
            VideolensError: it closes some heads only.
        """
        if any(knockout.heads is not None for knockout in self.knockouts):
            raise VideolensError(
                f"the pathway {self.name!r} closes single heads, so that what is open differs between heads: what it "
                "leaves is counted by model.compile(pathway).plan(prompt)"
            )
        tokens = prompt if isinstance(prompt, TokenMap) else prompt.tokens
        mask = causal_mask(tokens.n_pos)
        for knockout in self.knockouts:
            if layer in knockout.layers:
                knockout.close(mask, tokens)
        return mask

    def _each(self, prompt: Prompt | TokenMap) -> Allowed:
        # layers that the same knockouts cut are worked out once: a layer of a long prompt takes seconds
        first: dict[tuple[bool, ...], int] = {}
        cut_by = [tuple(layer in knockout.layers for knockout in self.knockouts) for layer in range(self.n_layers)]
        alike = [first.setdefault(kind, layer) for layer, kind in enumerate(cut_by)]
        once = cache(lambda layer: self.allowed(prompt, layer))
        return lambda layer: once(alike[layer])
