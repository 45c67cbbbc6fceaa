"""What preparing the frames of large clips takes in memory: 32 frames of 1080p and of 4K, decoded, resized, let go.

`python tests/perf/frames.py [--quick] [--before DIR]`: each figure is measured in a process of its own. `--before` is
another checkout of the package, which is measured in the same way and printed beside this one. The bound is 1.5 times
(prepared pixels + one decoded frame) above the baseline, which is what FFmpeg takes for decoding the same frames when
nothing is done with them (its reference frames); of a prompt, also what the same prompt takes from a small clip.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE.parent), os.environ.get("VIDEOLENS_ROOT", str(ROOT))]

import av
import numpy as np
import torch
from perf_memory import ENVIRONMENT, peak_bytes
from perf_timing import machine, seconds, table

import videolens as vl
from videolens.model.vision.pixels import PixelSettings
from videolens.model.vision.smart_resize import SmartResize

SIZES = {"1080p": (1080, 1920), "4K": (2160, 3840)}
QUICK = {"144p": (144, 256)}
BOUND = 1.5
MIB = 2**20


def write(path: Path, height: int, width: int, n: int) -> Path:
    """A clip with something moving in it, encoded as cameras do it: H.264 with B-frames."""
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"preset": "veryfast", "crf": "28", "bf": "2"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for i in range(n):
            pixels = np.stack([x // 8 + 5 * i, y // 8 - 3 * i, (x + y) // 16], -1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def decoding(path: Path) -> Callable[[], None]:
    """Decode all frames, and do nothing with them."""

    def run() -> None:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for _ in container.decode(stream):
                pass

    return run


def prepared(way: str, path: Path, n: int) -> Any:
    """The clip's pixels as a model gets them: "open" or "from_file", for frames of 336 pixels or "any size"."""
    reader, _, size = way.partition(", ")
    video = getattr(vl.Video, reader)(path, n_frames=n)
    settings: Any = PixelSettings(336, (336, 336)) if size == "336" else SmartResize.from_dict({})
    if hasattr(video, "map_frames"):
        return video.map_frames(settings.frame)
    return settings.prepare(video.frames)  # an older checkout


def measure(way: str, path: Path, small: Path, n: int) -> dict[str, float]:
    """In a process of its own: bytes and seconds of one way to pixels."""
    torch.set_num_threads(2)
    frame = vl.Video.open(small, n_frames=n).frames  # whatever is loaded when it is first used
    baseline = peak_bytes(decoding(path))
    kept: list[Any] = []
    if way == "prompt":
        model = vl.HookedVideoTransformer.from_pretrained("shapes")

        def prompt(clip: Path) -> None:
            question = vl.Question(vl.Video.open(clip, n_frames=n), "Which way?", ["left", "right"])
            kept[:] = [model.prompt(question).pixel_values]

        prompt(small)
        model.frontend.memory.clear()
        baseline += peak_bytes(lambda: prompt(small))
        run: Callable[[], None] = lambda: prompt(path)  # noqa: E731
    else:

        def run() -> None:
            kept[:] = [prepared(way, path, n)]

    took: list[float] = []
    peak = peak_bytes(lambda: took.append(seconds(run)[0]))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frame_bytes = 3 * stream.width * stream.height
    del frame
    return {"peak": peak, "baseline": baseline, "due": kept[0].nbytes + frame_bytes, "seconds": took[0]}


def in_a_process(root: Path, *asked: object) -> dict[str, float]:
    """`measure` with the package of a checkout."""
    environment = os.environ | ENVIRONMENT | {"VIDEOLENS_ROOT": str(root), "PYTHONPATH": str(root)}
    command = [sys.executable, str(HERE), "--measure", json.dumps([str(each) for each in asked])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"measuring {asked} ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run and print; the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small clip")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--before", type=Path, help="another checkout, to measure beside this one")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        way, path, small, n = json.loads(options.measure)
        print(json.dumps(measure(way, Path(path), Path(small), int(n))), flush=True)
        os._exit(0)  # nothing is left to do, and taking torch apart takes seconds
    ways = ["open, 336"] if options.quick else ["open, 336", "open, any size", "from_file, 336", "prompt"]
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        small = write(Path(folder) / "small.mp4", 64, 64, options.frames)
        for name, (height, width) in (QUICK if options.quick else SIZES).items():
            path = write(Path(folder) / f"{name}.mp4", height, width, options.frames)
            for way in ways:
                each = in_a_process(ROOT, way, path, small, options.frames)
                share = (each["peak"] - each["baseline"]) / each["due"]
                row = {
                    "prepared + frame, MiB": each["due"] / MIB,
                    "baseline, MiB": each["baseline"] / MIB,
                    "peak, MiB": each["peak"] / MIB,
                    f"above baseline / due (≤ {BOUND})": share,
                    "s": each["seconds"],
                }
                if options.before is not None:
                    older = in_a_process(options.before.resolve(), way, path, small, options.frames)
                    row |= {"before: peak, MiB": older["peak"] / MIB, "before: s": older["seconds"]}
                figures[f"{name}: {way}"] = row
    print(machine("cpu"))
    heads = list(next(iter(figures.values())))
    rows = [[name, *row.values()] for name, row in figures.items()]
    print(table(f"{options.frames} frames, decoded and prepared", ["clip", *heads], rows))
    return figures


if __name__ == "__main__":
    main()
