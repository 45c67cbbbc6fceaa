"""Benchmarks in their published layouts: small copies with real videos, what is checked, and all kinds of bad input."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.benchmarks import (
    CODECS,
    entry,
    frames,
    write_clip,
    write_json,
    write_mvbench,
    write_sound,
    write_tomato,
    write_tvbench,
)

import videolens as vl
from videolens.datasets.hub import unpack
from videolens.datasets.mvbench import FOLDERS
from videolens.datasets.tvbench import PAPER_TASKS
from videolens.datasets.tvbench import TASKS as TVBENCH_TASKS
from videolens.errors import DatasetError, PromptError, VideoError

MIDDLES = [1, 5, 9, 13, 17, 20, 24, 28]
"""int(s + seg/2 + round(seg·i)) with s = 0 and seg = 31/8: the frames of a whole clip of 32."""


@pytest.fixture(scope="module")
def tvbench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tvbench(tmp_path_factory.mktemp("tvbench"))


@pytest.fixture(scope="module")
def tomato(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tomato(tmp_path_factory.mktemp("tomato"))


def levels(question: vl.Question) -> list[int]:
    """Which of the clip's frames are shown, read from their pixels."""
    grey = question.video.frames.double().mean(dim=(1, 2, 3)).numpy()
    return [int(i) for i in np.abs(grey[:, None] - frames()[:, 0, 0, 0].astype(float)).argmin(axis=1)]


# --- layouts ----------------------------------------------------------------------------------------------------------


def test_tvbench(tvbench: Path) -> None:
    questions = vl.load_dataset("tvbench", root=tvbench)
    assert list(dict.fromkeys(q.task for q in questions)) == list(TVBENCH_TASKS) and len(questions) == 20
    assert {q.video.path.suffix for q in questions} == {".mp4", ".mkv", ".webm"}
    assert len({(q.task, q.id) for q in questions}) == 20 and questions.missing == ()
    first = questions[0]
    assert (first.id, first.options, first.answer, first.letter) == (
        "action_antonym-00000",
        ("All", "Nothing"),
        "All",
        "A",
    )
    assert [(q.task, q.id) for q in vl.load_dataset(tvbench)] == [(q.task, q.id) for q in questions], (
        "found by its looks"
    )


def test_every_container_shows_its_frames(tvbench: Path) -> None:
    """The same frames whatever the container."""
    shown = {q.video.path.suffix: levels(q) for q in vl.load_dataset(tvbench) if "start" not in q.meta}
    assert shown == dict.fromkeys((".mp4", ".mkv", ".webm"), MIDDLES)


@pytest.mark.parametrize("task", ["action sequence", "action localization"])
def test_start_and_end_are_honoured(tvbench: Path, task: str) -> None:
    for question in vl.load_dataset(tvbench, task=task, n_frames=4):
        assert all(1 <= second <= 3 for second in question.video.seconds.tolist())
        assert levels(question) == [10, 14, 18, 22], "frames 8 to 24 in four equal parts"
        assert question.meta["start"] == 1.0 and question.meta["end"] == 3


def test_the_tasks_of_the_paper() -> None:
    assert [TVBENCH_TASKS.index(task) for task in PAPER_TASKS] == [0, 3, 5, 6, 8]
    assert list(TVBENCH_TASKS) == sorted(TVBENCH_TASKS)


def test_tasks_in_any_writing_and_the_order_asked_for(tvbench: Path) -> None:
    questions = vl.load_dataset(tvbench, tasks=["Object Count", "action_antonym"], n=1)
    assert [(q.task, q.id) for q in questions] == [
        ("object count", "object_count-00000"),
        ("action antonym", "action_antonym-00000"),
    ]
    assert [q.task for q in vl.load_dataset("tvbench", root=tvbench, task="moving direction")] == [
        "moving direction"
    ] * 2


def test_a_question_is_called_the_same_however_it_is_asked_for(tvbench: Path) -> None:
    alone = vl.load_dataset(tvbench, task="object count")
    among = [q for q in vl.load_dataset(tvbench) if q.task == "object count"]
    assert [(q.id, q.video.path) for q in alone] == [(q.id, q.video.path) for q in among]
    assert vl.load_dataset(tvbench, task="object count", n=1)[0].id == alone[0].id


def test_tomato(tomato: Path) -> None:
    questions = vl.load_dataset("tomato", root=tomato)
    tasks = ["count", "direction", "rotation", "shape&trend", "velocity&frequency", "visual cues"]
    assert [q.task for q in questions] == [task for task in tasks for _ in range(2)]
    first, second = vl.load_dataset(tomato, task="visual cues")
    assert (first.id, second.id) == ("visual_cues-0", "visual_cues-17")
    assert (first.answer, first.letter, second.letter) == ("Bright.", "C", "A")
    assert first.video.path == tomato / "videos" / "human" / "020-vi.mp4" and levels(first) == MIDDLES
    assert first.meta["demonstration_type"] == "human" and first.meta["variation"]["composite"] == 1
    assert "answer" not in first.meta


def test_tomato_as_its_repository_has_it(tmp_path: Path) -> None:
    write_tomato(tmp_path, listings="data")
    write_json(tmp_path / "data" / "something_else.json", [1])
    assert len(vl.load_dataset(tmp_path)) == 12


def test_mvbench(tmp_path: Path) -> None:
    write_mvbench(tmp_path, "action_sequence", "fine_grained_action", "moving_count", "state_change")
    questions = vl.load_dataset("mvbench", root=tmp_path)
    assert [q.task for q in questions] == ["action sequence", "fine grained action", "moving count", "state change"]
    assert questions[0].video.path == tmp_path / "video/star/Charades_v1_480/action_sequence.mp4"
    assert {q.video.path.suffix for q in questions} == {".mp4", ".mkv", ".webm"}
    assert all(0.5 <= s <= 2.5 for q in questions for s in q.video.seconds.tolist())
    assert questions[0].meta["accurate_start"] == 0.75
    assert [q.id for q in vl.load_dataset(tmp_path)] == [q.id for q in questions], "found by its looks"
    assert vl.load_dataset(tmp_path, task="Fine-grained Action")[0].task == "fine grained action"


def test_mvbench_elsewhere(tmp_path: Path) -> None:
    """The later archive brings videos below a folder of its own; and TVBench's way of keeping them is read too."""
    write_mvbench(tmp_path, "action_sequence", "moving_count")
    later = tmp_path / "video/data0613/star/Charades_v1_480"
    later.parent.mkdir(parents=True)
    (tmp_path / "video/star/Charades_v1_480").rename(later)
    (tmp_path / "video/clevrer/video_validation").rename(tmp_path / "video/moving_count")
    questions = vl.load_dataset("mvbench", root=tmp_path)
    assert [q.video.path.parent for q in questions] == [later, tmp_path / "video/moving_count"]


def test_mvbench_has_twenty_tasks() -> None:
    assert len(FOLDERS) == 20


def test_a_folder_of_frames_is_said_not_to_be_read(tmp_path: Path) -> None:
    write_mvbench(tmp_path, "action_antonym")
    write_json(tmp_path / "json/episodic_reasoning.json", [entry("castle_s01e01_clip_00", start=1, end=2)])
    folder = tmp_path / "video/tvqa/frames_fps3_hq/castle_s01e01_clip_00"
    folder.mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"castle_s01e01_clip_00 is a folder, not a video.*ffmpeg -framerate 3"):
        vl.load_dataset("mvbench", root=tmp_path)
    write_clip(folder.with_name(f"{folder.name}.mp4"), fps=3)
    assert vl.load_dataset("mvbench", root=tmp_path, task="episodic reasoning")[0].video.path.suffix == ".mp4"


def test_a_split_in_a_folder_of_its_own(tmp_path: Path) -> None:
    write_tomato(tmp_path / "test")
    assert len(vl.load_dataset(tmp_path)) == len(vl.load_dataset("tomato", root=tmp_path)) == 12


# --- what is not there ------------------------------------------------------------------------------------------------


def incomplete(root: Path) -> Path:
    """Three tasks: of the first two of three videos are missing, of the second one is empty, the third is whole."""
    write_json(root / "json/a_a.json", [entry(f"{i}.mp4") for i in range(3)])
    write_json(root / "json/b_b.json", [entry("0.webm"), entry("1.webm")])
    write_json(root / "json/c_c.json", [entry("0.mkv")])
    for name in ("a_a/1.mp4", "b_b/0.webm", "c_c/0.mkv"):
        write_clip(root / "video" / name)
    (root / "video/b_b/1.webm").touch()
    return root


def test_missing_videos_are_one_error(tmp_path: Path) -> None:
    incomplete(tmp_path)
    with pytest.raises(DatasetError) as caught:
        vl.load_dataset(tmp_path)
    said = str(caught.value)
    assert "3 videos are missing, of 3 of 6 questions (a a 2, b b 1)" in said
    assert f"{tmp_path}/video/a_a/0.mp4 is not there" in said and f"{tmp_path}/video/b_b/1.webm has zero bytes" in said
    assert "missing='report'" in said
    assert len(vl.load_dataset(tmp_path, task="c c")) == 1, "another task's videos do not matter"


def test_missing_videos_are_reported(tmp_path: Path) -> None:
    incomplete(tmp_path)
    with pytest.warns(UserWarning, match=r"3 of 6 questions have no video and are left out: a a 2, b b 1"):
        questions = vl.load_dataset(tmp_path, missing="report")
    assert [q.id for q in questions] == ["a_a-00001", "b_b-00000", "c_c-00000"], "ids are those of the listing"
    assert [(m.task, m.id, m.path.name, m.reason) for m in questions.missing] == [
        ("a a", "a_a-00000", "0.mp4", "is not there"),
        ("a a", "a_a-00002", "2.mp4", "is not there"),
        ("b b", "b_b-00001", "1.webm", "has zero bytes"),
    ]
    with pytest.warns(UserWarning, match="1 of 3 questions"):
        first = vl.load_dataset(tmp_path, missing="report", n=1)
    assert [q.id for q in first] == ["b_b-00000", "c_c-00000"], "n counts the listing's questions, not those left over"
    with pytest.raises(DatasetError, match="no question at all has its video"):
        vl.load_dataset(tmp_path, task="a a", n=1, missing="report")


def test_many_missing_videos_are_counted_and_a_few_are_named(tmp_path: Path) -> None:
    write_json(tmp_path / "json/a.json", [entry(f"{i % 50}.mp4") for i in range(60)])
    with pytest.raises(
        DatasetError, match=r"50 videos are missing, of 60 of 60 questions.*2\.mp4.*and 47 more"
    ) as caught:
        vl.load_dataset(tmp_path)
    assert len(str(caught.value)) < 1000 + 6 * len(str(tmp_path))


def test_archives_and_pointers_are_recognised(tmp_path: Path) -> None:
    write_json(tmp_path / "json/a.json", [entry("0.mp4"), entry("1.mp4")])
    (tmp_path / "video/a").mkdir(parents=True)
    (tmp_path / "video/a/0.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with zipfile.ZipFile(tmp_path / "video/a.zip", "w") as packed:
        packed.writestr("a/1.mp4", b"")
    with pytest.raises(DatasetError, match=r"Git LFS pointer.*git lfs pull.*still packed: video/a\.zip"):
        vl.load_dataset(tmp_path)


# --- listings that are not as they should be --------------------------------------------------------------------------


TVBENCH_FAULTS: dict[str, tuple[Any, str]] = {
    "an object": ({"0": entry("a.mp4")}, "an object, not a list of questions as TVBench"),
    "a number": (3, "a number, not a list"),
    "no questions": ([], "holds no questions"),
    "an entry that is text": (["a.mp4"], "entry 0 is a text, not an object with video, question, candidates, answer"),
    "fields missing": ([{"video": "a.mp4", "answer": "x"}], "entry 0: no question, candidates"),
    "answer elsewhere": (
        [entry("a.mp4"), entry("a.mp4", answer="Some")],
        "entry 1, field 'answer': 'Some' is not among",
    ),
    "answer with its letter": (
        [entry("a.mp4", answer="(A) All")],
        "field 'answer'.*word for word and without its letter",
    ),
    "answer a number": ([entry("a.mp4", answer=0)], "field 'answer': 0 is no text"),
    "answer twice": ([entry("a.mp4", candidates=["All", "All"])], "field 'candidates': two options read 'All'"),
    "no options": ([entry("a.mp4", candidates=[])], "field 'candidates': the list is empty"),
    "options null": ([entry("a.mp4", candidates=None)], "field 'candidates': None is no list"),
    "options one text": ([entry("a.mp4", candidates="All")], "field 'candidates': 'All' is no list"),
    "options numbers": (
        [entry("a.mp4", candidates=[1, 2], answer="1")],
        "field 'candidates': the option 1 is no words",
    ),
    "too many options": (
        [entry("a.mp4", candidates=[str(i) for i in range(27)], answer="1")],
        "'candidates': 27 options",
    ),
    "blank question": ([entry("a.mp4", question="  ")], "field 'question': '  ' is blank"),
    "question null": ([entry("a.mp4", question=None)], "field 'question': None is no text"),
    "video a number": ([entry(7)], "field 'video': 7 is no text"),  # type: ignore[arg-type]
    "video no name": ([entry("a\0.mp4")], r"field 'video': no file can be called 'a\\x00\.mp4'"),
    "video too long": ([entry("a" * 300)], "field 'video': no file can be called 'aaaa"),
    "start after end": ([entry("a.mp4", start=3, end=1.5)], "field 'start': 3 s is not before its end, 1.5 s"),
    "end at zero": ([entry("a.mp4", end=0)], "field 'start': 0 s is not before"),
    "start text": ([entry("a.mp4", start="1.0", end=2)], "field 'start': '1.0' is no time"),
    "end endless": ([entry("a.mp4", end=float("inf"))], "field 'end': inf is no time"),
    "start far too large": ([entry("a.mp4", start=10**400)], "field 'start': 1000"),
    "start negative": ([entry("a.mp4", start=-1)], "field 'start': -1 is no time"),
    "ids alike": (
        [entry("a.mp4", id="x"), entry("a.mp4", id="x")],
        "entry 1, field 'id': 'x' is also the id of entry 0",
    ),
    "reversed answer": ([entry("a.mp4", reversed_answer="Some")], "field 'reversed_answer': 'Some' is not among"),
}


@pytest.mark.parametrize("fault", TVBENCH_FAULTS)
def test_a_fault_in_a_list_is_named_with_its_file_and_field(fault: str, tmp_path: Path) -> None:
    content, said = TVBENCH_FAULTS[fault]
    listing = write_json(tmp_path / "json/a.json", content)
    write_clip_once(tmp_path / "video/a/a.mp4")
    with pytest.raises(DatasetError, match=said) as caught:
        vl.load_dataset(tmp_path)
    assert str(listing) in str(caught.value)


def write_clip_once(path: Path) -> None:
    """Something where a video should be: listings are checked before videos are decoded."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not looked at")


def question(**changes: Any) -> dict[str, Any]:
    """A question as TOMATO lists it."""
    whole = {"question": "?", "options": ["a", "b"], "answer": 1, "key": "k", "demonstration_type": "human"}
    return whole | changes


TOMATO_FAULTS: dict[str, tuple[Any, str]] = {
    "a list": ([question()], "a list, not an object of questions by their keys as TOMATO"),
    "no questions": ({}, "holds no questions"),
    "an entry that is null": ({"4": None}, "entry '4' is null"),
    "fields missing": ({"4": {"question": "?"}}, "entry '4': no options, answer, key, demonstration_type"),
    "answer too high": (
        {"4": question(answer=2)},
        "entry '4', field 'answer': 2 is the place of none of the 2 options",
    ),
    "answer negative": ({"4": question(answer=-1)}, "field 'answer': -1 is the place of none"),
    "answer text": ({"4": question(answer="b")}, "field 'answer': 'b' is no whole number"),
    "answer true": ({"4": question(answer=True)}, "field 'answer': True is no whole number"),
    "answer twice": ({"4": question(options=["b", "b"])}, "field 'options': two options read 'b'"),
    "no options": ({"4": question(options=[])}, "field 'options': the list is empty"),
    "key a number": ({"4": question(key=209)}, "field 'key': 209 is no text"),
}


@pytest.mark.parametrize("fault", TOMATO_FAULTS)
def test_a_fault_in_an_object_is_named_with_its_file_and_field(fault: str, tmp_path: Path) -> None:
    content, said = TOMATO_FAULTS[fault]
    listing = write_json(tmp_path / "jsons/count.json", content)
    with pytest.raises(DatasetError, match=said) as caught:
        vl.load_dataset("tomato", root=tmp_path)
    assert str(listing) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"video": "a.mp4",\n  "question" "?"}]', "line 2 column 14"),
        (b"", "line 1 column 1"),
        (b"[" * 100_000, "nested"),
        (b"[1, 2", "line 1 column"),
        (b'["\xff"]', "utf-8"),
        (b'[{"video": "a.mp4", "video": "b.mp4"}]', "the key 'video' stands twice"),
    ],
)
def test_json_that_is_none_says_where(content: bytes, said: str, tmp_path: Path) -> None:
    listing = tmp_path / "json/a.json"
    listing.parent.mkdir()
    listing.write_bytes(content)
    with pytest.raises(DatasetError, match=said) as caught:
        vl.load_dataset(tmp_path)
    assert str(listing) in str(caught.value)


def test_every_entry_is_checked_however_few_are_asked_for(tvbench: Path, tmp_path: Path) -> None:
    entries = [entry("0.mp4"), entry("0.mp4", answer="Some")]
    write_json(tmp_path / "json/a.json", entries)
    write_clip_once(tmp_path / "video/a/0.mp4")
    with pytest.raises(DatasetError, match="entry 1, field 'answer'"):
        vl.load_dataset(tmp_path, n=1)


# --- names and settings -----------------------------------------------------------------------------------------------


def test_what_cannot_be_asked_for(tvbench: Path, tmp_path: Path) -> None:
    def fails(said: str, *arguments: Any, **named: Any) -> None:
        with pytest.raises(DatasetError, match=said):
            vl.load_dataset(*arguments, **named)

    fails("did you mean 'action antonym'", tvbench, task="action antonyms")
    fails("give one of the two", tvbench, task="object count", tasks=["object count"])
    fails("give a list of names, or one name as task=", tvbench, tasks="object count")
    fails("empty list", tvbench, tasks=[])
    fails("give a name or a directory", "")
    fails("asked for twice", tvbench, tasks=["object count", "Object Count"])
    fails("has 2 questions, fewer than the n = 3", tvbench, task="object count", n=3)
    fails("known: 'error', 'report'", tvbench, missing="ignore")
    fails("no root is given", "tvbench")
    fails("is no directory", "tvbench", root=tmp_path / "nowhere")
    fails("root goes with .*'mvbench', .*'tomato', 'tvbench'", tvbench, root=tvbench)
    fails("lies in the cache", "shapes", root=tvbench)
    fails("none of the known layouts: .*MVBench's is .*TOMATO's is .*TVBench's is", tmp_path)
    fails(r"holds no listings of TOMATO: its layout is jsons/\{task\}.json", "tomato", root=tvbench)
    fails("did you mean 'tvbench'", "tvbenc")


def test_asking_for_fewer_shapes_leaves_more_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes share the cache: asking for fewer must not cut the listing that the other is about to read."""
    monkeypatch.setenv("VIDEOLENS_CACHE", str(tmp_path))
    three = vl.load_dataset("shapes", task="colour", n=3)
    listing = next(tmp_path.rglob("colour.json"))
    whole = listing.read_bytes()
    assert [q.id for q in vl.load_dataset("shapes", task="colour", n=1)] == [three[0].id]
    assert listing.read_bytes() == whole
    listing.write_text("[1, 2")
    assert len(vl.load_dataset("shapes", task="colour", n=2)) == 2, "a listing that is broken is written anew"


# --- videos that are none, and questions that lack something, at the prompt -------------------------------------------


@pytest.fixture(scope="module")
def model() -> vl.HookedVideoTransformer:
    return vl.HookedVideoTransformer.from_pretrained("shapes")


def test_a_video_that_is_none_is_named_when_it_is_first_looked_at(
    tmp_path: Path, model: vl.HookedVideoTransformer
) -> None:
    write_json(tmp_path / "json/a.json", [entry("sound.mp4"), entry("text.mp4"), entry("gone.mp4")])
    write_sound(tmp_path / "video/a/sound.mp4")
    (tmp_path / "video/a/text.mp4").write_text("no video")
    write_clip(tmp_path / "video/a/gone.mp4")
    sound, text, gone = vl.load_dataset(tmp_path)
    with pytest.raises(VideoError, match=r"video/a/sound\.mp4 has no video stream, only audio"):
        model.prompt(sound)
    with pytest.raises(VideoError, match=r"video/a/text\.mp4 is not a video"):
        model.prompt(text)
    gone.video.path.write_bytes(b"")
    with pytest.raises(VideoError, match=r"video/a/gone\.mp4 has zero bytes"):
        model.prompt(gone)


def test_a_part_beyond_the_video_is_named_when_it_is_first_looked_at(tmp_path: Path) -> None:
    write_json(tmp_path / "json/a.json", [entry("a.mp4", start=60, end=70)])
    write_clip(tmp_path / "video/a/a.mp4")
    with pytest.raises(VideoError, match=r"start 60 s lies outside .*video/a/a\.mp4, which lasts 4\.00 s"):
        vl.load_dataset(tmp_path)[0].video.frames  # noqa: B018


def test_a_question_without_options_is_refused_where_they_are_needed(
    tvbench: Path, model: vl.HookedVideoTransformer
) -> None:
    video = vl.load_dataset(tvbench, task="object count", n=1)[0].video
    with pytest.raises(PromptError, match="multiple choice but has no options"):
        model.prompt(vl.Question(video, "What gets brighter?", options=[]))


def test_an_option_that_stands_in_the_stem_simply_works(tmp_path: Path, model: vl.HookedVideoTransformer) -> None:
    stem = "Does the red circle move to the left or to the right or left?"
    options = ["left", "right", "left or to the right", stem]
    write_json(tmp_path / "json/a.json", [entry("a.webm", question=stem, candidates=options, answer="left")])
    write_clip(tmp_path / "video/a/a.webm")
    tokens = model.prompt(vl.load_dataset(tmp_path)[0]).tokens
    texts = tokens.texts

    def shown(selection: str) -> str:
        return "".join(texts[i] for i in tokens[selection].tolist()).replace("▁", " ").strip()

    assert shown("stem") == stem
    assert [shown(f"option {letter}") for letter in "ABCD"] == [
        f"({letter}) {option}" for letter, option in zip("ABCD", options, strict=True)
    ]
    assert shown("true option") == "(A) left"
    assert int(tokens["stem"].max()) < int(tokens["option A"].min()) < int(tokens["option B"].min())


@pytest.mark.parametrize("ending", CODECS)
def test_the_bundled_model_answers_from_every_container(
    ending: str, tmp_path: Path, model: vl.HookedVideoTransformer
) -> None:
    """Shapes' own clips, written anew as mp4, mkv and webm in TVBench's layout: the answers are right as before."""
    for task in ("moving direction", "object count"):
        entries = []
        for source in vl.load_dataset("shapes", task=task, n=3, n_frames=16, sampling="uniform"):
            video = f"{source.id}{ending}"
            write_clip(tmp_path / "video" / task.replace(" ", "_") / video, source.video.frames.numpy())
            entries.append(
                {"video": video, "question": source.stem, "candidates": source.options, "answer": source.answer}
            )
        write_json(tmp_path / "json" / f"{task.replace(' ', '_')}.json", entries)
    questions = vl.load_dataset("tvbench", root=tmp_path)
    assert len(questions) == 6
    for question in questions:
        prompt = model.prompt(question)
        probabilities = model(prompt)[0, -1].softmax(-1)
        assert int(probabilities.argmax()) == prompt.answer_token, f"{question.id} from {ending}"


# --- the hub ----------------------------------------------------------------------------------------------------------


def test_no_network_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*arguments: Any, **named: Any) -> str:
        raise ConnectionError("[Errno -2] Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        DatasetError, match=r"'FunAILab/TVBench' is no directory here.*ConnectionError.*--local-dir DIR"
    ):
        vl.load_dataset("FunAILab/TVBench")


def test_the_hub_switched_off_is_one_clear_error() -> None:
    """The client itself, which the tests' settings keep off the network."""
    with pytest.raises(DatasetError, match="'nobody/nothing-of-this-name' is no directory here, and cannot be had"):
        vl.load_dataset("nobody/nothing-of-this-name")


def hub_copy(root: Path) -> Path:
    """As the hub has TVBench: listings, and an archive for every task; one has its files loose on top."""
    made = root / "made"
    (root / "hub/video/egocentric_sequence").mkdir(parents=True)
    for task, archive, inside in (
        ("object_count", "object_count.zip", "object_count/a.mp4"),
        ("scene_transition", "scene_transition.zip", "a.mp4"),
        ("egocentric_sequence", "egocentric_sequence/1.2.zip", "1.2/a.MP4"),
    ):
        name = "1.2/a.MP4" if task == "egocentric_sequence" else "a.mp4"
        write_json(root / "hub/json" / f"{task}.json", [entry(name)])
        write_clip(made / name)
        with zipfile.ZipFile(root / "hub/video" / archive, "w") as packed:
            packed.write(made / name, inside)
    return root / "hub"


def test_a_data_set_of_the_hub_is_fetched_and_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, str]] = []

    def served(name: str, *, repo_type: str) -> str:
        asked.append((name, repo_type))
        return str(tmp_path / "hub")

    hub_copy(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", served)
    questions = vl.load_dataset("FunAILab/TVBench")
    assert asked == [("FunAILab/TVBench", "dataset")]
    assert [q.task for q in questions] == ["egocentric sequence", "object count", "scene transition"]
    assert all(levels(q) == MIDDLES for q in questions)
    clip = questions[1].video.path
    whole, written = clip.read_bytes(), clip.stat().st_mtime_ns
    vl.load_dataset("FunAILab/TVBench")
    assert clip.stat().st_mtime_ns == written, "what is there is not unpacked again"
    clip.write_bytes(whole[:100])
    vl.load_dataset("FunAILab/TVBench")
    assert clip.read_bytes() == whole, "what an interruption cut short is"
    (tmp_path / "hub/video/object_count.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match=r"object_count\.zip is damaged"):
        vl.load_dataset("FunAILab/TVBench")


def test_an_archive_that_python_cannot_unpack_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("folder/a.mp4", b"bytes")
    content = bytearray(archive.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 10] = content[8] = 99  # a way of packing nobody has heard of
    archive.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.zip cannot be unpacked \(.*another tool"):
        unpack(archive)


def test_a_directory_comes_before_the_hub(tvbench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name").symlink_to(tvbench)
    monkeypatch.chdir(tmp_path)
    assert len(vl.load_dataset("owner/name", task="object count")) == 2
