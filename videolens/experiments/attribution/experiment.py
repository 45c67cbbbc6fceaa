"""What every block of attention contributes: how a metric would change if it were closed, estimated for all at once.

Attribution patching (Nanda 2023; Kramár et al. 2024, "AtP*") for edges of attention, with gates on unnormalised
weights, and one step that is exact. It is a screen: how far to trust it is measured by closing some units for real.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from videolens.engine import Base, base, sweep
from videolens.errors import VideolensError, check_flag, check_whole
from videolens.experiments.attribution.backward import check_differentiable
from videolens.experiments.attribution.metrics import Metric, check_metric, metric_of
from videolens.experiments.attribution.result import Attribution, AttributionRow, AttributionSettings
from videolens.experiments.attribution.scores import check_method, unit_scores
from videolens.experiments.common.asking import ask_all
from videolens.experiments.common.experiment import Asked, Cost, Experiment, Gathered, Tick
from videolens.experiments.common.provenance import made_with
from videolens.interventions.partition import Partition, Unit, check_grain
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

_BACKWARD = 4.0  # plain forwards: one, every layer once more, and the backward, which costs two
_ESTIMATING = 0.5  # share of a question's time, for the progress bar


def attribute(
    model: HookedVideoTransformer,
    questions: Any,
    *,
    method: str = "layer",
    metric: str = "logit difference",
    grain: str = "routes",
    heads: bool = False,
    steps: int = 5,
    verify: int | str = 24,
    seed: int = 0,
    max_memory: int | None = None,
    progress: bool = True,
) -> Attribution:
    """Estimate, for every block of attention, how a metric would change if it were closed, and measure how far to trust
    that.

    A unit is a route in a layer, of every head or of all together. Routes are a partition of the causal (query, key)
    pairs: every pair is in exactly one.

    1. One forward. One backward, layer by layer, which runs each layer once more and holds the graph of one at a time.
       With method="integrated" both for every step.
    2. In every layer the score of every unit: the estimated change of the metric (below zero: closing it does harm).
    3. Close `verify` units of every question, drawn at random, by exact knockouts (`vl.sweep`).

    Args:
        model: the model.
        questions: one or several, or prompts made from them.
        method: "layer": exactly what leaves the layer without the unit, through its norm and MLP, times the metric's
            slope there. "local": the same for the heads' results. "gradient": the derivative by a gate on the unit's
            unnormalised attention weights, at 1. "integrated": its mean over `steps` runs whose gates are all between
            0 and 1. docs/attribution.md compares them.
        metric: "logit difference": of the right option to the best other; "log-probability": of the right option's
            token, in nats; "kl": KL(clean run ‖ run) in nats, with method="integrated" only.
        grain: "routes": the eleven between the parts of a prompt (`videolens.interventions.partition`); "frame pairs":
            from every part or frame to every other.
        heads: every head by itself.
        steps: of method="integrated".
        verify: how many units of every question are closed exactly; "all".
        seed: of the units drawn, and of the bootstrap.
        max_memory: bytes that exact knockouts may use besides the model; None: half of what is free.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        QuestionError: a question without a known answer, or without other options.
        VideolensError: no questions, an unknown method, metric or grain, a metric whose slope says nothing, `steps` or
            `verify` below 1, a metric that is no finite number.
        ModelError: a model with listeners of its own, or one that no gradient passes.
    """
    experiment = AttributionExperiment(
        model,
        method=method,
        metric=metric,
        grain=grain,
        heads=heads,
        steps=steps,
        verify=verify,
        seed=seed,
        max_memory=max_memory,
    )
    return ask_all(experiment, questions, progress=progress)


@dataclass
class AttributionExperiment(Experiment[Attribution]):
    """The steps of `attribute`, the same for every question. The arguments are those of `attribute`."""

    name: ClassVar[str] = "attribution"
    row = AttributionRow
    dtypes: ClassVar[dict[str, str]] = {"head": "Int64"}

    model: HookedVideoTransformer
    _: KW_ONLY
    method: str = "layer"
    metric: str = "logit difference"
    grain: str = "routes"
    heads: bool = False
    steps: int = 5
    verify: int | str = 24
    seed: int = 0
    max_memory: int | None = None

    def __post_init__(self) -> None:
        check_method(self.method)
        check_metric(self.metric)
        check_grain(self.grain)
        check_flag("heads", self.heads)
        check_whole("seed", self.seed)
        check_whole("steps", self.steps, least=1, most=1000)
        if self.verify != "all":
            check_whole("verify", self.verify, least=1)
        if self.metric == "kl" and self.method != "integrated":
            raise VideolensError(
                "metric = 'kl': the divergence from the clean run is least at the clean run, so its slope there is "
                f"zero and method={self.method!r} would find nothing; take method='integrated', or another metric"
            )

    def ask(self, prompt: Prompt, name: str, task: str, tick: Tick) -> Asked:
        """Rows of one question: one per unit."""
        check_differentiable(self.model)
        partition = Partition.of(prompt.tokens, self.grain)
        clean = base(self.model, prompt, max_memory=self.max_memory)
        metric = metric_of(self.metric, prompt, clean.logits, name)
        # 1. and 2.
        scores = unit_scores(
            self.model,
            prompt,
            partition,
            metric,
            method=self.method,
            heads=self.heads,
            steps=self.steps,
            tick=lambda share: tick(share * _ESTIMATING),
        )
        units = partition.units(self.model.cfg.n_layers, self.model.cfg.n_heads if self.heads else None)
        # 3.
        exact, cost = self._closed(prompt, self._drawn(units, f"{self.seed} {task} {name}"), metric, clean, tick)
        pairs, before = dict(zip(partition.routes, partition.pairs, strict=True)), float(metric.value(clean.logits))
        rows = [
            AttributionRow(name, task, *unit, pairs[unit.route], before, score, exact.get(unit, float("nan")))
            for unit, score in zip(units, scores.flatten().tolist(), strict=True)
        ]
        forwards = 1.0 + _BACKWARD * self._n_runs + cost.forwards
        return Asked(rows, cost=Cost(forwards, len(units) + 1.0))

    @property
    def _n_runs(self) -> int:
        """Runs that every score is a mean of."""
        return self.steps if self.method == "integrated" else 1

    def _drawn(self, units: Sequence[Unit], seed: str) -> list[Unit]:
        """The units that are closed, in order: the same of a question whatever else is asked."""
        if self.verify == "all" or int(self.verify) >= len(units):
            return list(units)
        return [units[i] for i in sorted(random.Random(seed).sample(range(len(units)), int(self.verify)))]

    def _closed(
        self, prompt: Prompt, units: Sequence[Unit], metric: Metric, clean: Base, tick: Tick
    ) -> tuple[dict[Unit, float], Cost]:
        """How the metric changes when each unit is closed, exactly, and what that has cost."""
        found = sweep(
            self.model,
            prompt,
            [unit.knockout for unit in units],
            max_memory=self.max_memory,
            base=clean,
            tick=lambda share: tick(share * (1 - _ESTIMATING)),
        )
        changes = (metric.value(found.logits) - metric.value(found.base)).tolist()
        return dict(zip(units, changes, strict=True)), Cost.of(found)

    def result(self, gathered: Gathered) -> Attribution:
        """The scores of all questions."""
        gathered.check_left()
        settings = AttributionSettings(
            **made_with(self.model, gathered),
            n_layers=self.model.cfg.n_layers,
            n_heads=self.model.cfg.n_heads,
            method=self.method,
            metric=self.metric,
            grain=self.grain,
            heads=self.heads,
            steps=self._n_runs,
            verify=self.verify,
            seed=self.seed,
        )
        return Attribution(gathered.table, settings)
