"""What is damaged, and how it is then used: one `Site` for each kind of file, text or argument from outside."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import fuzz_mutations as mutations
import numpy as np
import torch
import yaml
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.benchmarks import entry, write_clip, write_json
from helpers.families import CASES

import videolens as vl
from videolens.experiments import declarations
from videolens.runs.config import read_config
from videolens.runs.outcome import Run

SAVED = Path(__file__).parents[1] / "data" / "saved"
CONFIG: dict[str, Any] = {
    "model": {"name": "shapes", "dtype": "float32"},
    "dataset": {"name": "shapes", "n": 2, "tasks": ["moving direction"]},
    "experiments": ["accuracy", {"name": "flow", "window": 2, "seed": 3}, {"name": "logit_lens", "top": 2}],
    "seed": 1,
    "chunk": 2,
    "threads": 1,
}
VIDEO = vl.Video.from_array(np.arange(4 * 48 * 64 * 3, dtype=np.uint8).reshape(4, 48, 64, 3), fps=2.0)
TEMPLATE = "vicuna"


@dataclass(frozen=True)
class Site:
    """A kind of input.

    Attributes:
        name: it says what is damaged.
        make: writes what is whole into a folder, once.
        damage: (folder, chance) → damages it, and says how.
        use: does with the folder what a user would; what it gives must be right.
    """

    name: str
    make: Callable[[Path], None]
    damage: Callable[[Path, Random], str]
    use: Callable[[Path], None]


def _load(folder: Path) -> None:
    model = vl.HookedVideoTransformer.from_pretrained(folder)
    frames = VIDEO.frames.repeat(4, 1, 1, 1)
    prompt = model.prompt(vl.Question(vl.Video.from_array(frames, fps=2.0), "Up?", ["a", "b"], "a"), TEMPLATE)
    logits = model(prompt)
    assert logits.shape == (1, prompt.shape[1], model.cfg.d_vocab) and bool(logits.isfinite().all())
    model.generate(prompt, 2)


def _checkpoint(name: str) -> Callable[[Path], None]:
    return lambda folder: void(CASES[name].write(folder, CASES[name].plain))


def _adapter(folder: Path) -> None:
    """An adapter of rank 1 for two layers, and its base."""
    CASES["llava_next_video"].write(folder, CASES["llava_next_video"].plain)
    (folder / "adapter").mkdir()
    weights = {}
    for layer in (0, 1):
        key = f"base_model.model.model.language_model.layers.{layer}.self_attn.o_proj"
        weights |= {f"{key}.lora_A.weight": torch.ones(1, 32), f"{key}.lora_B.weight": torch.ones(32, 1)}
    save_file(weights, folder / "adapter/adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["o_proj"], "layers_to_transform": [0, 1]}
    said |= {"base_model_name_or_path": str(folder), "use_dora": False, "bias": "none", "rank_pattern": {}}
    write_json(folder / "adapter/adapter_config.json", said)


def _damaged_adapter(folder: Path, rng: Random) -> str:
    if rng.random() < 0.7:
        return _one_of(folder / "adapter", rng, ["adapter_config.json"])
    return mutations.header(folder / "adapter/adapter_model.safetensors", rng)


def _merge(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = vl.HookedVideoTransformer.from_pretrained(folder / "adapter", base=folder)
    prompt = model.prompt(vl.Question(VIDEO, "Up?", ["a", "b"], "a"), TEMPLATE)
    assert bool(model(prompt).isfinite().all())


def _one_of(folder: Path, rng: Random, names: list[str]) -> str:
    file = rng.choice([folder / name for name in names if (folder / name).is_file()])
    return f"{file.name}: {mutations.damage(file, rng)}"


def _of_files(folder: Path, rng: Random) -> str:
    others = sorted(path.name for path in folder.glob("*.json") if path.name not in ("config.json", "tokenizer.json"))
    return _one_of(folder, rng, [*others, *others, "tokenizer.json"])


def void(value: Any) -> None:
    """Nothing."""


def _listing(folder: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_clip(folder / "video" / "action_count" / name)
    more = {"id": "q1", "start": 0.5, "end": 2.0, "completion": "It is", "reversed_answer": "Nothing"}
    write_json(folder / "json" / "action_count.json", [entry("a.mp4", **more), entry("b.mp4")])


def _tomato(folder: Path) -> None:
    write_clip(folder / "videos" / "human" / "a.mp4")
    one = {"question": "How often?", "options": ["1", "2"], "answer": 1, "key": "a", "demonstration_type": "human"}
    write_json(folder / "jsons" / "count.json", {"0": one, "1": one | {"answer": 0}})


def _look(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for question in vl.load_dataset(folder, missing="report", n_frames=3):
            assert question.video.frames.shape == (3, 32, 32, 3) and question.stem.strip()


def _result(name: str) -> Callable[[Path], None]:
    def use(folder: Path) -> None:
        found: Any = declarations()[name].result_class.load(folder)
        assert len(repr(found)) < 2000 and len(found.to_dataframe())
        found.figure()

    return use


def _saved(folder: Path, rng: Random) -> str:
    file = rng.choice(sorted(path for path in folder.iterdir()))
    if file.suffix == ".json":
        return f"{file.name}: {mutations.damage(file, rng)}"
    content, said = mutations.spoil(file.read_bytes(), rng)
    file.write_bytes(content)
    return f"{file.name}: {said}"


def _config(folder: Path, rng: Random) -> str:
    return mutations.damage(folder / "run.yaml", rng, dumps=_yaml, load=yaml.safe_load)


def _yaml(content: Any) -> str:
    try:
        return yaml.safe_dump(content, allow_unicode=True)
    except (yaml.YAMLError, RecursionError):
        return repr(content)


_RUN = CONFIG | {"experiments": ["accuracy"], "dataset": CONFIG["dataset"] | {"n": 1}}


def _run(folder: Path) -> None:
    vl.run(_RUN, folder / "out", progress=False)


def _resume(folder: Path) -> None:
    found = Run.load(folder / "out")
    assert isinstance(found.results, dict) and len(found.errors) >= 0
    assert vl.run(_RUN, folder / "out", progress=False).summary


def _run_file(folder: Path, rng: Random) -> str:
    names = ["run.json", "run.json", "results/summary.json", "results/accuracy/accuracy.json"]
    return _one_of(folder / "out", rng, names)


def _clips(folder: Path) -> None:
    frames = np.stack([np.roll(VIDEO.frames[0].numpy(), 3 * i, axis=1) for i in range(16)])
    for name in ("a.mp4", "b.mkv", "c.webm"):
        write_clip(folder / name, frames)


def _clip(folder: Path, rng: Random) -> str:
    file = rng.choice(sorted(folder.iterdir()))
    content, said = mutations.spoil(file.read_bytes(), rng, rng.choice([None, 300]))
    (folder / f"clip{file.suffix}").write_bytes(content)
    return f"{file.name}: {said}"


def _watch(folder: Path) -> None:
    [file] = folder.glob("clip.*")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sampling in ("midpoints", "time"):
            video = vl.Video.from_file(file, n_frames=4, sampling=sampling)
            assert video.frames.shape[0] == 4 and video.frames.shape[3] == 3 and video.seconds.isfinite().all()


@cache
def _shapes() -> vl.HookedVideoTransformer:
    return vl.HookedVideoTransformer.from_pretrained("shapes")


def _texts(folder: Path, rng: Random) -> str:
    said = [mutations.text(rng) for _ in range(4)]
    (folder / "texts.json").write_text(json.dumps(said))
    return repr(said)


def _ask(folder: Path) -> None:
    stem, *options = json.loads((folder / "texts.json").read_text())
    prompt = _shapes().prompt(vl.Question(VIDEO, stem, options, options[0], id=stem, task=options[1]))
    assert "stem" in prompt.tokens.names if hasattr(prompt.tokens, "names") else True
    assert bool(_shapes()(prompt).isfinite().all())


def _arguments(folder: Path, rng: Random) -> str:
    names = sorted(_calls())
    name, value = rng.choice(names), rng.randrange(len(mutations.JUNK))
    (folder / "call.json").write_text(json.dumps([name, value]))
    return f"{name} {mutations.JUNK[value]!r:.60}"


@cache
def _prompt() -> vl.Prompt:
    return _shapes().prompt(vl.Question(VIDEO, "Up?", ["a", "b"], "a"))


def _calls() -> dict[str, Callable[[Any], Any]]:
    shapes, prompt, quiet = _shapes, _prompt, {"progress": False}

    def asked() -> list[vl.Question]:
        return [vl.Question(VIDEO, "Up or down?", ["a", "b"], "a", id="1", task="t")]

    return {
        "from_pretrained": vl.HookedVideoTransformer.from_pretrained,
        "device": lambda x: vl.HookedVideoTransformer.from_pretrained("shapes", device=x),
        "dtype": lambda x: vl.HookedVideoTransformer.from_pretrained("shapes", dtype=x),
        "generate": lambda x: shapes().generate(prompt(), x),
        "generate's prompt": lambda x: shapes().generate(x, 1),
        "interventions": lambda x: shapes().generate(prompt(), 1, x),
        "prompt": lambda x: shapes().prompt(x),
        "template": lambda x: shapes().prompt(vl.Question(VIDEO, "Up?", ["a"]), x),
        "prompt_from_ids": lambda x: shapes().prompt_from_ids(x, None),
        "spans": lambda x: shapes().prompt_from_ids([1, 2, 3], None, x),
        "stop_at_layer": lambda x: shapes()(prompt(), stop_at_layer=x),
        "max_memory": lambda x: vl.sweep(shapes(), prompt(), [vl.Knockout("video", "last", layers=1)], max_memory=x),
        "sweep": lambda x: vl.sweep(shapes(), prompt(), x),
        "Knockout": lambda x: shapes().generate(prompt(), 1, [vl.Knockout(x, "last", layers=1)]),
        "Knockout's layers": lambda x: shapes().generate(prompt(), 1, [vl.Knockout("video", "last", layers=x)]),
        "Knockout's heads": lambda x: shapes().generate(prompt(), 1, [vl.Knockout("video", "last", layers=1, heads=x)]),
        "Video.from_file": lambda x: vl.Video.from_file(x),
        "n_frames": lambda x: vl.Video.from_array(VIDEO.frames, n_frames=x).frames,
        "fps": lambda x: vl.Video.from_array(VIDEO.frames, fps=x).frames,
        "start": lambda x: vl.Video.from_array(VIDEO.frames, start=x).frames,
        "from_array": lambda x: vl.Video.from_array(np.array(x)),
        "load_dataset": lambda x: vl.load_dataset(x),
        "n": lambda x: vl.load_dataset("shapes", n=x) if not isinstance(x, int) or x < 2 else None,
        "Question": lambda x: vl.Question(VIDEO, x, x, x),
        "run": lambda x: read_config(x),
        "a hook": lambda x: _hooked(lambda value, hook: x),
        "a hook of another shape": lambda x: _hooked(lambda value, hook: value[..., :1]),
        "a hook of another dtype": lambda x: _hooked(lambda value, hook: value.long()),
        "window": lambda x: vl.trace_flow(shapes(), asked(), window=x, samples="all", **quiet),
        "routes": lambda x: vl.trace_flow(shapes(), asked(), routes=x, samples="all", **quiet),
        "style": lambda x: vl.trace_flow(shapes(), asked(), style=x, samples="all", **quiet),
        "samples": lambda x: vl.trace_flow(shapes(), asked(), samples=x, **quiet),
        "questions": lambda x: vl.trace_flow(shapes(), x, **quiet),
        "top": lambda x: vl.logit_lens(shapes(), asked(), top=x, **quiet),
        "max_batch": lambda x: vl.measure_accuracy(shapes(), asked(), max_batch=x, **quiet),
        "pictures": lambda x: vl.attention_map(shapes(), asked(), "Up", pictures=x, **quiet),
        "words": lambda x: vl.attention_map(shapes(), asked(), x, **quiet),
        "occurrence": lambda x: vl.attention_map(shapes(), asked(), "Up", occurrence=x, **quiet),
        "seeds": lambda x: vl.evaluate_pathway(shapes(), asked(), vl.Pathway.closed(n_layers=12), seeds=x, **quiet),
        "n_layers": lambda x: vl.Pathway.closed(n_layers=x),
        "repeated": lambda x: prompt().repeated(x),
        "with_response": lambda x: prompt().tokens.with_response(x),
        "padded": lambda x: prompt().tokens.padded(x),
        "selection": lambda x: prompt().tokens[x],
        "rows": lambda x: shapes()(prompt(), rows=x),
        "accumulated_bias": lambda x: shapes().accumulated_bias(x),
        "to_single_token": lambda x: shapes().to_single_token(x),
        "to_string": lambda x: shapes().to_string(x),
        "frozen": lambda x: VIDEO.frozen(x).frames,
        "shuffled": lambda x: VIDEO.shuffled(x).frames,
        "blank": lambda x: VIDEO.blank(x).frames,
        "sampling": lambda x: vl.Video.from_array(VIDEO.frames, sampling=x).frames,
        "Patch": lambda x: vl.Patch(x, 1, source=vl.SourceRun(prompt(), {})),
        "SourceRun": lambda x: vl.SourceRun(prompt(), x),
        "from_spans": lambda x: vl.TokenMap.from_spans(x, {}, grid=(0, 0, 0), video=[]),
        "load": lambda x: vl.FlowMap.load(x),
        "Run.load": lambda x: vl.Run.load(x),
        "write": lambda x: VIDEO.write("clip.mp4", x),
        "write's path": lambda x: VIDEO.write(x, 2.0),
    }


def _hooked(function: Callable[..., Any]) -> None:
    out = _shapes().run_with_hooks(_prompt(), fwd_hooks=[("blocks.1.hook_resid_pre", function)])
    assert bool(out.isfinite().all())


def _call(folder: Path) -> None:
    name, value = json.loads((folder / "call.json").read_text())
    os.chdir(folder)
    _calls()[name](mutations.JUNK[value])


def sites() -> dict[str, Site]:
    """All, by name."""
    found = []
    for name in CASES:
        make = _checkpoint(name)
        found += [
            Site(f"{name} config", make, lambda folder, rng: _one_of(folder, rng, ["config.json"]), _load),
            Site(f"{name} files", make, _of_files, _load),
        ]
    weights = _checkpoint("llava_next_video")
    found.append(Site("safetensors", weights, lambda f, rng: mutations.header(f / "model.safetensors", rng), _load))
    if find_spec("peft"):
        found.append(Site("adapter", _adapter, _damaged_adapter, _merge))
    found.append(Site("listing", _listing, lambda f, rng: mutations.damage(f / "json/action_count.json", rng), _look))
    found.append(Site("tomato", _tomato, lambda f, rng: mutations.damage(f / "jsons/count.json", rng), _look))
    found.append(
        Site(
            "yaml",
            lambda f: void((f / "run.yaml").write_text(_yaml(CONFIG))),
            _config,
            lambda f: void(read_config(f / "run.yaml")),
        )
    )
    found.append(Site("run", _run, _run_file, _resume))
    found += [
        Site(
            f"result {each.name}",
            lambda f, at=each: void(shutil.copytree(at, f, dirs_exist_ok=True)),
            _saved,
            _result(each.name),
        )
        for each in sorted(SAVED.iterdir())
    ]
    found.append(Site("video", _clips, _clip, _watch))
    found.append(Site("text", lambda folder: None, _texts, _ask))
    found.append(Site("arguments", lambda folder: None, _arguments, _call))
    torch.set_num_threads(1)
    return {site.name: site for site in found}
