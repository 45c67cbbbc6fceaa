"""The page of a run: what was asked, and a section for each of its experiments."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from markupsafe import Markup

from videolens.drawing.html import embed, paragraph, table
from videolens.drawing.page import Key, Section, page
from videolens.experiments import declared
from videolens.model.checkpoints.files import short_name
from videolens.runs.summary import made_from


def section_of(name: str, result: Any) -> Markup:
    """The section of a result; of an experiment without a module `section`, its figure and what it says of itself."""
    if find_spec(f"videolens.experiments.{name}.section") is None:
        return embed(result.figure(), alt=declared(name).title, caption=repr(result))
    section: Markup = declared(name).module("section").section(result)
    return section


def report(summary: Mapping[str, Any], sections: Mapping[str, Markup]) -> str:
    """The whole page. Nothing in it says when it was made.

    Args:
        summary: of the run, as it is saved.
        sections: by label, of the experiments that could be drawn; of the others the page says why not.
    """
    experiments, dataset = summary["experiments"], summary["dataset"]
    n_errors = sum(len(each["failures"]) for each in experiments.values())
    keys = [Key(str(summary["questions"]), "questions asked"), Key(str(len(experiments)), "experiments")]
    missing = f" {n} more have no video." if (n := len(summary["missing"])) else ""
    return page(
        title=f"{short_name(summary['model'])}, asked about {short_name(dataset['name'])}",
        kicker="videolens run",
        lead=f"Every experiment asked the model the same questions, one by one.{missing} Layers are counted from 1 on "
        "this page, and from 0 in the tables beside it.",
        keys=[*keys, Key(str(n_errors), "errors")],
        sections=[
            Section(
                id=f"experiment-{number}",
                short=label,
                title=declared(each["name"]).title + (f" ({label})" if label != each["name"] else ""),
                body=Markup("").join([sections.get(label, _instead(each)), *_counts(each)]),
            )
            for number, (label, each) in enumerate(experiments.items(), 1)
        ],
        footer=made_from(summary),
    )


def _instead(each: Mapping[str, Any]) -> Markup:
    """In place of a section."""
    without = each["without"]
    return paragraph(f"No result: {without}" if without is not None else f"Not drawn: {each['undrawn']}")


def _counts(each: Mapping[str, Any]) -> list[Markup]:
    """How many questions were asked, and why some are not in the table."""
    rows = [
        [left["route"] or "the whole question", left["reason"], str(left["questions"])] for left in each["left out"]
    ]
    rows += [
        [f"{one['task']} / {one['question']}", f"{one['error']}: {one['message']}", "1"] for one in each["failures"]
    ]
    said = paragraph(f"{each['asked']} questions were asked; {each['answered']} of them are in the table.")
    return [said, table(["left out", "why", "questions"], rows, numbers_from=2)] if rows else [said]
