"""The numbers in the documentation come out again: by hand, for it takes about half an hour on two cores.

    VIDEOLENS_NUMBERS=out/numbers python -m pytest -m slow tests/test_docs_numbers.py -s

The folder keeps what the configs in docs/numbers made (`videolens run` goes on where it was). Every number is printed
in the words in which the documentation must hold it.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

import videolens as vl
from videolens.experiments.accuracy.result import Accuracy
from videolens.experiments.attribution.figure import agreement_text
from videolens.experiments.common.statistics import Interval
from videolens.experiments.common.words import number
from videolens.experiments.stress.table import table_rows
from videolens.runs.config import read_config

DOCS = Path(__file__).parent.parent / "docs"
NUMBERS = os.environ.get("VIDEOLENS_NUMBERS")
CONFIGS = sorted(path.stem for path in (DOCS / "numbers").glob("*.yaml"))
FAIR = "correct option"
TASKS = ("moving direction", "action antonym", "action sequence", "object count", "scene transition")


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_valid_and_its_command_stands_in_the_documentation(name: str) -> None:
    config = read_config(DOCS / "numbers" / f"{name}.yaml")
    command = f"videolens run docs/numbers/{name}.yaml --out out/numbers/{name}"
    assert command in (DOCS / "numbers" / f"{name}.yaml").read_text() and config.dataset["split"] == "test"
    assert any(f"numbers/{name}.yaml" in page.read_text() for page in DOCS.glob("*.md"))


def written(interval: Interval) -> str:
    """An interval as the documentation writes it."""
    value, low, high = (number(each, 1, sign="") for each in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def layer(interval: Interval) -> str:
    """The same of a layer, counted from 1."""
    return written(Interval(interval.value + 1, interval.low + 1, interval.high + 1, interval.n))


def made(name: str) -> Path:
    """The results of a config in docs/numbers; what is there already is not asked again."""
    assert NUMBERS is not None
    vl.run(DOCS / "numbers" / f"{name}.yaml", Path(NUMBERS) / name, progress=False)
    return Path(NUMBERS) / name / "results"


def must_stand(page: str, numbers: dict[str, str]) -> None:
    """Print them, and name those that the page does not hold."""
    text = " ".join((DOCS / page).read_text().split())
    for what, words in numbers.items():
        print(f"{page}: {what}: {words}")
    assert {what: words for what, words in numbers.items() if words not in text} == {}


slow = [
    pytest.mark.slow,
    pytest.mark.skipif(NUMBERS is None, reason="by hand: VIDEOLENS_NUMBERS=DIR, half an hour"),
]


class TestNumbers:
    """One map each, asked once."""

    pytestmark = slow

    @pytest.fixture(scope="class")
    def tuned(self) -> vl.FlowMap:
        return vl.FlowMap.load(made("tuned") / "map")

    @pytest.fixture(scope="class")
    def base(self) -> vl.FlowMap:
        return vl.FlowMap.load(made("base") / "map")

    @pytest.fixture(scope="class")
    def still(self) -> vl.FlowMap:
        return vl.FlowMap.load(made("still") / "map")

    def test_claims(self, tuned: vl.FlowMap, base: vl.FlowMap, still: vl.FlowMap) -> None:
        claims = vl.check_claims(tuned, base, still)
        must_stand("paper.md", {each.name: each.estimate.replace("+", "") for each in claims.findings})
        verdicts = [claims.verdict(claim) for claim in ("1", "2a", "2b", "3")]
        assert verdicts == ["holds", "holds", "does not hold", "holds"]

    def test_routes_into_the_options(self, tuned: vl.FlowMap) -> None:
        routes = ("video -> stem", "stem -> true option", "video -> true option", "video -> false options")
        must_stand(
            "paper.md",
            {f"{task}, {route}": written(tuned.peak(route, task=task)[1]) for task in TASKS for route in routes},
        )

    def test_routes(self, tuned: vl.FlowMap) -> None:
        routes = ("cross-frame", "video -> question", "question -> last")
        must_stand("bundled.md", {f"{route}, effect": written(tuned.peak(route)[1]) for route in routes})
        must_stand("bundled.md", {f"{route}, centre": layer(tuned.centre(route)) for route in routes})

    def test_long_answers(self) -> None:
        words, control = (vl.GenerationTrace.load(made("generation") / label) for label in ("backgrounds", "to"))
        assert words.n == control.n == 100
        peaks = {anchor: words.flow(anchor).peak("video -> last") for anchor in words.anchors}
        must_stand("generation.md", {str(k): f"{written(peak)}, layer {at + 1}" for k, (at, peak) in peaks.items()})
        must_stand("generation.md", {"response": written(words.flow(2).peak("response -> last")[1])})
        must_stand("generation.md", {"cost": f"takes {words.settings.forwards:.1f} forwards an answer instead of 100"})
        others = [
            words.flow(k).peak(route)[1] for k in words.anchors for route in ("video -> question", "question -> last")
        ]
        others += [control.flow(k).peak(route)[1] for k in control.anchors for route in control.flow(k).routes]
        assert all(-0.1 < peak.value < 0.1 for peak in others)
        must_stand("generation.md", {str(i): written(peak) for i, peak in enumerate(others)})

    def test_without_hints(self) -> None:
        claims = vl.check_claims(vl.FlowMap.load(made("nohint") / "map"))
        measured = {
            each.name: written(each.measured) for each in claims.findings if each.measured and each.unit != "layer"
        }
        centres = {
            each.name: layer(each.measured) for each in claims.findings if each.measured and each.unit == "layer"
        }
        must_stand("paper.md", measured | centres)

    def test_further_routes(self) -> None:
        flow = vl.FlowMap.load(made("video-routes") / "map")
        asked = [(route, None) for route in vl.VIDEO_ROUTES] + [("system -> video", "scene transition")]
        must_stand("bundled.md", {f"{r}, {task}": written(flow.peak(r, task=task)[1]) for r, task in asked})

    def test_probes(self) -> None:
        for name in ("probes", "probes-base"):
            probes = vl.Probes.load(made(name) / "probe")
            cells = {}
            for row in probes.summary().to_dict("records"):
                shares = (number(100 * row[end], 1, sign="") for end in ("accuracy", "low", "high"))
                at = f", layer {row['layer'] + 1}" if (name, row["condition"]) == ("probes", "clean") else ""
                cells[f"{row['target']}, {row['site']}, {row['condition']}"] = "{} [{}, {}]".format(*shares) + at
            left_out = ("sense, frame 7", "sense, question", "what moves, frame 7", "what moves, last")
            must_stand("probes.md", {who: cell for who, cell in cells.items() if not who.startswith(left_out)})

    def test_stress(self) -> None:
        found, attacked = (vl.Stress.load(made(name) / "stress") for name in ("stress", "stress-look"))
        rows = [*table_rows(found), *(row for row in table_rows(attacked) if row[0] == "adversarial")]
        must_stand("stress.md", {row[0]: f"| {' | '.join(row)} |" for row in rows})
        same, apart = attacked.compiled()
        assert same.value == 1 and apart <= 2e-5
        must_stand("stress.md", {"compiled": f"the same in all {same.n:,} prompts"})
        for name in found.settings.pathways:
            over_all = found.mean_difference(name)
            must_stand("stress.md", {name: written(over_all)})

    def test_measures(self, base: vl.FlowMap) -> None:
        flows = {"tuned": vl.FlowMap.load(made("tuned") / "cross-frame"), "base": base}
        measures = ("answer", FAIR, "correct option, relative", "accuracy")
        must_stand(
            "flow.md",
            {
                f"{measure}, {name}": written(flow.peak("cross-frame", measure=measure)[1])
                for measure in measures
                for name, flow in flows.items()
            },
        )

    def test_still(self, tuned: vl.FlowMap, still: vl.FlowMap) -> None:
        at = {route: still.peak(route, measure=FAIR)[0] for route in still.routes}
        at["cross-frame"] = tuned.peak("cross-frame", measure=FAIR)[0]  # as `check_claims` does
        changes = {route: written(still.change(route, layer, measure=FAIR)) for route, layer in at.items()}
        must_stand("bundled.md", changes)

    def test_frozen_frames(self) -> None:
        frozen = Accuracy.load(made("frozen") / "accuracy")
        (model,) = set(frozen.table["model"])
        rows = {
            task: " | ".join(f"{100 * frozen.share(model, task, f'frozen {k}').value:.0f}" for k in range(8))
            for task in TASKS
        }
        must_stand("bundled.md", {task: f"| {task} | {row} |" for task, row in rows.items()})

    @pytest.mark.parametrize(("name", "called"), [("halves", "tuned"), ("halves-base", "base")])
    def test_halves(self, name: str, called: str) -> None:
        flow = vl.FlowMap.load(made(name) / "map")
        tasks = ("action antonym", "action sequence", "scene transition", "moving direction", "object count", None)
        drops = [flow.accuracy("cross-frame", task=task, among="options").to_dataframe() for task in tasks]
        for at, half in enumerate(("first", "second")):
            ends = [drop.loc[at, ["drop_points", "drop_low", "drop_high"]].astype(float) for drop in drops]
            row = " | ".join("{} [{}, {}]".format(*(number(end, sign="") for end in each)) for each in ends)
            must_stand("paper.md", {half: f"| {called}, {half} half | {row} |"})

    def test_open_ended(self) -> None:
        model = vl.HookedVideoTransformer.from_pretrained("shapes")
        asked = vl.load_dataset("shapes", split="test", tasks=list(TASKS), n=10)
        flow = vl.trace_flow(model, [question.open_ended() for question in asked], progress=False)
        routes = ("video -> last", "cross-frame", "question -> last")
        must_stand("paper.md", {f"open-ended, {route}": written(flow.peak(route)[1]) for route in routes})

    def test_pathways(self) -> None:
        model = vl.HookedVideoTransformer.from_pretrained("shapes")
        validation, test = (
            vl.load_dataset("shapes", split=split, tasks=list(TASKS), n=n)
            for split, n in (("validation", 100), ("test", 200))
        )
        choice = vl.choose_pathway(model, validation, progress=False)
        chosen = {
            "as the paper chooses": vl.Pathway.from_flow(choice.flow, task="action antonym"),
            "all tasks' mean": vl.Pathway.from_flow(choice.flow),
            "logit differences": choice.pathway,
        }
        rows = {}
        for name, pathway in chosen.items():
            random = ("live edges", "routes and layers") if pathway is choice.pathway else ()
            found = vl.evaluate_pathway(model, test, pathway, random=random, seeds=3, progress=False)
            for row in found.summary().query("task == 'all'").itertuples():
                kept = number(100 * row.live_edges_kept, 1, sign="").removesuffix(".0")
                ends = (number(end, 1, sign="") for end in (row.loss_points, row.loss_points_low, row.loss_points_high))
                cells = [f"{kept} %", f"{100 * row.accuracy:.1f} %", "{} [{}, {}]".format(*ends)]
                cells = cells[:2] if row.condition == "full" else cells
                rows[f"{name}, {row.condition}"] = f"| {' | '.join(cells)} |"
        must_stand("pathways.md", rows)

    def test_attribution(self) -> None:
        results, rows = made("attribution"), {}
        measures = ("spearman", "magnitudes", "signs", "recall", "recovered")
        for folder in sorted(path for path in results.iterdir() if path.is_dir()):
            found = vl.Attribution.load(folder)
            cells = [agreement_text(found.measure(measure)) for measure in measures]
            rows[folder.name] = f"| {found.table['exact'].notna().sum():,} | {' | '.join(cells)} |"
        must_stand("attribution.md", rows)
        layer = vl.Attribution.load(results / "layer routes")
        by_route = {}
        for route in layer.routes:
            size, signs, recovered = (layer.measure(each, route=route) for each in ("magnitudes", "signs", "recovered"))
            cells = [agreement_text(size), number(signs.value, 2, sign=""), agreement_text(recovered)]
            by_route[route] = f"| {' | '.join(cells)} |"
        must_stand("attribution.md", by_route)

    def test_predictions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A quarter of an hour more on one core."""
        assert NUMBERS is not None
        monkeypatch.syspath_prepend(DOCS / "numbers")
        script = importlib.import_module("predictions")
        script.frame_swaps.main(out := Path(NUMBERS) / "predictions", 20)
        found = script.tables(out, 20)
        both = [script.judged(found), script.by_task(found)]
        rows = [" | ".join(map(str, row)) for table in both for row in table.itertuples(index=False)]
        must_stand("predictions.md", {row: f"| {row} |" for row in rows})

    def test_answer_trace(self) -> None:
        model = vl.HookedVideoTransformer.from_pretrained("shapes")
        cut = {"video ↛ question": vl.Knockout("video", "question", layers=range(12))}
        asked = vl.load_dataset("shapes", task="object count", n=24)
        trace = vl.answer_trace(model, asked, interventions=cut, progress=False)
        must_stand("lens.md", {"rise": f"{trace.rise().layer}"})
