"""docs/datasets.md, "Add your own in one file", as somebody new would try it, in `helpers/toy_benchmark.py`."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from helpers.benchmarks import write_clip, write_json

import videolens as vl
from videolens.datasets import benchmark
from videolens.errors import DatasetError


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy benchmark is known in this file's tests, and forgotten after each."""
    benchmark.known_benchmarks()
    monkeypatch.setattr(benchmark, "_BENCHMARKS", dict(benchmark._BENCHMARKS))
    importlib.reload(importlib.import_module("helpers.toy_benchmark"))


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Two tasks; two questions and one, of which the second's clip is not there."""
    asked = {"clip": "0.mp4", "ask": "What gets brighter?", "answers": ["All", "Nothing"], "right": "All", "by": "us"}
    write_json(tmp_path / "light/asked.json", [asked, asked | {"clip": "1.mp4"}])
    write_json(tmp_path / "dark/asked.json", [asked])
    write_clip(tmp_path / "light/0.mp4")
    write_clip(tmp_path / "dark/0.mp4")
    return tmp_path


def test_a_toy_benchmark_is_loaded_by_its_directory_and_by_its_name(toy: Path) -> None:
    for given in ({"name": toy}, {"name": "toybench", "root": toy}, {"name": "ToyBench", "root": str(toy)}):
        with pytest.warns(UserWarning, match="1 of 3 questions have no video"):
            questions = vl.load_dataset(**given, missing="report", n_frames=4)
        assert [question.id for question in questions] == ["dark-0", "light-0"]
        assert [missing.id for missing in questions.missing] == ["light-1"]
        question = questions[1]
        assert (question.stem, question.options, question.answer) == ("What gets brighter?", ("All", "Nothing"), "All")
        assert question.task == "light" and question.meta["by"] == "us" and len(question.video.frames) == 4
    assert [question.task for question in vl.load_dataset(toy, task="Dark")] == ["dark"]


def test_its_faults_are_named_as_those_of_the_others(toy: Path) -> None:
    with pytest.raises(DatasetError, match=r"ToyBench in .*light/1\.mp4 is not there.*missing='report'"):
        vl.load_dataset(toy)
    write_json(toy / "dark/asked.json", [{"clip": "0.mp4", "ask": "?", "answers": ["a", "b"]}])
    with pytest.raises(DatasetError, match=r"dark/asked\.json.*entry 0: no right"):
        vl.load_dataset(toy, task="dark")


def test_what_is_not_known_lists_what_is(tmp_path: Path, toy: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"did you mean 'toybench' .*known: 'mvbench', 'shapes', 'tomato', 'toybench', 'tv"
    ):
        vl.load_dataset("toybensh")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"none of the known layouts: .*ToyBench's is \{task\}/asked\.json"):
        vl.load_dataset(tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"holds no listings of ToyBench: its layout is \{task\}/asked\.json"):
        vl.load_dataset("toybench", root=tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"root goes with 'mvbench', 'tomato', 'toybench', 'tvbench'"):
        vl.load_dataset(toy, root=toy)


def test_a_name_registered_again_is_replaced_and_what_is_none_is_refused(toy: Path) -> None:
    class Narrower(type(benchmark.known_benchmarks()["toybench"])):
        def listings(self, root: Path) -> dict[str, Path]:
            return {task: path for task, path in super().listings(root).items() if task == "dark"}

    benchmark.register(Narrower())
    assert [question.id for question in vl.load_dataset(toy)] == ["dark-0"]
    with pytest.raises(DatasetError, match="is no benchmark: give an object of a subclass of Benchmark"):
        benchmark.register(type("Nameless", (Narrower,), {"name": " "})())
