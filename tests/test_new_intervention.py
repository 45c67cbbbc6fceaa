"""docs/contributing.md, "A new intervention", as a newcomer would try it: its template, filled in, acts in a sweep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.engine import distance, plain_logits, random_pair
from helpers.templates import filled_in, imported

import videolens as vl
from videolens.errors import VideolensError
from videolens.interventions.protocol import Intervention


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The template's class."""
    return imported(filled_in("intervention.py", tmp_path_factory.mktemp("intervention") / "echo_intervention.py")).Echo


def test_a_new_intervention_is_swept_exactly(echo: Any) -> None:
    model, prompt = random_pair("grouped heads")
    some = [echo("video", range(2, 4)), echo("last", 4, factor=2.0), echo("stem | options", (3, 1))]
    some += [echo("video", 2, factor=1.0), echo("video", ())]
    assert all(isinstance(each, Intervention) for each in some)
    found = vl.sweep(model, prompt, some, verify=True)
    assert not any(found.in_full) and found.forwards < found.full_forwards
    plain = plain_logits(model, prompt, some)
    assert distance(found.logits, plain, found.base.std()).max() <= 1e-4
    assert found.verified is not None and found.verified <= 1e-4
    # what should change the answer does, and what scales nothing does not
    changed = distance(found.logits, found.base.expand_as(found.logits), found.base.std())
    assert (changed[:3] > 1e-2).all() and changed[3] <= 1e-4 and changed[4] == 0


def test_its_cone_begins_where_it_acts(echo: Any) -> None:
    model, prompt = random_pair("grouped heads")
    assert echo("video", (3, 1)).cone(prompt) == (1, int(prompt.tokens["video"][0]))
    assert echo("video", ()).cone(prompt) is None
    before = slice(0, int(prompt.tokens["stem"][0]))
    _, plain = model.run_with_cache(prompt)
    with model.hooks(echo("stem", 2).hooks(prompt)):
        _, scaled = model.run_with_cache(prompt)
    for layer in range(model.cfg.n_layers):
        name = f"blocks.{layer}.hook_resid_post"
        assert torch.equal(plain[name][:, before], scaled[name][:, before])
        assert torch.equal(plain[name], scaled[name]) == (layer < 2)


def test_what_the_model_has_not_is_refused(echo: Any) -> None:
    model, prompt = random_pair("grouped heads")
    with pytest.raises(VideolensError, match="layer 5 is outside the model"):
        vl.sweep(model, prompt, [echo("video", 5)])
    with pytest.raises(VideolensError, match="layer -1 is negative"):
        echo("video", -1)
    with pytest.raises(VideolensError, match="selection"):
        vl.sweep(model, prompt, [echo("vidoe", 1)])
