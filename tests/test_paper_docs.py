"""docs/paper.md: its configs are valid, its models are all there, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import videolens as vl
from videolens.interventions.presets import PRESETS
from videolens.runs.config import read_config

DOCS = Path(__file__).parent.parent / "docs"
PAPER = (DOCS / "paper.md").read_text()


@pytest.mark.parametrize("name", ["paper.yaml", "paper-7b.yaml"])
def test_configs_are_valid_and_make_what_the_figures_are_drawn_from(name: str) -> None:
    config = read_config(DOCS / name)
    labels = {experiment.label for experiment in config.experiments}
    assert {"map", "halves", "top-down", "bottom-up", "window 1", "window 5", "attention_map", "pathway"} <= labels
    if name == "paper.yaml":  # the page's lines read these by name
        assert set(re.findall(r"\{results\}/([a-z_ 0-9-]+)", PAPER)) <= labels
    # a preset stands for ranges, which the experiment would refuse at another depth
    pathway = next(each.options["pathway"] for each in config.experiments if each.name == "pathway")
    assert vl.Pathway.from_dict(pathway).n_layers == {"paper.yaml": 12, "paper-7b.yaml": 32}[name]


def test_every_model_of_the_paper_is_named() -> None:
    assert all(f"{{preset: {name}}}" in PAPER for name in PRESETS)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#\s]+)?(?:#([^)]+))?\)", PAPER)
    assert len(links) > 10
    for file, anchor in links:
        page = DOCS / (file or "paper.md")
        assert page.exists(), file
        if anchor:
            titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, (file, anchor)
