"""Counterfactual pairs: edits of a clip, or of a question about it, that leave the layout of the prompt as it was."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import videolens as vl
from videolens.errors import QuestionError, VideoError
from videolens.question import Question
from videolens.video.video import Video

N = 6


def clip(n: int = N, *, first: int = 10, size: tuple[int, int] = (4, 6)) -> Video:
    """Frame i is one grey level, `first` + i, so that a frame tells which one it is."""
    levels = np.arange(first, first + n, dtype=np.uint8)
    return Video.from_array(np.broadcast_to(levels[:, None, None, None], (n, *size, 3)), fps=4)


def levels(video: Video) -> list[int]:
    """Which frames are shown."""
    frames = video.frames.flatten(1)
    assert bool((frames == frames[:, :1]).all())
    return frames[:, 0].tolist()


CLIP, OTHER = clip(), clip(first=100)
FRAME = st.integers(-N, N - 1)
SPAN = st.tuples(st.integers(0, N - 1), st.integers(1, N)).map(sorted).filter(lambda span: span[0] < span[1])
Change = Callable[[Video], Video]
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.just(lambda video: video.reversed()),
    st.integers(0, 99).map(lambda seed: lambda video: video.shuffled(seed)),
    FRAME.map(lambda frame: lambda video: video.frozen(frame)),
    st.integers(0, 255).map(lambda level: lambda video: video.blank(level)),
    st.tuples(FRAME, FRAME).map(lambda pair: lambda video: video.swapped(*pair)),
    SPAN.map(lambda span: lambda video: video.replaced(*span, OTHER)),
    SPAN.map(lambda span: lambda video: video.replaced(*span, video.reversed().swapped(0, 1))),
)


# --- videos -----------------------------------------------------------------------------------------------------------


def test_each_edit_by_hand() -> None:
    assert levels(CLIP) == [10, 11, 12, 13, 14, 15]
    assert levels(CLIP.reversed()) == [15, 14, 13, 12, 11, 10]
    assert levels(CLIP.frozen(2)) == [12] * N and levels(CLIP.frozen(-1)) == [15] * N
    assert levels(CLIP.blank()) == [0] * N and levels(CLIP.blank(9)) == [9] * N
    assert levels(CLIP.swapped(0, 3)) == [13, 11, 12, 10, 14, 15] == levels(CLIP.swapped(3, -6))
    assert levels(CLIP.replaced(1, 3, OTHER)) == [10, 101, 102, 13, 14, 15]
    assert levels(CLIP.replaced(-2, None, OTHER)) == [10, 11, 12, 13, 104, 105]
    assert levels(CLIP.replaced(0, 2, OTHER, frames=[5, -6])) == [105, 100, 12, 13, 14, 15]
    assert levels(CLIP.replaced(4, 6, CLIP.blank(7))) == [10, 11, 12, 13, 7, 7]
    mixed = levels(CLIP.shuffled(3))
    assert sorted(mixed) == levels(CLIP) != mixed == levels(CLIP.shuffled(3)) != levels(CLIP.shuffled(4))


def test_edits_come_one_after_the_other() -> None:
    assert levels(CLIP.reversed().frozen(0)) == [15] * N
    assert levels(CLIP.replaced(0, 2, OTHER).reversed()) == [15, 14, 13, 12, 101, 100]
    assert levels(CLIP.reversed().replaced(0, 2, OTHER)) == [100, 101, 13, 12, 11, 10]
    assert levels(CLIP.blank(3).replaced(5, 6, OTHER.reversed())) == [3, 3, 3, 3, 3, 100]
    assert levels(CLIP.replaced(0, 3, OTHER).replaced(2, 4, clip(first=200))) == [100, 101, 202, 203, 14, 15]


@given(before=st.lists(CHANGES, max_size=3), change=CHANGES)
def test_every_edit_leaves_length_clock_and_the_clip_itself(before: list[Change], change: Change) -> None:
    video = CLIP
    for each in before:
        video = each(video)
    was = levels(video)
    after = change(video)
    assert len(after) == len(video) == N and after.frames.shape == CLIP.frames.shape
    assert after.frames.dtype == torch.uint8 and torch.equal(after.seconds, CLIP.seconds)
    assert (after.fps, after.duration, after.path) == (CLIP.fps, CLIP.duration, CLIP.path)
    assert levels(video) == was and levels(CLIP) == [10, 11, 12, 13, 14, 15]
    # what `indices` says is what is shown
    own = [int(shown) - 10 if int(shown) in range(10, 16) else -1 for shown in levels(after)]
    said = after.indices.tolist()
    assert all(number in (index, -1) for number, index in zip(said, own, strict=True))


@given(before=st.lists(CHANGES, max_size=3), i=FRAME, j=FRAME, span=SPAN)
def test_what_undoes_itself(before: list[Change], i: int, j: int, span: list[int]) -> None:
    video = CLIP
    for each in before:
        video = each(video)
    was = video.frames
    assert torch.equal(video.reversed().reversed().frames, was)
    assert torch.equal(video.swapped(i, j).swapped(i, j).frames, was)
    assert torch.equal(video.swapped(i, j).frames, video.swapped(j, i).frames)
    assert torch.equal(video.swapped(i, i).frames, was)
    assert torch.equal(video.replaced(*span, OTHER).replaced(*span, video).frames, was)
    assert torch.equal(video.replaced(0, None, OTHER).frames, OTHER.frames)
    backwards = video.replaced(*span, video, frames=range(span[1] - 1, span[0] - 1, -1))
    assert torch.equal(backwards.frames[span[0] : span[1]], was[span[0] : span[1]].flip(0))


def test_indices_name_frames_of_the_clip_alone() -> None:
    assert CLIP.swapped(0, 1).indices.tolist() == [1, 0, 2, 3, 4, 5]
    assert CLIP.frozen(4).indices.tolist() == [4] * N
    assert CLIP.replaced(1, 3, OTHER).reversed().indices.tolist() == [5, 4, 3, -1, -1, 0]
    assert CLIP.blank().indices.tolist() == [-1] * N


def test_files_stay_unread_until_frames_are_looked_at(tmp_path: Path) -> None:
    later = Video.open(tmp_path / "later.mp4", n_frames=4)
    other = Video.open(tmp_path / "other.mp4", n_frames=4)
    put = later.replaced(0, 2, other).swapped(0, 3)
    wrong = [later.frozen(4), later.swapped(0, 4), later.replaced(3, 5, other), later.replaced(0, 1, other, [4])]
    assert "later.mp4" in repr(put) and "other.mp4" in repr(put)
    with pytest.raises(VideoError, match=r"no such file: .*later\.mp4"):
        _ = put.frames
    clip(8, size=(32, 48)).write(tmp_path / "later.mp4", fps=4)
    at = later.indices.tolist()
    assert put.seconds.tolist() == later.seconds.tolist() and put.indices.tolist() == [at[3], -1, at[2], -1]
    with pytest.raises(VideoError, match=r"no such file: .*other\.mp4"):
        _ = put.frames
    clip(8, first=100, size=(32, 48)).write(tmp_path / "other.mp4", fps=4)
    assert torch.equal(put.frames[[3, 1]], other.frames[:2]) and torch.equal(put.frames[0], later.frames[3])
    assert torch.equal(pickle.loads(pickle.dumps(put)).frames, put.frames)
    for video in wrong:
        with pytest.raises(VideoError, match="frames 0 to 3"):
            _ = video.frames


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda video: video.frozen(6), "frozen(6): the clip has frames 0 to 5"),
        (lambda video: video.frozen(-7), "frozen(-7): the clip has frames 0 to 5"),
        (lambda video: video.swapped(1, 6), "swapped(1, 6): the clip has frames 0 to 5"),
        (lambda video: video.replaced(3, 3, OTHER), "0 ≤ first < stop ≤ 6"),
        (lambda video: video.replaced(4, 2, OTHER), "0 ≤ first < stop ≤ 6"),
        (lambda video: video.replaced(0, 7, OTHER), "0 ≤ first < stop ≤ 6"),
        (lambda video: video.replaced(-7, 2, OTHER), "0 ≤ first < stop ≤ 6"),
        (lambda video: video.replaced(0, 4, clip(3)), "frame 3 of Video(array): the clip has frames 0 to 2"),
        (lambda video: video.replaced(0, 2, OTHER, frames=[0]), "place of 2 frames, but 1"),
        (lambda video: video.replaced(0, 2, clip(size=(6, 4))), "6 × 4 pixels, the clip that they are to be put into"),
        (lambda video: video.blank(256), "grey level 256"),
        (lambda video: video.blank(-1), "grey level -1"),
        (lambda video: video.shuffled(-1), "the seed is -1"),
    ],
)
def test_edits_that_cannot_be(change: Change, said: str) -> None:
    with pytest.raises(VideoError) as caught:
        _ = change(CLIP).frames
    assert said in str(caught.value)


# --- questions --------------------------------------------------------------------------------------------------------


def a_question(video: Video = CLIP, **changes: Any) -> Question:
    options = ["left", "right", "up"]
    said = dict(options=options, answer="right", reversed_answer="left", task="moving direction", id="7")
    return Question(video=video, stem="Which way?", **(said | changes))


def test_an_answer_is_kept_only_where_it_is_known() -> None:
    question = a_question()
    back = question.counterfactual("reversed")
    assert (back.answer, back.reversed_answer) == ("left", "right") == (question.reversed().answer, question.answer)
    assert torch.equal(back.video.frames, question.reversed().video.frames)
    again = back.counterfactual("reversed")
    assert (again.answer, again.reversed_answer) == (question.answer, question.reversed_answer)
    unknown = replace(question, reversed_answer=None).counterfactual("reversed")
    assert unknown.answer is None and unknown.reversed_answer == "right"
    for edit, settings in (("shuffled", [1]), ("frozen", [0]), ("blank", []), ("swapped", [0, 5])):
        other = question.counterfactual(edit, *settings)
        assert other.answer is None and other.reversed_answer is None
        assert torch.equal(other.video.frames, getattr(CLIP, edit)(*settings).frames)
        assert (other.stem, other.options, other.id) == (question.stem, question.options, question.id)
    told = question.counterfactual("replaced", 0, None, OTHER, answer="up")
    assert told.answer == "up" and told.letter == "C" and told.reversed_answer is None
    assert torch.equal(told.video.frames, OTHER.frames)
    assert question.counterfactual("swapped", i=0, j=1).answer is None
    assert question.open_ended().counterfactual("reversed").answer == "left"


@pytest.mark.parametrize(
    ("edit", "settings", "named", "said"),
    [
        ("reverse", [], {}, "did you mean 'reversed'"),
        ("frames", [], {}, "known: 'reversed'"),
        ("swapped", [0], {}, "'swapped' takes (i: int, j: int): missing a required argument: 'j'"),
        ("frozen", [], {"number": 3}, "'frozen' takes (frame: int)"),
        ("reversed", [1], {}, "too many positional arguments"),
        ("frozen", [0], {"answer": "down"}, "'down' is not among the options"),
    ],
)
def test_counterfactuals_that_cannot_be(edit: str, settings: list, named: dict, said: str) -> None:
    with pytest.raises(QuestionError) as caught:
        a_question().counterfactual(edit, *settings, **named)
    assert said in str(caught.value)


@pytest.fixture(scope="module")
def model() -> vl.HookedVideoTransformer:
    return vl.HookedVideoTransformer.from_pretrained("shapes")


@pytest.mark.parametrize(
    ("edit", "settings"),
    [("reversed", ()), ("shuffled", (5,)), ("frozen", (2,)), ("blank", ()), ("swapped", (0, -1)), ("replaced", (2, 5))],
)
def test_pairs_have_equal_token_maps(model: vl.HookedVideoTransformer, edit: str, settings: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    video, other = (Video.from_array(rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)) for _ in range(2))
    question = a_question(video)
    prompt = model.prompt(question)
    counter = model.prompt(question.counterfactual(edit, *settings, *([other] if edit == "replaced" else [])))
    assert torch.equal(counter.input_ids, prompt.input_ids)
    for name in ("role", "frame", "row", "column", "option"):
        assert torch.equal(getattr(counter.tokens, name), getattr(prompt.tokens, name))
    assert torch.equal(counter.tokens.seconds.nan_to_num(-1), prompt.tokens.seconds.nan_to_num(-1))
    assert counter.tokens.grid == prompt.tokens.grid and counter.tokens.texts == prompt.tokens.texts
    assert counter.option_tokens == prompt.option_tokens
    assert counter.tokens.answer == (0 if edit == "reversed" else None) and prompt.tokens.answer == 1
    video_rows = torch.zeros(prompt.shape[1], dtype=torch.bool)
    video_rows[prompt.tokens["video"]] = True
    same = (counter.residual == prompt.residual).all(-1)[0]
    assert bool(same[~video_rows].all()) and not bool(same[video_rows].all())
