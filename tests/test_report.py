"""Reports: attention between segments is what patterns say, and a page is whole, well formed and asks no network for
anything."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.flow import TASKS, plausible_flow
from helpers.prompts import tiny_model, tiny_prompt
from helpers.report import EVIL, invented_accuracy, invented_attention, letter_model, questions, read
from markupsafe import Markup
from PIL import Image

import videolens as vl
from videolens.drawing.html import badge, embed, frame_image, table
from videolens.drawing.view import script
from videolens.errors import VideolensError
from videolens.experiments.claims.experiment import check_claims
from videolens.experiments.claims.result import CLAIMS
from videolens.experiments.common.experiment import Skip
from videolens.experiments.flow.cost import SideBySide, cost_section, cost_words, side_by_side
from videolens.experiments.pathway.savings import measure_savings
from videolens.experiments.pathway.view import pruning_view
from videolens.experiments.segment_attention.experiment import measure_attention
from videolens.experiments.segment_attention.result import SegmentAttention
from videolens.experiments.segment_attention.view import MOST_HEADS, attention_view, standalone
from videolens.pages.clips import AnsweredClip, clip_card
from videolens.pages.demo_evidence import COMPARED_IN, DISTURBED, STRESSED, Evidence, evidence, first_of_each
from videolens.pages.demo_page import demo_page
from videolens.pages.demo_parts import EXPLORER, Demo, DemoSettings, Pruned
from videolens.pages.demo_search import ABOVE, FOUND, Smallest, smallest, smallest_section

SAVED = Path(__file__).parent / "data" / "saved"


@pytest.fixture(scope="module")
def demo() -> Demo:
    tuned, base = plausible_flow(n=3), plausible_flow("shapes-image", n=3, from_video=0.0, samples="all", seed=1)
    shares = {"shapes": (0.1, 0.2, 0.6, 0.1), "shapes-image": (0.25, 0.25, 0.2, 0.3)}
    clips = [
        AnsweredClip(replace(question, task=task), shares, {})
        for question, task in zip(questions(5), TASKS, strict=True)
    ]
    # one real clip along one real pathway
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    asked_again = vl.load_dataset("shapes", task="moving direction", n=2)
    choice = vl.choose_pathway(model, asked_again, progress=False)
    along = vl.evaluate_pathway(model, asked_again, choice.pathway, seeds=1, progress=False)
    search = vl.PathwaySearch.load(SAVED / "search")
    timed = [model.prompt(question) for question in asked_again]
    pathways = {FOUND: search.pathway, ABOVE: choice.pathway}
    savings = measure_savings(model, timed, {FOUND: search.pathway}, rounds=1)
    pruned = Pruned(choice, along, pruning_view(model, asked_again[0], choice.pathway), 2)
    return Demo(
        settings=DemoSettings(n=3),
        clips=tuple(clips),
        accuracy=invented_accuracy(),
        tuned=tuned,
        base=base,
        claims=check_claims(tuned, base),
        attention=(invented_attention(), invented_attention("shapes-image")),
        pruned=pruned,
        smallest=Smallest(search, "", savings, pathways),
        evidence=Evidence(vl.Stress.load(SAVED / "stress"), vl.FlowComparison.load(SAVED / "flow_comparison")),
        trace=vl.answer_trace(model, asked_again, progress=False),
        lens=vl.logit_lens(model, asked_again[:1], keywords="shapes", progress=False),
        explorer=vl.explore(model, asked_again[0], routes=["video -> last"], words=False),
        check=SideBySide("shapes", 5, 660, 2.04, 101.2, 3.4e-7, 0.98),
        models={"shapes": "2 M parameters", "shapes-image": "2 M parameters"},
        seconds=12.0,
        versions={"videolens": vl.__version__},
    )


@pytest.fixture(scope="module")
def page(demo: Demo) -> str:
    return demo_page(demo)


# -- attention between segments -------------------------------------------------------------------------------------


def test_attention_between_segments_is_summed_over_sources_and_averaged_over_targets() -> None:
    model = tiny_model()
    prompts = [tiny_prompt(model, seed=seed) for seed in range(2)]
    found = measure_attention(model, prompts, name="tiny", progress=False)
    assert found.n == 2 and found.mass.shape[:2] == (3, 4) and found.model == "tiny"
    caches = [model.run_with_cache(prompt)[1] for prompt in prompts]
    segments = dict(prompts[0].tokens.segments())
    assert found.segments == tuple(segments)
    for target, source in (("stem", "frame 1"), ("last", "options"), ("frame 2", "frame 0"), ("frame 0", "last")):
        patterns = torch.stack([cache["pattern", 1][0] for cache in caches])
        block = patterns[:, :, segments[target]][..., segments[source]]
        expected = block.sum(-1).mean(-1).mean(0)
        here = found.mass[1, :, found.segments.index(target), found.segments.index(source)]
        assert torch.allclose(here.float(), expected, atol=1e-6)
    frame = found.to_dataframe()
    assert len(frame) == found.mass.numel()
    assert frame.groupby(["layer", "head", "target"])["mass"].sum().to_numpy() == pytest.approx(1, abs=1e-5)


def test_attention_under_a_knockout_has_nothing_left_where_it_cut() -> None:
    model = tiny_model()
    prompt = tiny_prompt(model)
    cut = vl.Knockout("video", "stem", layers=[1])
    open_, closed = (
        measure_attention(model, [prompt], fwd_hooks=hooks, progress=False) for hooks in ((), cut.hooks(prompt))
    )
    stem = open_.segments.index("stem")
    frames = [i for i, name in enumerate(open_.segments) if name.startswith("frame")]
    assert float(closed.mass[1, :, stem][:, frames].abs().max()) == 0 < float(open_.mass[1, :, stem][:, frames].min())
    assert torch.equal(closed.mass[0], open_.mass[0])


def test_attention_can_be_written_read_and_drawn_and_checks_itself(tmp_path) -> None:
    found = invented_attention()
    again = SegmentAttention.load(found.save(tmp_path))
    assert torch.allclose(again.mass.float(), found.mass, atol=1e-7)
    assert (again.segments, again.model, again.n) == (found.segments, found.model, found.n)
    pd.testing.assert_frame_equal(again.to_dataframe(), found.to_dataframe(), check_dtype=False)
    with pytest.raises(VideolensError, match="already holds a measurement of attention"):
        found.save(tmp_path)
    with pytest.raises(VideolensError, match="holds no measurement of attention"):
        SegmentAttention.load(tmp_path / "elsewhere")
    with pytest.raises(VideolensError, match="off by"):
        replace(found, mass=found.mass * 2)
    with pytest.raises(VideolensError, match=r"\[layer head 2 2\]"):
        replace(found, segments=("system", "last"))
    found.figure().savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_prompts_with_other_segments_are_not_averaged() -> None:
    model = tiny_model()
    with pytest.raises(VideolensError, match="cannot be averaged"):
        measure_attention(model, [tiny_prompt(model), tiny_prompt(model, options=False)], progress=False)
    with pytest.raises(VideolensError, match="no questions"):
        measure_attention(model, [], progress=False)


# -- circuitsvis ----------------------------------------------------------------------------------------------------


def test_the_script_is_the_installed_one_and_ends_only_once() -> None:
    found = script()
    assert found.count("</script") == 1 and "CircuitsVis" in found[:200] and len(found) < 2_000_000


def test_a_view_is_one_call_with_every_head_and_no_network() -> None:
    found = invented_attention()
    view = attention_view(found)
    called = re.search(r"CircuitsVis\.render\(\"([\w-]+)\", CircuitsVis\.AttentionHeads, (\{.*\})\)</script>", view)
    assert called is not None and f'id="{called[1]}"' in view and "http" not in view
    properties = json.loads(called[2])
    assert len(properties["attention"]) == len(properties["attentionHeadNames"]) == 48
    assert properties["attentionHeadNames"][:2] == ["L1 H1", "L2 H1"], "a row of twelve is one head"
    assert properties["attention"][13] == [[round(v, 3) for v in row] for row in found.mass[1, 1].tolist()]
    assert properties["tokens"] == list(found.segments) and properties["maskUpperTri"] is False
    assert attention_view(found) == view and attention_view(invented_attention("other")) != view
    read(standalone(found))


def test_a_large_model_is_shown_by_layer() -> None:
    found = invented_attention(layers=20, heads=MOST_HEADS // 16)
    properties = json.loads(re.search(r"AttentionHeads, (\{.*\})\)</script>", attention_view(found))[1])
    assert properties["attentionHeadNames"][-1] == "L20" and len(properties["attention"]) == 20
    assert properties["attention"][0][3][1] == pytest.approx(float(found.mass[0].mean(0)[3, 1]), abs=1e-3)


# -- the page -------------------------------------------------------------------------------------------------------


def test_the_page_is_one_well_formed_file_that_fetches_nothing(page: str) -> None:
    found = read(page)
    assert len(found.ids) == len(set(found.ids)), "identifiers are unique"
    assert {target.removeprefix("#") for target in found.targets} - {EXPLORER} <= set(found.ids), "links lead somewhere"
    assert page.count(script()[:500]) == 1, "the script is there once"
    assert len(page) < 5 * 2**20


def test_the_page_says_what_it_must(page: str, demo: Demo) -> None:
    text = " ".join(read(page).text.split())
    for claim in CLAIMS:
        assert demo.claims.sentence(claim) in text
    words = ("shuffled", "blank", "reversed", "window", "3 of 12 layers", "seed 0", "Versions", "n = 15")
    for word in (*TASKS, *words):
        assert word in text, word
    assert text.count("frame 2 · 1.00 s") == 5 and text.count("✓") >= 5
    assert page.count('class="pixels"') == 5 * 3 + 3, "three frames of a clip of each task, and of the first picture"
    for name in ("heat map", "cross-frame"):
        assert name in page.lower() or name.replace(" ", "-") in page.lower()


def test_the_page_states_exact_and_full_cost(page: str, demo: Demo) -> None:
    text = " ".join(read(page).text.split())
    assert "all of a question’s for 11.8 forwards instead of 133" in text
    assert "shapes1513311.811.2×40" in text.replace(" ", "")
    assert "5 of these questions in shapes: 2.0 s by the exact way, 101.2 s by the published one" in text
    assert "50 times as long. None of the 660 probabilities differs by more than 3e-07" in text
    assert "cost" in read(page).ids


def test_the_page_has_the_smallest_pathway_and_what_it_saves(page: str, demo: Demo) -> None:
    found, (full, masked, compiled) = read(page), demo.smallest.savings.table.itertuples()
    text = " ".join(found.text.split())
    assert "smallest" in found.ids and demo.smallest.search is not None
    assert demo.smallest.search.settings.chosen in text and "What is left against what is lost" in text
    assert full.gflop == masked.gflop > compiled.gflop and f"{compiled.gflop:.2f}" in text


def test_the_page_has_what_pathways_bear_and_what_is_there_without_hints(page: str, demo: Demo) -> None:
    found, (stress, free) = read(page), (demo.evidence.stress, demo.evidence.unhinted)
    text = " ".join(found.text.split())
    assert {"stress", "hints"} <= set(found.ids) and f"{stress.n} questions and 4 disturbances are a look" in text
    assert free is not None and f"n = {free.n}, the loss" in text
    for made, centre in zip(free.settings, free.models["centre"], strict=True):
        assert f"in {made.model} on layer {made.n_layers * centre + 0.5:.1f} [" in text


def test_a_model_with_hints_is_compared_with_the_one_without_in_words() -> None:
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    asked = list(vl.load_dataset("shapes", task="moving direction", n=1))
    pathway = {ABOVE: vl.Pathway(12, range(6), range(8), range(2, 12))}
    found = evidence("shapes", model, pathway, asked, seed=0, progress=False)
    assert found.stress.perturbations == list(DISTURBED) and found.stress.conditions == ["full", ABOVE]
    assert found.unhinted is not None and found.unhinted.names == ["shapes", "shapes-nohint"]
    assert [one.n_layers for one in found.unhinted.settings] == [12, 8] and found.unhinted.n == 1
    words = vl.trace_flow(model, [asked[0].open_ended()], routes=["cross-frame"], window=3, progress=False)
    curve = found.unhinted.table.query("model == 'shapes'")["mean"]
    assert curve.tolist() == pytest.approx(words.curve("cross-frame", measure="correct option").mean.tolist())


def test_what_had_hints_or_not_is_known_of_the_bundled_model_alone(demo: Demo) -> None:
    model, asked = letter_model(), questions(3)
    of_task = [replace(question, task=task) for task in "ab" for question in asked]
    closed = {ABOVE: vl.Pathway(model.cfg.n_layers)}
    found = evidence("tuned", model, closed, of_task, seed=0, progress=False)
    assert found.unhinted is None and found.stress.n == 2 * STRESSED < 2 * COMPARED_IN
    assert first_of_each(of_task, STRESSED)[STRESSED] is of_task[3]
    read_page = read(demo_page(replace(demo, evidence=Evidence(found.stress, None))))
    assert "hints" not in read_page.ids and "stress" in read_page.ids


def test_a_model_that_guesses_has_no_smallest_pathway_and_the_page_says_why(demo: Demo) -> None:
    model, said = letter_model(), list[str]()
    closed = vl.Pathway(model.cfg.n_layers)
    choice = replace(demo.pruned.choice, pathway=closed)
    asked = questions(2)
    found = smallest(model, asked, asked, asked[:1], choice, seed=0, say=said.append, progress=False)
    assert found.search is None and found.why_not and said == [f"no pathway was searched for: {found.why_not}"]
    text = read(smallest_section(found)).text
    assert found.why_not in text and "compiled" in text


def test_a_map_that_does_not_know_its_cost_says_so(demo: Demo) -> None:
    old = replace(demo.tuned, settings=replace(demo.tuned.settings, forwards=None, full_forwards=None, seconds=None))
    assert cost_words(old) == "" and read(cost_section([old])).text.count("–") == 4
    full = replace(demo.tuned, settings=replace(demo.tuned.settings, engine="full", forwards=133.0))
    assert cost_words(full) == "133 forwards"


def test_both_ways_side_by_side() -> None:
    found = side_by_side(letter_model(), questions(2), name="tiny", progress=False)
    assert (found.model, found.n, found.cuts) == ("tiny", 2, 2 * len(vl.ROUTES) * 3)
    assert min(found.exact_seconds, found.full_seconds) > 0
    assert found.apart <= 1e-5 < found.moved


def test_what_comes_from_outside_is_escaped() -> None:
    question = replace(
        questions(1)[0],
        stem="<script>alert(1)</script>?",
        options=["a<b", "c&d", "e"],
        answer="c&d",
        task="<i>",
        reversed_answer=None,
    )
    card = clip_card(AnsweredClip(question, {"<m>": (0.2, 0.5, 0.3)}, {}))
    found = read(card)
    text = " ".join(found.text.split())
    assert "<script>" not in str(card) and "alert(1)" in text and "(A) a<b" in text and "<m>" in text
    assert "(B) c&d ✓" in text and "50 % ◂" in text
    assert "hello &lt;" in str(clip_card(AnsweredClip(question.open_ended(), {}, {"m": "hello <"})))


def test_no_name_on_the_whole_page_becomes_html(demo: Demo, page: str) -> None:
    """Whatever is called as a script would be is there as text; the page has the elements it has for other names."""
    clips = [
        replace(
            clip,
            question=replace(clip.question, stem=EVIL, task=EVIL, id=EVIL),
            shares={EVIL: shares[0], "b": shares[1]},
        )
        for clip in demo.clips
        if (shares := list(clip.shares.values()))
    ]
    accuracy = invented_accuracy((EVIL, "b"))
    named = accuracy.table.replace({"task": {TASKS[0]: EVIL}, "question": {f"{TASKS[0]} 0": EVIL}})
    tuned, base = (plausible_flow(name, n=3, samples="all") for name in (EVIL, "b"))
    skipped = (Skip(EVIL, EVIL, EVIL, EVIL),)
    claims = demo.claims.findings
    hostile = replace(
        demo,
        settings=DemoSettings(EVIL, "b", n=3),
        clips=tuple(clips),
        accuracy=replace(accuracy, table=named),
        tuned=replace(tuned, settings=replace(tuned.settings, skipped=skipped)),
        base=base,
        claims=replace(demo.claims, findings=(replace(claims[0], name=EVIL, statement=EVIL), *claims[1:]), tuned=EVIL),
        attention=(invented_attention("a"), invented_attention(EVIL)),
        check=replace(demo.check, model=EVIL),
        models={EVIL: EVIL},
        versions={EVIL: EVIL},
    )
    html = demo_page(hostile)
    found, usual = read(html), read(page)
    assert found.scripts == usual.scripts and "<script>evil" not in html
    assert found.text.count(EVIL) >= 40
    assert len(found.ids) == len(set(found.ids))


def test_frames_are_embedded_as_they_are_and_large_ones_small() -> None:
    frame = torch.randint(0, 256, (16, 24, 3), dtype=torch.uint8)
    data = re.search(r'src="data:image/png;base64,([^"]+)"', frame_image(frame, alt='a "b"'))[1]
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert np.array_equal(np.asarray(picture), frame.numpy())
    large = frame_image(torch.zeros(1080, 1920, 3, dtype=torch.uint8), alt="a")
    assert "image/jpeg" in large and len(large) < 20_000


def test_figures_are_embedded_the_same_every_time_and_tables_are_tables() -> None:
    first, second = (embed(invented_accuracy().figure(), alt="a", caption=Markup("<b>c</b>")) for _ in range(2))
    assert first == second and "data:image/svg+xml" in first and "<b>c</b>" in first
    found = read(table(["a", "b"], [["x", "1"]], note="n"))
    assert "".join(found.text.split()) == "abx1n"
    assert 'class="badge does-not-hold"' in badge("does not hold")


def test_settings_that_make_no_sense_are_refused() -> None:
    for options, message in (({"n": 0}, "n = 0"), ({"n_accuracy": 0}, "n_accuracy = 0"), ({"base": "shapes"}, "both")):
        with pytest.raises(VideolensError, match=message):
            DemoSettings(**options)
