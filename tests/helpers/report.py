"""Tiny checkpoints on disk that pick letters, invented results, and a reader of pages, for the tests of accuracy,
reports and the command line."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import videolens as vl
from helpers.flow import TASKS
from helpers.models import tiny_llava_next_video
from helpers.tokenizer import tiny_tokenizer
from videolens.experiments.accuracy.result import Accuracy, AccuracyRow, AccuracySettings
from videolens.experiments.segment_attention.result import SegmentAttention, SegmentSettings
from videolens.model.vision.pixels import PixelSettings

LETTERS = "ABCD"


def letter_model(*, seed: int = 0) -> vl.HookedVideoTransformer:
    """A tiny model with a tokenizer that ranks one of the letters A to D first: every other word has logit 0."""
    return vl.HookedVideoTransformer.from_hugging_face(
        _only_letters(tiny_llava_next_video(seed=seed)),
        tokenizer=tiny_tokenizer(),
        pixels=PixelSettings(size=16, crop=(16, 16)),
    )


def letter_checkpoint(directory: Path, *, seed: int = 0) -> Path:
    """The same as a directory in Hugging Face's layout, with the template of the bundled models."""
    _only_letters(tiny_llava_next_video(seed=seed)).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"prompt_template": "shapes"}))
    pixels = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    (directory / "preprocessor_config.json").write_text(json.dumps(pixels))
    return directory


def _only_letters(module):
    letters = tiny_tokenizer().convert_tokens_to_ids(list(LETTERS))
    with torch.no_grad():
        kept = module.lm_head.weight[letters].clone()
        module.lm_head.weight.zero_()
        module.lm_head.weight[letters] = kept
    return module


def questions(n: int = 6, *, seed: int = 0, n_options: int = 4) -> list[vl.Question]:
    """Questions about clips of noise, of two layouts: every second stem is longer."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(n):
        frames = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8, generator=generator)
        options = ["left", "right", "up", "down"][:n_options]
        made.append(
            vl.Question(
                vl.Video.from_array(frames, fps=2.0),
                "where does it move ?" if i % 2 else "which way does the red ball move ?",
                options,
                options[i % n_options],
                task="moving",
                id=f"q{i}",
                reversed_answer=options[(i + 1) % n_options],
            )
        )
    return made


def invented_accuracy(models=("shapes", "shapes-image"), n: int = 8) -> Accuracy:
    """Answers as they may look: the first model right when time is there, the second never better than chance."""
    rng = np.random.default_rng(0)
    conditions = ("as is", "reversed", "shuffled", "blank")
    rows, settings = [], []
    for model in models:
        for task in TASKS:
            for condition in conditions:
                share = 0.9 if model == models[0] and condition in ("as is", "reversed") else 0.25
                for i in range(n):
                    right, answer = rng.random() < share, LETTERS[i % 4]
                    choice = answer if right else LETTERS[(i + 1) % 4]
                    rows.append((model, task, f"{task} {i}", condition, 4, answer, choice, right, 0.5, True))
        settings.append(AccuracySettings(model=model, n_asked=n * len(TASKS), conditions=conditions))
    table = pd.DataFrame(rows, columns=list(AccuracyRow._fields)).astype({"correct": bool, "option_first": bool})
    return Accuracy(table, tuple(settings))


def invented_attention(model: str = "shapes", *, layers: int = 12, heads: int = 4) -> SegmentAttention:
    """Causal attention between the segments of a prompt of eight frames."""
    names = ("system", *(f"frame {i}" for i in range(8)), "glue", "header", "stem", "options", "suffix", "last")
    mass = torch.rand(layers, heads, len(names), len(names), generator=torch.Generator().manual_seed(0)).tril() ** 4
    share = (mass + 1e-6).tril() / (mass + 1e-6).tril().sum(-1, keepdim=True)
    return SegmentAttention(share, names, SegmentSettings(model=model, n=40))


EVIL = "<script>evil()<!-- \"'&<i> $\\frac{$"
"""A name that must never become HTML."""

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Checks that elements are closed in order; collects identifiers, links to them, what would be fetched and the text
    that is shown; counts scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.text = ""
        self.scripts = 0

    def handle_starttag(self, tag, attrs) -> None:
        found = dict(attrs)
        self.scripts += tag == "script"
        self.ids += [found["id"]] if "id" in found else []
        if tag == "a":
            self.targets.append(found["href"])
        self.fetched += [
            value
            for key, value in attrs
            if key in ("src", "srcset", "data", "poster") or (key == "href" and tag != "a") or "url(" in (value or "")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += data


def read(html: str) -> Reader:
    """Parse a page; fail if it is not well formed or would fetch anything."""
    reader = Reader()
    reader.feed(str(html))
    assert reader.open == [], f"never closed: {reader.open}"
    assert all(source.startswith("data:") for source in reader.fetched), "everything is embedded"
    style = "".join(re.findall(r"<style>(.*?)</style>", html, flags=re.S))
    assert "@import" not in style and "url(" not in style and "@font-face" not in style
    return reader
