"""The demonstration as one page."""

from __future__ import annotations

import datetime
import os

from markupsafe import Markup

from videolens.datasets.shapes_tasks import STILL_TASKS, TEMPORAL_TASKS
from videolens.drawing.page import Key, Section, page
from videolens.experiments.accuracy.section import section as accuracy_section
from videolens.experiments.answer_trace.section import section as answer_section
from videolens.experiments.claims.section import brief
from videolens.experiments.claims.section import section as claims_section
from videolens.experiments.common.statistics import REPLICATES, proportion
from videolens.experiments.flow.cost import cost_section, cost_words
from videolens.experiments.flow.section import section as flow_section
from videolens.experiments.logit_lens.section import section as lens_section
from videolens.experiments.pathway.section import section as pathway_section
from videolens.experiments.segment_attention.section import section as attention_section
from videolens.model.checkpoints.files import short_name
from videolens.pages.clips import clips_section, settings_section
from videolens.pages.demo_evidence import stressed_section, unhinted_section
from videolens.pages.demo_parts import EXPLORER, Demo
from videolens.pages.demo_search import smallest_section
from videolens.pages.journey import journey

_NOTHING_NAMED = (
    "In a model trained on much text such words name what a patch shows; this small one was never asked to name its "
    "patches, and what they read as is mostly not what they show. The reading is exact all the same, and the code is "
    "that for a large model."
)


def demo_page(demo: Demo) -> str:
    """The whole page as HTML, with everything in it."""
    lead = Markup(
        "Two models that differ only in having been tuned on video, <b>{}</b> and <b>{}</b>, answer the same questions "
        "about the same clips. Attention is cut, one route and one window of layers at a time, to see which paths from "
        "the video to the answer matter."
    )
    return page(
        title="Where information flows in a VideoLLM",
        kicker="videolens · flow report",
        lead=lead.format(short_name(demo.settings.model), short_name(demo.settings.base)),
        picture=journey(demo.clips[0], demo.tuned, explorer=EXPLORER),
        keys=_keys(demo),
        sections=_sections(demo),
        footer=Markup(
            "Measurements as in Kim, Kim and Han, <i>Map the Flow: Revealing Hidden Pathways of Information in Video "
            "Large Language Models</i> (ICLR 2026, arXiv 2510.13251). Layers are counted from 1 on this page, as in "
            "the paper, and from 0 in the code and in the tables beside it. This page is one file: nothing in it is "
            "loaded from anywhere."
        ),
    )


def _keys(demo: Demo) -> list[Key]:
    """The numbers at the top."""
    tuned, base = short_name(demo.settings.model), short_name(demo.settings.base)
    along = demo.pruned.accuracy
    kept, right = along.live_edges_kept.value, along.accuracy.value
    at_random = along.mean("correct", "random, live edges").value
    cuts = len(demo.tuned.table) + len(demo.base.table)
    return [
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
            f"{100 * kept:.0f} %",
            f"of {tuned}’s live attention edges, along one pathway, keep {100 * right:.0f} % of the answers right; as "
            f"many at random, {100 * at_random:.0f} %",
            "tuned",
        ),
        Key(
            f"{cuts:,}",
            f"knockouts: {len(demo.tuned.routes)} routes × {demo.tuned.settings.n_layers} windows × questions; all of "
            f"a question’s for {cost_words(demo.tuned)}",
        ),
    ]


def _sections(demo: Demo) -> list[Section]:
    """Every part of the page, in order."""
    pruned, (attention, base_attention) = demo.pruned, demo.attention
    pathway = pathway_section(pruned.accuracy, choice=pruned.choice, view=pruned.view, n=pruned.n)
    settings = settings_section(_settings(demo), demo.flows, demo.versions)
    emergence = []
    if (free := demo.evidence.unhinted) is not None:
        emergence.append(Section("hints", "Hints", "What is there without hints", unhinted_section(free), folded=True))
    return [
        Section("brief", "In brief", "In brief", brief(demo.claims)),
        Section("clips", "Clips", "What they are asked", clips_section(demo.clips), folded=True),
        Section(
            "accuracy", "Accuracy", "Who gets it right", accuracy_section(demo.accuracy, still=STILL_TASKS), folded=True
        ),
        Section("flow", "Flow", "Where it flows", flow_section(demo.tuned, base=demo.base, table=False)),
        Section(
            "claims", "Claims", "What this says about the paper’s claims", claims_section(demo.claims, flows=demo.flows)
        ),
        Section("pathway", "Pathway", "What can be cut away", pathway, folded=True),
        Section(
            "smallest",
            "Smallest",
            "How little is enough, and what that saves",
            smallest_section(demo.smallest),
            folded=True,
        ),
        Section("stress", "Stress", "What the pathways bear", stressed_section(demo.evidence.stress), folded=True),
        *emergence,
        Section("answer", "Answer", "When the answer forms", answer_section(demo.trace), folded=True),
        Section(
            "words", "Words", "What the video tokens read as", lens_section(demo.lens, note=_NOTHING_NAMED), folded=True
        ),
        Section(
            "attention",
            "Attention",
            "Who looks at whom",
            attention_section(attention, base=base_attention),
            folded=True,
        ),
        Section("cost", "Cost", "What the maps cost", cost_section(demo.flows, demo.check), folded=True),
        Section("settings", "Settings", "How this was made", settings),
    ]


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
