"""The summary of a run, for people: how many questions, what became of them, and where nothing was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def made_from(summary: Mapping[str, Any]) -> str:
    """Model, data set and seed in one line, with digests."""
    dataset = ", ".join(f"{name} {value}" for name, value in summary["dataset"].items() if value is not None)
    return (
        f"model {summary['model']} (sha256 {summary['model_sha256'][:12]}); data set {dataset} "
        f"(sha256 {summary['dataset_sha256'][:12]}); seed {summary['seed']}"
    )


def spelled(summary: Mapping[str, Any]) -> str:
    """Markdown: one line per experiment, then every question that was left out or failed, with the reason."""
    lines = [
        made_from(summary),
        "",
        f"{summary['questions']} questions were asked"
        + (f"; {n} more have no video" if (n := len(summary["missing"])) else "")
        + ".",
        "",
        "| experiment | asked | in the table | left out | errors | rows |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for label, each in summary["experiments"].items():
        failed = len(each["failures"])
        out = each["asked"] - each["answered"] - failed
        lines.append(f"| {label} | {each['asked']} | {each['answered']} | {out} | {failed} | {each['rows']} |")
    for label, each in summary["experiments"].items():
        if each["without"] is not None:
            lines += ["", f"**{label} has no result**: {each['without']}"]
        if each["undrawn"] is not None:
            lines += ["", f"{label} could not be drawn: {each['undrawn']}"]
        if each["left out"]:
            lines += ["", f"Left out of {label}:", ""]
            lines += [
                f"- {skip['questions']} × {skip['route'] or 'the whole question'}: {skip['reason']}"
                for skip in each["left out"]
            ]
        if each["failures"]:
            lines += ["", f"Errors in {label}:", ""]
            lines += [
                f"- {one['task']} / {one['question']}: {one['error']}: {one['message']}" for one in each["failures"]
            ]
    if summary["missing"]:
        lines += ["", "Without a video:", ""]
        lines += [f"- {one['task']} / {one['question']}: {one['path']} {one['reason']}" for one in summary["missing"]]
    return "\n".join(lines)
