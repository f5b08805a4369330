"""The report of a real run, opened from disk in headless Chromium: pointing, clicking, with keys alone."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from automoe.search.log import CandidateLog
from helpers.browser import chromium
from helpers.tiny_run import run_here, write_tiny_recipe

pytestmark = pytest.mark.slow

HOSTILE = "0 1 </script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'> {{ 7 * 7 }}"
SYSTEMS = """[
    {name: automoe, search: evolution}, {name: dense, architecture: largest-dense},
    {name: switch, architecture: uniform},
]"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run whose test set is hostile."""
    folder = tmp_path_factory.mktemp("report")
    recipe = write_tiny_recipe(folder, steps=20)
    test = folder / "test.tsv"
    lines = test.read_text(encoding="utf-8").splitlines()
    test.write_text("\n".join([f"{HOSTILE}\t{HOSTILE}\tx", *lines, ""]), encoding="utf-8")
    run_here(recipe, f"systems={SYSTEMS}", "fine_tuning=null")
    return folder / "runs" / "tiny"


@pytest.fixture
def page(browser: Browser, run: Path) -> Iterator[Page]:
    """The report, opened; at the end nothing was asked for and nothing went wrong inside."""
    page = browser.new_page()
    page.set_default_timeout(20_000)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    address = (run / "report" / "report.html").as_uri()
    page.goto(address)
    yield page
    assert page.evaluate("window.broken") is None
    page.close()
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert wrong == []


def scored(run: Path) -> list:
    log = CandidateLog(run / "seed-1" / "search-automoe" / "candidates.jsonl")
    return [entry.candidate for entry in log.entries if entry.candidate.score is not None]


def test_pointing_at_a_candidate_tells_its_architecture_and_costs(page, run):
    marks = page.locator("[data-candidate]")
    candidates = scored(run)
    assert marks.count() == len(candidates)
    tooltip = page.get_by_role("tooltip")
    expect(tooltip).to_be_hidden()
    # Others may lie on top of one, but hardly on top of the best and the worst.
    for wanted in (min, max):
        index = candidates.index(wanted(candidates, key=lambda candidate: candidate.score))
        page.locator(f"[data-candidate='{index}']").hover()
        expect(tooltip).to_be_visible()
        shown = tooltip.inner_text()
        candidate = candidates[index]
        assert float(re.search(r"validation loss: ([\d.]+)", shown)[1]) == pytest.approx(
            candidate.score, abs=6e-5
        )
        gflops = float(re.search(r"GFLOPs: ([\d.e-]+)", shown)[1])
        assert gflops == pytest.approx(candidate.costs["flops"] / 1e9, rel=1e-3)
        for layers in (candidate.architecture.encoder, candidate.architecture.decoder):
            assert "FFNs " + " | ".join("+".join(map(str, layer.ffn_sizes)) for layer in layers) in shown
    page.mouse.move(0, 0)
    expect(tooltip).to_be_hidden()


def test_a_click_shows_the_drawing_of_what_was_clicked(page, run):
    drawing = page.locator(".chosen .architecture")
    assert drawing.count() == 0
    candidates = scored(run)
    best = candidates.index(min(candidates, key=lambda candidate: candidate.score))
    page.locator(f"[data-candidate='{best}']").click()
    assert sizes_in(drawing) == sizes_of(candidates[best].architecture)
    worst = candidates.index(max(candidates, key=lambda candidate: candidate.score))
    page.locator(f"[data-candidate='{worst}']").click()
    assert sizes_in(drawing) == sizes_of(candidates[worst].architecture)
    pressed = page.locator("[aria-pressed='true']")
    assert pressed.evaluate_all("marks => marks.map(mark => mark.dataset.candidate)") == [str(worst)]


def sizes_in(drawing) -> list[list[str]]:
    """The FFN sizes a layer, as they are drawn."""
    layers = drawing.locator(".layer")
    return [
        [text.split(" · ")[0] for text in layer.locator(".bars li").all_inner_texts()]
        for layer in layers.all()
    ]


def sizes_of(architecture) -> list[list[str]]:
    return [
        [str(size or "identity") for size in layer.feed_forward.ffn_sizes] for layer in architecture.layers()
    ]


def test_candidates_are_reached_with_keys_alone(page):
    page.locator("input[type='radio']").first.focus()
    page.keyboard.press("Tab")
    focused = "document.activeElement.dataset.candidate"
    first = page.evaluate(focused)
    assert first is not None
    expect(page.get_by_role("tooltip")).to_be_visible()
    page.keyboard.press("ArrowRight")
    second = page.evaluate(focused)
    assert second not in (None, first)
    label = page.locator(f"[data-candidate='{second}']").get_attribute("aria-label")
    assert "validation loss: " in label
    assert "encoder: " in label
    page.keyboard.press("Enter")
    expect(page.locator(".chosen .architecture")).to_be_visible()
    assert page.evaluate(focused) == second
    page.keyboard.press("Tab")  # the picture is one stop
    assert page.evaluate(focused) is None


def test_systems_are_drawn_with_the_measured_use_of_their_experts(page, run):
    result = json.loads((run / "seed-1" / "evaluate-switch" / "result.json").read_text())
    page.locator("details.system").evaluate_all("all => all.forEach(one => { one.open = true })")
    drawn = page.locator(".drawing[data-system='switch'] .layer").all()
    layers = [(f"encoder.{i}", x) for i, x in enumerate(result["architecture"]["encoder"])]
    layers += [(f"decoder.{i}", x) for i, x in enumerate(result["architecture"]["decoder"])]
    assert len(drawn) == len(layers)
    for layer, (name, plain) in zip(drawn, layers, strict=True):
        shares = result["routing_shares"].get(name)
        told = [f"{size or 'identity'}" for size in plain["experts"]]
        if shares:
            told = [f"{text} · {int(100 * share + 0.5)} %" for text, share in zip(told, shares, strict=True)]
        assert layer.locator(".bars li").all_inner_texts() == told


def test_sentences_are_text_and_show_the_expert_of_each_token(page, run):
    first = page.locator("article").first
    assert first.locator("dd").all_inner_texts()[:2] == [HOSTILE, HOSTILE]
    lines = (run / "seed-1" / "evaluate-automoe" / "translations.txt").read_text(encoding="utf-8")
    assert first.locator("dd").nth(2).inner_text() == (lines.split("\n")[0].strip() or "(nothing)")
    assert page.locator("article").count() == 20
    # The vocabulary knows digits alone.
    expect(first.get_by_text("No experts of switch: copied, because the vocabulary")).to_be_visible()
    assert first.locator("details.experts").count() == 0
    experts = page.locator("article").nth(1).locator("details.experts[data-system='switch']")
    assert experts.get_by_role("grid").count() == 0
    experts.locator("summary").click()
    expect(experts.get_by_role("grid")).to_have_count(2)
    cell = experts.locator("tbody td").first
    cell.hover()
    expect(experts.locator(".detail")).to_have_text(cell.locator(".unseen").inner_text())


def test_light_and_dark_and_narrow(browser, run):
    grounds = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme, viewport={"width": 400, "height": 800})
        page.goto((run / "report" / "report.html").as_uri())
        page.locator("[data-candidate]").first.click(force=True)
        page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true })")
        expect(page.get_by_role("grid").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        grounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.close()
    assert grounds["light"] == "rgb(255, 255, 255)" != grounds["dark"]
