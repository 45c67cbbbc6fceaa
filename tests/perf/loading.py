"""What loading takes: memory above the imports, as a multiple of the checkpoint's size.

    python tests/perf/loading.py [--bytes 1000000000] [--dtype bfloat16] [--load-as float32] [--quick]

For each way of reading (by transformers, for the layouts that it has; by ours, for those that it has not) and each way
of storing (one file, shards) a process of its own loads a random checkpoint and reads every weight once. Counted are
anonymous memory and the private mappings of files, at the worst moment, above what the imports and loading the bundled
model left.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

HERE = Path(__file__).resolve().parent
LIMIT = 1.3
WAYS = {"transformers": "llava_next_video", "own reader": "llava_next_video_mapped"}


def config_of(n_bytes: int, itemsize: int) -> Any:
    """A LLaVA-NeXT-Video of about this size: layers of 1024 dimensions, as many as it takes."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextVideoConfig

    d, mlp, vocab = (1024, 2816, 32000) if n_bytes > 3e8 else (256, 704, 512)
    per_layer = (4 * d * d + 3 * d * mlp) * itemsize
    layers = max(2, round((n_bytes - 2 * vocab * d * itemsize) / per_layer))
    text = LlamaConfig(
        vocab_size=vocab,
        hidden_size=d,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=d // 64,
        num_key_value_heads=d // 64,
    )
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
    )
    return LlavaNextVideoConfig(vision_config=vision, text_config=text, video_token_index=90, image_token_index=91)


def write_checkpoint(directory: Path, n_bytes: int, dtype: str, *, sharded: bool, own: bool) -> int:
    """A random checkpoint on disk; its size in bytes."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlavaNextVideoForConditionalGeneration

    kind = getattr(torch, dtype)
    config = config_of(n_bytes, kind.itemsize)
    with torch.device("meta"):
        model = LlavaNextVideoForConditionalGeneration(config)
    weights = {name: torch.empty(each.shape, dtype=kind).normal_(std=0.02) for name, each in model.named_parameters()}
    settings = config.to_dict() | {"dtype": dtype, "architectures": ["LlavaNextVideoForConditionalGeneration"]}
    if own:
        settings["model_type"] = WAYS["own reader"]
    (directory / "config.json").write_text(json.dumps(settings, default=str))
    if sharded:
        where = {name: f"model-{n * 4 // len(weights) + 1:05d}-of-00004.safetensors" for n, name in enumerate(weights)}
        (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    else:
        where = dict.fromkeys(weights, "model.safetensors")
    for file in sorted(set(where.values())):
        part = {name: each for name, each in weights.items() if where[name] == file}
        save_file(part, directory / file, metadata={"format": "pt"})
    return sum(file.stat().st_size for file in directory.glob("*.safetensors"))


def register_own() -> None:
    """The same architecture, as if transformers had no class for it."""
    from dataclasses import replace

    from transformers import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration

    from videolens.model.families import family_of, register

    def architecture(config: Any) -> Any:
        settings = config.to_dict() | {"model_type": "llava_next_video"}
        return LlavaNextVideoForConditionalGeneration(LlavaNextVideoConfig(**settings))

    family = family_of("llava_next_video")
    register(replace(family, model_type=WAYS["own reader"], architecture=architecture))


def held_bytes() -> int:
    """Anonymous memory, and the resident part of private mappings of weight files."""
    held, counted = 0, "Anonymous:"
    for line in Path("/proc/self/smaps").read_text().splitlines():
        field = line.partition(" ")[0]
        if not field.endswith(":"):  # the next mapping; of weight files, pages that were only read count too
            counted = "Rss:" if line.endswith(".safetensors") else "Anonymous:"
        elif field == counted:
            held += int(line.split()[1]) * 1024
    return held


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def measure(directory: str, dtype: str | None) -> dict[str, float]:
    """In a process of its own: load, read every weight, and say the worst moment and the seconds."""
    import gc

    import torch

    import videolens as vl

    register_own()
    vl.HookedVideoTransformer.from_pretrained("shapes")
    gc.collect()
    before = peak = held_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak of all resident memory starts anew
    resident = _status("VmRSS")
    running = True

    def watch() -> None:
        nonlocal peak
        while running:
            peak = max(peak, held_bytes())
            time.sleep(0.003)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    began = time.perf_counter()
    model = vl.HookedVideoTransformer.from_pretrained(directory, dtype=getattr(torch, dtype) if dtype else None)
    loaded = time.perf_counter() - began
    with torch.no_grad():
        total = sum(float(each.flatten()[::97].float().sum()) for each in model.parameters())
    assert total == total
    running = False
    thread.join()
    after = held_bytes()
    by_kernel = _status("VmHWM") - resident  # libraries that were first used now included: no look is too late for it
    return {"peak": max(peak - before, after - before, by_kernel), "after": after - before, "seconds": loaded}


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Print a line for each way; give the ratios by its name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--load-as", help="another dtype to load it in: each weight is cast")
    parser.add_argument("--quick", action="store_true", help="single files only")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options.measure, options.load_as)), flush=True)
        os._exit(0)  # nothing is left to do, and taking torch apart takes seconds
    sys.path.insert(0, str(HERE))
    from perf_memory import ENVIRONMENT

    ratios = {}
    for way in WAYS:
        for sharded in (False,) if options.quick else (False, True):
            with tempfile.TemporaryDirectory() as place:
                size = write_checkpoint(
                    Path(place), options.bytes, options.dtype, sharded=sharded, own=way == "own reader"
                )
                output = subprocess.run(
                    [
                        sys.executable,
                        __file__,
                        "--measure",
                        place,
                        *(["--load-as", options.load_as] * bool(options.load_as)),
                    ],
                    env=os.environ | ENVIRONMENT,
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            found = json.loads(output.splitlines()[-1])
            name = f"{way}, {'4 files' if sharded else '1 file'}"
            ratios[name] = found["peak"] / size
            print(
                f"{name:24} {options.dtype} {size / 1e9:6.3f} GB on disk: peak {found['peak'] / size:.3f}×, after "
                f"{found['after'] / size:.3f}×, {found['seconds']:.1f} s (at most {LIMIT}×)"
            )
    return ratios


if __name__ == "__main__":
    sys.exit(any(ratio > LIMIT for ratio in main().values()))
