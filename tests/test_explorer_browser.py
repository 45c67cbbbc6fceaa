"""The explorer as people use it, in Chromium: what is pointed at is the table's, keys move, nothing is fetched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.browser import browser, needs_browser

import videolens as vl

EVIL = '<img src=x onerror="document.title=1"> Which way & where does it move?'
ROUTES = ("cross-frame", "video -> question", "video -> last", "question -> last")


@pytest.fixture(scope="module")
def model() -> vl.HookedVideoTransformer:
    needs_browser()
    return vl.HookedVideoTransformer.from_pretrained("shapes")


@pytest.fixture(scope="module")
def question() -> vl.Question:
    [first] = vl.load_dataset("shapes", split="validation", task="moving direction", n=1)
    return replace(first, stem=EVIL)


@pytest.fixture(scope="module")
def written(model, question, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    return vl.explore(model, question, routes=ROUTES, beside="video -> last").save_html(path)


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture
def page(running, written: Path) -> Iterator[Any]:
    """The page, drawn; no error on its console, and no request but for itself."""
    opened = running.new_page(viewport={"width": 1280, "height": 900})
    troubles: list[str] = []
    opened.on(
        "console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None
    )
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    requests: list[str] = []
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(written.as_uri())
    opened.wait_for_function("window.drawn")
    yield opened
    assert not troubles
    assert {url.partition("#")[0] for url in requests if not url.startswith(("data:", "blob:"))} == {written.as_uri()}
    opened.close()


def settled(page: Any, act: Any) -> None:
    """Do something, and wait until it is drawn."""
    before = page.evaluate("window.drawn.times")
    act()
    page.wait_for_function(f"window.drawn.times > {before}")


def cell_of(page: Any, route: str, layer: int, pane: int = 0) -> Any:
    return (
        page.locator("section.pane").nth(pane).locator(f'td[data-route="{ROUTES.index(route)}"][data-layer="{layer}"]')
    )


def test_hovering_shows_the_value_of_the_table(page, model, question) -> None:
    flow = vl.trace_flow(model, question, routes=ROUTES, samples="all", progress=False)
    for route, layer in (("cross-frame", 1), ("question -> last", 10), ("video -> question", 5)):
        cell_of(page, route, layer).hover()
        title = f"{route.replace('->', '↛')}, layers {layer}–{layer + 2}"
        page.locator(".cell h3", has_text=title).first.wait_for(timeout=10_000)
        [row] = flow.table.query("route == @route and layer == @layer").itertuples()
        said = page.locator(".cell h3").first.inner_text()
        shown = float(re.search(r"cut: ([+−]?[\d.]+) %", said)[1].replace("−", "-"))
        assert shown == pytest.approx(row.change_percent, abs=0.051)
        after = page.locator(".answers").first.locator("tr.followed td").nth(2).inner_text()
        assert float(after) == pytest.approx(row.p_knockout, abs=0.0006)
    settled(page, lambda: page.mouse.move(5, 5))
    assert page.locator("td.near").count() == 0, "what was only pointed at does not stay"


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_moves_under_the_pointer(running, written: Path, width: int) -> None:
    """Pointing at cells changes what is written, not where the map lies: else the pointer would leave the cell."""
    opened = running.new_page(viewport={"width": width, "height": 900})
    opened.goto(written.as_uri())
    opened.wait_for_function("window.drawn")
    tops = set()
    for at in range(0, 48, 5):
        settled(opened, lambda at=at: opened.locator("table.map td").nth(at).dispatch_event("pointerover"))
        tops.add(opened.evaluate("document.querySelector('table.map').getBoundingClientRect().top + scrollY"))
    assert len(tops) == 1
    opened.close()


def test_keys_move_in_the_map_and_the_address_keeps_it(page, written) -> None:
    settled(page, cell_of(page, "cross-frame", 3).click)
    page.locator("table.map").first.focus()
    settled(page, lambda: page.keyboard.press("ArrowDown"))
    settled(page, lambda: page.keyboard.press("ArrowRight"))
    assert "chosen" in cell_of(page, "video -> question", 4).get_attribute("class")
    assert "layers 4–6" in page.locator("#status").inner_text(), "what a screen reader is told"
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_function("window.drawn")
    assert "chosen" in cell_of(page, "video -> question", 4).get_attribute("class")


def test_a_click_shows_the_rows_attention(page, model, question) -> None:
    """A text token: the weights that the page draws are those of `run_with_cache`, to 1/255."""
    prompt = model.prompt(question)
    at = int(prompt.tokens["stem"][3])
    settled(page, page.locator(f'.text span[data-at="{at}"]').first.click)
    _, cache = model.run_with_cache(prompt)
    for layer, head in ((5, 2), (9, 0)):
        page.select_option("#head", str(head))
        settled(page, lambda layer=layer: page.locator("#layer").fill(str(layer + 1)))
        said = page.locator(".looks").first.inner_text()
        assert f"layer {layer + 1}, head {head} looks most at" in said
        pattern = cache["pattern", layer][0, head, at]
        shown = [float(each) for each in re.findall(r" (0\.\d{3}|1\.000)(?=[;.])", said)]
        np.testing.assert_allclose(shown, pattern.topk(5).values.numpy(), atol=1 / 255 + 5e-4)
    drawn = page.evaluate(
        "async ([at, layer, head]) => Array.from(await window.explorer.weights(0, at, layer, head))", [at, 9, 0]
    )
    np.testing.assert_allclose(drawn, cache["pattern", 9][0, 0, at, : at + 1].numpy(), atol=1 / 255)


def test_a_patch_is_chosen_in_the_frame_and_shows_its_words(page, model, question) -> None:
    prompt = model.prompt(question)
    box = page.locator("canvas.frame").first.bounding_box()
    settled(page, lambda: page.mouse.click(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.1))
    assert page.locator(".token h3").first.inner_text() == "frame 0, row 0, column 2"
    at = int(prompt.tokens["f0 r0 c2"][0])
    _, cache = model.run_with_cache(prompt)
    logits = model.unembed(model.ln_final.normalise(cache["resid_post", 6][0, at][None]))[0]
    line = page.locator(".lens").first.locator("tbody tr").nth(6).inner_text()
    assert model.shown(int(logits.argmax())).strip() in line
    page.locator("canvas.frame").first.focus()
    settled(page, lambda: page.keyboard.press("ArrowRight"))
    assert page.locator(".token h3").first.inner_text() == "frame 0, row 0, column 3"


def test_frames_play(page) -> None:
    page.locator("#play").click()
    page.wait_for_function("document.getElementById('frame-number').textContent.startsWith('frame 2')", timeout=10_000)
    page.locator("#play").click()
    assert page.locator("#play").get_attribute("aria-pressed") == "false"


def test_a_questions_markup_stays_text(page) -> None:
    assert page.locator("h1").inner_text() == EVIL
    assert page.locator("img").count() == 0 and page.title() != "1"


def test_both_sides_show_the_same_cell(page) -> None:
    settled(page, cell_of(page, "video -> last", 7, pane=1).hover)
    titles = page.locator(".cell h3").all_inner_texts()
    assert len(titles) == 2 and all(title.startswith("video ↛ last, layers 7–9") for title in titles)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(running, written: Path, width: int) -> None:
    opened = running.new_page(viewport={"width": width, "height": 844})
    opened.goto(written.as_uri())
    opened.wait_for_function("window.drawn")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()


def test_dark_is_dark(running, written: Path) -> None:
    opened = running.new_context(color_scheme="dark").new_page()
    opened.goto(written.as_uri())
    opened.wait_for_function("window.drawn")
    back = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", back)[:3])) < 120
    opened.locator("#theme").click()
    back = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", back)[:3])) > 600
    opened.close()


def test_nonsense_in_the_address_is_no_error(running, written: Path) -> None:
    """What is not there is left as it was."""
    opened = running.new_page()
    troubles: list[str] = []
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.goto(written.as_uri() + "#route=nonsense&layer=99&token=-4&head=x&frame=1e9&view=all&theme=pink")
    opened.wait_for_function("window.drawn")
    assert not troubles and opened.locator("td.chosen").count() == 2
    assert opened.locator("input[name=view]:checked").count() == 1
    opened.close()
