"""Whatever a user can name is in the documentation, and what the documentation names is there.

Public names, hook points with their shapes, options of commands, fields of a run's config, model families, benchmarks,
classes of errors, docstrings; and every link of every page leads somewhere, in the repository as in the site.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from helpers.families import CASES, family_named

import videolens as vl
from videolens import views
from videolens.__main__ import parser
from videolens.datasets.benchmark import known_benchmarks
from videolens.experiments import declared, in_runs
from videolens.model.checkpoints.bundled import bundled_names
from videolens.runs.checking import fields_of
from videolens.runs.config import RunConfig

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")])
WRITTEN = {
    page.name: page.read_text(encoding="utf-8") for page in PAGES if page.name not in ("commands.md", "README.md")
}
WRITTEN |= {
    str(page.relative_to(ROOT)): page.read_text(encoding="utf-8")
    for page in ROOT.glob("**/README.md")
    if page.parent in (ROOT, DOCS)
}


@cache
def site(name: str) -> ModuleType:
    """A module of docs/site, which is no package."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", DOCS / "site" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def missing(names: list[str], pages: dict[str, str]) -> list[str]:
    """Those that stand nowhere in code: as a word in a block, or between backticks."""
    text = "\n".join(
        code for page in pages.values() for code in re.findall(r"```.*?```|`[^`\n]+`", page, flags=re.DOTALL)
    )
    return [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)]


def test_every_public_name_is_in_the_documentation() -> None:
    assert missing([*vl._PUBLIC, *views._PUBLIC], WRITTEN) == []


def test_every_public_name_has_a_docstring() -> None:
    assert list(site("reference").without_docstring()) == []


def test_every_public_name_is_in_the_reference() -> None:
    shown = "\n".join(site("reference").pages().values())
    public = {name: f"{module}.{name}" for name, module in (vl._PUBLIC | views._PUBLIC).items()}
    assert [path for path in public.values() if f"::: {path}\n" not in shown] == []


LETTERS = re.compile(r"^\| (`[^|]*`) \| ([a-z_0-9 ]+) \|", re.MULTILINE)


def test_the_hook_points_are_those_of_the_models() -> None:
    """Every hook point of every family, by its name in layer 0; and nothing that no model has."""
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    there = {re.sub(r"^blocks\.\d+\.", "blocks.0.", name) for name in model.hook_dict}
    named = {name for names, _ in LETTERS.findall(WRITTEN["hooks.md"]) for name in re.findall(r"`([\w.]+)`", names)}
    assert named - there == {"blocks.0.hook_deepstack"} and there <= named
    made = re.findall(
        r"(hook_\w+)\b[^\n]*HookPoint\(", "\n".join(map(Path.read_text, (ROOT / "videolens/model").rglob("*.py")))
    )
    assert {name for name in made} <= {name.rpartition(".")[2] for name in named}


def test_the_shapes_of_the_hook_points_are_right() -> None:
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    prompt = model.prompt(vl.load_dataset("shapes", task="moving direction", n=1)[0])
    for switch in ("attn_result", "split_qkv_input", "hook_mlp_in"):
        getattr(model, f"set_use_{switch}")(True)
    shapes: dict[str, tuple[int, ...]] = {}

    def look(value: torch.Tensor, hook: object) -> None:
        shapes[hook.name] = tuple(value.shape)

    model.run_with_hooks(prompt, fwd_hooks=[(lambda name: True, look)])
    model.set_use_split_qkv_input(False)
    model.set_use_attn_in(True)
    model.run_with_hooks(prompt, fwd_hooks=[("blocks.0.attn.hook_attn_in", look)])
    cfg, n = model.cfg, prompt.tokens.n_pos
    patches = shapes["frontend.hook_video_features"][2]
    sizes = {
        "batch": 1,
        "1": 1,
        "pos": n,
        "query": n,
        "key": n,
        "head": cfg.n_heads,
        "kv": cfg.n_key_value_heads or cfg.n_heads,
        "d_model": cfg.d_model,
        "d_head": cfg.d_head,
        "d_mlp": cfg.d_mlp,
        "frame": 8,
        "patch": patches,
        "d_vision": 64,
        "token": len(prompt.tokens["video"]),
    }
    wrong = {}
    for names, letters in LETTERS.findall(WRITTEN["hooks.md"]):
        for name in set(re.findall(r"`([\w.]+)`", names)) - {"blocks.0.hook_deepstack"}:
            if shapes[name] != tuple(sizes[letter] for letter in letters.split()):
                wrong[name] = (letters, shapes[name])
    assert wrong == {}


def commands(of: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and all within it."""
    yield of
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from commands(one)


def test_every_option_of_every_command_is_in_the_documentation() -> None:
    page = (DOCS / "commands.md").read_text()
    for one in commands(parser()):
        options = {name for action in one._actions for name in action.option_strings} - {"-h", "--help", "--version"}
        assert [name for name in options if f"`{name}" not in page] == [], one.prog
        assert one.prog.split()[-1] in page


def test_the_pages_made_from_the_code_are_as_the_code_is() -> None:
    for path, text in site("tables").written():
        assert path.read_text() == text, f"{path.name} is older than the code: python docs/site/tables.py"


def test_every_option_of_an_experiment_has_a_meaning() -> None:
    page = WRITTEN["experiments.md"]
    for name in in_runs():
        [section] = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", page, flags=re.DOTALL | re.MULTILINE)
        rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", section, flags=re.MULTILINE))
        assert rows.keys() == fields_of(declared(name).experiment_class, "model").model_fields.keys()
        assert all(rows.values()), f"{name}: {[option for option, said in rows.items() if not said]} says nothing"


def test_every_field_of_a_config_is_in_the_documentation() -> None:
    own = set(RunConfig.__dataclass_fields__) - {"where"}
    model = {"name", "dtype", "device", "base", "revision", "trust_remote_code"}
    dataset = set(fields_of(vl.load_dataset).model_fields)
    assert missing(sorted(own | dataset), {"runs.md": WRITTEN["runs.md"]}) == []
    assert set(re.findall(r"\w+", re.search(r"`\{(name, dtype[^}]*)\}`", WRITTEN["runs.md"])[1])) == model
    assert missing(in_runs(), {"runs.md": WRITTEN["runs.md"]}) == []


def test_every_family_benchmark_and_bundled_model_is_in_the_documentation() -> None:
    # other tests register benchmarks of their own
    benchmarks = [name for name, each in known_benchmarks().items() if type(each).__module__.startswith("videolens.")]
    assert len(benchmarks) > 5
    families = [family_named(name).model_type for name in CASES]
    assert missing(families, {"models.md": WRITTEN["models.md"]}) == []
    assert missing(benchmarks, {"datasets.md": WRITTEN["datasets.md"]}) == []
    assert missing(list(bundled_names()), {"bundled.md": WRITTEN["bundled.md"]}) == []


def anchors(text: str) -> set[str]:
    """What headings of a page can be linked to by, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    plain = (re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text, wrong = page.read_text(encoding="utf-8"), []
    for link in [*site("links").local_links(text), *re.findall(r"\]\((#[^)\s]+)\)", text)]:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        folder = target.is_dir() and str(target.relative_to(ROOT)) in site("links").FOLDERS
        if not (target.is_file() or folder) or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            wrong.append(link)
    assert wrong == []


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name functions of Python."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def test_every_page_is_in_the_navigation_and_in_the_list_of_pages() -> None:
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)["nav"]
    listed = {page for section in nav for pages in section.values() for page in pages}
    site_pages = {site("links").page_of(str(page.relative_to(ROOT))) for page in PAGES}
    assert listed == site_pages
    linked = set(site("links").local_links(WRITTEN["docs/README.md"]))
    own = {page.name for page in DOCS.glob("*.md")} - {"README.md"}
    assert own - {link.partition("#")[0] for link in linked} == set()


def test_every_notebook_is_listed() -> None:
    notebooks = {f"../notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks <= set(site("links").local_links(WRITTEN["tutorials.md"]))


def test_links_are_led_to_the_pages_of_the_site() -> None:
    links, told = site("links"), []
    text = "[a](../README.md#install) `[b](x)` ![c](flow-map.png)\n```\n[d](../README.md)\n```\n[e](nowhere.md)"
    said = links.rewritten(text, "docs/flow.md", told.append)
    assert said.startswith("[a](index.md#install)") and "![c](flow-map.png)" in said and "[d](../README.md)" in said
    assert told == ["x", "nowhere.md"]
    assert links.rewritten("[a](docs/flow.md)", "README.md", told.append) == "[a](flow.md)"
    assert links.rewritten("[a](notebooks)", "README.md", told.append) == "[a](tutorials.md)"
    notebook = links.rewritten(
        "[a](01_map_the_flow.ipynb) [b](../docs/flow.md)", "notebooks/02_patching_between_videos.ipynb", told.append
    )
    assert notebook == "[a](01_map_the_flow.md) [b](../flow.md)"
    for file in [*links.PAGES, "docs/flow.md", "notebooks/01_map_the_flow.ipynb"]:
        assert links.file_of(links.page_of(file)) == file


@cache
def messages() -> str:
    """All text of the package, with "…" where values are put in."""
    found = []
    for path in sorted((ROOT / "videolens").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(each.value if isinstance(each, ast.Constant) else "…" for each in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_what_troubleshooting_quotes_is_what_the_package_says() -> None:
    page = WRITTEN["troubleshooting.md"]
    entries = re.findall(r"^\| (.*?) \| .* \|$", page.partition("\n## Videos")[2], flags=re.MULTILINE)
    pieces = [
        piece.strip(" :;")
        for entry in entries
        for quoted in re.findall(r"`([^`]+)`", entry)
        for piece in re.split(r"…s?", quoted)
        if quoted not in ("…", 'missing="report"') and len(piece.strip(" :;?")) > 5
    ]
    assert len(pieces) > 60
    assert [piece for piece in pieces if piece not in messages()] == []


def test_every_class_of_errors_is_in_troubleshooting() -> None:
    """Every one that the package raises, wherever it stands; those of a file's own are caught there."""
    kinds = set(
        re.findall(
            r"^class ([A-Z]\w*Error)\b",
            "\n".join(map(Path.read_text, (ROOT / "videolens").rglob("*.py"))),
            re.MULTILINE,
        )
    )
    rows = set(re.findall(r"^\| `(\w+Error)` \|", WRITTEN["troubleshooting.md"], flags=re.MULTILINE))
    assert rows == kinds and len(kinds) > 7
    shown = {path.rpartition(".")[2] for path in site("reference").classes_of_errors()}
    assert shown == kinds - {"DamagedPartError"}


def test_the_gallery_shows_what_its_blocks_make() -> None:
    page = WRITTEN["gallery.md"]
    made = re.findall(r'\.savefig\("([\w-]+)\.png"\)', page)
    assert made == re.findall(r"\]\(pictures/([\w-]+)\.png\)", page) and len(made) > 6
    assert all(alt for alt in re.findall(r"!\[(.*?)\]\(", "\n".join(WRITTEN.values()))), "every picture has words"
