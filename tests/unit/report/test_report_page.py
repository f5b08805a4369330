"""The page of a run as a parser of HTML reads it: whole, safe, and in need of nothing else."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from automoe.design.architecture import dense
from helpers.made_up_report import (
    ASKED,
    made_up_page,
    made_up_result,
    made_up_seed,
    made_up_sentence,
)
from helpers.served import ARCHITECTURE

DENSE = dense(16, 32, 2, 2, 1)
VOID = {"meta", "link", "img", "input", "br", "hr"}
HOSTILE = (
    "</script><script>window.broken = 1</script>",
    '"><img src=x onerror="window.broken = 1">',
    "<!-- <style>@import url(http://example.org/a.css)",
    "{{ 7 * 7 }} {% raw %}",
    "' & &lt; \u2028 </TITLE> ]]>",
)


class Parsed(HTMLParser):
    """Every element with its attributes and the text in it, and those that were never closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[list[str]] = []
        self.parents: list[list[str]] = []
        self.open: list[int] = []
        self.comments: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.parents.append([self.elements[index][0] for index in self.open])
        self.elements.append((tag, dict(attributes)))
        self.texts.append([])
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag):
        assert self.elements[self.open[-1]][0] == tag
        self.open.pop()

    def handle_data(self, data):
        for index in self.open:
            self.texts[index].append(data)

    def handle_comment(self, data):
        self.comments.append(data)

    def find(self, tag: str, **attributes: str) -> list[int]:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            index
            for index, (name, has) in enumerate(self.elements)
            if name == tag and all(has.get(key) == value for key, value in wanted.items())
        ]

    def text(self, index: int) -> str:
        return "".join(self.texts[index]).strip()

    def data(self) -> dict:
        (index,) = self.find("script", id="data")
        return json.loads(self.text(index))


def candidates(count: int = 6):
    """Architectures of growing size, the larger the better, each but the first with a mixture."""
    grown = [dense(16, 8 * size, 2, 2, 1) for size in range(1, count + 1)]
    mixed = [
        replace(a, encoder=(replace(a.encoder[0], experts=(8, a.encoder[0].ffn_sizes[0])), a.encoder[1]))
        for a in grown[1:]
    ]
    return [(a, 4.0 - 0.1 * place) for place, a in enumerate([grown[0], *mixed])]


def whole_report(folder, texts=("Click OK.",), names=("mine", "dense"), asked=ASKED, seeds=(1,)) -> Parsed:
    """A report with everything in it but races and histories."""
    found = candidates()
    systems = {names[0]: found[3][0], names[1]: DENSE}
    reports = {
        seed: made_up_seed(
            {
                names[0]: made_up_result(
                    systems[names[0]], 20.0, shares={"encoder.0": [0.25, 0.75]}
                ),
                names[1]: made_up_result(DENSE, 18.0),
            },
            latencies_ms={names[0]: 2.0, names[1]: 5.0},
            p={(names[1], names[0]): 0.01},
            log=folder / f"candidates-{seed}.jsonl",
            candidates=found,
            sentences=[made_up_sentence(text, systems) for text in texts],
        )
        for seed in seeds
    }  # fmt: skip
    return Parsed(made_up_page(folder, reports, asked, names[1]))


VARIANTS = {
    "whole": whole_report,
    "several seeds": lambda folder: whole_report(folder, seeds=(1, 5)),
    "nothing searched": lambda folder: Parsed(
        made_up_page(
            folder,
            {
                1: made_up_seed(
                    {"a": made_up_result(ARCHITECTURE), "b": made_up_result(DENSE)}, p={("a", "b"): 1}
                )
            },
        )
    ),
    "one system without experts or sentences": lambda folder: Parsed(
        made_up_page(folder, {1: made_up_seed({"only": made_up_result(DENSE)})})
    ),
    "hostile": lambda folder: whole_report(
        folder, HOSTILE, asked=replace(ASKED, run=HOSTILE[0], facts=dict.fromkeys(HOSTILE, HOSTILE[1]),
                                       source_language=HOSTILE[1], dropped=HOSTILE)
    ),
}  # fmt: skip


@pytest.fixture(params=VARIANTS, ids=str)
def page(request, tmp_path) -> Parsed:
    return VARIANTS[request.param](tmp_path)


def test_it_is_whole_and_loads_nothing(page):
    assert page.open == []
    assert page.comments == []
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href", "style"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), (tag, name)
    assert {tag for tag, _ in page.elements} & {"iframe", "object", "embed", "form", "base"} == set()
    (style,) = page.find("style")
    assert re.findall(r"url\s*\(|@import", page.text(style)) == []
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert scripts == [{"id": "data", "type": "application/json"}, {"type": "module"}]


def test_no_script_may_run_but_the_pages_own(page):
    (policy,) = page.find("meta", **{"http-equiv": "Content-Security-Policy"})
    (script,) = page.find("script", type="module")
    content = "".join(page.texts[script])
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    rules = dict(rule.split(" ", 1) for rule in (page.elements[policy][1]["content"] or "").split("; "))
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert "http" not in str(rules)


def test_it_can_be_read_with_other_senses(page):
    for landmark in ("header", "nav", "main", "footer"):
        assert len(page.find(landmark)) == 1
    (html,) = page.find("html")
    assert page.elements[html][1]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= before + 1 for before, later in pairwise(levels))
    assert all(page.elements[index][1].get("alt") for index in page.find("img"))
    for index in page.find("th"):
        assert page.elements[index][1]["scope"] == ("col" if "thead" in page.parents[index] else "row")
    assert len(page.find("caption")) == len(page.find("table"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "href"):
            if (target := attributes.get(name)) and not target.startswith("data:"):
                assert target.removeprefix("#") in ids


def test_the_answer_comes_first_and_the_table_is_that_of_the_markdown(tmp_path):
    page = whole_report(tmp_path)
    (headline,) = page.find("p", class_="headline")
    assert page.text(headline).startswith(
        "mine reaches 20.00 BLEU, 2.00 more than dense (p = 0.01). A sentence takes 2.0 ms, 2.50 times as "
        "fast as dense, with "
    )
    table = page.find("table")[0]
    rows = [
        line.strip("|\n ").split(" | ")
        for line in (tmp_path / "results.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(("| system | BLEU", "| mine | 2", "| dense | 1"))
    ]
    last = page.find("table")[1]
    cells = [page.text(i) for i in range(table, last) if page.elements[i][0] in ("th", "td")]
    assert cells == [cell for row in rows for cell in row]


def test_what_fell_short_is_told_in_its_own_section(tmp_path):
    seed = made_up_seed(
        {"a": made_up_result(DENSE), "b": made_up_result(DENSE)}, p={("a", "b"): 0.4}, noise="too busy"
    )
    asked = replace(ASKED, dropped=("test: 2 of 9 pairs were dropped (2 too long).",))
    page = Parsed(made_up_page(tmp_path, {1: seed}, asked))
    (short,) = page.find("ul", class_="short")
    end = next(index for index in page.find("section") if index > short)
    assert [page.text(index) for index in page.find("li") if short < index < end] == [
        "b does not differ significantly from a: +0.50 BLEU, p = 0.4; the choice of test sentences may "
        "explain it.",
        "a: too busy.",
        "b: too busy.",
        "test: 2 of 9 pairs were dropped (2 too long).",
        "one seed: how differently another training would end is not known.",
    ]
    markdown = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "### What fell short" in markdown
    assert "- test: 2 of 9 pairs were dropped (2 too long)." in markdown


def test_hostile_text_is_text(tmp_path):
    asked = replace(ASKED, run=HOSTILE[0], facts={HOSTILE[1]: HOSTILE[2]}, dropped=(HOSTILE[4],))
    page = whole_report(tmp_path, HOSTILE, asked=asked)
    assert page.text(page.find("h1")[0]) == HOSTILE[0]
    told = [page.text(index) for index in page.find("dd")]
    assert HOSTILE[2] in told
    for text in HOSTILE:
        assert told.count(text) >= 4  # source, reference, two translations
    tokens = [of["mine"]["encoder"]["tokens"] for of in page.data()["sentences"]]
    assert tokens == [[text] for text in HOSTILE]
    assert {page.elements[i][1]["src"][:15] for i in page.find("img")} == {"data:image/png;"}


def test_sentences_say_their_language_and_find_their_direction(tmp_path):
    page = whole_report(tmp_path, ["שלום"])
    languages = [
        page.elements[index][1].get("lang")
        for index in page.find("dd", dir="auto")
        if page.text(index) == "שלום"
    ]
    assert languages == ["en", "de", "de", "de"]


def test_only_systems_with_experts_offer_them(tmp_path):
    page = whole_report(tmp_path)
    assert [page.elements[i][1]["data-system"] for i in page.find("details", class_="experts")] == ["mine"]


def test_a_sentence_without_one_pass_says_why_and_offers_no_experts(tmp_path):
    systems = {"mine": ARCHITECTURE, "dense": DENSE}
    sentences = [made_up_sentence(text, systems) for text in ("one", "漢字", "three")]
    for output in sentences[1]["outputs"].values():
        output |= {"grids": None, "note": "copied <as it is>"}
    results = {name: made_up_result(architecture) for name, architecture in systems.items()}
    seed = made_up_seed(results, p={("dense", "mine"): 1}, sentences=sentences)
    page = Parsed(made_up_page(tmp_path, {1: seed}, reference="dense"))
    details = page.find("details", class_="experts")
    assert len(details) == 2
    articles = page.find("article", class_="sentence")
    assert [sum(article < index for article in articles) for index in details] == [1, 3]
    told = {index: page.text(index) for index in page.find("p", class_="explanation")}
    (note,) = [index for index, text in told.items() if text == "No experts of mine: copied <as it is>."]
    assert articles[1] < note < articles[2]
    assert [set(of) for of in page.data()["sentences"]] == [{"mine", "dense"}, set(), {"mine", "dense"}]


def test_every_scored_candidate_is_in_the_data_and_the_front_is_the_best_at_each_cost(tmp_path):
    front = whole_report(tmp_path).data()["seeds"]["1"]["front"]
    found = candidates()
    assert [candidate["score"] for candidate in front["candidates"]] == [
        pytest.approx(score) for _, score in found
    ]
    assert [candidate["feasible"] for candidate in front["candidates"]] == [True, False] * 3
    assert front["winners"] == {"mine": 3}
    for picture in front["pictures"]:
        costs = [candidate["costs"][picture["cost"]] for candidate in front["candidates"]]
        points = {
            index: (costs[index], candidate["score"])
            for index, candidate in enumerate(front["candidates"])
            if candidate["feasible"]
        }
        best = [
            index
            for index, (cost, score) in points.items()
            if not any(c <= cost and s <= score and (c, s) != (cost, score) for c, s in points.values())
        ]
        assert sorted(picture["front"]) == best
        assert picture["ticks"][0] <= min(costs)
        assert max(costs) <= picture["ticks"][-1]
    second = front["candidates"][1]["architecture"]
    assert second[0]["layers"][0] == {"attentions": ["self: 2 heads"], "experts": [8, 16], "topK": 1}
    assert second[1]["layers"][0]["attentions"] == [
        "self: 2 heads",
        "cross: 2 heads, over the last encoder layer",
    ]
