"""Token maps: every position has exactly one role, and every name selects what it says."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videolens.errors import PromptError, SelectionError, near
from videolens.prompt.prompt import Prompt
from videolens.prompt.selections import ROLES
from videolens.prompt.tokens import TokenMap


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """What a `TokenMap` is made of, for prompts with or without separators, options, response and padding."""
    size = st.integers(0, 3)
    grid = (draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    cells: list[tuple[str, int, int, int, int]] = []  # role, frame, row, column, option
    for _ in range(draw(size)):
        cells.append(("system", -1, -1, -1, -1))
    for frame in range(grid[0]):
        cells += [("separator", frame, -1, -1, -1)] * draw(st.integers(0, 2))
        for row in range(grid[1]):
            cells += [("video", frame, row, column, -1) for column in range(grid[2])]
    for role in ("glue", "header", "stem", "header"):
        cells += [(role, -1, -1, -1, -1)] * draw(st.integers(1 if role == "stem" else 0, 3))
    n_options = draw(st.integers(0, 4))
    for option in range(n_options):
        cells += [("option", -1, -1, -1, option)] * draw(st.integers(1, 3)) + [("header", -1, -1, -1, -1)] * draw(size)
    cells += [("suffix", -1, -1, -1, -1)] * draw(size) + [("response", -1, -1, -1, -1)] * draw(size)
    pads = [("pad", -1, -1, -1, -1)] * draw(size)
    cells = pads + cells if draw(st.booleans()) else cells + pads
    columns = list(zip(*cells, strict=True))
    return dict(
        role=torch.tensor([ROLES.index(role) for role in columns[0]]),
        frame=torch.tensor(columns[1]),
        row=torch.tensor(columns[2]),
        column=torch.tensor(columns[3]),
        seconds=torch.where(torch.tensor(columns[2]) >= 0, torch.tensor(columns[1]) * 0.5, torch.nan).double(),
        option=torch.tensor(columns[4]),
        grid=grid,
        answer=draw(st.integers(0, n_options - 1)) if n_options and draw(st.booleans()) else None,
    )


def spans_map(**changes: object) -> TokenMap:
    """Two frames of two by two at 2 … 9, the stem at 11 and 12, two options."""
    settings = {"stem": [11, 12], "option A": [14, 15], "option B": [16, 17], "true option": [16, 17]} | changes
    return TokenMap.from_spans(20, settings, grid=(2, 2, 2), video=range(2, 10))


def partitions(parts: list[torch.Tensor], whole: torch.Tensor) -> bool:
    """Whether the parts are disjoint and make up the whole."""
    return torch.equal(torch.cat(parts).sort().values, whole)


# --- properties -------------------------------------------------------------------------------------------------------


@given(layouts())
def test_every_position_has_exactly_one_role(layout: dict[str, Any]) -> None:
    tokens = TokenMap(**layout)
    assert partitions([tokens[role] for role in ROLES], torch.arange(tokens.n_pos))
    for role in ROLES:
        assert {tokens.roles[i] for i in tokens[role].tolist()} <= {role}


@given(layouts())
def test_segments_tile_the_prompt(layout: dict[str, Any]) -> None:
    tokens = TokenMap(**layout)
    segments = tokens.segments()
    assert partitions([at for _, at in segments], tokens["all"])
    firsts = [int(at[0]) for _, at in segments]
    assert firsts == sorted(firsts) and len({name for name, _ in segments}) == len(segments)
    assert torch.equal(dict(segments)["last"], tokens["last"])


@given(layouts())
def test_frames_partition_the_video(layout: dict[str, Any]) -> None:
    tokens = TokenMap(**layout)
    frames, rows, columns = tokens.grid
    assert partitions([tokens[f"frame {i}"] for i in range(frames)], tokens["video"])
    for i in range(frames):
        at = tokens[f"frame {i}"]
        assert len(at) == rows * columns
        assert (tokens.row[at] * columns + tokens.column[at]).tolist() == list(range(rows * columns))
        assert tokens.seconds[at].unique().tolist() == [i * 0.5]


@given(layouts(), st.data())
def test_selections_are_sorted_and_unique(layout: dict[str, Any], data: st.DataObject) -> None:
    tokens = TokenMap(**layout)
    usable = []
    for name in tokens.names:
        try:
            tokens[name]
            usable.append(name)
        except SelectionError:
            assert name in ("question", "options", "true option", "false options")
    chosen = data.draw(st.lists(st.sampled_from(usable), min_size=1, max_size=4))
    at = tokens[" | ".join(chosen)]
    assert at.dtype == torch.int64 and at.ndim == 1
    assert at.tolist() == sorted(set().union(*(tokens[name].tolist() for name in chosen)))


@given(layouts())
def test_question_options_and_answer(layout: dict[str, Any]) -> None:
    tokens = TokenMap(**layout)
    assert partitions([tokens["header"], tokens["stem"], tokens["option"]], tokens["question"])
    if tokens.n_options == 0:
        for name in ("options", "option A", "true option", "false options"):
            with pytest.raises(SelectionError):
                tokens[name]
        return
    letters = [f"option {letter}" for letter in "ABCD"[: tokens.n_options]]
    assert partitions([tokens[name] for name in letters], tokens["options"])
    if tokens.answer is None:
        with pytest.raises(SelectionError, match="answer is not known"):
            tokens["true option"]
    else:
        assert torch.equal(tokens["true option"], tokens[letters[tokens.answer]])
        assert partitions([tokens["true option"], tokens["false options"]], tokens["options"])


@given(layouts())
def test_last_is_the_end_of_the_prompt(layout: dict[str, Any]) -> None:
    tokens = TokenMap(**layout)
    (last,) = tokens["last"].tolist()
    prompt = [i for i, role in enumerate(tokens.roles) if role not in ("response", "pad")]
    assert last == prompt[-1]


@given(layouts(), st.integers(0, 5))
def test_a_response_leaves_the_prompt_as_it_was(layout: dict[str, Any], n: int) -> None:
    tokens = TokenMap(**layout)
    longer = tokens.with_response(n)
    assert longer.n_pos == tokens.n_pos + n
    assert len(longer["response"]) == len(tokens["response"]) + n
    for name in (*ROLES[:8], "last", "question"):
        assert torch.equal(longer[name], tokens[name])


@given(layouts())
def test_spans_give_back_the_map(layout: dict[str, Any]) -> None:
    tokens = TokenMap(**layout)
    spans = {role: tokens[role] for role in ROLES if role not in ("video", "option") and len(tokens[role])}
    spans |= {f"option {letter}": tokens[f"option {letter}"] for letter in "ABCD"[: tokens.n_options]}
    if tokens.answer is not None:
        spans["true option"] = tokens["true option"]
    seconds = torch.arange(tokens.grid[0]).double() * 0.5
    again = TokenMap.from_spans(tokens.n_pos, spans, grid=tokens.grid, video=tokens["video"], seconds=seconds)
    for name in ("role", "row", "column", "option"):
        assert torch.equal(getattr(again, name), getattr(tokens, name)), name
    assert torch.equal(again.frame[again["video"]], tokens.frame[tokens["video"]])
    assert torch.equal(again.seconds.nan_to_num(-1), tokens.seconds.nan_to_num(-1))
    assert again.answer == tokens.answer and again.n_options == tokens.n_options


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_names_by_hand() -> None:
    tokens = spans_map()
    expected = {
        "system": [0, 1],
        "video": list(range(2, 10)),
        "frame 0": [2, 3, 4, 5],
        "frame 1": [6, 7, 8, 9],
        "glue": [10],
        "stem": [11, 12],
        "header": [13],
        "question": list(range(11, 18)),
        "options": [14, 15, 16, 17],
        "option A": [14, 15],
        "true option": [16, 17],
        "false options": [14, 15],
        "suffix": [18, 19],
        "last": [19],
        "response": [],
        "all": list(range(20)),
        "stem | last": [11, 12, 19],
        "frame 1|frame 0 | last": [*range(2, 10), 19],
    }
    assert {name: tokens[name].tolist() for name in expected} == expected
    assert tokens.answer == 1 and tokens.grid == (2, 2, 2) and tokens.n_pos == 20
    assert [name for name, _ in tokens.segments()] == [
        "system", "frame 0", "frame 1", "glue", "stem", "header", "options", "suffix", "last",
    ]  # fmt: skip
    assert tokens.labels()[1:4] == ["system", "f0 r0 c0", "f0 r0 c1"]
    assert replace(tokens, texts=tuple("abcdefghijklmnopqrst")).labels()[10:12] == ["k", "l"]


def test_true_and_false_options_alone_are_enough() -> None:
    spans = {"stem": [6], "true option": [10, 11], "false options": [8, 9, 13], "last": 15}
    tokens = TokenMap.from_spans(16, spans, grid=(1, 2, 2), video=[1, 2, 3, 4])
    assert tokens["option A"].tolist() == [8, 9] and tokens["option B"].tolist() == [10, 11]
    assert tokens["option C"].tolist() == [13] and tokens.answer == 1
    assert tokens["header"].tolist() == [7, 12] and tokens["glue"].tolist() == [5]


def test_false_options_leave_over_the_true_one() -> None:
    spans = {"option A": [14, 15], "option B": [16, 17], "false options": [14, 15]}
    tokens = TokenMap.from_spans(20, spans, grid=(1, 1, 2), video=[4, 5])
    assert tokens["true option"].tolist() == [16, 17]


def test_positions_may_be_written_in_many_ways() -> None:
    for stem in ([12, 11], range(11, 13), slice(11, 13), torch.tensor([[11, 12]]), torch.tensor([11, 12, 12])):
        assert spans_map(stem=stem)["stem"].tolist() == [11, 12]


def test_only_a_stem_or_nothing() -> None:
    tokens = TokenMap.from_spans(12, {"stem": [7]}, grid=(1, 1, 4), video=range(1, 5))
    assert tokens["glue"].tolist() == [5, 6] and tokens["suffix"].tolist() == [8, 9, 10, 11]
    assert TokenMap.from_spans(6, {}, grid=(1, 1, 4), video=range(1, 5))["suffix"].tolist() == [5]
    assert TokenMap.from_spans(3, {"stem": [1]}, grid=(0, 0, 0), video=[])["system"].tolist() == [0]


def test_separators_belong_to_a_frame_and_not_to_its_tokens() -> None:
    tokens = TokenMap.from_spans(9, {"stem": [8]}, grid=(2, 1, 2), video=[1, 2, 5, 6])
    assert tokens["separator"].tolist() == [3, 4] and tokens.frame[3:5].tolist() == [0, 0]
    assert tokens["frame 0"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stem": [9, 10]}, "exactly one role"),
        ({"option A": [15, 16]}, "exactly one role"),
        ({"stem": [11, 20]}, "run from 0 to 19"),
        ({"stem": [-1]}, "run from 0 to 19"),
        ({"true option": [14]}, "'true option' must be exactly one of the prompt's 2 options"),
        ({"false options": [16, 17]}, "'false options' was given as"),
        ({"stem": torch.arange(20) == 11}, r"values of torch.bool.*mask.nonzero\(\)"),
        ({"stem": torch.tensor([11.5])}, "integer positions"),
        ({"last": [18]}, r"'last' was given as \[18\], but the other spans make it \[19\]"),
        ({"question": [10, 11]}, "'question' was given as"),
        ({"video": [2, 3]}, "'video'"),
        ({"frame 0": [2, 3]}, "'frame 0'"),
        ({"stm": [11]}, "did you mean 'stem'"),
    ],
)
def test_spans_that_disagree(changes: dict, said: str) -> None:
    with pytest.raises(SelectionError, match=said):
        spans_map(**changes)


def test_grid_and_video_must_agree() -> None:
    with pytest.raises(SelectionError, match="2 frames × 2 rows × 2 columns = 8"):
        TokenMap.from_spans(20, {}, grid=(2, 2, 2), video=range(2, 9))
    with pytest.raises(SelectionError, match="one per frame"):
        TokenMap.from_spans(20, {}, grid=(2, 2, 2), video=range(2, 10), seconds=torch.zeros(3).double())


@pytest.mark.parametrize(
    ("field", "position", "value", "said"),
    [
        ("role", 3, ROLES.index("stem"), "must agree"),
        ("frame", 3, 1, "each cell of the grid exactly once"),
        ("column", 3, 0, "each cell of the grid exactly once"),
        ("row", 11, 0, "must be −1"),
        ("frame", 11, 0, "must be −1"),
        ("option", 11, 0, "outside the options"),
        ("option", 14, 5, "without gaps"),
        ("role", 0, 99, "role codes"),
        ("role", 0, ROLES.index("response"), "is before"),
    ],
)
def test_arrays_that_disagree(field: str, position: int, value: int, said: str) -> None:
    tokens = spans_map()
    changed = getattr(tokens, field).clone()
    changed[position] = value
    with pytest.raises(SelectionError, match=said):
        replace(tokens, **{field: changed})
    with pytest.raises(SelectionError, match="answer is option 2"):
        replace(tokens, answer=2)
    with pytest.raises(SelectionError, match="texts"):
        replace(tokens, texts=("a",))


@pytest.mark.parametrize("name", ["fram 1", "frame 2", "frame 01", "option C", "option a", "", "stem |", "Question"])
def test_unknown_names_list_the_known(name: str) -> None:
    with pytest.raises(SelectionError, match="unknown selection") as caught:
        spans_map()[name]
    for known in ("'stem'", "'frame 0'", "'option B'", "'true option'", "'last'"):
        assert known in str(caught.value)


def test_near() -> None:
    assert near("stme", ["stem", "last"]) == "unknown name 'stme'; did you mean 'stem'? known: 'stem', 'last'"
    assert near("xyz", ["stem"], kind="role") == "unknown role 'xyz'; known: 'stem'"
    assert "known: none" in near("x", [])


# --- prompts ----------------------------------------------------------------------------------------------------------


def prompt(batch: int = 3, **changes: object) -> Prompt:
    parts = {
        "input_ids": torch.arange(batch * 20).reshape(batch, 20),
        "tokens": spans_map(),
        "residual": torch.randn(batch, 20, 4),
        "rotary": (torch.randn(batch, 20, 2), torch.randn(batch, 20, 2)),
        "pixel_values": torch.randn(batch, 2, 3, 8, 8),
        "video_features": torch.randn(batch, 2, 16, 5),
    }
    return Prompt(**(parts | changes))


def test_a_prompt_is_handled_like_a_tensor_of_tokens() -> None:
    whole = prompt()
    assert whole.shape == (3, 20) and len(whole) == 3 and whole.shape[1] == 20
    for i, one in enumerate(whole):
        assert one.shape == (1, 20) and torch.equal(one.input_ids[0], whole.input_ids[i])
        assert torch.equal(one.residual, whole[i].residual) and torch.equal(one.rotary[1][0], whole.rotary[1][i])
        assert one.pixel_values is not None and one.pixel_values.shape == (1, 2, 3, 8, 8)
        assert one.tokens is whole.tokens
    assert torch.equal(whole[-1].input_ids, whole[2].input_ids) and whole[1:].shape == (2, 20)
    with pytest.raises(IndexError, match="batch of 3"):
        whole[3]
    four = whole[1].repeated(4)
    assert four.shape == (4, 20) and four.tokens is whole.tokens
    assert all(torch.equal(one.residual, whole[1].residual) for one in four)
    assert four.residual.data_ptr() == whole[1].residual.data_ptr()
    moved = whole.to("meta")
    assert moved.device.type == moved.rotary[0].device.type == "meta" and moved.tokens.role.device.type == "cpu"
    assert whole.cpu().device.type == "cpu" and prompt(pixel_values=None, video_features=None)[0].pixel_values is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_ids", torch.arange(20)),
        ("tokens", spans_map().with_response(1)),
        ("residual", torch.randn(3, 19, 4)),
        ("rotary", (torch.randn(3, 20, 2), torch.randn(1, 20, 2))),
        ("pixel_values", torch.randn(2, 2, 3, 8, 8)),
        ("video_features", torch.randn(1, 4)),
    ],
)
def test_prompt_parts_must_agree(name: str, value: object) -> None:
    wrong = copy(prompt())
    object.__setattr__(wrong, name, value)  # past the checks of shape annotations, which only run in tests
    with pytest.raises(PromptError, match="20"):
        wrong.__post_init__()


def test_a_video_token_is_selected_by_its_label() -> None:
    tokens = TokenMap.from_spans(20, {"stem": [14, 15]}, grid=(2, 2, 2), video=range(2, 10))
    for position, label in enumerate(tokens.labels()):
        if tokens.roles[position] == "video":
            assert tokens[label].tolist() == [position]
    assert tokens["f1 r0 c1 | stem"].tolist() == [7, 14, 15]
    with pytest.raises(SelectionError, match=r"'f1 r0 c2' is outside the grid of 2 frames × 2 rows × 2 columns"):
        tokens["f1 r0 c2"]
