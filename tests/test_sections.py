"""Sections and pages: every result has a section that takes it alone, and no name becomes HTML."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.report import EVIL, invented_attention, read
from jinja2 import TemplateNotFound, UndefinedError
from markupsafe import Markup

import videolens as vl
from videolens.drawing.html import render
from videolens.drawing.page import Key, Section
from videolens.drawing.page import page as whole_page
from videolens.drawing.view import script
from videolens.experiments.accuracy.result import Accuracy
from videolens.experiments.claims.result import Claims
from videolens.experiments.segment_attention.result import SegmentAttention
from videolens.experiments.segment_attention.view import attention_view

SAVED = Path(__file__).parent / "data" / "saved"
KINDS = {
    "accuracy": Accuracy,
    "answer_trace": vl.AnswerTrace,
    "attention_map": vl.AttentionMap,
    "attribution": vl.Attribution,
    "claims": Claims,
    "flow": vl.FlowMap,
    "flow_comparison": vl.FlowComparison,
    "generation": vl.GenerationTrace,
    "logit_lens": vl.LogitLens,
    "patch_map": vl.PatchMap,
    "pathway": vl.PathwayAccuracy,
    "probe": vl.Probes,
    "search": vl.PathwaySearch,
    "segment_attention": SegmentAttention,
    "stress": vl.Stress,
}


def named(result: Any, prefix: str) -> Any:
    """A result whose model, tasks, questions, pairs, words and statements have a prefix to their names."""

    def longer(table: pd.DataFrame) -> pd.DataFrame:
        columns = table.columns.intersection(["model", "task", "question", "pair", "word"])
        return table.assign(**{column: prefix + table[column] for column in columns})

    if isinstance(result, Claims):
        found = [replace(each, name=prefix + each.name, statement=prefix + each.statement) for each in result.findings]
        return replace(result, findings=tuple(found))
    settings = result.settings
    one = not isinstance(settings, tuple)
    renamed = tuple(replace(each, model=prefix + each.model) for each in ([settings] if one else settings))
    values = {each.name: getattr(result, each.name) for each in fields(result)}
    tables = {name: longer(value) for name, value in values.items() if isinstance(value, pd.DataFrame)}
    return replace(result, settings=renamed[0] if one else renamed, **tables)


@pytest.mark.parametrize("name", sorted(path.name for path in SAVED.iterdir()))
def test_every_result_has_a_section_that_takes_it_alone(name: str) -> None:
    result = named(KINDS[name].load(SAVED / name), EVIL)
    body = import_module(f"videolens.experiments.{name}.section").section(result)
    found = read(body)
    assert isinstance(body, Markup) and 'src="data:image/' in body
    assert "<h1" not in body and "<h2" not in body, "the page writes the heading"
    assert not {"None", "nan"} & set(re.split(r"\W+", found.text)), "what is not known is not written"
    assert found.scripts == body.count("CircuitsVis.render("), "a name is no script"
    only_in_figures = name in ("answer_trace", "logit_lens")
    assert (EVIL in found.text) != only_in_figures


def test_a_page_shows_plain_text_as_it_is_and_markup_as_html() -> None:
    parts = {"title": EVIL, "kicker": EVIL, "lead": EVIL, "footer": EVIL, "keys": [Key(EVIL, EVIL, EVIL)]}
    sections = [Section("a", EVIL, EVIL, EVIL), Section("b", "b", "b", Markup("<p>c</p>") + EVIL)]
    html = whole_page(**parts, sections=sections)
    found = read(html)
    # title twice; kicker, lead and footer; number and meaning; navigation, title and body of a; body of b
    assert found.text.count(EVIL) == 2 + 3 + 2 + 3 + 1 and found.scripts == 0 and "<p>c</p>" in html
    split = whole_page(**parts, sections=[Section("a", "a", "a", Markup("<p>2 % and [1, 2] %</p>"))])
    assert "<p>2\xa0% and [1, 2]\xa0%</p>" in split and "calc(100% - 5em)" in split, (
        "a % does not stand alone in a line"
    )
    drawn = Section("c", "c", "c", Markup(attention_view(invented_attention())))
    assert script() in whole_page(**parts, sections=[*sections, drawn]), "a page has the script if a section needs it"
    assert script() not in whole_page(**parts, sections=[drawn], head=Markup('<meta name="a">'))


def test_a_template_gets_every_name_it_uses(tmp_path) -> None:
    (tmp_path / "section.html").write_text('{% from "macros.html" import badge %}{{ badge(verdict) }}{{ text }}')
    module = str(tmp_path / "section.py")
    assert render(module, verdict="a b", text="<") == '<span class="badge a-b">a b</span>&lt;'
    with pytest.raises(UndefinedError, match="text"):
        render(module, verdict="holds")
    with pytest.raises(TemplateNotFound, match="other"):
        render(module, "other.html")
