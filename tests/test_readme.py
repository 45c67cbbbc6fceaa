"""The README's example is code: it stands within the first twenty lines, and it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from videolens.model.checkpoints.bundled import bundled_names

README = Path(__file__).parent.parent / "README.md"


def example() -> tuple[str, int]:
    """The first Python block, and the line on which it ends."""
    lines = README.read_text().splitlines()
    first = lines.index("```python")
    last = lines.index("```", first)
    return "\n".join(lines[first + 1 : last]), last + 1


def test_the_example_is_what_a_visitor_sees_first() -> None:
    code, ends = example()
    assert ends <= 20
    assert "from_pretrained" in code and "trace_flow" in code
    compile(code, str(README), "exec")


@pytest.mark.skipif("shapes" not in bundled_names(), reason="runs once the checkpoint 'shapes' is in videolens/assets")
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _ = example()
    exec(compile(code, str(README), "exec"), {"__name__": "readme"})
    assert (tmp_path / "flow.png").stat().st_size > 10_000
