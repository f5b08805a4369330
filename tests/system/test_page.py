"""The page in a real headless Chromium, as a person uses it: typing, reading, with keys alone, in the dark.

Without a Chromium the tests are skipped, see `helpers.browser`.
"""

import json
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from automoe.evaluation.expert_use import ModelRouter
from automoe.inference.backends import make_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.serving.app import create_app
from automoe.serving.http_settings import HttpSettings
from helpers.browser import chromium
from helpers.served import ARCHITECTURE, running, tiny_model

pytestmark = pytest.mark.slow

TEXT = "the cat sat on <b>bold</b> words"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    model, tokenizer = tiny_model()
    app = create_app(ModelRouter(model), make_engine(model), tokenizer, BeamSettings(beam_size=2))
    with running(app) as address:
        yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, opened; at the end nothing was asked of another host and nothing went wrong inside."""
    page = browser.new_page()
    page.set_default_timeout(20_000)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    assert [url for url in asked if not url.startswith((f"{address}/", "data:"))] == []
    assert wrong == []


def explain(address: str, text: str) -> dict:
    request = urllib.request.Request(
        f"{address}/explain", json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def translate(page: Page, text: str) -> None:
    page.get_by_label("Text to translate").fill(text)
    page.keyboard.press("Control+Enter")
    page.get_by_role("grid").first.wait_for()


def test_a_person_sees_the_translation_and_which_expert_every_token_used(page, address):
    page.get_by_label("Text to translate").fill(TEXT)
    page.get_by_role("button", name="Translate").click()
    expected = explain(address, TEXT)
    expect(page.get_by_label("Translation", exact=True).locator("output")).to_have_text(
        expected["translation"]
    )
    grids = page.get_by_role("grid")
    assert grids.count() == 2
    for grid, stack in zip(grids.all(), ("encoder", "decoder"), strict=True):
        message = expected["sentences"][0][stack]
        headers = grid.locator("thead th").all_text_contents()
        assert headers == ["Layer", *(shown(token) for token in message["tokens"])]
        for layer in message["layers"]:
            cells = grid.locator(f"tr[data-layer='{layer['name']}'] td")
            assert cells.evaluate_all("cells => cells.map(c => c.dataset.experts)") == [
                " ".join(map(str, chosen)) for chosen in layer["chosen"]
            ]
            sizes = [[layer["experts"][e] for e in chosen] for chosen in layer["chosen"]]
            # What is read with the eyes and what is read aloud.
            assert cells.locator(".size").all_text_contents() == ["+".join(map(str, s)) for s in sizes]
            for label, size in zip(cells.locator(".unseen").all_text_contents(), sizes, strict=True):
                assert all(f"FFN size {one}" in label for one in size)
        assert grid.locator("tfoot td").all_text_contents() == [
            str(int(mean + 0.5)) for mean in message["mean_ffn_sizes"]
        ]


def shown(token: str) -> str:
    return "end" if token == "</s>" else token.removeprefix("▁") or "␣"


@pytest.mark.parametrize("end", ["", "/"])
def test_under_the_prefix_of_a_proxy(browser, end):
    model, tokenizer = tiny_model()
    settings, http = BeamSettings(beam_size=2), HttpSettings(root_path="/a/b")
    served = create_app(ModelRouter(model), make_engine(model), tokenizer, settings, http=http)
    with running(served) as address:
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}/a/b{end}")
        translate(page, TEXT)
        expected = explain(f"{address}/a/b", TEXT)
        expect(page.get_by_label("Translation", exact=True).locator("output")).to_have_text(
            expected["translation"]
        )
        page.get_by_role("link", name="API").click()
        page.locator("[data-path='/translate']").wait_for()
        page.close()
        foreign = [url for url in asked if not url.startswith((f"{address}/a/b", "data:"))]
        assert foreign == []
        assert f"{address}/a/b/openapi.json" in asked


def test_boxes_are_as_high_as_their_experts_are_large_and_coloured_by_expert(page):
    translate(page, TEXT)
    largest = max(size for layer in ARCHITECTURE.encoder for size in layer.ffn_sizes)
    boxes = (
        page.get_by_role("grid")
        .first.locator("td")
        .evaluate_all(
            """cells => cells.flatMap(cell => [...cell.querySelectorAll(".box")].map((box, rank) => ({
            layer: cell.parentElement.dataset.layer,
            expert: Number(cell.dataset.experts.split(" ")[rank]),
            size: Number(cell.dataset.sizes.split(" ")[rank]),
            share: box.getBoundingClientRect().height / box.parentElement.getBoundingClientRect().height,
            colour: getComputedStyle(box).backgroundColor,
        })))"""
        )
    )
    mixture = [box for box in boxes if box["layer"] != "encoder.1"]
    colours = {box["expert"]: box["colour"] for box in mixture if box["size"]}
    assert len(colours) >= 2
    assert len(set(colours.values())) == len(colours)
    dense = {box["colour"] for box in boxes if box["layer"] == "encoder.1"}
    assert len(dense) == 1
    assert dense.isdisjoint(colours.values())
    for box in boxes:
        assert box["share"] == pytest.approx(max(0.08, box["size"] / largest), abs=0.02)
        if box["layer"] != "encoder.1" and box["size"]:
            assert box["colour"] == colours[box["expert"]]


def test_keys_alone_are_enough(page):
    page.keyboard.type("a bird")  # the text has the focus from the start
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Translate")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("grid").first.wait_for()
    expect(page.get_by_role("button", name="Translate")).to_be_focused()
    for _ in range(3):  # a scrolling grid may be a stop of its own
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "TD":
            break
    first, second = (page.locator("tr[data-layer='encoder.0'] td").nth(i) for i in (0, 1))
    expect(first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(second).to_be_focused()
    expect(page.locator("#detail")).to_have_text(second.locator(".unseen").inner_text())
    page.keyboard.press("ArrowDown")
    expect(page.locator("tr[data-layer='encoder.1'] td").nth(1)).to_be_focused()
    expect(page.locator("#detail")).to_contain_text("encoder 2, reading")
    expect(page.locator("#detail")).to_contain_text("dense, FFN size 64")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")  # nothing is there
    expect(page.locator("tr[data-layer='encoder.1'] td").first).to_be_focused()


def test_the_mouse_tells_more(page):
    translate(page, "a bird")
    cell = page.locator("tr[data-layer='decoder.1'] td").first
    cell.hover()
    expect(page.locator("#detail")).to_have_text(cell.locator(".unseen").inner_text())


def test_every_line_has_its_own_grids_and_text_is_never_markup(page, address):
    text = "<b>bold</b>\n\na bird"
    translate(page, text)
    assert page.get_by_role("grid").count() == 4
    assert page.locator("main b").count() == 0
    expect(page.get_by_role("heading", name="Encoder: reading the text, sentence 2")).to_be_visible()
    assert page.locator("output").inner_text() == explain(address, text)["translation"]


def test_a_refusal_is_told_and_the_next_text_is_translated(page):
    page.get_by_label("Text to translate").fill("a " * 15_000)
    page.get_by_role("button", name="Translate").click()
    expect(page.get_by_role("alert")).to_contain_text("send at most 20000")
    translate(page, "a bird")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_light_and_dark_and_narrow(browser, address):
    grounds = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme, viewport={"width": 390, "height": 800})
        page.goto(address)
        translate(page, TEXT)
        ink, ground = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        assert contrast(ink, ground) > 7
        grounds[scheme] = luminance(ground)
        # A long sentence scrolls inside its grid, not the page.
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.close()
    assert grounds["dark"] < 0.05 < 0.9 < grounds["light"]


def luminance(colour: str) -> float:
    """WCAG's relative luminance of `rgb(r, g, b)`."""
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio."""
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_the_api_page_works_without_another_host(page, address):
    page.goto(f"{address}/docs")
    page.get_by_role("button", name="POST /translate").first.wait_for()
