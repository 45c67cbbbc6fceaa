"""Frames of large clips are read, prepared and let go one after the other; what comes out is the same to the bit."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.benchmarks import write_clip
from helpers.clips import clip
from helpers.prompts import tiny_model
from torch import Tensor

import videolens as vl
from videolens.errors import VideoError
from videolens.experiments.common.thumbnails import thumbnails
from videolens.model.families import internvl, llava_onevision, qwen2_vl, video_llama_3, videollama3_qwen2
from videolens.model.vision import pixels as pixels_module
from videolens.model.vision.pixels import FrameByFrame, PixelSettings
from videolens.model.vision.resampling import FILTERS, resize
from videolens.model.vision.smart_resize import SmartResize
from videolens.video import decoding, files

N, SHAPE = 6, (36, 52)
SCRIPT = Path(__file__).parent / "perf" / "frames.py"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Eight frames, of which each is another."""
    frames = torch.stack([clip(*SHAPE, frames=1)[0].roll(5 * i, 1) for i in range(8)]).numpy()
    return write_clip(tmp_path / "clip.mp4", np.ascontiguousarray(frames))


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every clip is as large as one that is not kept."""
    files._recent.clear()
    monkeypatch.setattr(decoding, "KEPT", 0)


# -- preparing --------------------------------------------------------------------------------------------------------


def all_at_once(frames: Tensor, size: tuple[int, int], resample: int) -> Tensor:
    """`resize` of all frames at once, with the weights of whole axes."""
    _, reach, kernel = FILTERS[resample]

    def weights(n_in: int, n_out: int) -> Tensor:
        scale = n_in / n_out
        centre = (torch.arange(n_out, dtype=torch.float64)[:, None] + 0.5) * scale
        place, stretch = torch.arange(n_in, dtype=torch.float64), max(scale, 1.0)
        first = (centre - reach * stretch + 0.5).clamp(min=0).floor()
        past = (centre + reach * stretch + 0.5).floor()
        found = kernel((place + 0.5 - centre) / stretch) * ((place >= first) & (place < past))
        found = found / found.sum(1, keepdim=True)
        return torch.trunc(found * 2.0**22 + 0.5 * found.sign()) / 2.0**22

    levels = frames.permute(0, 3, 1, 2).to(torch.float64)
    for axis, n in ((3, size[1]), (2, size[0])):
        if n != levels.shape[axis]:
            levels = (weights(levels.shape[axis], n) @ levels.transpose(2, axis)).transpose(2, axis)
            levels = (levels + 0.5).floor().clamp(0, 255)
    return levels.to(torch.uint8)


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize("size", [(17, 33), (36, 20), (50, 52), (90, 130), (36, 52), (1, 1), (224, 7)])
def test_resizing_some_lines_at_a_time(resample: int, size: tuple[int, int]) -> None:
    frames = torch.randint(0, 256, (2, *SHAPE, 3), dtype=torch.uint8)
    found = torch.stack([resize(frame, size, resample) for frame in frames])
    assert torch.equal(found, all_at_once(frames, size, resample))


@pytest.mark.parametrize("lines", [(1080, 336), (1920, 598), (2160, 336), (3840, 597), (720, 384), (1280, 1036)])
def test_resizing_the_lines_of_large_frames(lines: tuple[int, int]) -> None:
    frames = torch.randint(0, 256, (1, 3, lines[0], 3), dtype=torch.uint8)
    for resample in FILTERS:
        across = resize(frames[0], (3, lines[1]), resample)
        assert torch.equal(across, all_at_once(frames, (3, lines[1]), resample)[0])
        down = resize(frames[0].transpose(0, 1), (lines[1], 3), resample)
        assert torch.equal(down, across.transpose(1, 2))


PREPARATIONS: dict[str, Callable[[], Any]] = {
    "plain": PixelSettings,
    "square": lambda: PixelSettings((30, 30), None),
    "padded": lambda: PixelSettings(None, (60, 60)),
    "as they are": lambda: PixelSettings(None, None, rescale=None, mean=None),
    "shared": lambda: SmartResize.from_dict({"max_pixels": 4 * 28 * 28 * N}, min_pixels=28 * 28, shared=True),
    "capped": lambda: SmartResize.from_dict({"cap_pixels_per_frame": True, "max_video_tokens": 9}, min_pixels=28 * 28),
}


def families() -> dict[str, Callable[[], Any]]:
    """What the families themselves prepare with, from the settings of no file."""
    found = dict(PREPARATIONS)
    for module in (internvl, llava_onevision, qwen2_vl, video_llama_3, videollama3_qwen2):
        for family in (value for value in vars(module).values() if type(value).__name__ == "Family"):
            if family.pixels is not None:
                found[f"{module.__name__.rpartition('.')[2]}: {family.model_type}"] = lambda f=family: f.pixels({})
    return found


@pytest.mark.parametrize("name", families())
def test_every_preparation_is_the_same_frame_by_frame(
    name: str, path: Path, nothing_kept: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size that frames are brought to can depend on how many there are; nothing depends on what the others show."""
    preparation = families()[name]()
    assert isinstance(preparation, FrameByFrame)
    video = vl.Video.open(path, n_frames=N)
    frames = video.frames
    model = tiny_model()
    model.pixel_settings = preparation
    found = model.pixels(video)
    assert torch.equal(found, preparation.prepare(frames)) and torch.equal(found, model.pixels(frames))
    # as it was done for all frames at once
    levels = getattr(preparation, "levels", preparation)
    size = preparation.size(N, *SHAPE) if isinstance(preparation, SmartResize) else levels.size
    if size is not None:
        size = pixels_module._target(size, *SHAPE)
        resized = all_at_once(frames, size, levels.resample).permute(0, 2, 3, 1)
        once = PixelSettings(None, levels.crop, 3, None, None).prepare(resized)
        once = once if levels.rescale is None else once * levels.rescale
        if levels.mean is not None:
            once = (once - torch.tensor(levels.mean)[:, None, None]) / torch.tensor(levels.std)[:, None, None]
        assert torch.equal(found, once)


# -- reading ----------------------------------------------------------------------------------------------------------

EDITS: dict[str, Callable[[Any], Any]] = {
    "none": lambda video: video,
    "reversed": lambda video: video.reversed(),
    "shuffled": lambda video: video.shuffled(3),
    "frozen": lambda video: video.frozen(-1),
    "blank": lambda video: video.blank(7),
    "swapped": lambda video: video.swapped(0, 4),
    "replaced": lambda video: video.replaced(1, 4, video.reversed(), [-1, 0, 0]),
    "replaced by grey": lambda video: video.replaced(1, None, video.blank(9)).reversed(),
    "several": lambda video: video.shuffled(1).replaced(0, 2, video.frozen(3)).swapped(1, 5),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("make", ["open", "from_file"])
def test_edits_of_clips_that_are_not_kept(edit: str, make: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = EDITS[edit](vl.Video.from_array(vl.Video.from_file(path, n_frames=N).frames))
    files._recent.clear()
    monkeypatch.setattr(decoding, "KEPT", 0)
    video = EDITS[edit](getattr(vl.Video, make)(path, n_frames=N))
    assert torch.equal(video.frames, kept.frames)
    small = video.map_frames(lambda frame, n: frame[::2, ::2] // n)
    assert torch.equal(small, kept.frames[:, ::2, ::2] // N)
    seen: list[int] = []
    video.each_frame(lambda n, places, pixels: seen.extend(places))
    assert sorted(seen) == list(range(N))


def test_frames_that_stand_in_several_places_are_read_once(path: Path, nothing_kept: None) -> None:
    with pytest.warns(UserWarning, match="repeats"):
        video = vl.Video.from_file(path, n_frames=20)
    seen: list[list[int]] = []
    video.each_frame(lambda n, places, pixels: seen.append(list(places)))
    assert len(seen) == 8 and sorted(i for places in seen for i in places) == list(range(20))
    assert video.frames.shape[0] == 20 == len(video)


def test_what_is_large_is_not_kept_and_what_is_small_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []

    def counted(path: Path, *asked: Any) -> decoding.Clip:
        reads.append(path)
        return decoding.read_clip(path, *asked)

    monkeypatch.setattr(files, "read_clip", counted)
    files._recent.clear()
    video = vl.Video.open(path, n_frames=N)
    for _ in range(2):
        assert len(video.frames) == len(video) == N
    assert len(reads) == 1
    files._recent.clear()
    monkeypatch.setattr(decoding, "KEPT", 6 * SHAPE[0] * SHAPE[1] * 3 - 1)
    for _ in range(2):
        assert len(video.frames) == len(video) == N and video.fps == 8
    assert len(reads) == 3, "read for each look at its frames, and for nothing else"
    assert files._recent.n_bytes < 1000
    checked = vl.Video.from_file(path, n_frames=N)
    assert len(checked) == N and len(reads) == 4
    assert len(vl.Video.from_file(path, n_frames=N - 1).frames) == N - 1 and len(reads) == 5


def test_a_large_file_that_changes_after_it_was_checked(path: Path, nothing_kept: None) -> None:
    video = vl.Video.from_file(path, n_frames=N)
    write_clip(path, np.zeros((8, *SHAPE, 3), np.uint8))
    assert len(video) == N
    with pytest.raises(VideoError, match="has changed since it was read: read it again"):
        _ = video.frames
    path.unlink()
    with pytest.raises(VideoError, match="has changed"):
        _ = video.reversed().frames


def test_errors_of_what_looks_at_frames_are_its_own(path: Path, nothing_kept: None) -> None:
    def broken(frame: Tensor, n: int) -> Tensor:
        raise RuntimeError("not a matter of the file")

    for video in (vl.Video.open(path), vl.Video.from_file(path), vl.Video.open(path).reversed()):
        with pytest.raises(RuntimeError, match="not a matter of the file"):
            video.map_frames(broken)
    with pytest.raises(ZeroDivisionError):
        vl.Video.from_file(path, sampling=lambda first, last, n: [1 // 0])


def test_prompts_and_pictures_of_clips_that_are_not_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    kept = vl.Video.from_file(path)
    asked: dict[str, Any] = {"stem": "Which way?", "options": ["left", "right"]}
    expected = model.prompt(vl.Question(kept, **asked))
    files._recent.clear()
    monkeypatch.setattr(decoding, "KEPT", 0)
    whole = [0]
    monkeypatch.setattr(vl.Video, "frames", property(lambda self: whole.append(1)))
    for video in (vl.Video.open(path), vl.Video.from_file(path)):
        found = model.prompt(vl.Question(video, **asked))
        assert torch.equal(found.pixel_values, expected.pixel_values) and torch.equal(found.residual, expected.residual)
        assert thumbnails(found, model.pixel_settings) == thumbnails(expected, model.pixel_settings)
        pictures = thumbnails(found, None)
        assert len(pictures) == found.tokens.grid[0] and pictures == thumbnails(expected, None)
    assert whole == [0], "all frames were asked for"


# -- how many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1025, 10**7, 10**15])
def test_many_more_frames_than_there_are_are_refused(n: int, path: Path) -> None:
    said = rf"{n} frames were asked of .*clip.mp4, which has 8: frames are repeated up to 1024"
    for sampling in ("midpoints", "uniform", "stride", "time", lambda first, last, n: [first] * n):
        with pytest.raises(VideoError, match=said):
            vl.Video.from_file(path, n_frames=n, sampling=sampling)
        with pytest.raises(VideoError, match=said):
            _ = vl.Video.open(path, n_frames=n, sampling=sampling).frames
    with pytest.raises(VideoError, match=f"{n} frames were asked of the array, which has 2"):
        vl.Video.from_array(np.zeros((2, 4, 4, 3), np.uint8), n_frames=n)
    with pytest.raises(VideoError, match="1025 frames were asked"):
        vl.Video.from_file(path, sampling=[0] * 1025)


@pytest.mark.filterwarnings("ignore:.*repeats")
def test_a_sensible_number_is_repeated_and_as_many_as_there_are_given(path: Path) -> None:
    assert len(vl.Video.from_file(path, n_frames=1024)) == 1024
    long = np.zeros((1500, 2, 2, 3), np.uint8)
    assert len(vl.Video.from_array(long, n_frames=1500)) == 1500


# -- the benchmark ----------------------------------------------------------------------------------------------------


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("perf_frames", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_runs_and_frames_are_let_go(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    [row] = script.main(["--quick"]).values()
    assert all(math.isfinite(number) for number in row.values())
    # the bound itself is for large frames, beside which what Python allocates is nothing: here it is said with room
    assert row["above baseline / due (≤ 1.5)"] < 2
    assert "decoded and prepared" in capsys.readouterr().out


def test_no_decoded_frame_waits_for_the_collector(tmp_path: Path) -> None:
    """A frame that is held by what it holds is freed by the garbage collector alone, some hundred MiB later."""
    import gc

    import av

    path = write_clip(tmp_path / "clip.mp4", np.zeros((30, 32, 32, 3), np.uint8))
    alive: list[int] = []
    gc.collect()
    gc.disable()
    try:
        vl.Video.open(path, n_frames=30).each_frame(
            lambda n, places, pixels: alive.append(sum(isinstance(one, av.VideoFrame) for one in gc.get_objects()))
        )
    finally:
        gc.enable()
    # those that come out together at the end of the file are the decoder's
    assert max(alive[:20]) - alive[0] <= 2
