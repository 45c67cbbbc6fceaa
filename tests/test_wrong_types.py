"""Values of the wrong type, as a user without a type checker passes them: still one clear error.

The other tests run with every annotation checked, which stops such values at the door; here the checks are off.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from helpers.prompts import plain_prompt

import videolens as vl
from videolens.engine.stages import stage_interventions
from videolens.experiments.flow.experiment import FlowExperiment
from videolens.experiments.flow.measures import open_layers
from videolens.experiments.pathway.experiment import PathwayExperiment
from videolens.interventions.layer_sets import check_window
from videolens.model.decoder.rows import positions_of

VIDEO = vl.Video.from_array(np.zeros((3, 16, 16, 3), dtype=np.uint8))
TOKENS = vl.TokenMap.from_spans(8, {"stem": [6]}, grid=(1, 2, 2), video=range(1, 5))
PROMPT = plain_prompt(TOKENS)
RUN = vl.SourceRun(PROMPT, {"blocks.1.hook_resid_pre": torch.zeros(1, 8, 2)})
MODEL = SimpleNamespace(cfg=SimpleNamespace(n_layers=2, n_heads=1))
CLOSED = vl.Pathway.closed(n_layers=2)
PRESET = "VideoLLaMA3-7B"


def flow_of(n_known: int) -> Any:
    """As much of a flow map of two layers as a choice of layers reads."""
    found = np.zeros((n_known, 2))
    return SimpleNamespace(settings=SimpleNamespace(n_layers=2), changes=lambda route, task, measure: found)


def spans(where: Any) -> vl.TokenMap:
    """A map whose stem is there."""
    return vl.TokenMap.from_spans(8, {"stem": where}, grid=(1, 2, 2), video=range(1, 5))


@dataclass(frozen=True)
class Call:
    """A call that works.

    Attributes:
        function: what is called.
        given: its positional arguments.
        options: its keyword arguments.
        runs: whether it works by itself, without a model or files of which there are none here.
    """

    function: Callable[..., Any]
    given: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    runs: bool = True

    def __call__(self, where: int | str | None = None, value: Any = None) -> Any:
        """The result; with another value at a position or for a keyword if one is named."""
        given, options = list(self.given), dict(self.options)
        if isinstance(where, int):
            given[where] = value
        elif where is not None:
            options[where] = value
        return self.function(*given, **options)


ASKED = (VIDEO, "Which way?", ["left", "right"])
CALLS = {
    "load_dataset": Call(vl.load_dataset, ("shapes",), {"n": 1}),
    "load_dataset of a directory": Call(vl.load_dataset, (".",), runs=False),
    "Video.open": Call(vl.Video.open, ("clip.mp4",), runs=False),
    "Video.from_array": Call(vl.Video.from_array, (VIDEO.frames,)),
    "Video.frozen": Call(VIDEO.frozen, (0,)),
    "Video.shuffled": Call(VIDEO.shuffled, (0,)),
    "Video.blank": Call(VIDEO.blank, (0,)),
    "Video.swapped": Call(VIDEO.swapped, (0, 1)),
    "Video.replaced": Call(VIDEO.replaced, (0, 2, VIDEO)),
    "Question": Call(vl.Question, ASKED),
    "Question.counterfactual": Call(vl.Question(*ASKED).counterfactual, ("reversed",)),
    "TokenMap[]": Call(TOKENS.__getitem__, ("stem",)),
    "TokenMap.from_spans": Call(vl.TokenMap.from_spans, (8, {"stem": [6]}), {"grid": (1, 2, 2), "video": range(1, 5)}),
    "a span": Call(spans, ([6],)),
    "Knockout": Call(vl.Knockout, ("video", "last"), {"layers": 1}),
    "Knockout.route": Call(vl.Knockout.route, ("video -> last",), {"layers": 1}),
    "Patch": Call(vl.Patch, ("resid_pre", 1, [6]), {"source": RUN}),
    "Patch of all positions": Call(vl.Patch, ("resid_pre", 1), {"source": RUN}),
    "SourceRun": Call(vl.SourceRun, (PROMPT, dict(RUN.activations))),
    "Pathway.closed": Call(vl.Pathway.closed, options={"n_layers": 2}),
    "Pathway.published": Call(vl.Pathway.published, (PRESET,)),
    "Pathway.from_dict": Call(vl.Pathway.from_dict, ({"n_layers": 12, "name": "a", "cross_frame": [0, 1]},)),
    "Pathway.from_flow": Call(vl.Pathway.from_flow, (flow_of(1),), runs=False),
    "PathwayExperiment": Call(PathwayExperiment, (MODEL,), {"pathway": CLOSED}),
    "FlowExperiment": Call(FlowExperiment, (MODEL,)),
    "open_layers": Call(
        open_layers,
        (flow_of(1), "video -> last"),
        {"threshold": -5, "bin": 1, "groups": [None], "measure": "answer"},
    ),
    "check_window": Call(check_window, (1, 12)),
    "positions_of": Call(positions_of, (torch.zeros(1, 8), "stem | last"), runs=False),
    "stage_interventions": Call(stage_interventions, (None, None, []), runs=False),
    "patch_map": Call(vl.patch_map, (None, PROMPT, PROMPT), runs=False),
}
LAYERS = "give a whole number or several, such as range"
SAMPLING = "give one of 'midpoints', 'uniform', 'stride', 'time', a function, or frame numbers as whole numbers"
DEPTH = "say how deep the model is"
WRONG: list[tuple[str, int | str, Any, str]] = [
    ("load_dataset", 0, None, "name is None.*as text"),
    ("load_dataset", "seed", "x", "seed = 'x'.*whole number"),
    ("load_dataset", "n", True, "n = True.*whole number"),
    ("load_dataset", "tasks", 3, "3.*names"),
    ("load_dataset", "split", 3, "3.*name"),
    ("load_dataset of a directory", "tasks", 3, "tasks = 3.*list of names"),
    ("load_dataset of a directory", "split", 3, "split = 3.*give a name"),
    ("Video.open", "sampling", None, f"sampling is None: {SAMPLING}"),
    ("Video.open", "sampling", ["first"], rf"sampling is \['first'\]: {SAMPLING}"),
    ("Video.open", "sampling", [1.5], rf"sampling is \[1.5\]: {SAMPLING}"),
    ("Video.from_array", "n_frames", 2.5, "n_frames = 2.5.*whole number"),
    ("Video.from_array", "start", "1", "start is '1': give seconds, or None"),
    ("Video.frozen", 0, 0.5, "frame is 0.5: give a whole number"),
    ("Video.shuffled", 0, "seed", "seed is 'seed': give a whole number"),
    ("Video.blank", 0, None, "grey level is None: give a whole number"),
    ("Video.swapped", 0, "0", "first frame is '0': give a whole number"),
    ("Video.replaced", 2, "other.mp4", r"'other\.mp4': give a Video"),
    ("Video.replaced", "frames", 1, r"frames is 1: give a number for each, such as \[0, 0, 1\]"),
    ("Question", 0, "clip.mp4", r"video is 'clip\.mp4': give a Video"),
    ("Question", 1, None, r"must be text, got None: write str\(None\)"),
    ("Question", 2, [1, 2], r"must be text, got 1: write str\(1\)"),
    ("Question.counterfactual", 0, 3, "edit of a video 3; known: 'reversed', 'shuffled'"),
    ("TokenMap[]", 0, 3, "selection 3; known: 'system', 'video'"),
    ("TokenMap.from_spans", 1, [("stem", [6])], r"positions by name, \{'stem': \[17.*got list"),
    ("a span", 0, "17", r"'stem' is '17': give positions, such as \[17, 18\]"),
    ("a span", 0, None, r"'stem' is None: give positions, such as \[17, 18\]"),
    ("a span", 0, [6.5], r"'stem' holds .*float32: give integer positions"),
    ("a span", 0, [True, False], r"'stem' holds .*bool: give integer positions; of a mask, mask\.nonzero"),
    ("Knockout", "layers", [1.5], rf"\[1.5\]: {LAYERS}"),
    ("Knockout", "layers", "all", f"'all': {LAYERS}"),
    ("Knockout", "layers", None, f"None: {LAYERS}"),
    ("Knockout", "layers", True, f"True: {LAYERS}"),
    ("Knockout", "layers", {0: 1}, rf"\{{0: 1\}}: {LAYERS}"),
    ("Knockout.route", 0, 3, 'route 3; known: .*"source -> target"'),
    ("Patch", 0, ["resid_pre"], r"\['resid_pre'\]; did you mean 'resid_pre'.*known: "),
    ("Patch of all positions", 0, ["resid_pre"], r"\['resid_pre'\]; did you mean 'resid_pre'.*known: "),
    ("Patch of all positions", 1, 1.5, f"1.5: {LAYERS}"),
    ("Patch of all positions", "source", {}, r"source is dict.*give SourceRun\("),
    ("Patch", 2, [0.5], rf"\[0.5\]: {LAYERS}"),
    ("Patch", 2, [[1, 2]], rf"\[\[1, 2\]\]: {LAYERS}.*name a selection"),
    ("SourceRun", 1, None, "tensors by hook point.*got NoneType"),
    ("SourceRun", 1, {"blocks.1.hook_resid_pre": [0.0]}, "tensors by hook point"),
    ("Pathway.closed", "n_layers", "12", f"'12': {DEPTH}"),
    ("Pathway.closed", "n_layers", True, f"True: {DEPTH}"),
    ("Pathway.closed", "n_layers", 0, f"0: {DEPTH}"),
    ("Pathway.published", 0, 7, f"preset 7; known: .*'{PRESET}'"),
    ("Pathway.published", "cross_frame", [1], f"'{PRESET}' has its own ranges.*leave out one"),
    ("Pathway.from_dict", 0, {"n_layers": None}, f"None: {DEPTH}"),
    ("Pathway.from_dict", 0, {"n_layers": 12, "name": ["a"]}, r"name .*\['a'\]: give text, or leave it out"),
    ("Pathway.from_dict", 0, {"n_layers": 12, "cross_frame": [[0, 1]]}, rf"\[\[0, 1\]\]: {LAYERS}"),
    ("Pathway.from_dict", 0, {"preset": ["a"]}, rf"preset \['a'\]; known: .*'{PRESET}'"),
    ("Pathway.from_dict", 0, {"preset": PRESET, "masks": "closed"}, "leave out masks, or the preset"),
    ("Pathway.from_dict", 0, {"preset": PRESET, "cross_frame": [1]}, "leave out cross_frame, or the preset"),
    ("Pathway.from_flow", 0, None, "FlowMap.*got None"),
    ("PathwayExperiment", "engine", "fast", "engine 'fast'; known: 'exact', 'full'"),
    ("PathwayExperiment", "seeds", "3", "seeds = '3': give a whole number"),
    ("PathwayExperiment", "seeds", 2.5, "seeds = 2.5: give a whole number"),
    ("PathwayExperiment", "seed", None, "seed = None: give a whole number"),
    ("PathwayExperiment", "random", None, r"random is None: give a list .*\['edges', "),
    ("PathwayExperiment", "random", [["edges"]], r"\['edges'\]; did you mean 'edges'.*known: "),
    ("FlowExperiment", "engine", "fast", "engine 'fast'; known: 'exact', 'full'"),
    ("open_layers", "threshold", "low", "threshold = 'low': give a number"),
    ("open_layers", "threshold", float("nan"), "threshold = nan: give a number"),
    ("open_layers", "bin", "1", "'1' layers does not fit a model of 2: choose 1 … 2"),
    ("open_layers", 0, flow_of(0), "known 'answer' along 'video -> last'"),
    ("check_window", 0, 1.5, "1.5 layers does not fit a model of 12: choose 1 … 12, or None"),
    ("check_window", 0, "3", "'3' layers does not fit a model of 12: choose 1 … 12, or None"),
    ("positions_of", 1, ["stem", "last"], r"\['stem', 'last'\].*such as 'stem \| last'"),
    ("stage_interventions", 2, vl.Knockout("video", "last", layers=1), r"Knockout\(.*give a list"),
    ("patch_map", 1, 3, "give one clean and one corrupted Question or Prompt"),
    ("patch_map", 2, "the corrupted one", "corrupted is 'the corrupted one': give"),
    ("patch_map", "over", [3], r"over is \[3\]: give at least one selection by name"),
]


@pytest.fixture(autouse=True)
def annotations_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.runs])
def test_what_is_right_is_taken(name: str) -> None:
    CALLS[name]()


def test_every_call_is_made_wrongly() -> None:
    assert {name for name, *_ in WRONG} == set(CALLS)


@pytest.mark.parametrize(
    ("name", "where", "value", "words"),
    WRONG,
    ids=[f"{name} {where}={str(value)[:40]}" for name, where, value, _ in WRONG],
)
def test_wrong_types_are_clear_errors(name: str, where: int | str, value: Any, words: str) -> None:
    with pytest.raises(vl.VideolensError, match=words) as raised:
        CALLS[name](where, value)
    assert len(str(raised.value)) > 20


def test_patch_map_without_a_corrupted_prompt() -> None:
    with pytest.raises(vl.VideolensError, match="give one clean and one corrupted Question or Prompt"):
        vl.patch_map(None, 3)


@pytest.mark.parametrize(("file", "content"), [("flow.json", "{"), ("flow.parquet", "x")])
def test_damaged_files_are_clear_errors(file: str, content: str, tmp_path: Path) -> None:
    saved = shutil.copytree(Path(__file__).parent / "data" / "saved" / "flow", tmp_path / "flow")
    assert vl.FlowMap.load(saved).n > 0
    (saved / file).write_text(content)
    with pytest.raises(vl.VideolensError, match=rf"{file} is damaged.*flow map"):
        vl.FlowMap.load(saved)


def test_numbers_of_numpy_and_torch_are_taken() -> None:
    assert vl.Patch("resid_pre", np.int64(1), np.array([2, 1]), source=RUN).positions == (1, 2)
    assert vl.Knockout("video", "last", layers=np.int64(1)).layers == (1,)
    assert vl.Knockout("video", "last", layers=torch.tensor([2, 1])).layers == (1, 2)
    assert spans(np.array([6]))["stem"].tolist() == [6]
