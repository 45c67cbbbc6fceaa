"""Probes: what they read, on clips that they were not fitted on; controls; and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import videolens as vl
from videolens.errors import SelectionError, VideolensError
from videolens.experiments.probe.experiment import ProbeExperiment
from videolens.experiments.probe.fitting import held_out, shuffled
from videolens.experiments.probe.targets import clip_key

TARGETS = {"direction": "answer of moving direction", "shape": "moves"}
SITES = ("video", "last")


@pytest.fixture(scope="module")
def model() -> vl.HookedVideoTransformer:
    return vl.HookedVideoTransformer.from_pretrained("shapes")


@pytest.fixture(scope="module")
def questions() -> list[vl.Question]:
    return list(vl.load_dataset("shapes", split="validation", tasks=["moving direction"], n=40))


@pytest.fixture(scope="module")
def probes(model, questions) -> vl.Probes:
    cut = {"no cross-frame": "cross-frame"}
    return vl.probe(model, questions, TARGETS, SITES, interventions=cut, folds=2, progress=False)


def test_direction_is_read_off_the_video_and_not_when_frames_do_not_meet(probes: vl.Probes) -> None:
    read = probes.accuracy("direction", "video", 8)
    assert read.value >= 0.8 and read.n == 40 and read.low > 0.5
    assert probes.accuracy("direction", "video", -1).low < 0.3, "frames that have not met say nothing about it"
    assert probes.accuracy("direction", "video", 8, condition="no cross-frame").high < 0.5
    assert probes.control("direction", "video", 8).high < 0.5
    assert probes.selectivity("direction", "video", 8).low > 0.2


def test_a_curve_is_the_share_of_labels_that_were_predicted(probes: vl.Probes) -> None:
    table, curve = probes.table, probes.curve("shape", "last")
    assert list(curve["layer"]) == list(range(-1, 12))
    of = table[(table["target"] == "shape") & (table["site"] == "last") & (table["condition"] == "clean")]
    right = (of["label"] == of["predicted"]).groupby(of["layer"]).mean()
    np.testing.assert_allclose(curve["accuracy"], right)
    best = probes.summary().set_index(["target", "site", "condition"]).loc[("shape", "last", "clean")]
    assert best["accuracy"] == curve["accuracy"].max() and best["n"] == 40
    assert Counter(of["label"]) == {label: n for label, n in Counter(of["shuffled"]).items()}, "the same, shuffled"


def test_features_are_mean_residuals(model, questions) -> None:
    experiment = ProbeExperiment(model, targets=TARGETS, sites=["video", "frame 7"])
    prompt = model.prompt(questions[0])
    rows = experiment.ask(prompt, "one", "moving direction", lambda share: None).rows
    _, cache = model.run_with_cache(prompt)
    for row in rows:
        values = np.frombuffer(row.values, np.float32).reshape(13, -1)
        at = prompt.tokens[row.site]
        np.testing.assert_allclose(values[0], cache["resid_pre", 0][0, at].mean(0), atol=1e-5)
        np.testing.assert_allclose(values[12], cache["resid_post", 11][0, at].mean(0), atol=1e-4)


def test_a_clip_and_its_reversal_are_one_clip(questions) -> None:
    one, other = questions[:2]
    assert clip_key(one, "") == clip_key(one.reversed(), "") != clip_key(other, "")


def test_a_probe_has_not_seen_the_clip_that_it_judges() -> None:
    """Labels that a clip's number decides are learnt by heart, and of no use on other clips."""
    rng = np.random.default_rng(0)
    clips = [str(i // 4) for i in range(80)]
    features = np.stack([rng.normal(size=40) for _ in range(20)]).repeat(4, axis=0)
    labels = [str(each) for each in rng.integers(0, 2, 20).repeat(4)]
    by_clip = held_out(features, labels, clips, folds=4, seed=0)
    by_row = held_out(features, labels, [str(i) for i in range(80)], folds=4, seed=0)
    right = [np.mean(np.array(each) == labels) for each in (by_clip, by_row)]
    assert right[0] < 0.75 and right[1] > 0.95


def test_the_control_depends_on_the_seed_alone() -> None:
    labels = ["a", "b", "c", "d"] * 10
    assert shuffled(labels, seed=1) == shuffled(labels, seed=1) != shuffled(labels, seed=2)
    assert Counter(shuffled(labels, seed=1)) == Counter(labels)


def test_labels_of_ones_own(model, questions) -> None:
    own = [question.answer in ("left", "right") for question in questions[:20]]
    asked = {"by a list": own, "by a function": lambda question: question.answer in ("left", "right")}
    found = vl.probe(model, questions[:20], asked, ["video"], folds=2, progress=False)
    lists, functions = (found.table[found.table["target"] == name]["label"].tolist() for name in asked)
    assert lists == functions and set(lists) == {"True", "False"}
    assert found.settings.targets == {"by a list": "labels that were given", "by a function": "<lambda>"}


def test_drawn_beside_a_flow_map_and_another_model(probes: vl.Probes, model, questions, tmp_path) -> None:
    flow = vl.trace_flow(model, questions[:2], routes=["cross-frame"], progress=False)
    figure = probes.figure(flow=flow, beside={"again": probes})
    assert len(figure.axes) == 4
    again = vl.Probes.load(probes.save(tmp_path / "probes"))
    assert repr(again) == repr(probes) and "40 questions, 2 folds" in repr(probes)


def test_a_run_gives_what_a_call_gives(model, questions, tmp_path) -> None:
    entry = {"name": "probe", "targets": {"shape": "moves"}, "sites": ["video"], "folds": 2}
    data = {"name": "shapes", "split": "validation", "tasks": ["moving direction"], "n": 12}
    config = {"model": "shapes", "dataset": data, "figures": False, "experiments": [entry]}
    called = vl.probe(model, questions[:12], {"shape": "moves"}, ["video"], folds=2, progress=False)
    assert vl.run(config, tmp_path / "run").results["probe"].table.equals(called.table)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"targets": {}}, "give each a name"),
        ({"targets": {"direction": ["left"]}}, "has 1 labels for 6 questions"),
        ({"targets": {"direction": lambda question: "left"}}, "has one value, 'left'.*nothing to tell apart"),
        ({"targets": {"one each": list("abcdef")}}, "has 6 classes and 6 questions: ask more"),
        ({"targets": {"direction": list("aaaaab")}, "folds": 2}, "the label 'b' on 1 clips, and 2 folds"),
        ({"targets": {"direction": "way"}}, "none of the 6 questions is left.*no label"),
        ({"folds": 1}, "folds"),
        ({"sites": "video"}, "sites are 'video': give a list"),
        ({"sites": ["frame 99"]}, "none of the 6 questions is left.*frame 99"),
        ({"max_bytes": 5 * 10**4}, "residuals of 6 questions would take .* bytes.*ask at most 2"),
        ({"interventions": {"clean": "cross-frame"}}, "'clean' is the model with nothing changed"),
        ({"interventions": {"cut": "cross frame"}}, "cross-frame"),
    ],
)
def test_what_is_refused(model, questions, options: dict[str, Any], said: str) -> None:
    with pytest.raises(VideolensError, match=said):
        vl.probe(model, questions[:6], **{"targets": TARGETS, "progress": False} | options)


def test_what_is_not_there_is_said(probes: vl.Probes) -> None:
    for bad in [("way", "video", 0), ("shape", "vide", 0), ("shape", "video", 12)]:
        with pytest.raises(SelectionError):
            probes.accuracy(*bad)
    with pytest.raises(SelectionError, match="clean"):
        probes.curve("shape", "video", condition="clear")
