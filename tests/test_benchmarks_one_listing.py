"""Benchmarks whose tasks stand in one listing, or that ask without options: small copies in their published layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.benchmarks import write_clip, write_json

import videolens as vl
from videolens.__main__ import main
from videolens.datasets.benchmark import known_benchmarks
from videolens.errors import DatasetError

LONG = {
    "video_id": "a",
    "id": "a_0",
    "video_path": "a.mp4",
    "question": "What gets brighter?",
    "candidates": ["All", "Nothing", "One"],
    "correct_choice": 2,
    "question_category": "O3O",
    "duration_group": 60,
}
MME = {
    "video_id": "001",
    "duration": "short",
    "domain": "Knowledge",
    "videoID": "b-1",
    "question_id": "001-1",
    "task_type": "Action Recognition",
    "question": "What gets brighter?",
    "options": ["A. All.", "B. Nothing.", "C. One.", "D. Two."],
    "answer": "C",
}
TEMP = {"question": "Which way?\n A. left \r\nB. right, B. or so\n", "answer": "B. right, B. or so"}
"""With blanks about an option's line: one of the published questions has one."""
VCG = {"Q": "What happens at the end?", "A": "It gets brighter.", "video_name": "v_1"}


def write_long(root: Path, *entries: dict[str, Any]) -> Path:
    write_json(root / "lvb_val.json", list(entries or (LONG, LONG | {"id": "a_1", "question_category": "SOS"})))
    write_clip(root / "videos/a.mp4")
    return root


def write_mme(root: Path, *rows: dict[str, Any]) -> Path:
    (root / "videomme").mkdir(parents=True, exist_ok=True)
    other = MME | {"question_id": "001-2", "task_type": "Spatial Perception", "answer": "A"}
    pd.DataFrame(list(rows or (MME, other))).to_parquet(root / "videomme/test-00000-of-00001.parquet")
    write_clip(root / "data/b-1.mp4")
    return root


def write_temp(root: Path, content: Any = None) -> Path:
    whole = {"1": {"direction": [TEMP, TEMP], "action": [TEMP]}, "1_reverse": {"direction": [TEMP]}}
    write_json(root / "questions/multi-choice.json", whole if content is None else content)
    for name in ("1", "1_reverse"):
        write_clip(root / f"videos/{name}.mp4")
    return root


def write_vcg(root: Path, *entries: dict[str, Any]) -> Path:
    write_json(root / "Benchmarking_QA/temporal_qa.json", list(entries or (VCG, VCG | {"video_name": "v_2"})))
    twice = {"Q1": "What happens?", "Q2": "What is seen?", "A": "Light.", "video_name": "v_1"}
    write_json(root / "Benchmarking_QA/consistency_qa.json", [twice])
    write_clip(root / "Test_Videos/v_1.mp4")
    write_clip(root / "Test_Videos/v_2.mkv")
    return root


WRITERS = {
    "longvideobench": write_long,
    "video-mme": write_mme,
    "tempcompass": write_temp,
    "vcgbench": write_vcg,
}


def test_longvideobench(tmp_path: Path) -> None:
    questions = vl.load_dataset("longvideobench", root=write_long(tmp_path), sampling="stride")
    assert [(q.task, q.id, q.answer, q.letter) for q in questions] == [
        ("o3o", "a_0", "One", "C"),
        ("sos", "a_1", "One", "C"),
    ]
    assert questions[0].video.path == tmp_path / "videos/a.mp4" and questions[0].meta["duration_group"] == 60
    assert [round(second * 8) for second in questions[0].video.seconds.tolist()] == [0, 4, 8, 12, 16, 20, 24, 28]


def test_video_mme(tmp_path: Path) -> None:
    questions = vl.load_dataset("video-mme", root=write_mme(tmp_path))
    assert [(q.task, q.id) for q in questions] == [("action recognition", "001-1"), ("spatial perception", "001-2")]
    assert (questions[0].options, questions[0].answer) == (("All.", "Nothing.", "One.", "Two."), "One.")
    assert questions[1].letter == "A" and questions[0].meta["domain"] == "Knowledge"
    assert [q.id for q in vl.load_dataset(tmp_path, task="Action Recognition")] == ["001-1"]


@pytest.mark.parametrize("published", ["repository", "hub"])
def test_tempcompass(tmp_path: Path, published: str) -> None:
    write_temp(tmp_path)
    if published == "hub":
        rows = [
            {"video_id": video, "dim": aspect} | TEMP
            for video, aspect in (("1", "direction"), ("1", "direction"), ("1", "action"), ("1_reverse", "direction"))
        ]
        (tmp_path / "questions/multi-choice.json").unlink()
        (tmp_path / "multi-choice").mkdir()
        pd.DataFrame(rows).to_parquet(tmp_path / "multi-choice/test-00000-of-00001.parquet")
    questions = vl.load_dataset(tmp_path)
    assert [q.id for q in questions] == ["1-action-0", "1-direction-0", "1-direction-1", "1_reverse-direction-0"]
    assert [q.task for q in questions] == ["action"] + ["direction"] * 3
    assert questions[0].options == ("left", "right, B. or so") and questions[0].letter == "B"
    assert questions[3].video.path == tmp_path / "videos/1_reverse.mp4" and questions[0].stem == "Which way?"


def test_vcgbench_asks_without_options(tmp_path: Path) -> None:
    questions = vl.load_dataset("vcgbench", root=write_vcg(tmp_path), task="temporal")
    assert [(q.id, q.style, q.options, q.answer) for q in questions] == [
        ("temporal-0", "open-ended", (), "It gets brighter."),
        ("temporal-1", "open-ended", (), "It gets brighter."),
    ]
    assert questions[1].video.path == tmp_path / "Test_Videos/v_2.mkv"
    twice = vl.load_dataset(tmp_path, task="consistency")
    assert [(q.id, q.stem) for q in twice] == [
        ("consistency-0-1", "What happens?"),
        ("consistency-0-2", "What is seen?"),
    ]


@pytest.mark.parametrize("name", WRITERS)
def test_each_is_known_by_its_looks_and_by_no_other(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    assert {each for each, benchmark in known_benchmarks().items() if benchmark.fits(tmp_path)} == {name}
    by_name, by_looks = vl.load_dataset(name, root=tmp_path), vl.load_dataset(tmp_path)
    assert [q.id for q in by_name] == [q.id for q in by_looks] and len({q.id for q in by_looks}) == len(by_looks)
    assert all(len(q.video.frames) == 8 for q in by_looks)


def test_the_command_lists_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["datasets"]) == 0
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert set(said) == set(known_benchmarks()) > {"shapes", *WRITERS}
    assert said["longvideobench"] == "a directory with lvb_val.json and videos/{video_path}"
    assert said["shapes"] == "made here, and kept in the cache"


FAULTS = {
    "a column is lacking": (write_long, {k: v for k, v in LONG.items() if k != "correct_choice"}, "no correct_choice"),
    "no such place": (write_long, LONG | {"correct_choice": 3}, "3 is the place of none of the 3 options"),
    "a category that is no text": (write_long, LONG | {"question_category": 3}, "question_category.*no text"),
    "out of the folder": (write_long, LONG | {"video_path": "../a.mp4"}, "leads out of the data set"),
    "no column": (write_mme, {k: v for k, v in MME.items() if k != "videoID"}, "has no column videoID, only video_id"),
    "no letter": (write_mme, MME | {"answer": "E"}, "'E' is the letter of none of the 4 options: give one of ABCD"),
    "a letter left out": (write_mme, MME | {"options": ["A. All", "C. No"]}, "'C. No' does not begin with its letter"),
    "options twice": (write_mme, MME | {"options": ["A. All", "B. All"]}, "two options read 'All'"),
    "a null": (write_mme, MME | {"answer": None}, "None is no text"),
    "no answer in time": (write_vcg, {"Q": "?", "video_name": "v_1"}, "entry 0: no A"),
    "no question in time": (write_vcg, {"A": "!", "video_name": "v_1"}, "entry 0: no Q"),
    "blank": (write_vcg, VCG | {"Q": " "}, "' ' is blank"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_file_and_field(tmp_path: Path, fault: str) -> None:
    write, entry, said = FAULTS[fault]
    with pytest.raises(DatasetError, match=rf"({'json|parquet'}).*{said}"):
        vl.load_dataset(write(tmp_path, entry))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"1": {"direction": [TEMP | {"answer": "A. up"}]}}, "'A. up' is none of the lines"),
        ({"1": {"direction": [TEMP | {"question": "Which?"}]}}, "field 'question': the list is empty"),
        ({"1": {"direction": {"0": TEMP}}}, "entry '1' 'direction': give a list of objects"),
        ({"1": ["direction"]}, "entry '1' '': give a list of objects"),
        ({}, "holds no questions"),
        ([], "holds a list, expected an object"),
    ],
)
def test_a_fault_in_tempcompass_is_named(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(DatasetError, match=f"multi-choice.json.*{said}"):
        vl.load_dataset(write_temp(tmp_path, content))


@pytest.mark.parametrize("broken", [b"", b"PAR1", b"no table", None])
def test_a_table_that_is_none(tmp_path: Path, broken: bytes | None) -> None:
    file = write_mme(tmp_path) / "videomme/test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-20] if broken is None else broken)
    with pytest.raises(DatasetError, match=r"parquet cannot be read as Parquet .*download"):
        vl.load_dataset("video-mme", root=tmp_path)
    with pytest.raises(DatasetError, match=r"parquet cannot be read as Parquet"):
        vl.load_dataset(tmp_path)
