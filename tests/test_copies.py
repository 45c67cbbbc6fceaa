"""Whatever a cache or a result hands out is a copy: writing into it changes nothing for anybody else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.benchmarks import write_clip
from helpers.flow import plausible_flow
from helpers.report import invented_accuracy, invented_attention

import videolens as vl
from videolens.engine import base
from videolens.experiments.common.result import Result

SAVED = Path(__file__).parent / "data" / "saved"


def spoil(value: Any) -> None:
    """Write into a value in place, by every way there is."""
    if isinstance(value, torch.Tensor):
        value.zero_().sub_(1)
    elif isinstance(value, np.ndarray):
        value[...] = 0
    elif isinstance(value, pd.DataFrame):
        value.loc[:, value.columns[-1]] = value[value.columns[-1]].iloc[0]
        value.iloc[0, 0] = value.iloc[-1, 0]
        value["more"] = 1
        value.drop(index=value.index[1:], inplace=True)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, pd.DataFrame):
        return one.equals(other) and list(one.columns) == list(other.columns)
    return torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def kept(value: Any) -> Any:
    return value.copy() if isinstance(value, (np.ndarray, pd.DataFrame)) else value.clone()


@pytest.mark.parametrize("what", ["frames", "seconds", "indices"])
def test_a_clip_is_the_same_for_the_next_who_loads_it(what: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    videos: dict[str, Callable[[], vl.Video]] = {
        "opened": lambda: vl.Video.open(path, 4),
        "read": lambda: video,
        "edited": lambda: vl.Video.open(path, 4).frozen(0),
        "an array": lambda: array,
    }
    video, array = vl.Video.from_file(path, 4), vl.Video.from_array(vl.Video.open(path, 4).frames)
    for name, load in videos.items():
        before = getattr(load(), what).clone()
        spoil(getattr(load(), what))
        assert torch.equal(getattr(load(), what), before), name


def test_a_question_about_a_clip_that_somebody_wrote_into(shapes) -> None:
    first = vl.load_dataset("shapes", task="object count", n=1)[0]
    logits = shapes(shapes.prompt(first))
    first.video.frames[:] = 0
    again = vl.load_dataset("shapes", task="object count", n=1)[0]
    assert torch.equal(shapes(shapes.prompt(again)), logits)
    assert torch.equal(shapes(shapes.prompt(first)), logits)


def test_features_of_the_tower_are_copies(shapes) -> None:
    question = vl.load_dataset("shapes", task="object count", n=1)[0]
    prompt = shapes.prompt(question)
    before = {name: getattr(prompt, name).clone() for name in ("video_features", "residual", "pixel_values")}
    for name in before:
        spoil(getattr(prompt, name))
    again = shapes.prompt(question)
    assert all(torch.equal(getattr(again, name), value) for name, value in before.items())


def test_what_a_question_knows_is_its_own() -> None:
    video = vl.Video.from_array(torch.zeros(2, 16, 16, 3, dtype=torch.uint8))
    meta = {"a": 1}
    question = vl.Question(video, "What?", meta=meta)
    other = question.with_video(video)
    meta["a"], other.meta["a"] = 2, 3  # type: ignore[index]
    assert question.meta == {"a": 1}


def results() -> dict[str, Result]:
    found = {
        "flow": vl.FlowMap.load(SAVED / "flow"),
        "accuracy": invented_accuracy(),
        "attention": invented_attention(),
    }
    return found | {"plausible flow": plausible_flow()}


@pytest.mark.parametrize("name", results())
def test_a_result_stays_what_it_was(name: str) -> None:
    result = results()[name]
    held = {field: value for field in vars(result) if isinstance(value := getattr(result, field), HELD)}
    assert held
    for field, value in held.items():
        before = kept(value)
        spoil(getattr(result, field))
        assert same(getattr(result, field), before), field
    spoil(result.to_dataframe())
    assert same(result.to_dataframe(), results()[name].to_dataframe())


HELD = (pd.DataFrame, np.ndarray, torch.Tensor)


def test_every_result_hands_out_copies() -> None:
    """Not one class by one: what `Result` reads from itself is copied, so a new field of a new result is, too."""

    class Mine(Result):
        def __init__(self) -> None:
            self.numbers, self.more, self.table = torch.ones(3), np.ones(3), pd.DataFrame({"a": [1, 2], "b": [3, 4]})

    mine = Mine()
    for field in ("numbers", "more", "table"):
        before = kept(getattr(mine, field))
        spoil(getattr(mine, field))
        assert same(getattr(mine, field), before)


@pytest.mark.parametrize("name", ["flow", "pathway"])
def test_settings_stay_what_they_were(name: str) -> None:
    folder = next(path for path in SAVED.iterdir() if path.name.startswith(name))
    result = {"flow": vl.FlowMap, "pathway": vl.PathwayAccuracy}[name].load(folder)
    before = repr(result.settings)
    open_ones = [value for value in vars(result.settings) if isinstance(getattr(result.settings, value), (dict, list))]
    assert "versions" in open_ones and ("pathway" in open_ones) == (name == "pathway")
    for field in open_ones:
        getattr(result.settings, field).clear()
    assert repr(result.settings) == before


def test_who_gave_a_table_may_go_on_with_it() -> None:
    flow = vl.FlowMap.load(SAVED / "flow")
    table = flow.to_dataframe()
    made = vl.FlowMap(table, flow.settings)
    table.loc[:, "p_base"] = 0.5
    assert made.table.equals(flow.table)


def test_a_base_stays_what_it_was(model, prompt) -> None:
    for engine in ("exact", "full"):
        unchanged = base(model, prompt, engine=engine)
        before = unchanged.logits.clone()
        first = vl.sweep(model, prompt, ["video -> last"], base=unchanged, engine=engine)
        expected = first.base.clone()
        spoil(first.base)
        spoil(first.logits)
        assert torch.equal(unchanged.logits, before)
        assert torch.equal(vl.sweep(model, prompt, ["video -> last"], base=unchanged, engine=engine).base, expected)
