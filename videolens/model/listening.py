"""Hook points by name: misspelt names are errors, and caches know their model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.utilities import Slice

from videolens.errors import ModelError, near
from videolens.model.acting import functions_of
from videolens.model.lens_tools import LensTools
from videolens.model.turns import Turns

# hook point -> the switch without which it never fires
_SWITCHED = {
    "attn.hook_result": "use_attn_result",
    "attn.hook_attn_in": "use_attn_in",
    "attn.hook_q_input": "use_split_qkv_input",
    "attn.hook_k_input": "use_split_qkv_input",
    "attn.hook_v_input": "use_split_qkv_input",
    "hook_mlp_in": "use_hook_mlp_in",
}


def stage_of(name: str, n_layers: int) -> int:
    """When a hook point fires in a forward: −1, in the front end and the embedding; 0 … n_layers − 1, in that layer;
    n_layers, in the final norm."""
    if match := re.match(r"blocks\.(\d+)\.", name):
        return int(match[1])
    return n_layers if name.startswith("ln_final") else -1


class Cache(ActivationCache):
    """TransformerLens' `ActivationCache`, with a `repr` of one line.

    Where a model adds deepstack features after its first layers, they are components of the residual stream, too, the
    last ones of a decomposition: `0_deepstack`, `1_deepstack`, …
    """

    def __repr__(self) -> str:
        names = list(self.cache_dict)
        held = sum(value.nbytes for value in self.cache_dict.values()) / 2**20
        some = ", ".join(f"{name} {list(self.cache_dict[name].shape)}" for name in names[:1])
        some += f", … {names[-1]} {list(self.cache_dict[names[-1]].shape)}" if len(names) > 1 else ""
        of = getattr(self.model.cfg, "model_name", "a model")
        return f"ActivationCache({len(names)} activations of {of!r}, {held:.1f} MiB: {some}; list(cache) names all)"

    def decompose_resid(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        mode: Any = "all",
        apply_ln: bool = False,
        pos_slice: Any = None,
        incl_embeds: bool = True,
        return_labels: bool = False,
    ) -> Any:
        """As in TransformerLens."""
        found, labels = super().decompose_resid(layer, mlp_input, mode, apply_ln, pos_slice, incl_embeds, True)
        if mode == "all" and (more := self._deepstack(layer, mlp_input, apply_ln, pos_slice)):
            found, labels = torch.cat([found, torch.stack(list(more.values()))]), [*labels, *more]
        return (found, labels) if return_labels else found

    def get_full_resid_decomposition(
        self,
        layer: int | None = None,
        mlp_input: bool = False,
        expand_neurons: bool = True,
        apply_ln: bool = False,
        pos_slice: Any = None,
        return_labels: bool = False,
        project_output_onto: Tensor | None = None,
    ) -> Any:
        """As in TransformerLens."""
        found, labels = super().get_full_resid_decomposition(
            layer, mlp_input, expand_neurons, apply_ln, pos_slice, True, project_output_onto
        )
        if more := self._deepstack(layer, mlp_input, apply_ln, pos_slice):
            added = torch.stack(list(more.values()))
            added = added if project_output_onto is None else added @ project_output_onto
            found, labels = torch.cat([found, added]), [*labels, *more]
        return (found, labels) if return_labels else found

    def _deepstack(self, layer: int | None, mlp_input: bool, apply_ln: bool, pos_slice: Any) -> dict[str, Tensor]:
        """What was added after the layers before `layer`, by label, cut and normalised as other components are."""
        stop: int = self.model.cfg.n_layers if layer is None or layer == -1 else layer
        blocks: Any = self.model.blocks
        having = [i for i, block in enumerate(blocks[:stop]) if block.hook_deepstack is not None]
        if not having:
            return {}
        cut = pos_slice if isinstance(pos_slice, Slice) else Slice(pos_slice)
        added = torch.stack([cut.apply(self[f"blocks.{i}.hook_deepstack"], dim=-2) for i in having])
        if apply_ln:
            added = self.apply_ln_to_stack(added, stop, pos_slice=cut, mlp_input=mlp_input)
        return {f"{i}_deepstack": one for i, one in zip(having, added, strict=True)}


class Listening(LensTools):
    """`run_with_hooks`, `hooks`, `add_hook` and `run_with_cache`, which refuse names that would silently match nothing,
    and a second thread.

    A name that no hook point has, or a filter that matches none, is a `ModelError`, which lists near ones.
    """

    turns: Turns

    def check_name(self, name: str) -> None:
        """Raise a `ModelError` if no hook point has this name, or if it fires only after a switch that is off."""
        if name not in self.hook_dict:
            where = f"model.hook_dict lists all {len(self.hook_dict)}, layers 0 … {self.cfg.n_layers - 1}"
            raise ModelError(near(name, self.hook_dict, kind="hook point", where=where))
        if not self._fires(name):
            raise ModelError(f"{name} fires only after model.set_{_SWITCHED[name.split('.', 2)[-1]]}(True)")

    def _fires(self, name: str) -> bool:
        switch = _SWITCHED.get(name.split(".", 2)[-1])
        return switch is None or bool(getattr(self.cfg, switch))

    def _check_match(self, matches: Callable[[str], bool]) -> None:
        if not any(matches(name) for name in self.hook_dict):
            raise ModelError(
                f"the filter {matches!r} matches none of the {len(self.hook_dict)} hook points, such as "
                f"{', '.join(list(self.hook_dict)[:3])}; model.hook_dict lists them"
            )

    def _enable_hook(self, name: str | Callable, hook: Callable, dir: Any) -> None:
        self._check_match(name) if callable(name) else self.check_name(name)
        super()._enable_hook(name, hook, dir)

    @contextmanager
    def hooks(self, fwd_hooks: Any = (), bwd_hooks: Any = (), *args: Any, **kwargs: Any) -> Iterator[Any]:
        """As in TransformerLens: hook functions for the time of a `with` block, gone after it, whatever happens."""
        forward = functions_of(self.cfg, None, fwd_hooks)
        backward = functions_of(self.cfg, None, bwd_hooks, called="bwd_hooks")
        with self.turns.taken(self, alone=True), super().hooks(forward, backward, *args, **kwargs) as hooked:
            yield hooked

    def run_with_hooks(self, *model_args: Any, fwd_hooks: Any = (), bwd_hooks: Any = (), **kwargs: Any) -> Any:
        """As in TransformerLens: one forward under hook functions, which are gone afterwards, whatever happens.

        Args:
            model_args: what `forward` takes.
            fwd_hooks: pairs (hook point, function), and interventions such as a `Knockout`, one or several.
            bwd_hooks: pairs (hook point, function) for the gradients.
            kwargs: as in TransformerLens, and what `forward` takes.
        """
        given = model_args[0] if model_args else kwargs.get("input")
        forward = functions_of(self.cfg, given, fwd_hooks)
        backward = functions_of(self.cfg, None, bwd_hooks, called="bwd_hooks")
        return super().run_with_hooks(*model_args, fwd_hooks=forward, bwd_hooks=backward, **kwargs)

    def add_hook(self, name: str | Callable[[str], bool], hook: Any, *args: Any, **kwargs: Any) -> None:
        """As in TransformerLens: add a hook function that stays until `reset_hooks`."""
        self._check_match(name) if callable(name) else self.check_name(name)
        with self.turns.taken(self, alone=True):
            super().add_hook(name, hook, *args, **kwargs)

    def remove_all_hook_fns(
        self, direction: Any = "both", including_permanent: bool = False, level: int | None = None
    ) -> None:
        """As in TransformerLens, but hook points without hook functions are left alone.

        Runs under hook functions end here, and most hook points have none: touching all of them takes a millisecond.
        """
        with self.turns.taken(self, alone=True):
            for point in self.hook_points():
                if point.fwd_hooks or point.bwd_hooks:
                    point.remove_hooks(direction, including_permanent=including_permanent, level=level)

    def get_caching_hooks(self, names_filter: Any = None, *args: Any, **kwargs: Any) -> tuple[dict, list, list]:
        """As in TransformerLens."""
        if names_filter is None or callable(names_filter):
            matches = names_filter or (lambda name: True)
            self._check_match(matches)
            names = [name for name in self.hook_dict if matches(name) and self._fires(name)]
        else:
            names = [names_filter] if isinstance(names_filter, str) else list(names_filter)
            for name in names:
                self.check_name(name)
        return super().get_caching_hooks(names, *args, **kwargs)

    def run_with_cache(
        self, *model_args: Any, return_cache_object: bool = True, remove_batch_dim: bool = False, **kwargs: Any
    ) -> tuple[Any, ActivationCache | dict]:
        """Run the model and keep what its hook points see.

        Args:
            model_args: what `forward` takes.
            return_cache_object: an `ActivationCache`, else a plain dict.
            remove_batch_dim: drop the batch dimension; for a batch of one only.
            kwargs: `names_filter`, `device`, `incl_bwd`, `pos_slice`, … as in TransformerLens, and what `forward`
                takes. Without a `names_filter` everything is kept, attention patterns too: attention is then not fused.
                `rows="stem"` keeps scores and patterns for those query rows only, at any length of prompt.

        Raises:
            ModelError: a name in `names_filter` is no hook point; the batch cannot be removed.
        """
        if remove_batch_dim and model_args and hasattr(model_args[0], "shape") and model_args[0].shape[0] != 1:
            raise ModelError(f"remove_batch_dim needs a batch of one, got a batch of {model_args[0].shape[0]}")
        output, cache = super().run_with_cache(*model_args, remove_batch_dim=remove_batch_dim, **kwargs)
        if not return_cache_object:
            return output, cache
        return output, Cache(cache, self, has_batch_dim=not remove_batch_dim)
