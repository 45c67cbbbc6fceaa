"""Two threads on one model: every number is right, or the second thread is refused at once."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from helpers.prompts import tiny_prompt

import videolens as vl
from videolens.engine import base, last_logits
from videolens.errors import ModelError

CUT = vl.Knockout("video", "last", range(3))
RUNS: dict[str, Callable[[Any, vl.Prompt], torch.Tensor]] = {
    "a clean run": lambda model, prompt: model(prompt)[0, -1],
    "a knockout": lambda model, prompt: model.run_with_hooks(prompt, fwd_hooks=CUT.hooks(prompt))[0, -1],
    "a cache": lambda model, prompt: model.run_with_cache(prompt)[1]["resid_post", -1],
    "generation": lambda model, prompt: model.generate(prompt, 3).tokens,
    "generation under a knockout": lambda model, prompt: model.generate(prompt, 3, CUT).tokens,
    "a sweep": lambda model, prompt: vl.sweep(model, prompt, [CUT, "video -> question"]).logits,
    "a sweep in full": lambda model, prompt: vl.sweep(model, prompt, [CUT], engine="full").logits,
    "a base": lambda model, prompt: base(model, prompt).logits,
    "a resumed run": lambda model, prompt: model.resume(model.run_clean(prompt), layer=1, row=20),
    "the last logits": last_logits,
}


@pytest.mark.parametrize("second", RUNS)
@pytest.mark.parametrize("first", RUNS)
def test_no_run_gets_numbers_of_another(first: str, second: str, model, prompt) -> None:
    expected = {name: RUNS[name](model, prompt) for name in (first, second)}
    start = threading.Barrier(2)

    def again(name: str) -> tuple[int, int]:
        right = refused = 0
        start.wait()
        for _ in range(4):
            try:
                found = RUNS[name](model, prompt)
            except ModelError as error:
                assert "another thread is running this model" in str(error)
                refused += 1
            else:
                assert torch.equal(found, expected[name]), f"{name} beside {first} and {second}"
                right += 1
        return right, refused

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(again, first), pool.submit(again, second)]:
            assert sum(future.result()) == 4
    assert all(torch.equal(RUNS[name](model, prompt), expected[name]) for name in (first, second)), "nothing is left"


def beside(held: Any, run: Callable[[], Any]) -> Any:
    """What a thread gets while this one is inside a block."""
    with held, ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("held", ["hook functions", "an attention path", "a listener that stays", "another's run"])
def test_the_second_thread_is_refused_at_once(held: str, name: str, model, prompt) -> None:
    blocks = {
        "hook functions": lambda: model.hooks(CUT.hooks(prompt)),
        "an attention path": lambda: model.attention_path("eager"),
        "a listener that stays": lambda: model.turns.taken(model, alone=False),
        "another's run": lambda: model.turns.taken(model, alone=True),
    }
    if held == "a listener that stays":
        model.add_hook("blocks.1.hook_resid_pre", lambda value, hook: None)
    try:
        began = time.monotonic()
        with pytest.raises(ModelError, match=r"another thread is running this model.*one after the other"):
            beside(blocks[held](), lambda: RUNS[name](model, prompt))
        assert time.monotonic() - began < 5
    finally:
        model.reset_hooks()
    RUNS[name](model, prompt)


def test_hook_functions_of_another_thread_cannot_be_touched(model, prompt) -> None:
    for touch in (
        model.reset_hooks,
        lambda: model.add_hook("hook_embed", lambda value, hook: None),
        lambda: model.hooks([]).__enter__(),
    ):
        with pytest.raises(ModelError, match="another thread is running this model"):
            beside(model.hooks(CUT.hooks(prompt)), touch)


def test_runs_with_nothing_changed_go_side_by_side(model, prompt) -> None:
    expected = model(prompt)
    found = beside(model.turns.taken(model, alone=False), lambda: model(prompt))
    assert torch.equal(found, expected)
    # and a thread may run within its own block
    with model.hooks(CUT.hooks(prompt)):
        assert not torch.equal(model(prompt), expected)
        with model.attention_path("eager"):
            model(prompt)


def test_after_an_error_the_next_thread_has_its_turn(model, prompt) -> None:
    with pytest.raises(ZeroDivisionError):
        model.run_with_hooks(prompt, fwd_hooks=[("hook_embed", lambda value, hook: 1 // 0)])
    assert beside(nullcontext(), lambda: model(prompt)).isfinite().all()


def test_a_copy_has_turns_of_its_own(model, prompt) -> None:
    twin = copy.deepcopy(model)
    expected = model(prompt)
    assert torch.equal(beside(model.hooks(CUT.hooks(prompt)), lambda: twin(prompt)), expected)


def test_prompts_may_be_made_in_threads(model) -> None:
    expected = [tiny_prompt(model, seed=seed).residual for seed in range(8)]
    model.frontend.memory.clear()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: tiny_prompt(model, seed=seed).residual, range(8)))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
