"""Whatever goes wrong in one question is that question's error: the run goes on, and is read back."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pandas as pd
import pytest
import torch
from helpers.benchmarks import write_clip
from helpers.report import letter_checkpoint

import videolens as vl
from videolens.errors import DatasetError, PromptError, QuestionError, VideoError, check_text, utf8
from videolens.experiments.common.experiment import Asked
from videolens.runs import asking
from videolens.runs.config import digest

N = 3
HALF = "\ud83d"  # of an emoji


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return letter_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", seed=1)


@pytest.fixture
def config(checkpoint: Path, tmp_path: Path) -> dict[str, Any]:
    """Three questions in TVBench's layout, asked in one chunk; results are drawn."""
    from videolens.__main__ import main

    assert main(["data", "shapes", str(tmp_path / "data"), "--n", str(N), "--task", "colour"]) == 0
    return {"model": str(checkpoint), "dataset": str(tmp_path / "data"), "experiments": ["accuracy"], "chunk": 3}


def listing(config: dict[str, Any]) -> Path:
    [path] = Path(config["dataset"]).rglob("*.json")
    return path


def run(config: dict[str, Any], out: Path) -> vl.Run:
    return vl.run(config, out, progress=False)


def check_went_on(found: vl.Run, out: Path, config: dict[str, Any]) -> str:
    """Two questions have answers, one has an error, and a resumed run says the same; the error's words."""
    assert len(found.errors) == 1 and found.summary["experiments"]["accuracy"]["answered"] == N - 1
    [message] = found.errors["message"]
    assert run(config, out).summary == found.summary == vl.Run.load(out).summary
    [skip] = found.result("accuracy").settings[0].skipped
    assert skip.question == found.errors["question"][0] and message in skip.reason
    for name in ("summary.md", "report.html"):
        assert found.errors["error"][0] in (out / "results" / name).read_text(encoding="utf-8")
    assert '"event": "error"' in (out / "log.jsonl").read_text(encoding="utf-8")
    return str(message)


def unreadable(*, words: str = "") -> UnicodeDecodeError:
    return UnicodeDecodeError("utf-8", b"\xff", 0, 1, f"invalid start byte{words}")


ERRORS: dict[str, Callable[[], Exception]] = {
    "RecursionError": lambda: RecursionError("maximum recursion depth exceeded"),
    "MemoryError": lambda: MemoryError(),
    "OSError": lambda: OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    "RuntimeError": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory"),
    "OutOfMemoryError": lambda: torch.OutOfMemoryError("CUDA out of memory"),
    "KeyError": lambda: KeyError("a key"),
    "UnicodeDecodeError": unreadable,
    "ValueError": lambda: ValueError(f"words with {HALF}"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_of_any_type_is_the_questions_own(
    kind: str, config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask_one = [], asking.ask_one

    def breaking(*arguments: Any, **options: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 2:
            raise ERRORS[kind]()
        return ask_one(*arguments, **options)

    monkeypatch.setattr(asking, "ask_one", breaking)
    found = run(config, tmp_path / "out")
    assert found.errors["error"].tolist() == [kind]
    message = check_went_on(found, tmp_path / "out", config)
    assert message and len(asked) == N, "a resumed run asks nothing again"
    if kind == "ValueError":
        assert message == r"words with \ud83d"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_questions_error(
    kind: type[BaseException], config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise kind

    with monkeypatch.context() as patch:
        patch.setattr(asking, "ask_one", interrupted)
        with pytest.raises(kind):
            run(config, tmp_path / "out")
    assert run(config, tmp_path / "out").errors.empty


def test_rows_that_cannot_be_written_are_their_questions_error(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask_one = [], asking.ask_one

    def odd(*arguments: Any, **options: Any) -> Asked:
        asked.append(ask_one(*arguments, **options))
        row = asked[-1].rows[0]
        return Asked([row._replace(task=HALF)]) if len(asked) == 2 else asked[-1]

    monkeypatch.setattr(asking, "ask_one", odd)
    found = run(config, tmp_path / "out")
    assert found.errors["error"].tolist() == ["UnicodeEncodeError"]
    check_went_on(found, tmp_path / "out", config)


def test_half_a_character_in_a_text(config: dict[str, Any], tmp_path: Path) -> None:
    questions = json.loads(listing(config).read_text())
    questions[1]["question"] += f" {HALF}"
    listing(config).write_text(json.dumps(questions))
    found = run(config, tmp_path / "out")
    assert found.errors["error"].tolist() == ["PromptError"]
    assert r"the lone surrogate '\ud83d'" in check_went_on(found, tmp_path / "out", config)


@pytest.mark.parametrize("where", ["open", "later"])
def test_a_clip_whose_words_are_not_utf8(
    where: str, config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyAV raises `UnicodeDecodeError` for some of them, when a file is opened or when its streams are looked at."""
    bad, opened = sorted(Path(config["dataset"]).rglob("*.mp4"))[1], av.open

    class Odd:
        def __init__(self, container: Any) -> None:
            self.container = container

        @property
        def streams(self) -> Any:
            raise unreadable(words=f" in {HALF}")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.container, name)

    def reading(path: str, *arguments: Any, **options: Any) -> Any:
        if Path(path).name != bad.name:
            return opened(path, *arguments, **options)
        if where == "open":
            raise unreadable()
        return Odd(opened(path, *arguments, **options))

    monkeypatch.setattr(av, "open", reading)
    found = run(config, tmp_path / "out")
    assert found.errors["error"].tolist() == ["VideoError"]
    message = check_went_on(found, tmp_path / "out", config)
    assert bad.name in message and "UnicodeDecodeError" in message


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_with_any_byte_changed_is_read_or_a_video_error(ending: str, tmp_path: Path) -> None:
    """Among others: a codec that is not known has no size to ask for, which PyAV says with an `AttributeError`."""
    whole, drawn = write_clip(tmp_path / f"whole{ending}").read_bytes(), random.Random(1)
    # the words in front and at the end are changed more often than pictures are
    places = [*range(min(600, len(whole))), *range(max(0, len(whole) - 1500), len(whole))]
    path, refused = tmp_path / f"changed{ending}", 0
    for _ in range(60):
        changed = bytearray(whole)
        for place in drawn.sample(places, 3):
            changed[place] = drawn.randrange(128, 256)
        path.write_bytes(changed)
        try:
            vl.Video.from_file(path, n_frames=2)
        except VideoError as error:
            refused += 1
            assert path.name in str(error)
    assert refused > 5


def test_a_stream_that_nobody_can_decode(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(VideoError, match="no decoder for its video stream: re-encode"):
        vl.Video.from_file(path)


@pytest.mark.parametrize("name", ["x" * 300 + ".mp4", "a\0b.mp4", "é" * 200])
@pytest.mark.parametrize("read", [vl.Video.from_file, lambda path: vl.Video.open(path).frames])
def test_names_that_no_file_can_have(name: str, read: Callable[[str], Any]) -> None:
    with pytest.raises(VideoError, match="give a path"):
        read(name)


def test_a_file_whose_name_is_not_utf8_is_read(tmp_path: Path) -> None:
    name = os.fsencode(write_clip(tmp_path / "clip.mp4").with_name("caf")) + b"\xe9.mp4"
    os.rename(tmp_path / "clip.mp4", name)
    assert len(vl.Video.from_file(os.fsdecode(name), n_frames=2)) == 2
    os.truncate(name, 700)
    with pytest.raises(VideoError, match="truncated") as caught:
        vl.Video.from_file(os.fsdecode(name))
    assert rb"caf\udce9.mp4" in utf8(str(caught.value))


def test_half_characters_in_questions() -> None:
    video = vl.Video.from_array(torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
    for field in ("id", "task"):
        with pytest.raises(QuestionError, match=rf"{field} .* the lone surrogate '\\ud83d'.* write the character"):
            vl.Question(video, "What?", **{field: f"a{HALF}"})
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    stem, options = "Which way?", ["left", "right"]
    for question in (
        vl.Question(video, f"{stem}{HALF}", options),
        vl.Question(video, stem, ["left", f"right{HALF}"]),
        vl.Question(video, stem, completion=f"It moves{HALF}"),
        vl.Question(video, stem, answer=f"left{HALF}"),
        vl.Question(video, stem, alternatives=["left", f"right{HALF}"]),
    ):
        with pytest.raises(PromptError, match="lone surrogate"):
            model.prompt(question)
    with pytest.raises(PromptError, match="lone surrogate"):
        model.to_tokens(HALF)
    # a whole emoji is a character as any other
    assert model.to_tokens("\U0001f600").shape[0] == 1 and vl.Question(video, "What?", id="\U0001f600").id


def test_keys_of_listings_and_digests(tmp_path: Path) -> None:
    from videolens.datasets.listing import read_listing

    (tmp_path / "a.json").write_text(json.dumps({f"1{HALF}": {}}))
    with pytest.raises(DatasetError, match=r"a.json: the key .*lone surrogate"):
        read_listing(tmp_path / "a.json", keyed=True, required=[], benchmark="TOMATO")
    assert digest({"stem": HALF}) != digest({"stem": r"\ud83d"}) != digest({"stem": ""})
    check_text("words", "voilà")
    assert json.loads(utf8(json.dumps(HALF, ensure_ascii=False))) == HALF


def test_a_part_keeps_words_with_half_characters(tmp_path: Path) -> None:
    from videolens.runs.parts import Chunk, Failure, Part, read_part, write_part

    chunk = Chunk("run", "flow", 0, (("task", "id"),))
    failure = Failure("id", "task", "ValueError", f"words with {HALF}")
    part = Part(pd.DataFrame({"question": ["a"]}), {}, (), (failure,), (), 1, 0)
    write_part(tmp_path / "part", chunk, part)
    assert read_part(tmp_path / "part", chunk).failures == (failure,)


def test_an_experiment_without_a_result_leaves_the_others_theirs(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from videolens.experiments.segment_attention.experiment import SegmentAttentionExperiment

    def broken(*arguments: Any) -> Any:
        raise ZeroDivisionError("a mean of nothing")

    monkeypatch.setattr(SegmentAttentionExperiment, "result", broken)
    found = run(config | {"experiments": ["accuracy", "segment_attention"]}, tmp_path / "out")
    assert "ZeroDivisionError: a mean of nothing" in found.summary["experiments"]["segment_attention"]["without"]
    assert found.result("accuracy").n == N
