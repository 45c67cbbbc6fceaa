"""Attention between segments as a result: made in parts it is the same, and what is damaged is not read in silence.

That its numbers are sums of patterns, and how they are shown, stands in `test_report.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers.asking import in_parts
from helpers.report import invented_attention, letter_model, questions

import videolens as vl
from videolens.errors import VideolensError
from videolens.experiments.segment_attention.experiment import SegmentAttentionExperiment, measure_attention
from videolens.experiments.segment_attention.result import SegmentAttention

SAVED = Path(__file__).parent / "data" / "saved" / "segment_attention"


@pytest.fixture(scope="module")
def asked() -> tuple[vl.HookedVideoTransformer, list[vl.Question]]:
    return letter_model(), questions()[::2]


def test_in_parts_it_is_the_mean_over_single_prompts_to_the_bit(asked) -> None:
    model, several = asked
    experiment = SegmentAttentionExperiment(model, called="tiny")
    whole = measure_attention(model, several, name="tiny", progress=False)
    parts = in_parts(experiment, several)
    assert torch.equal(parts.mass, whole.mass) and whole.mass.dtype == torch.float64
    single = [measure_attention(model, each, progress=False).mass for each in several]
    assert torch.equal(whole.mass, (single[0] + single[1] + single[2]) / 3)
    assert (parts.segments, parts.model, parts.n) == (whole.segments, "tiny", 3)
    made = whole.settings
    assert made.n_asked == 3 and made.versions["videolens"] == vl.__version__ and made.seconds > 0
    assert torch.equal(in_parts(experiment, several[:1]).mass, single[0]), "nothing is kept between questions"


def test_what_differs_is_not_averaged_in_parts_either(asked) -> None:
    model, several = asked
    with pytest.raises(VideolensError, match=r"'options'.*cannot be averaged: go through them apart"):
        in_parts(SegmentAttentionExperiment(model), [several[0], several[1].open_ended()])


def test_it_says_what_it_is_in_a_line() -> None:
    assert repr(invented_attention()) == (
        "SegmentAttention('shapes', n = 40, 12 layers, 4 heads, 15 segments)"
    )  # fmt: skip
    saved = SegmentAttention.load(SAVED)
    assert (saved.model, saved.n, saved.n_layers, saved.n_heads) == ("shapes", 2, 12, 4)
    assert saved.versions["videolens"] == "0.1.0" and saved.mass.dtype == torch.float64
    assert saved.table.equals(pd.read_parquet(SAVED / "attention.parquet"))


def settings(**changed: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = path / "attention.json"
        content = json.loads(file.read_text()) | changed
        file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return damage


def table(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = path / "attention.parquet"
        change(pd.read_parquet(file)).to_parquet(file, index=False)

    return damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (settings(segments=None), r"attention\.json.*'segments' is missing"),
        (settings(shape=None), r"attention\.json.*'shape' is missing"),
        (settings(n=None), r"attention\.json.*'n' is missing"),
        (settings(model=None), r"attention\.json.*'model' is missing"),
        (settings(shpe=[1]), r"attention\.json.*did you mean 'shape'"),
        (settings(segments="system"), r"attention\.json.*segments.*got 'system'"),
        (settings(n="two"), r"attention\.json.*n: .*got 'two'"),
        (settings(n=2.5), r"attention\.json.*n: .*got 2\.5"),
        (settings(shape=[12, 4, 15]), r"attention\.json.*shape"),
        (settings(shape=[12, 4, 15, "15"]), r"attention\.json.*shape.*got '15'"),
        (settings(shape=[12, 4, 15, 14]), r"shape \[12, 4, 15, 14\] has not 10800 rows"),
        (settings(shape=[-12, -4, 15, 15]), r"shape \[-12, -4, 15, 15\]"),
        (settings(shape=[4, 12, 15, 15]), "in order: some are missing"),
        (settings(segments=["system", "last"]), r"\[layer head 2 2\]"),
        (settings(segments=["last"] * 15), "distinct segments"),
        (settings(n=0), "n ≥ 1"),
        (table(lambda rows: rows[:-1]), "has not 10799 rows"),
        (table(lambda rows: rows.drop(columns="mass")), "has the columns"),
        (table(lambda rows: rows.assign(mass="all")), "the last a number"),
        (table(lambda rows: rows.assign(mass=float("nan"))), "off by nan"),
        (table(lambda rows: rows.assign(mass=rows["mass"] * 2)), "off by 1"),
        (table(lambda rows: rows.iloc[::-1]), "some are missing|off by"),
        (table(lambda rows: rows.assign(source=rows["target"])), "in order: some are missing"),
    ],
)
def test_what_is_damaged_is_one_clear_error(damage: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    shutil.copytree(SAVED, tmp_path / "it")
    damage(tmp_path / "it")
    with pytest.raises(VideolensError, match=says):
        SegmentAttention.load(tmp_path / "it")
