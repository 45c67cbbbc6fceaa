"""The run with nothing changed, made once: the same results bit for bit, fewer forwards, no more memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from helpers.engine import FAMILIES, N_LAYERS, Coneless, Idle, NotKnockout, Scaled, all_windows, random_pair
from helpers.prompts import tiny_prompt

import videolens as vl
from videolens.engine import Base, base, last_logits, sweep
from videolens.errors import PromptError, VideolensError
from videolens.interventions.knockout import Knockout
from videolens.model.cost import Cost

Pair = tuple[vl.HookedVideoTransformer, vl.Prompt]
MANY: list[Any] = [
    *all_windows(N_LAYERS, 2)[::3],
    Scaled("attn.hook_z", 2, (7,)),
    Scaled("ln_final.hook_normalized", 0, (24,)),
    Coneless(Knockout("video", "last", [3])),
    Idle(),
]


@pytest.fixture(scope="module", params=[*FAMILIES, "bfloat16"])
def pair(request: pytest.FixtureRequest) -> Pair:
    if request.param == "bfloat16":
        return random_pair("grouped heads", dtype=torch.bfloat16)
    return random_pair(request.param)


@pytest.fixture(scope="module")
def one_pair() -> Pair:
    return random_pair("grouped heads")


@contextmanager
def whole_layers(model: vl.HookedVideoTransformer, n_pos: int) -> Any:
    """The layers that run on all rows of a single prompt, and ask for all of them."""
    ran: list[int] = []

    def watch(layer: int) -> Callable[..., None]:
        return lambda _, given, after: ran.append(layer) if tuple(after.shape[:2]) == (1, n_pos) else None

    handles = [block.register_forward_hook(watch(layer)) for layer, block in enumerate(model.blocks)]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def same(ours: Any, theirs: Any) -> bool:
    return torch.equal(ours.base, theirs.base) and torch.equal(ours.logits, theirs.logits)


@pytest.mark.parametrize("engine", ["exact", "full"])
def test_a_sweep_with_a_base_is_the_same_bit_for_bit(pair: Pair, engine: str) -> None:
    model, prompt = pair
    made, ticks = base(model, prompt, engine=engine), []
    assert torch.equal(made.logits, last_logits(model, prompt)) and (made.clean is None) == (engine == "full")
    without = sweep(model, prompt, MANY, engine=engine)
    found = sweep(model, prompt, MANY, engine=engine, base=made, tick=ticks.append)
    assert same(found, without) and found.in_full == without.in_full
    assert sum(ticks) == pytest.approx(1)
    # nothing of the base was edited on the way
    assert same(
        sweep(model, prompt, MANY[::-1], engine=engine, base=made), sweep(model, prompt, MANY[::-1], engine=engine)
    )
    # a base of either engine serves the other
    other = {"exact": "full", "full": "exact"}[engine]
    assert same(sweep(model, prompt, MANY, engine=other, base=made), sweep(model, prompt, MANY, engine=other))


def test_the_bundled_model_with_a_base_is_the_same_bit_for_bit() -> None:
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    prompt = model.prompt(vl.load_dataset("shapes", split="test", task="object count", n=1)[0])
    cuts = all_windows(model.cfg.n_layers, 3, routes=("cross-frame", "question -> last"))[::2]
    for engine, some in (("exact", cuts), ("full", cuts[:2])):
        made = base(model, prompt, engine=engine)
        assert torch.equal(made.logits, last_logits(model, prompt))
        assert same(sweep(model, prompt, some, engine=engine, base=made), sweep(model, prompt, some, engine=engine))


def test_the_clean_rows_run_once(one_pair: Pair) -> None:
    model, prompt = one_pair
    n_pos, cuts = prompt.shape[1], all_windows(N_LAYERS, 2)
    with whole_layers(model, n_pos) as ran:
        made = base(model, prompt)
        assert ran == list(range(N_LAYERS))
        found = sweep(model, prompt, cuts, base=made)
        assert ran == list(range(N_LAYERS))
        without = sweep(model, prompt, cuts)
        assert ran == [*range(N_LAYERS), *range(N_LAYERS - 1)]
    saved = (N_LAYERS - 1) * Cost.of(model.cfg).layer(n_pos, n_pos, n_pos * (n_pos + 1) // 2)
    assert without.forwards == without.plan.forwards == vl.plan_flow(model, prompt, window=2).forwards
    assert found.plan.forwards == without.plan.forwards
    assert found.forwards == pytest.approx(without.forwards - saved / found.plan.forward_flops)
    # together they cost the one forward, less than a layer of which is done twice
    assert without.forwards < 1 + found.forwards < without.forwards + 1 / (N_LAYERS - 1)
    assert found.full_forwards == without.full_forwards == len(cuts) + 1


def test_in_full_every_forward_is_counted(one_pair: Pair) -> None:
    model, prompt = one_pair
    made = base(model, prompt, engine="full")
    with whole_layers(model, prompt.shape[1]) as ran:
        found = sweep(model, prompt, MANY[:3], engine="full", base=made)
    assert ran == 3 * list(range(N_LAYERS)) and found.plan is None
    assert (found.forwards, found.full_forwards) == (3, 4)
    assert sweep(model, prompt, MANY[:3], engine="full").forwards == 4
    bare = sweep(model, prompt, [Coneless(MANY[0])], base=base(model, prompt))
    assert 1 < bare.forwards < 2 < sweep(model, prompt, [Coneless(MANY[0])]).forwards + 0.5


def test_the_clean_run_is_kept_where_it_takes_a_quarter_of_the_memory_at_most(one_pair: Pair) -> None:
    model, prompt = one_pair
    kept = base(model, prompt, max_memory=10**9)
    assert kept.clean is not None and kept.n_bytes == Cost.of(model.cfg).clean_run(prompt.shape[1], N_LAYERS)
    assert base(model, prompt, max_memory=4 * kept.n_bytes).clean is not None
    spare = base(model, prompt, max_memory=4 * kept.n_bytes - 1)
    assert spare.clean is None and spare.n_bytes == 0 and torch.equal(spare.logits, kept.logits)
    found, without = sweep(model, prompt, MANY, base=spare), sweep(model, prompt, MANY)
    assert same(found, without) and found.forwards == without.forwards
    assert found.plan.peak_bytes == without.plan.peak_bytes


def test_a_kept_run_counts_as_memory_and_goes_where_memory_is_short(one_pair: Pair) -> None:
    model, prompt = one_pair
    cuts = all_windows(N_LAYERS, 3)
    peak, kept = sweep(model, prompt, cuts).plan.peak_bytes, base(model, prompt).n_bytes
    fits, short = base(model, prompt), base(model, prompt)
    found = sweep(model, prompt, cuts, base=fits, max_memory=peak + kept)
    assert fits.clean is not None and found.plan.peak_bytes == peak + kept
    found = sweep(model, prompt, cuts, base=short, max_memory=peak + kept - 1)
    without = sweep(model, prompt, cuts, max_memory=peak + kept - 1)
    assert short.clean is None and found.plan.peak_bytes == peak
    assert same(found, without) and found.forwards == without.forwards
    # in several walks as well, and where nothing is to spare
    tight = peak // 2
    for budget, made in ((tight, base(model, prompt)), (tight + kept, base(model, prompt))):
        found, without = (sweep(model, prompt, cuts, max_memory=budget, base=each) for each in (made, None))
        assert found.plan.rounds == without.plan.rounds and same(found, without)
        assert found.plan.peak_bytes <= budget


def test_functions_that_edit_in_place_leave_the_base_as_it_was(one_pair: Pair) -> None:
    model, prompt = one_pair
    made = base(model, prompt)
    assert made.clean is not None
    before = [each.clone() for each in made.clean.residuals]
    edits = [InPlace(point, layer) for point in ("hook_resid_pre", "attn.hook_k", "attn.hook_v") for layer in (0, 2)]
    found, without = sweep(model, prompt, edits, base=made), sweep(model, prompt, edits)
    assert same(found, without) and not any(torch.equal(row, found.base) for row in found.logits)
    assert all(map(torch.equal, made.clean.residuals, before))


class InPlace(NotKnockout):
    """Doubles what a hook point of a layer holds, in place."""

    def __init__(self, point: str, layer: int) -> None:
        self.point, self.layer = point, layer

    def hooks(self, prompt: vl.Prompt) -> list[tuple[str, Callable[..., None]]]:
        def double(value: torch.Tensor, hook: Any) -> None:
            value.mul_(2)

        return [(f"blocks.{self.layer}.{self.point}", double)]

    def cone(self, prompt: vl.Prompt) -> tuple[int, int]:
        return self.layer, 0


def test_under_listeners_of_the_model_all_runs_in_full_once(one_pair: Pair) -> None:
    model, prompt = one_pair
    plain = last_logits(model, prompt)
    model.add_hook("blocks.1.hook_mlp_out", lambda value, hook: value * 0.5)
    try:
        made = base(model, prompt)
        found, without = sweep(model, prompt, MANY[:3], base=made), sweep(model, prompt, MANY[:3])
    finally:
        model.reset_hooks()
    assert made.clean is None and not torch.equal(made.logits, plain)
    assert same(found, without) and (found.forwards, without.forwards) == (3, 4)


def test_a_base_belongs_to_its_prompt_and_its_model(one_pair: Pair) -> None:
    model, prompt = one_pair
    other = tiny_prompt(model)
    cases: list[tuple[Base, str]] = [
        (base(model, other), r"run of another prompt.*base\(model, prompt\)"),
        (base(random_pair("grouped heads")[0], prompt), r"run of another model"),
    ]
    for made, says in cases:
        with pytest.raises(VideolensError, match=says):
            sweep(model, prompt, MANY, base=made)
    with pytest.raises(PromptError, match="batch of 2"):
        base(model, tiny_prompt(model, rows=2))
    with pytest.raises(VideolensError, match=r"exakt.*'exact'"):
        base(model, prompt, engine="exakt")
    with pytest.raises(VideolensError, match=r"max_memory.*\b0\b"):
        base(model, prompt, max_memory=0)
