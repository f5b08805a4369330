"""The Node program and the page of an exported ONNX folder translate as `automoe translate`, every line.

Their packages come from npm; without npm, its registry or a Chromium the tests that need it are skipped.
"""

import functools
import itertools
import json
import random
import shutil
import subprocess
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, Page, expect

from automoe.data.shortlist import Shortlist
from automoe.data.text_parts import Part, join_parts
from automoe.data.tokenizer import Tokenizer, train_tokenizer
from automoe.design.architecture import MIXERS, Architecture, DecoderLayer, EncoderLayer
from automoe.design.model_options import ModelOptions
from automoe.export.onnx import export_onnx
from automoe.inference import finished_graph
from automoe.inference.backends import load_engine
from automoe.inference.model_folder import SHORTLIST, save_model
from automoe.inference.translator import Translator
from automoe.model.transformer import Transformer
from helpers.broken_exports import BREAKAGES, broken
from helpers.browser import chromium
from helpers.npm import packages
from helpers.paths import REPOSITORY, TEST_DATA
from helpers.toy_pairs import corpus_of

pytestmark = pytest.mark.slow  # packages, processes and a browser, seconds each

MODEL = TEST_DATA / "models" / "1" / "model"  # trained, so that nothing hangs on the last digits of a score
OLD = TEST_DATA / "tokenizers"
VARIANTS = {"float32": ("float32", 0), "int8": ("int8", 0), "shortlist": ("float32", 14)}
ODD = [
    "",
    " ",
    "\ufeff1 2\u200b3",
    "1\u00a02\u30003\t4\u2028 5\x85 6\x1c7",
    "漢字",
    "\ufeff 漢字 🙂 \u200b",
    "3 🙂 9 👩\u200d💻 2",
    "e\u0301 1 a\u0308",
    "<s> </s> <pad> <unk>",
    "1 </s> 2",
    "5, 6. 7!",
    "8\u00ad 6",
    "▁1▁▁2",
]


def some_lines() -> list[str]:
    """Two hundred: numbers as the model knows them, what it does not know, and lines that are too long."""
    rng = random.Random(8)
    plain = [" ".join(rng.choices("0123456789", k=rng.randint(1, 12))) for _ in range(180)]
    mixed = [
        "".join(rng.choices(["1 ", "2 ", "x", "漢", "🙂", "\u200b", ". ", "\ufeff"], k=9)) for _ in range(5)
    ]
    long = [" ".join(rng.choices(["1 2 3", "4 5 6."], k=700)), "1 2。" * 600]
    return [*plain, *ODD, *mixed, *long]


LINES = some_lines()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The exported folders, each with the packages it asks for; the model itself."""
    folder = tmp_path_factory.mktemp("exported")
    shutil.copytree(MODEL, folder / "model")
    tokenizer = Tokenizer.load(MODEL / "tokenizer.json")
    pairs = [(ids, ids[::-1]) for ids in tokenizer.encode(LINES[:50])]
    learned = Shortlist.learn(corpus_of(pairs), tokenizer.vocabulary_size)
    learned.save(folder / "model" / SHORTLIST)
    for name, (precision, size) in VARIANTS.items():
        export_onnx(folder / "model", folder / name, precision, size)
    with packages(folder / "float32", folder / "packages") as installed:
        for name in VARIANTS:
            (folder / name / "node_modules").symlink_to(installed)
        yield {name: folder / name for name in ("model", *VARIANTS)}


@functools.cache
def translator(model: Path, variant: str) -> Translator:
    precision, size = VARIANTS[variant]
    return Translator(*load_engine(model, "onnx", precision, threads=1, shortlist=size))


@functools.cache
def expected(model: Path, variant: str) -> list[str]:
    """What `automoe translate` says of each line by itself."""
    return [next(translator(model, variant).translate([line])) for line in LINES]


def run(folder: Path, text: bytes, **options) -> subprocess.CompletedProcess[bytes]:
    settings = {"capture_output": True, "timeout": 120} | options
    return subprocess.run(["node", "translate.mjs"], cwd=folder, input=text, **settings)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("end", ["\n", ""], ids=["final newline", "none"])
def test_node_translates_every_line(exported, variant, end):
    done = run(exported[variant], ("\n".join(LINES) + end).encode())
    assert done.returncode == 0, done.stderr.decode()
    known = expected(exported["model"], variant)
    assert done.stdout.decode().split("\n") == [*known, ""]
    assert len(set(known)) > 150
    assert variant == "float32" or known != expected(exported["model"], "float32")


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_node_translates_with_every_mixer_of_a_decoder(exported, tmp_path, precision):
    """Untrained, with weights so large that translations differ."""
    tokenizer = Tokenizer.load(MODEL / "tokenizer.json")
    layers = (DecoderLayer(4 * (mixer == "self_attention"), 4, (64, 32), mixer=mixer) for mixer in MIXERS)
    architecture = Architecture(32, 32, 32, (EncoderLayer(4, (64,)),), tuple(layers))
    model = Transformer(architecture, tokenizer.vocabulary_size, ModelOptions("pre"))
    model.initialise(1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
    save_model(tmp_path / "model", model, tokenizer, {})
    export_onnx(tmp_path / "model", tmp_path / "exported", precision)
    (tmp_path / "exported" / "node_modules").symlink_to(exported["float32"] / "node_modules")
    done = run(tmp_path / "exported", "\n".join(LINES[:40]).encode())
    assert done.returncode == 0, done.stderr.decode()
    known = Translator(*load_engine(tmp_path / "model", "onnx", precision, threads=1))
    expected_lines = [next(known.translate([line])) for line in LINES[:40]]
    assert done.stdout.decode().split("\n") == [*expected_lines, ""]
    assert len(set(expected_lines)) > 30


def test_node_says_which_line_is_not_utf8(exported):
    done = run(exported["float32"], "1 2 3\r\n\n漢".encode()[:-1] + b"\n4\n")
    assert (done.returncode, done.stdout.decode()) == (2, f"{expected_of(exported, '1 2 3')}\n\n")
    assert done.stderr == b"translate.mjs: standard input, line 3: is not UTF-8\n"


def expected_of(exported: dict[str, Path], line: str) -> str:
    return next(translator(exported["model"], "float32").translate([line]))


def test_node_says_that_the_output_is_full(exported):
    with open("/dev/full", "wb") as full:
        done = run(exported["float32"], b"1 2\n", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith(b"translate.mjs: standard output fails")


def test_a_word_without_end_is_refused(exported):
    done = run(exported["float32"], b"1" * 200_000)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"translate.mjs: a word of more than 50000 characters is too long\n"


def test_a_model_beyond_two_gigabytes_is_refused(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(finished_graph, "LARGEST_BYTES", 10_000)
    export_onnx(MODEL, tmp_path / "large")
    (tmp_path / "large" / "node_modules").symlink_to(exported["float32"] / "node_modules")
    done = run(tmp_path / "large", b"1 2\n")
    message = b"translate.mjs: the model is too large for JavaScript: take translate.py\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", message)


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_node_says_what_is_wrong_with_a_folder(exported, tmp_path, breakage):
    folder, message = broken(exported["float32"], tmp_path, breakage)
    done = run(folder, b"1 2\n")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"translate.mjs: ")
    assert message in done.stderr.decode()
    assert b"\n    at " not in done.stderr  # no stack


# Reading text: ids, normalised text and parts, beside the Python library.

FRAGMENTS = [
    *("click", "the", "button", "Größe", " ", "  ", "می\u200cخواهم", "क्\u200dष", "漢字", "🙂", "1/2", "<b>"),
    *("<s>", "</s>", "<pad>", "<unk>", "<", "👨\u200d👩\u200d👧", "🏽", "🇩🇪", "▁", "가", "\u1100\u1161", "ﬁ"),
    *("e\u0301", "A\u030a", "\u0344", ". ", ".", "!) ", "。」", "、", ": ", "... ", "?! ", "; ", ", "),
    *"\ufeff\u200b\u00ad\u200e\u202e\u2060\u200c\u200d\u034f\ufe0f\u115f\u180b\u1820\u064b\u0628",
    *"｡।؟!፣၊；",
    *"\x00\x7f\x85\u2028\u00a0\u3000\t",
]


def a_character(rng: random.Random) -> str:
    """Any but a mark whose order the library in Rust, which is of an older Unicode, may not know."""
    while True:
        character = chr(rng.randrange(rng.choice([0x250, 0x3100, 0x10000, 0x110000])))
        category, code = unicodedata.category(character), ord(character)
        if category not in ("Cn", "Cs") and (code < 0x370 or not unicodedata.combining(character)):
            return character


def some_texts() -> list[str]:
    rng = random.Random(9)
    pieces = [lambda: rng.choice(FRAGMENTS)] * 3 + [lambda: a_character(rng)]
    return ["".join(rng.choice(pieces)() for _ in range(rng.randrange(30))) for _ in range(400)]


def vocabulary(kind: str) -> Tokenizer:
    if kind.startswith("old"):
        return Tokenizer.load(OLD / f"1-{kind.removeprefix('old ')}.json")
    words = ["click", "the", "button", "Größe", "open", "a", "file", "in", "green"]
    text = [" ".join(pair) for pair in itertools.permutations(words, 2)]
    spelled = ["می\u200cخواهم क्\u200dष <b> 1/2 </b>"] * 2 if kind != "unigram without <" else []
    return train_tokenizer([*text, *spelled], 50 if spelled else 33, "bpe" if kind == "bpe" else "unigram")


@pytest.mark.parametrize("kind", ["unigram", "unigram without <", "bpe", "old unigram", "old bpe"])
def test_a_text_is_read_as_in_python(exported, tmp_path, kind):
    tokenizer = vocabulary(kind)
    tokenizer.save(tmp_path / "tokenizer.json")
    texts, rng = some_texts(), random.Random(10)
    ids = [rng.choices(range(tokenizer.vocabulary_size), k=rng.randrange(8)) for _ in texts]
    client = REPOSITORY / "tests" / "helpers" / "javascript_client.mjs"
    done = subprocess.run(
        ["node", client, exported["float32"], tmp_path / "tokenizer.json", "12"],
        input=json.dumps(list(zip(texts, ids, strict=True))),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.split("\n")[:-1]]
    encoded, spelled, parts = tokenizer.encode(texts), tokenizer.decode(ids), tokenizer.parts(texts, 12)
    joined = [join_parts(part.text for part in one) for one in parts]
    for text, answer, *known in zip(texts, answers, encoded, parts, joined, spelled, strict=True):
        read, found, together, said = answer
        assert (text, [read, [Part(*part) for part in found], together, said]) == (text, known)


# The page.


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


class Quiet(SimpleHTTPRequestHandler):
    """A server of a folder that writes no log."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder on a static server, as `python -m http.server` is one."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def opened(browser: Browser, folder: Path) -> Iterator[Page]:
    """The page, for which there is no other host than its own; it asks for none, and nothing fails inside."""
    with served(folder) as address:
        context = browser.new_context(viewport={"width": 390, "height": 800})
        page = context.new_page()
        page.set_default_timeout(60_000)
        foreign: list[str] = []
        wrong: list[str] = []
        own = (f"{address}/", "data:", "blob:")

        def answer(route):
            if route.request.url.startswith(own):
                route.continue_()
            else:
                foreign.append(route.request.url)
                route.abort()

        context.route("**/*", answer)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        yield page
        context.close()
        assert (foreign, wrong) == ([], [])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_page_translates_every_line_without_a_network(browser, exported, variant):
    with opened(browser, exported[variant]) as page:
        expect(page.get_by_role("button", name="Translate")).to_be_enabled(timeout=60_000)
        page.context.set_offline(True)
        lines = LINES if variant == "float32" else LINES[:40]
        page.get_by_label("Text to translate").fill("\n".join(lines))
        page.get_by_role("button", name="Translate").click()
        expect(page.locator("output")).to_have_attribute("aria-busy", "false", timeout=60_000)
        known = expected(exported["model"], variant)[: len(lines)]
        assert page.locator("output").text_content().split("\n") == known
        expect(page.get_by_role("alert")).to_be_hidden()
        # A long line is wrapped: the page never scrolls sideways.
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_keys_alone_are_enough(browser, exported):
    with opened(browser, exported["float32"]) as page:
        expect(page.get_by_role("button", name="Translate")).to_be_enabled(timeout=60_000)
        output = page.get_by_role("status", name="Translation")
        assert output.get_attribute("aria-live") == "polite"
        page.keyboard.type("1 2 3")  # the text has the focus from the start
        page.keyboard.press("Control+Enter")
        expect(output).to_have_text(expected_of(exported, "1 2 3"))
        page.keyboard.type(" 4")
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Translate")).to_be_focused()
        page.keyboard.press("Enter")
        expect(output).to_have_text(expected_of(exported, "1 2 3 4"))


@pytest.mark.parametrize("breakage", ["truncated graph", "another size", "unknown opset", "no graph"])
def test_the_page_says_what_is_wrong_with_its_folder(browser, exported, tmp_path, breakage):
    folder, message = broken(exported["float32"], tmp_path, breakage)
    with opened(browser, folder) as page:
        expect(page.get_by_role("alert")).to_contain_text(message)
        expect(page.get_by_role("button", name="Translate")).to_be_disabled()


def test_the_page_says_that_packages_are_missing(browser, exported, tmp_path):
    export_onnx(MODEL, tmp_path / "new")
    with opened(browser, tmp_path / "new") as page:
        expect(page.get_by_role("alert")).to_contain_text('Run "npm install --ignore-scripts" in this folder')
