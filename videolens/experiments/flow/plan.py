"""The knockouts of a flow map, and what tracing them will cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from videolens.engine import Plan, plan
from videolens.errors import SelectionError, VideolensError
from videolens.interventions.knockout import ROUTES, Knockout, route_name
from videolens.interventions.layer_sets import cut_layers, window_of
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

INTO_FALSE_OPTIONS = ("stem -> false options", "video -> false options")
"""How the false options are reached, beside `ROUTES`: what "stem -> true option" and "video -> true option" are to the
true one."""


def plan_flow(
    model: HookedVideoTransformer,
    prompt: Prompt | Question,
    routes: Sequence[str] = ROUTES,
    window: int | None = None,
    *,
    style: str = "centre",
    max_memory: int | None = None,
) -> Plan:
    """What `trace_flow` will cost on one prompt: print it before you start. Nothing is run but the vision tower.

    Args:
        model: the model.
        prompt: a prompt, or a question to make one of.
        routes: names from `ROUTES`, or any other "source -> target"; those that the prompt does not have are left out.
        window: layers blocked together; None: the odd number nearest 9/32 of the layers.
        style: which layers are cut together, one of `STYLES`.
        max_memory: bytes that may be used besides the model and the prompt; None: half of what is free.

    Raises:
        SelectionError: a route is unknown, or the prompt has none of them.
        VideolensError: a window that does not fit the model, too little memory for one window.
    """
    window = check_routes(model, routes, window, style)
    prompt = model.prompt(prompt) if isinstance(prompt, Question) else prompt
    knockouts, kept, missing = route_knockouts(prompt, routes, window, model.cfg.n_layers, style=style)
    if not kept:
        raise SelectionError(f"the prompt has none of the routes: {'; '.join(sorted(set(missing.values())))}")
    return plan(model, prompt, knockouts, max_memory=max_memory)


def route_knockouts(
    prompt: Prompt, routes: Sequence[str], window: int | None, n_layers: int, *, style: str = "centre"
) -> tuple[list[Knockout], list[str], dict[str, str]]:
    """The knockouts (`cut_layers`) of every route that the prompt has, in order; those routes; and why it does not have
    the others."""
    knockouts: list[Knockout] = []
    kept: list[str] = []
    missing: dict[str, str] = {}
    for route in routes:
        cuts = [Knockout.route(route, layers=layers) for layers in cut_layers(style, window, n_layers).values()]
        try:
            cuts[0].hooks(prompt)
        except SelectionError as error:
            missing[route] = str(error)
            continue
        kept.append(route)
        knockouts += cuts
    return knockouts, kept, missing


def check_routes(
    model: HookedVideoTransformer, routes: Sequence[str], window: int | None, style: str = "centre"
) -> int | None:
    """The width of the window, if the style has one; raises for routes, windows and styles that do not exist."""
    if isinstance(routes, str):
        raise VideolensError(f"routes is one string, {routes!r}: give a list of routes")
    if not isinstance(routes, Iterable) or not all(isinstance(route, str) for route in routes):
        raise VideolensError(f"routes is {routes!r:.80}: give a list of routes, each by name")
    if not routes or len(set(map(route_name, routes))) != len(routes):
        raise VideolensError(f"routes must name at least one route, each once, got {list(routes)}")
    for route in routes:
        Knockout.route(route, layers=0)
    return window_of(style, window, model.cfg.n_layers)
