"""Every count is a whole number within bounds, and a hook function gives a tensor like the one it got: else one error,
before anything runs for long."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch

import videolens as vl
from videolens.datasets.shapes import write_shapes
from videolens.errors import ModelError, VideolensError, check_whole, is_number

VIDEO = vl.Video.from_array(np.zeros((3, 16, 16, 3), dtype=np.uint8))
WRONG = (1.5, -1.0, "3", True, [], {}, float("nan"), 10**30, -(10**30))
COUNTS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "generate": lambda model, prompt, n: model.generate(prompt, n),
    "stop_at_layer": lambda model, prompt, n: model(prompt, stop_at_layer=n),
    "accumulated_bias": lambda model, prompt, n: model.accumulated_bias(n),
    "repeated": lambda model, prompt, n: prompt.repeated(n),
    "with_response": lambda model, prompt, n: prompt.tokens.with_response(n),
    "padded": lambda model, prompt, n: prompt.tokens.padded(n),
    "from_spans": lambda model, prompt, n: vl.TokenMap.from_spans(n, {}, grid=(0, 0, 0), video=[]),
    "n_frames": lambda model, prompt, n: vl.Video.from_array(VIDEO.frames, n_frames=n),
    "max_batch": lambda model, prompt, n: vl.measure_accuracy(model, [prompt], max_batch=n),
    "top": lambda model, prompt, n: vl.logit_lens(model, [prompt], top=n),
    "pictures": lambda model, prompt, n: vl.attention_map(model, [prompt], "last", pictures=n),
    "occurrence": lambda model, prompt, n: vl.attention_map(model, [prompt], "last", occurrence=n),
    "window": lambda model, prompt, n: vl.trace_flow(model, [prompt], window=n, samples="all"),
    "seeds": lambda model, prompt, n: vl.evaluate_pathway(
        model, [prompt], vl.Pathway.closed(n_layers=model.cfg.n_layers), seeds=n
    ),
    "max_memory": lambda model, prompt, n: vl.sweep(
        model, prompt, [vl.Knockout("video", "last", layers=1)], max_memory=n
    ),
    "n of a data set": lambda model, prompt, n: vl.load_dataset("shapes", n=n),
    "n of shapes": lambda model, prompt, n: write_shapes("nowhere", n=n),
}


@pytest.fixture(autouse=True)
def annotations_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("value", WRONG, ids=map(repr, WRONG))
@pytest.mark.parametrize("name", COUNTS)
def test_a_count_is_a_whole_number_within_bounds(name: str, value: Any, model, prompt) -> None:
    if name == "max_memory" and value == 10**30:
        pytest.skip("as much memory as anybody wants is a number of bytes")
    began = time.process_time()
    with pytest.raises(VideolensError) as caught:
        COUNTS[name](model, prompt, value)
    assert time.process_time() - began < 5 and len(str(caught.value)) > 20


def test_numbers_of_numpy_are_whole() -> None:
    check_whole("n", np.int64(3))
    check_whole("n", torch.tensor(3))
    for value in (np.float64(3), np.bool_(True), 3.0, None):
        with pytest.raises(VideolensError, match=r"n = .*whole number from 0 on"):
            check_whole("n", value)
    with pytest.raises(VideolensError, match="n = 4: give a whole number from 1 to 3"):
        check_whole("n", 4, least=1, most=3)
    assert is_number(3) and is_number(2.5) and is_number(np.float32(1))
    assert not any(map(is_number, (float("inf"), float("nan"), True, "3", None, 10**400, 1j)))


def wrong_values(value: torch.Tensor) -> dict[str, Any]:
    return {
        "another shape": value[..., :1],
        "another number of axes": value[None],
        "another dtype": value.double(),
        "whole numbers": value.long(),
        "a number": 3,
        "text": "x",
        "an array": value.numpy(),
    }


@pytest.mark.parametrize("kind", wrong_values(torch.zeros(1, 2, 3)))
@pytest.mark.parametrize(
    "point", ["hook_embed", "blocks.1.hook_resid_pre", "blocks.1.attn.hook_q", "blocks.1.hook_mlp_out"]
)
def test_a_hook_function_gives_what_it_got(point: str, kind: str, model, prompt) -> None:
    hooks = [(point, lambda value, hook: wrong_values(value)[kind])]
    with pytest.raises(ModelError, match=rf"a hook function of {point} gave .*expected a tensor as it got one"):
        model.run_with_hooks(prompt, fwd_hooks=hooks)
    with pytest.raises(ModelError, match="a hook function of"):
        model.generate(prompt, 2, hooks)
    assert model.generate(prompt, 2, [(point, lambda value, hook: value * 1)]).tokens.shape == (1, 2)


def test_a_mask_may_become_one_for_every_head_and_no_other_shape(model, prompt) -> None:
    point = "blocks.1.attn.hook_mask"
    clean = model(prompt)
    wide = model.run_with_hooks(
        prompt, fwd_hooks=[(point, lambda mask, hook: mask.expand(-1, model.cfg.n_heads, -1, -1).clone())]
    )
    assert torch.allclose(wide, clean, atol=1e-5)
    for wrong in (lambda mask, hook: mask[..., :1], lambda mask, hook: mask.float()):
        with pytest.raises(ModelError, match="True = may attend"):
            model.run_with_hooks(prompt, fwd_hooks=[(point, wrong)])


@pytest.mark.parametrize("selection", [[9999], 3, None, ("video",)])
def test_a_knockout_is_of_selections_by_name(selection: Any) -> None:
    for given in ((selection, "last"), ("video", selection)):
        with pytest.raises(VideolensError, match=r"of a knockout is .*give a selection by name"):
            vl.Knockout(*given, layers=1)
