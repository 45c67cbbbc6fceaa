"""docs/contributing.md, "A new benchmark", as a newcomer would try it: its template, filled in, is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.benchmarks import write_clip, write_json
from helpers.templates import filled_in, imported

import videolens as vl
from videolens.datasets import benchmark
from videolens.errors import DatasetError


@pytest.fixture(autouse=True)
def registered(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The template's benchmark is known in this file's tests, and forgotten after each."""
    benchmark.known_benchmarks()
    monkeypatch.setattr(benchmark, "_BENCHMARKS", dict(benchmark._BENCHMARKS))
    imported(filled_in("benchmark.py", tmp_path_factory.mktemp("benchmark") / "echo_benchmark.py"))


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    """Two tasks; two questions and one, of which the second's clip is not there."""
    asked = {"clip": "0.mp4", "ask": "What gets brighter?", "answers": ["All", "Nothing"], "right": "All", "by": "us"}
    write_json(tmp_path / "light/asked.json", [asked, asked | {"clip": "1.mp4"}])
    write_json(tmp_path / "dark/asked.json", [asked])
    write_clip(tmp_path / "light/0.mp4")
    write_clip(tmp_path / "dark/0.mp4")
    return tmp_path


def test_a_new_benchmark_is_loaded_by_its_directory_and_by_its_name(echo: Path) -> None:
    for given in ({"name": echo}, {"name": "echobench", "root": echo}, {"name": "EchoBench", "root": str(echo)}):
        with pytest.warns(UserWarning, match="1 of 3 questions have no video"):
            questions = vl.load_dataset(**given, missing="report", n_frames=4)
        assert [question.id for question in questions] == ["dark-0", "light-0"]
        assert [missing.id for missing in questions.missing] == ["light-1"]
        question = questions[1]
        assert (question.stem, question.options, question.answer) == ("What gets brighter?", ("All", "Nothing"), "All")
        assert question.task == "light" and question.meta["by"] == "us" and len(question.video.frames) == 4
    assert [question.task for question in vl.load_dataset(echo, task="Dark")] == ["dark"]


def test_its_faults_are_named_as_those_of_the_others(echo: Path) -> None:
    with pytest.raises(DatasetError, match=r"EchoBench in .*light/1\.mp4 is not there.*missing='report'"):
        vl.load_dataset(echo)
    write_json(echo / "dark/asked.json", [{"clip": "0.mp4", "ask": "?", "answers": ["a", "b"]}])
    with pytest.raises(DatasetError, match=r"dark/asked\.json.*entry 0: no right"):
        vl.load_dataset(echo, task="dark")


def test_what_is_not_known_lists_what_is(tmp_path: Path, echo: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"did you mean 'echobench'\? known: 'echobench', .*'mvbench', 'shapes', .*'tomato', 'tv"
    ):
        vl.load_dataset("echobensh")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"none of the known layouts: .*EchoBench's is \{task\}/asked\.json"):
        vl.load_dataset(tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"holds no listings of EchoBench: its layout is \{task\}/asked\.json"):
        vl.load_dataset("echobench", root=tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"root goes with 'echobench', .*'mvbench', .*'tomato', 'tvbench'"):
        vl.load_dataset(echo, root=echo)


def test_a_name_registered_again_is_replaced_and_what_is_none_is_refused(echo: Path) -> None:
    class Narrower(type(benchmark.known_benchmarks()["echobench"])):
        def listings(self, root: Path) -> dict[str, Path]:
            return {task: path for task, path in super().listings(root).items() if task == "dark"}

    benchmark.register(Narrower())
    assert [question.id for question in vl.load_dataset(echo)] == ["dark-0"]
    with pytest.raises(DatasetError, match="is no benchmark: give an object of a subclass of Benchmark"):
        benchmark.register(type("Nameless", (Narrower,), {"name": " "})())
