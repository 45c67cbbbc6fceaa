"""Fitting probes: a linear classifier that predicts the labels of clips that it has not seen."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from videolens.errors import VideolensError

STRENGTH = 0.1
"""Inverse weight of the L2 penalty (`C` of scikit-learn's logistic regression), on standardised features."""


def held_out(
    features: Float[np.ndarray, "question d_model"],
    labels: Sequence[str],
    clips: Sequence[str],
    *,
    folds: int,
    seed: int,
) -> list[str]:
    """The label that a probe predicts for every question, fitted on the other folds. Questions about one clip, or its
    reversal, are in one fold; folds have the labels in like shares.

    The probe is scikit-learn's logistic regression on standardised features.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    truth = np.array(labels)
    predicted = np.empty_like(truth)
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, truth, np.array(clips))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that is not quite at its optimum is still one
        for train, test in splits:
            classifier = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=300))
            predicted[test] = classifier.fit(features[train], truth[train]).predict(features[test])
    return [str(each) for each in predicted]


def shuffled(labels: Sequence[str], *, seed: int) -> list[str]:
    """The same labels, given to the questions by chance: what a probe can make of features that say nothing."""
    return [str(each) for each in np.random.default_rng(seed).permutation(np.array(labels))]


def check_labels(target: str, labels: Sequence[str], clips: Sequence[str], folds: int) -> None:
    """Raises:
    VideolensError: one value, fewer questions than classes, or a label on fewer clips than there are folds.
    """
    counts = Counter(labels)
    if len(counts) < 2:
        raise VideolensError(
            f"the target {target!r} has one value, {labels[0]!r}, in all {len(labels)} questions: "
            "there is nothing to tell apart"
        )
    if len(labels) < len(counts) * 2:
        raise VideolensError(f"the target {target!r} has {len(counts)} classes and {len(labels)} questions: ask more")
    on = {label: len({clip for clip, each in zip(clips, labels, strict=True) if each == label}) for label in counts}
    rarest = min(on, key=lambda label: on[label])
    if on[rarest] < folds:
        raise VideolensError(
            f"the target {target!r} has the label {rarest!r} on {on[rarest]} clips, and {folds} folds need one each: "
            "ask more questions, or give fewer folds"
        )
