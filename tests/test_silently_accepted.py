"""Values that would be taken without effect, or with another effect than they say, are errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from helpers.models import tiny_llava_next_video
from helpers.prompts import tiny_model, tiny_prompt
from safetensors.torch import load_file, save_file

import videolens as vl
from videolens.errors import VideolensError

VIDEO = vl.Video.from_array(np.zeros((3, 16, 16, 3), dtype=np.uint8))
ASKED = (VIDEO, "Which way?", ["left", "right"])


@pytest.fixture(autouse=True)
def annotations_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "style": (lambda: vl.Question(*ASKED, style="bogus"), "unknown style of question 'bogus'.*'open-ended'"),
    "completion": (lambda: vl.Question(*ASKED, completion=5), r"completion must be text, got 5: write str\(5\)"),
    "answer": (lambda: vl.Question(VIDEO, "What?", answer=5), "answer must be text, got 5"),
    "reversed answer": (lambda: vl.Question(VIDEO, "What?", reversed_answer=5), "reversed_answer must be text"),
    "task": (lambda: vl.Question(*ASKED, task=None), "task must be text, got None"),
    "id": (lambda: vl.Question(*ASKED, id=7), "id must be text, got 7"),
    "alternatives": (lambda: vl.Question(VIDEO, "What?", alternatives=[1, 2]), "must be text, got 1"),
    "meta": (lambda: vl.Question(*ASKED, meta=3), "meta is 3"),
    "no layers": (lambda: vl.Knockout("video", "last", []), "layers are empty.*name at least one layer"),
    "no heads": (lambda: vl.Knockout("video", "last", 1, heads=[]), "heads are empty.*name at least one head"),
    "no layers of a route": (lambda: vl.Knockout.route("cross-frame", layers=()), "layers are empty"),
    "seed of a draw": (lambda: vl.RandomBlocking(vl.Pathway.closed(n_layers=3), seed="x"), "seed = 'x'"),
    "split that is a path": (lambda: vl.load_dataset(".", split="/etc"), "split = '/etc': give a name"),
    "split above": (lambda: vl.load_dataset(".", split=".."), r"split = '\.\.': give a name"),
    "split below": (lambda: vl.load_dataset("shapes", split="test/../train"), "give a name"),
    "split without a name": (lambda: vl.load_dataset(".", split=""), "split = '': give a name"),
    "seed of a data set": (lambda: vl.load_dataset(".", seed=-1), "seed = -1: give a whole number"),
    "dtype": (lambda: vl.HookedVideoTransformer.from_pretrained("shapes", dtype=torch.int64), "torch.int64 is none"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_where_they_are_given(name: str) -> None:
    call, said = WRONG[name]
    with pytest.raises(VideolensError, match=said):
        call()


ASKING: dict[str, Callable[..., Any]] = {
    "trace_flow": lambda m, p, **how: vl.trace_flow(m, p, samples="all", **how),
    "evaluate_pathway": lambda m, p, **how: vl.evaluate_pathway(m, p, vl.Pathway.closed(n_layers=3), **how),
    "answer_trace": vl.answer_trace,
    "logit_lens": vl.logit_lens,
    "attention_map": vl.attention_map,
    "attribute": vl.attribute,
}


@pytest.mark.parametrize("value", ["x", None, 1.5, True, -1])
@pytest.mark.parametrize("function", ASKING)
def test_every_seed_is_a_whole_number(function: str, value: Any, model, prompt) -> None:
    with pytest.raises(VideolensError, match=f"seed = {value!r}: give a whole number from 0 on"):
        ASKING[function](model, prompt, seed=value, progress=False)


@pytest.mark.parametrize("value", ["x", 1, None, []])
def test_every_switch_is_true_or_false(value: Any, model, prompt) -> None:
    for run in (
        lambda: vl.sweep(model, prompt, ["video -> last"], verify=value),
        lambda: vl.trace_flow(model, prompt, samples="all", progress=False, verify=value),
        lambda: vl.trace_flow(model, prompt, samples="all", progress=value),
        lambda: vl.attribute(model, prompt, heads=value, progress=False),
        lambda: model.generate(prompt, 1, stop_at_eos=value),
    ):
        with pytest.raises(VideolensError, match=r"= .*: give True or False"):
            run()


@pytest.mark.parametrize(
    ("source", "target"), [("last", "video"), ("stem", "video"), ("pad", "all"), ("option B", "option A | stem")]
)
def test_a_knockout_that_cuts_nothing_is_refused(source: str, target: str, model, prompt) -> None:
    knockout = vl.Knockout(source, target, range(3))
    assert knockout.edges(prompt) == 0
    batch = vl.Prompt.batch([prompt, prompt])
    for run in (
        lambda: knockout.hooks(prompt),
        lambda: knockout.hooks(batch),
        lambda: vl.sweep(model, prompt, [knockout]),
        lambda: model.generate(prompt, 1, knockout),
    ):
        with pytest.raises(
            VideolensError, match=f"'{source} -> ".replace("|", r"\|") + ".*cuts nothing in this prompt"
        ):
            run()


def test_what_cuts_only_what_is_generated_is_taken(prompt) -> None:
    for source, target in (("response", "response"), ("response", "last"), ("last", "response"), ("stem", "response")):
        assert vl.Knockout(source, target, 1).hooks(prompt)


def test_cross_frame_in_a_clip_of_one_frame_is_refused_and_a_pathway_is_not(model) -> None:
    ids = [1, 90, 5, 6]
    one = model.prompt_from_ids(ids, torch.zeros(1, 1, 3, 16, 16), {"stem": [5]})
    with pytest.raises(VideolensError, match="of later frames cuts nothing"):
        vl.Knockout.route("cross-frame", layers=1).hooks(one)
    assert vl.Pathway.closed(n_layers=3).hooks(one)


def test_an_inverse_window_that_holds_every_layer_is_refused(model, prompt) -> None:
    with pytest.raises(VideolensError, match="'inverse' would cut nothing at layer 1: a window of 3"):
        vl.trace_flow(model, prompt, samples="all", style="inverse", window=3, progress=False)


@pytest.mark.parametrize("key", ["model.language_model.layers.1.mlp.up_proj.weight", "lm_head.weight"])
@pytest.mark.parametrize(("dtype", "stored"), [(torch.int64, "I64"), (torch.int8, "I8"), (torch.float64, "F64")])
def test_weights_that_would_be_cast_are_refused(tmp_path: Path, key: str, dtype: torch.dtype, stored: str) -> None:
    tiny_llava_next_video(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    key = next(each for each in weights if each.endswith(key.split(".", 2)[-1]))
    save_file(weights | {key: weights[key].to(dtype)}, file, {"format": "pt"})
    with pytest.raises(VideolensError, match=f"{key}' is stored as {stored}; expected one of"):
        vl.HookedVideoTransformer.from_pretrained(tmp_path)
    if dtype == torch.float64:  # where it is asked for
        model = vl.HookedVideoTransformer.from_pretrained(tmp_path, dtype=torch.float64)
        assert model(tiny_prompt(model)).dtype == torch.float64


@pytest.mark.parametrize(
    "empty", [{"layers": []}, {"layers": 1, "positions": []}, {"layers": 1, "heads": []}], ids=lambda one: str(one)
)
def test_a_patch_of_nothing_is_refused(empty: dict[str, Any], model, prompt) -> None:
    source = vl.SourceRun.record(model, prompt, "z")
    with pytest.raises(VideolensError, match="are empty, so nothing would be changed"):
        vl.Patch("z", source=source, **empty)


def test_the_model_itself_refuses_no_tokens() -> None:
    model = tiny_model()
    for wrong in (0, -1, 1.5, "2", True):
        with pytest.raises(VideolensError, match=r"max_new_tokens = .*from 1 on"):
            model.generate(tiny_prompt(model), wrong)


@pytest.mark.parametrize("source", ["response", "response | response"])
def test_a_sweep_refuses_what_only_generated_tokens_would_feel(source: str, model, prompt) -> None:
    knockout = vl.Knockout(source, "last", layers=[0])
    assert model.generate(prompt, 2, [knockout]), "there it cuts something"
    for engine in ("exact", "full"):
        with pytest.raises(VideolensError, match=r"response.*use it with model\.generate"):
            vl.sweep(model, prompt, [knockout], engine=engine)
