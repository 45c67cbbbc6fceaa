"""The demonstration as one page."""

from __future__ import annotations

import datetime
import os

from videolens.datasets.shapes import STILL_TASKS, TEMPORAL_TASKS
from videolens.drawing.html import escape
from videolens.drawing.page import Key, Section, page
from videolens.experiments.common.statistics import REPLICATES, proportion
from videolens.experiments.flow.cost import cost_section, cost_words
from videolens.experiments.flow.section import brief_claims, claims_section, flow_section
from videolens.experiments.pathway.section import answer_section, lens_section, pathway_section
from videolens.experiments.segment_attention.view import script
from videolens.pages.clips import accuracy_section, attention_section, clip_card, clips_intro, settings_section
from videolens.pages.demo import Demo, short_name, words_at

__all__ = ["demo_page"]


def demo_page(demo: Demo) -> str:
    """The whole page as HTML, with everything in it."""
    tuned, base = short_name(demo.settings.model), short_name(demo.settings.base)
    made = demo.tuned.settings
    cuts = len(demo.tuned.table) + len(demo.base.table)
    keys = [
        Key(
            _overall(demo, tuned, "as is"),
            f"of temporal questions answered rightly by {tuned}, tuned on video",
            "tuned",
        ),
        Key(_overall(demo, tuned, "shuffled"), f"by {tuned} with the frames in a random order", "tuned"),
        Key(
            _overall(demo, base, "as is"),
            f"by {base}, the image-only model it was tuned from; chance is {_chance(demo)}",
            "base",
        ),
        Key(
            f"{100 * demo.pruned.accuracy.live_edges_kept.value:.0f} %",
            f"of {tuned}’s live attention edges, along one pathway, keep "
            f"{100 * demo.pruned.accuracy.accuracy.value:.0f} % of the answers right; as many at random, "
            f"{100 * demo.pruned.accuracy.mean('correct', 'random, live edges').value:.0f} %",
            "tuned",
        ),
        Key(
            f"{cuts:,}",
            f"knockouts: {len(demo.tuned.routes)} routes × {made.n_layers} windows × questions; all of a question’s "
            f"for {cost_words(demo.tuned)}",
        ),
    ]
    return page(
        title="Where information flows in a VideoLLM",
        kicker="videolens · flow report",
        lead=f"Two models that differ only in having been tuned on video, <b>{escape(tuned)}</b> and "
        f"<b>{escape(base)}</b>, answer the same questions about the same clips. Attention is cut, one route and "
        "one window of layers at a time, to see which paths from the video to the answer matter.",
        keys=keys,
        head=script(),
        sections=[
            Section("brief", "In brief", "In brief", brief_claims(demo.claims)),
            Section(
                "clips", "Clips", "What they are asked", clips_intro(demo.asked) + "".join(map(clip_card, demo.asked))
            ),
            Section(
                "accuracy",
                "Accuracy",
                "Who gets it right",
                accuracy_section(demo.accuracy, TEMPORAL_TASKS, STILL_TASKS),
            ),
            Section("flow", "Flow", "Where it flows", flow_section(demo.tuned, demo.base)),
            Section(
                "claims", "Claims", "What this says about the paper’s claims", claims_section(demo.claims, demo.flows)
            ),
            Section("pathway", "Pathway", "What can be cut away", pathway_section(demo.pruned)),
            Section("answer", "Answer", "When the answer forms", answer_section(demo.trace)),
            Section("words", "Words", "What the video tokens read as", lens_section(demo.lens, words_at(demo.lens))),
            Section("attention", "Attention", "Who looks at whom", attention_section(demo.attention)),
            Section("cost", "Cost", "What the maps cost", cost_section(demo.flows, demo.check)),
            Section(
                "settings",
                "Settings",
                "How this was made",
                settings_section(_settings(demo), demo.flows, demo.versions),
            ),
        ],
        footer="Measurements as in Kim, Kim and Han, <i>Map the Flow: Revealing Hidden Pathways of Information in "
        "Video Large Language Models</i> (ICLR 2026, arXiv 2510.13251). Layers are counted from 1 on this page, as "
        "in the paper, and from 0 in the code and in the tables beside it. This page is one file: nothing in it is "
        "loaded from anywhere.",
    )


def _overall(demo: Demo, model: str, condition: str) -> str:
    """Share of right choices over all temporal questions."""
    table = demo.accuracy.table
    table = table[(table["model"] == model) & (table["condition"] == condition) & table["task"].isin(TEMPORAL_TASKS)]
    return f"{100 * proportion(int(table['correct'].sum()), len(table)).value:.0f} %"


def _chance(demo: Demo) -> str:
    tasks = [task for task in TEMPORAL_TASKS if task in demo.accuracy.tasks]
    return f"{100 * sum(map(demo.accuracy.chance, tasks)) / len(tasks):.0f} %"


def _settings(demo: Demo) -> dict[str, str]:
    made, asked = demo.tuned.settings, demo.settings
    tuned, base = short_name(asked.model), short_name(asked.base)
    rows = {f"model {name}": words for name, words in demo.models.items()}
    rows["questions"] = (
        f"procedural shapes benchmark, split {asked.split}, seed {asked.seed}: {asked.n} of each temporal task mapped, "
        f"{max(asked.n_accuracy, asked.n)} of each task for accuracies"
    )
    rows["samples"] = (
        f"{tuned}: answered rightly ({demo.tuned.n} of {made.n_asked}); "
        f"{base}: all ({demo.base.n} of {demo.base.settings.n_asked})"
    )
    rows["window"] = f"{made.window} of {made.n_layers} layers, around every layer, cut off at the ends"
    rows["probability"] = (
        "of the token that the uncut model ranks first at the last position; change = (cut − uncut) / uncut"
    )
    rows["intervals"] = (
        f"flow: 95 % bootstrap over questions, {REPLICATES:,} draws, seed {made.seed}; accuracies: Wilson"
    )
    rows["made"] = (
        f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z} in {demo.seconds:.0f} s on {os.cpu_count()} cores"
    )
    rows["command"] = (
        f"videolens demo --model {asked.model} --base {asked.base} --n {asked.n} --n-accuracy {asked.n_accuracy} "
        f"--seed {asked.seed} --split {asked.split}"
    )
    rows["tables"] = (
        "flow.csv, flow.parquet, accuracy.csv and claims.json lie beside this page; maps/ is for FlowMap.load"
    )
    return rows
