"""What a notebook shows of an object is one line, and `dir(videolens)` is what is public."""

from __future__ import annotations

import copy

import pytest

import videolens as vl

LONGEST = 400


@pytest.fixture(scope="module")
def question() -> vl.Question:
    return vl.load_dataset("shapes", task="colour", n=1)[0]


@pytest.fixture(scope="module")
def shown(shapes: vl.HookedVideoTransformer, question: vl.Question) -> dict[str, str]:
    """The `repr` of everything that users get to hold."""
    prompt = shapes.prompt(question)
    other = shapes.prompt(vl.load_dataset("shapes", task="scene transition", n=1)[0])
    batch = vl.Prompt.batch([prompt, other])
    cut = vl.Knockout("video", "question", layers=range(12))
    source = vl.SourceRun.record(shapes, prompt, "resid_pre")
    closed = vl.Pathway.closed(n_layers=12)
    flow = vl.trace_flow(shapes, [question], routes=["video -> last"], samples="all", progress=False)
    return {
        name: repr(each)
        for name, each in {
            "model": shapes,
            "prompt": prompt,
            "batch": batch,
            "tokens": prompt.tokens,
            "tokens of a batch": batch.tokens,
            "cache": shapes.run_with_cache(prompt)[1],
            "cache without batch": shapes.run_with_cache(prompt, remove_batch_dim=True)[1],
            "empty cache": shapes.run_with_cache(prompt, names_filter="hook_embed")[1],
            "question": question,
            "video": question.video,
            "clean run": shapes.run_clean(prompt),
            "generation": shapes.generate(prompt, 20),
            "sweep": vl.sweep(shapes, prompt, [cut]),
            "plan": vl.plan_flow(shapes, question),
            "source run": source,
            "knockout": cut,
            "pathway": closed,
            "random blocking": vl.RandomBlocking(closed),
            "patch": vl.Patch("resid_pre", 2, "stem", source=source),
            "flow map": flow,
            "curve": flow.peak("video -> last"),
            "trace": vl.answer_trace(shapes, [question], samples="all", progress=False),
        }.items()
    }


def test_a_repr_is_one_line(shown: dict[str, str]) -> None:
    long = {name: len(text) for name, text in shown.items() if len(text) > LONGEST or "\n" in text}
    assert not long


def test_it_says_what_is_there_and_where_more_is(shown: dict[str, str], shapes, question) -> None:
    assert "184 positions, 128 of them video (8 frames × 4 × 4), 4 options" in shown["prompt"]
    assert repr(question.stem) in shown["prompt"] and "184 positions" in shown["tokens"]
    assert "2 × 184 positions" in shown["batch"] and "2 prompts" in shown["tokens of a batch"]
    assert "12 layers" in shown["model"] and "print(model)" in shown["model"]
    assert "activations of 'shapes'" in shown["cache"] and "list(cache)" in shown["cache"]
    assert "(blocks)" in str(shapes) and str(shapes).count("\n") > 100
    assert repr(copy.deepcopy(shapes)) == shown["model"]


def test_dir_shows_public_names_only() -> None:
    assert dir(vl) == sorted([*vl._PUBLIC, "__version__"])
    assert not {"import_module", "Any", "TYPE_CHECKING", "annotations", "declarations"} & set(dir(vl))
