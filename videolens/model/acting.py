"""What acts on a run, read from whatever a caller gives: interventions, or pairs (hook point, function)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from videolens.errors import ModelError
from videolens.prompt.prompt import Prompt

Functions = list[tuple[str | Callable, Callable[..., Any]]]


def functions_of(cfg: Any, input: Any, given: Any, *, called: str = "fwd_hooks") -> Functions:
    """The hook functions of all that is given, in order, once the model has what they act on.

    Args:
        cfg: the model's configuration; its `n_layers` and `n_heads` are read.
        input: what is run; None: not known yet.
        given: an object with `.hooks(prompt)`, such as a `Knockout`, a pair (hook point, function), or several.
        called: what messages call it.

    Raises:
        ModelError: something that is no intervention, or one that acts on a Prompt where there is none.
        VideolensError: an intervention on layers or heads that the model does not have.
    """
    functions: Functions = []
    for each in several(given):
        if hasattr(each, "hooks"):
            if not isinstance(input, Prompt):
                raise ModelError(_no_prompt(each, input, called))
            if hasattr(each, "check"):
                each.check(n_layers=cfg.n_layers, n_heads=cfg.n_heads)
            functions += each.hooks(input)
        elif _is_pair(each):
            functions.append((each[0], each[1]))
        else:
            raise ModelError(
                f"{each!r} is no intervention: give objects with .hooks(prompt), such as a Knockout, or pairs "
                "(hook point, function)"
            )
    return functions


def several(given: Any) -> Iterable[Any]:
    """What is given, as several: an intervention, a pair or text stands for itself."""
    alone = hasattr(given, "hooks") or isinstance(given, str) or not isinstance(given, Iterable)
    return [given] if alone or (isinstance(given, tuple) and _is_pair(given)) else given


def _is_pair(given: Any) -> bool:
    return (
        isinstance(given, (tuple, list)) and len(given) == 2 and callable(given[1]) and not hasattr(given[1], "hooks")
    )


def _no_prompt(each: Any, input: Any, called: str) -> str:
    name = type(each).__name__
    if input is None:
        return f"a {name} acts on a Prompt, and here there is none yet: give {called}=it.hooks(prompt)"
    if type(input).__name__ == "Question":
        return f"a {name} acts on a Prompt, got a Question: run prompt = model.prompt(question)"
    return f"{each!r} acts on a Prompt, and what is run are token ids or text: make a prompt (model.prompt_from_ids)"
