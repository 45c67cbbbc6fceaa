"""Reading residuals, and fitting probes to them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from videolens.engine.full import full_logits
from videolens.engine.stages import stage_interventions
from videolens.errors import SelectionError, VideolensError, check_whole
from videolens.experiments.common.asking import ask_all
from videolens.experiments.common.conditions import CLEAN, conditions_of
from videolens.experiments.common.experiment import Asked, Experiment, Gathered, Skip, Tick
from videolens.experiments.common.provenance import made_with
from videolens.experiments.common.readout import listeners
from videolens.experiments.probe.fitting import STRENGTH, check_labels, held_out, shuffled
from videolens.experiments.probe.result import ProbeRow, Probes, ProbeSettings
from videolens.experiments.probe.targets import Target, as_labels, clip_key
from videolens.interventions.protocol import described
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question
from videolens.reading import parse_json

SITES = ("video", "question", "last")
MOST_BYTES = 4 * 10**9


class FeatureRow(NamedTuple):
    """The residuals of one question at one site: a row of a run's parts.

    Attributes:
        question, task: of the question.
        site, condition: where, and under what.
        clip: which clip it shows, whatever the order of its frames.
        labels: of every target that it has, as JSON.
        values: mean over the site's positions, float32 [n_layers + 1, d_model]: what enters layer 0, then what leaves
            each layer.
    """

    question: str
    task: str
    site: str
    condition: str
    clip: str
    labels: str
    values: bytes


def probe(
    model: HookedVideoTransformer,
    questions: Question | Prompt | Iterable[Question | Prompt],
    targets: Mapping[str, Target],
    sites: Sequence[str] = SITES,
    *,
    interventions: Mapping[str, Any] | None = None,
    folds: int = 5,
    max_bytes: int = MOST_BYTES,
    seed: int = 0,
    progress: bool = True,
) -> Probes:
    """Can it be read there? Linear probes on residuals, by site and layer, judged on clips that they have not seen.

    1. Run every question. At each site, average the residual over its positions: what enters layer 0, and what leaves
       every layer.
    2. Divide the clips into `folds`; a clip and its reversal stay together. For each target, site and layer, fit a
       logistic regression (scikit-learn, L2, standardised features) on all folds but one and predict that one's labels,
       fold by fold.
    3. The same with labels that were given to the questions by chance: what the fit makes of nothing. Accuracy minus
       this control's is the selectivity. The control may lie below the share of the commonest label: compare with both.
    4. The same under every intervention, with probes of its own: whether it can *still* be read.

    That something can be read does not mean that the model uses it: compare with knockouts, and with a model that
    answers by chance.

    >>> probe(model, questions, {"direction": "answer of moving direction"})  # doctest: +SKIP

    Args:
        model: the model.
        questions: questions, or prompts made from them.
        targets: name → where the labels come from: "answer", or a key of `question.meta`, for questions of one task
            with " of TASK" behind it; a function of a question; or a list with one label for each question. None: the
            question has no such label.
        sites: selections of a prompt, `TokenMap` names: "video", "frame 7", "question", "last", …
        interventions: by a name of your own, beside the clean model: as for `answer_trace`.
        folds: at least 2.
        max_bytes: that residuals may take, 4 n_sites (n_layers + 1) d_model for each question and condition.
        seed: of folds, of shuffled labels, and of the bootstrap.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        VideolensError: no questions or targets, labels that are not one for each question, a target with one value,
            with more classes than questions allow, or with a label on fewer clips than folds; residuals that would take
            more than `max_bytes`; an intervention that the model does not have.
        SelectionError: a site that no prompt has.
    """
    listed = [questions] if isinstance(questions, (Question, Prompt)) else list(questions)
    labels = as_labels(targets, listed)
    experiment = ProbeExperiment(
        model, targets=labels.of, sites=sites, interventions=interventions, folds=folds, max_bytes=max_bytes, seed=seed
    )
    experiment.words = dict(labels.words)
    experiment.check_bytes(len(listed))
    return ask_all(experiment, listed, progress=progress)


@dataclass
class ProbeExperiment(Experiment[Probes]):
    """Steps 1 to 4 of `probe`. The arguments are those of `probe`; a run takes targets that are text.

    Raises:
        VideolensError, SelectionError: as `probe`.
    """

    name: ClassVar[str] = "probe"
    row = FeatureRow

    model: HookedVideoTransformer
    _: KW_ONLY
    targets: Mapping[str, Any]
    sites: Sequence[str] = SITES
    interventions: Mapping[str, Any] | None = None
    folds: int = 5
    max_bytes: int = MOST_BYTES
    seed: int = 0

    def __post_init__(self) -> None:
        self.labels = as_labels(self.targets)
        self.words = dict(self.labels.words)
        if isinstance(self.sites, str) or not self.sites or not all(isinstance(each, str) for each in self.sites):
            raise VideolensError(f"sites are {self.sites!r}: give a list of selections, such as ['video', 'last']")
        check_whole("folds", self.folds, least=2)
        check_whole("max_bytes", self.max_bytes, least=1)
        self.conditions: dict[str, list[Any]] = {CLEAN: [], **conditions_of(self.model, self.interventions or {})}

    def check_bytes(self, n: int) -> None:
        """Raises:
        VideolensError: the residuals of n questions take more than they may.
        """
        cfg = self.model.cfg
        each = 4 * len(self.sites) * len(self.conditions) * (cfg.n_layers + 1) * cfg.d_model
        if n * each > self.max_bytes:
            raise VideolensError(
                f"residuals of {n} questions would take {n * each} bytes ({each} each), and max_bytes is "
                f"{self.max_bytes}: ask at most {self.max_bytes // each}, name fewer sites, or raise max_bytes"
            )

    @torch.no_grad()
    def ask(self, prompt: Prompt, name: str, task: str, tick: Tick) -> Asked:
        """The residuals of one question at every site, clean and under every intervention."""
        prompt.single("a probe")
        labels = self.labels.found(prompt.question)
        missing = [
            Skip(name, task, target, "it has no such label") for target in self.labels.of if target not in labels
        ]
        if not labels:
            return Asked(skipped=[Skip(name, task, None, "it has no label of any target")])
        where = {}
        for site in self.sites:
            try:
                where[site] = prompt.tokens[site]
            except SelectionError as error:
                missing.append(Skip(name, task, f"all off {site!r}", str(error)))
        clip, told, rows = clip_key(prompt.question, name), json.dumps(labels, sort_keys=True), []
        for condition, acting in self.conditions.items():
            try:
                values = self._residuals(prompt, acting, where)
            except SelectionError as error:
                missing.append(Skip(name, task, f"all under {condition!r}", str(error)))
            else:
                of = {site: value.numpy().astype(np.float32).tobytes() for site, value in values.items()}
                rows += [FeatureRow(name, task, site, condition, clip, told, value) for site, value in of.items()]
            tick(1 / len(self.conditions))
        return Asked(rows, missing)

    def _residuals(
        self, prompt: Prompt, acting: Sequence[Any], where: Mapping[str, Tensor]
    ) -> dict[str, Float[Tensor, "state d_model"]]:
        """By site, the mean residual that enters layer 0 and that leaves each layer."""
        kept: dict[str, list[Tensor]] = {site: [] for site in where}

        def keep(layer: int, value: Float[Tensor, "1 pos d_model"]) -> None:
            for site, positions in where.items():
                kept[site].append(value[0, positions.to(value.device)].float().mean(dim=0).cpu())

        hooks = [each for one in stage_interventions(self.model, prompt, acting) for each in one.hooks]
        first = listeners([0], keep, point="hook_resid_pre")
        full_logits(self.model, prompt, [*hooks, *first, *listeners(range(self.model.cfg.n_layers), keep)])
        return {site: torch.stack(states) for site, states in kept.items()}

    def result(self, gathered: Gathered) -> Probes:
        """Fit every probe."""
        gathered.check_left()
        self.check_bytes(self.questions_in(gathered.table))
        rows = [row for target in self.labels.of for row in self._probes(target, gathered)]
        settings = ProbeSettings(
            **made_with(self.model, gathered),
            n_layers=self.model.cfg.n_layers,
            targets=self.words,
            sites=tuple(self.sites),
            folds=self.folds,
            strength=STRENGTH,
            seed=self.seed,
            interventions={
                name: "; ".join(described(each, self.model.cfg.n_layers) for each in acting)
                for name, acting in self.conditions.items()
                if name != CLEAN
            },
        )
        return Probes(pd.DataFrame(rows, columns=list(ProbeRow._fields)), settings)

    def _probes(self, target: str, gathered: Gathered) -> Iterator[ProbeRow]:
        known = (parse_json(each, where="the labels of a question", halves=True) for each in gathered.table["labels"])
        labels = pd.Series([each.get(target) for each in known], gathered.table.index)
        table = gathered.table[labels.notna()].assign(label=labels)
        if not len(table):
            raise VideolensError(
                f"no question has a label of the target {target!r} ({self.words[target]}): {gathered.reasons}"
            )
        shape = (self.model.cfg.n_layers + 1, self.model.cfg.d_model)
        for (site, condition), of in table.groupby(["site", "condition"], sort=False):
            truth, clips = of["label"].tolist(), of["clip"].tolist()
            check_labels(target, truth, clips, self.folds)
            by_chance = shuffled(truth, seed=self.seed)
            for state in range(shape[0]):  # one layer's features are in memory at a time
                features = np.stack([np.frombuffer(each, np.float32).reshape(shape)[state] for each in of["values"]])
                said, said_by_chance = (
                    held_out(features, each, clips, folds=self.folds, seed=self.seed) for each in (truth, by_chance)
                )
                names = zip(of["question"], of["task"], strict=True)
                for who, *told in zip(names, truth, said, by_chance, said_by_chance, strict=True):
                    yield ProbeRow(*who, target, str(site), str(condition), state - 1, *told)
