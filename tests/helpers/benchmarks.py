"""Small copies of the benchmarks' layouts, with real mp4, mkv and webm files whose frames say which they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np

from videolens.datasets.mvbench import FOLDERS
from videolens.datasets.tvbench import TASKS as TVBENCH_TASKS

FPS, N_FRAMES, SIZE = 8, 32, 32
CODECS = {".mp4": "libx264", ".mkv": "mpeg4", ".webm": "libvpx-vp9"}


def frames() -> np.ndarray:
    """Four seconds of grey; frame i has the level 7·i."""
    levels = (7 * np.arange(N_FRAMES)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(levels[:, None, None, None], (N_FRAMES, SIZE, SIZE, 3)))


def write_clip(path: Path, pixels: np.ndarray | None = None, *, fps: int = FPS) -> Path:
    """A video file, encoded as its ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = frames() if pixels is None else pixels
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix.lower()], rate=fps)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for each in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(each, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """An mp4 with half a second of silence and no picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8_000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_json(path: Path, content: Any) -> Path:
    """A listing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def entry(video: str, **more: Any) -> dict[str, Any]:
    """A question as TVBench and MVBench list it."""
    return {"video": video, "question": "What gets brighter?", "candidates": ["All", "Nothing"], "answer": "All"} | more


def write_tvbench(root: Path) -> Path:
    """TVBench's ten tasks, two questions each, in containers by turns; start and end where it has them."""
    endings = [".mp4", ".mkv", ".webm"]
    for i, task in enumerate(TVBENCH_TASKS):
        name = task.replace(" ", "_")
        part = {"start": 1.0, "end": 3} if task in ("action sequence", "action localization") else {}
        folder = "1.2/" if task == "egocentric sequence" else ""
        videos = [f"{folder}a.mp4", f"{folder}b{endings[i % 3]}"]
        write_json(root / "json" / f"{name}.json", [entry(video, **part) for video in videos])
        for video in videos:
            write_clip(root / "video" / name / video)
    return root


def write_mvbench(root: Path, *tasks: str) -> Path:
    """Tasks of MVBench (as in file names), one question each, in the folder of their source."""
    for i, task in enumerate(tasks):
        video = f"{task}{list(CODECS)[i % 3]}"
        write_json(root / "json" / f"{task}.json", [entry(video, start=0.5, end=2.5, accurate_start=0.75)])
        write_clip(root / "video" / FOLDERS[task][0] / video)
    return root


TOMATO_FILES = ("count", "direction", "rotation", "shape&trend", "velocity&frequency", "visual_cues")


def write_tomato(root: Path, *, listings: str = "jsons") -> Path:
    """TOMATO's six tasks, two questions each; numbers need not follow one another."""
    for name in TOMATO_FILES:
        content = {}
        for number, kind, right in (("0", "human", 2), ("17", "object", 0)):
            key = f"02{number}-{name[:2]}"
            content[number] = {
                "question": "How bright does it get?",
                "options": ["Dark.", "Grey.", "Bright."],
                "answer": right,
                "key": key,
                "video_source_url": "",
                "motion_type": name.replace("_", " "),
                "variation": {"counterfactual": 0, "composite": 1},
                "demonstration_type": kind,
                "note": "",
            }
            write_clip(root / "videos" / kind / f"{key}.mp4")
        write_json(root / listings / f"{name}.json", content)
    return root
