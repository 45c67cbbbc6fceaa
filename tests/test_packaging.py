"""What is published works by itself: wheel and source archive, in an environment without this checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import videolens

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def build(project: Path, kind: str, where: Path) -> Path:
    """A wheel or an sdist of a project, without the network."""
    pytest.importorskip("hatchling", reason="the build backend is in the extra `test`: make .venv")
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(where)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    [made] = where.iterdir()
    return made


def files(wheel: Path) -> dict[str, bytes]:
    """The package's files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.startswith("videolens/")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel installed, and the packages that it needs borrowed from this one."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=False)
    found = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(found), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    [packages] = folder.glob("lib/python*/site-packages")
    # the .pth files in there, which lead to this checkout, are not read again
    (packages / "borrowed.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return found


def said(python: Path, *arguments: str) -> str:
    """What a command prints, run away from the checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([python, *arguments], cwd=python.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    there = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "videolens").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set(files(wheel)) == there and any(name.endswith("shapes/model.safetensors") for name in there)


def test_a_wheel_made_from_the_source_archive_is_the_same(wheel: Path, tmp_path: Path) -> None:
    archive = build(ROOT, "sdist", tmp_path / "sdist")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    [project] = (tmp_path / "unpacked").iterdir()
    assert files(build(project, "wheel", tmp_path / "again")) == files(wheel)
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "Makefile", "mkdocs.yml", "docs/README.md"):
        assert (project / name).is_file(), f"the source archive lacks {name}"


def test_the_command_line_runs_from_the_wheel(python: Path) -> None:
    where = said(python, "-c", "import videolens; print(videolens.__file__)")
    assert str(python.parent.parent) in where
    assert said(python, "-m", "videolens", "--version").strip() == f"videolens {videolens.__version__}"
    bundled = "bundled: shapes, shapes-image, shapes-nohint, shapes-qwen"
    assert said(python, "-m", "videolens", "models").rstrip().endswith(bundled)


def test_a_bundled_model_answers_from_the_wheel(python: Path) -> None:
    script = (
        "import videolens as vl\n"
        "model = vl.HookedVideoTransformer.from_pretrained('shapes')\n"
        "prompt = model.prompt(vl.load_dataset('shapes', split='test', task='colour', n=1)[0])\n"
        "print(int(model.chosen(model(prompt)[0, -1])) == prompt.answer_token)"
    )
    assert said(python, "-c", script).strip() == "True"


def test_citation_and_changelog_are_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == videolens.__version__ and citation["license"] == "MIT" and citation["references"]
    newest = re.search(r"^## (\S+),", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None and newest[1] == videolens.__version__
