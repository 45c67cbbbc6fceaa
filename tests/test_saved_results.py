"""One saved result of each kind, made before experiments had folders of their own: each loads, says what it is in a
line, is drawn, and is saved and loaded again; and settings that are damaged are said with the file they stand in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from videolens.errors import VideolensError
from videolens.experiments import declarations
from videolens.experiments.common.result import Result

SAVED = Path(__file__).parent / "data" / "saved"
NAMES = sorted(path.name for path in SAVED.iterdir())
FILES = [(name, path.name) for name in NAMES for path in sorted((SAVED / name).glob("*.json"))]


def load(name: str, path: Path | None = None) -> Result:
    found = declarations()[name].result_class.load(path or SAVED / name)
    assert isinstance(found, Result)
    return found


def test_every_experiment_has_one() -> None:
    assert sorted(declarations()) == NAMES and len(FILES) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_result_loads_and_is_drawn(name: str, tmp_path: Path) -> None:
    found = load(name)
    assert repr(found).startswith(f"{type(found).__name__}(") and "\n" not in repr(found) and len(repr(found)) < 400
    table = found.to_dataframe()
    assert isinstance(table, pd.DataFrame) and len(table)
    table["mine"] = 0
    assert "mine" not in found.to_dataframe(), "what is changed is a copy"
    found.figure().savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000
    with pytest.raises(VideolensError, match="colour"):
        found.figure(colour="red")


@pytest.mark.parametrize("name", NAMES)
def test_saved_again_it_is_the_same(name: str, tmp_path: Path) -> None:
    found = load(name)
    assert found.save(tmp_path / "again") == tmp_path / "again"
    files = {path.name for path in (SAVED / name).iterdir()}
    assert {path.name for path in (tmp_path / "again").iterdir()} == files, "the files have the names they had"
    again = load(name, tmp_path / "again")
    pd.testing.assert_frame_equal(again.to_dataframe(), found.to_dataframe(), check_exact=True)
    assert repr(again) == repr(found)
    for file in files:
        if file.endswith(".parquet"):
            before, after = (pd.read_parquet(where / file) for where in (SAVED / name, tmp_path / "again"))
            pd.testing.assert_frame_equal(before, after, check_exact=True)
        else:
            before, after = (json.loads((where / file).read_text()) for where in (SAVED / name, tmp_path / "again"))
            assert stands_in(before, after)
    with pytest.raises(VideolensError, match=r"already holds.*overwrite=True"):
        found.save(tmp_path / "again")
    with pytest.raises(VideolensError, match="is missing"):
        load(name, tmp_path)


def stands_in(old: Any, new: Any) -> bool:
    """Whether all that was said is still said; newer versions may say more."""
    if isinstance(old, dict):
        return all(key in new and stands_in(value, new[key]) for key, value in old.items())
    if isinstance(old, list):
        return len(old) == len(new) and all(map(stands_in, old, new))
    return bool(old == new)


def first(content: Any) -> dict[str, Any]:
    return content[0] if isinstance(content, list) else content


def without_a_field(content: Any) -> str:
    """Of those that have no default: others may be missing, as in results of older versions."""
    needed = next(key for key in first(content) if key in ("model", "tuned", "segments"))
    del first(content)[needed]
    return needed


def with_an_unknown_field(content: Any) -> str:
    first(content)["modle"] = 1
    return "modle"


def with_text_for_a_number(content: Any) -> str:
    key = next(key for key, value in first(content).items() if isinstance(value, (int, float)))
    first(content)[key] = "many"
    return "many"


@pytest.mark.parametrize("damage", [without_a_field, with_an_unknown_field, with_text_for_a_number])
@pytest.mark.parametrize(("name", "file"), FILES)
def test_damaged_settings_are_said_with_their_file(
    name: str, file: str, damage: Callable[[Any], str], tmp_path: Path
) -> None:
    shutil.copytree(SAVED / name, tmp_path / name)
    content = json.loads((tmp_path / name / file).read_text())
    said = damage(content)
    (tmp_path / name / file).write_text(json.dumps(content))
    with pytest.raises(VideolensError, match=said) as caught:
        load(name, tmp_path / name)
    assert str(tmp_path / name / file) in str(caught.value)


@pytest.mark.parametrize(("name", "file"), [(name, path.name) for name in NAMES for path in (SAVED / name).iterdir()])
def test_a_truncated_file_is_said(name: str, file: str, tmp_path: Path) -> None:
    shutil.copytree(SAVED / name, tmp_path / name)
    content = (tmp_path / name / file).read_bytes()
    (tmp_path / name / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(VideolensError, match="damaged") as caught:
        load(name, tmp_path / name)
    assert str(tmp_path / name / file) in str(caught.value)
