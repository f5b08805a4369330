"""Training, translation, the server and both exported folders read a text alike, however odd or long."""

import asyncio
import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from automoe.data.corpus import Pair
from automoe.data.normaliser import normalised
from automoe.data.text_parts import MAX_SOURCE_TOKENS, Part
from automoe.data.tokenizer import Tokenizer, train_tokenizer
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.evaluation.expert_use import ModelRouter
from automoe.evaluation.scores import evaluate_model
from automoe.export.huggingface import export_huggingface
from automoe.export.onnx import export_onnx
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.model_folder import save_model
from automoe.inference.torch_engine import TorchEngine
from automoe.inference.translator import Translation, Translator
from automoe.model.transformer import Transformer
from automoe.serving.app import create_app
from automoe.serving.limits import ServingLimits
from automoe.serving.service import Service
from automoe.serving.translation import Translated
from helpers.paths import REPOSITORY

pytestmark = pytest.mark.slow  # whole processes, seconds each

ARCHITECTURE = Architecture(
    16, 16, 16, (EncoderLayer(2, (24, 0)),), (DecoderLayer(2, 2, (24, 16), encoder_layers_attended=1),)
)
WORDS = [
    "click",
    "the",
    "button",
    "row",
    "and",
    "column",
    "to",
    "open",
    "a",
    "file",
    "in",
    "green",
    "or",
    "blue",
    "Zeile",
    "Größe",
    "öffnen",
]
TEXT = [" ".join(pair) + "," for pair in itertools.permutations(WORDS, 2)]
OLD = REPOSITORY / "tests" / "data" / "tokenizers"  # made before vocabularies had this normaliser
TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "unigram": lambda: train_tokenizer([*TEXT, "می\u200cخواهم क्\u200dष <b> 1/2 </b>"] * 2, 60),
    "unigram that cannot spell </s>": lambda: train_tokenizer(TEXT, 45),
    "bpe": lambda: train_tokenizer([*TEXT, "می\u200cخواهم क्\u200dष <b> 1/2 </b>"] * 2, 60, "bpe"),
    "old unigram": lambda: Tokenizer.load(OLD / "1-unigram.json"),
    "old bpe": lambda: Tokenizer.load(OLD / "1-bpe.json"),
}


class Exported(NamedTuple):
    """A model, its tokenizer, and how to ask the folders that were made of it (see `exported_client`)."""

    name: str
    model: Transformer
    tokenizer: Tokenizer
    ask: Callable[..., list[Any]]


@pytest.fixture(scope="module", params=TOKENIZERS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    folder = tmp_path_factory.mktemp("exported")
    tokenizer = TOKENIZERS[request.param]()
    model = Transformer(ARCHITECTURE, tokenizer.vocabulary_size)
    model.initialise(3)
    save_model(folder / "model", model, tokenizer, {})
    export_onnx(folder / "model", folder / "onnx")
    export_huggingface(folder / "model", folder / "huggingface")
    client = REPOSITORY / "tests" / "helpers" / "exported_client.py"
    with (
        (folder / "errors").open("w") as errors,
        subprocess.Popen(
            [sys.executable, client, folder / "onnx", folder / "huggingface"],
            env=os.environ | {"HF_HOME": str(folder / "home"), "HF_MODULES_CACHE": str(folder / "modules")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
        ) as process,
    ):

        def ask(**question: Any) -> list[Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps(question), file=process.stdin, flush=True)
            answer = process.stdout.readline()
            assert answer, (folder / "errors").read_text()
            found: list[Any] = json.loads(answer)
            return found

        yield Exported(request.param, model.eval(), tokenizer, ask)


class Echo:
    """A queue that answers nothing, and remembers what it was asked."""

    def __init__(self) -> None:
        self.tokens: list[list[int]] = []

    async def submit(self, sentences):
        self.tokens += [list(sentence.tokens[:-1]) for sentence in sentences]
        return [Translated((Translation("x", 0.0),), None) for _ in sentences]


PIECES = st.one_of(
    st.sampled_from(
        [*WORDS, "می\u200cخواهم", "क्\u200dष", "漢字", "🙂", "1/2", "e\u0301", "<b>", ".", ", ", " "]
    ),
    st.sampled_from(
        [*"\ufeff\u200b\u00ad\u200e\u202e\u2060\u200c\u200d\u034f\ufe0f\x00\x7f\x85\u2028\u00a0\u3000\t▁"]
    ),
    st.characters(exclude_characters="\r\n<"),
)
SPECIAL = st.sampled_from(["<s>", "</s>", "<pad>", "<unk>", "<"])
TEXTS = st.lists(PIECES, max_size=12).map("".join)
SPECIAL_TEXTS = st.lists(PIECES | SPECIAL, max_size=8).map("".join)


def check_same(exported: Exported, text: str) -> None:
    (parts,) = exported.tokenizer.parts([text])
    (ids,) = exported.tokenizer.encode([text])
    if parts and parts[0].tokens:
        assert parts == [Part(text, ids)]
    onnx, huggingface = exported.ask(parts=text)
    assert onnx == [list(part) for part in parts]
    # The pipeline needs something for a blank text, too: it is "copied".
    assert huggingface == (
        [[None if part.tokens else part.text, part.tokens] for part in parts] or [["", []]]
    )
    queue = Echo()
    service = Service(queue, exported.tokenizer, BeamSettings(), ServingLimits())
    asyncio.run(service.translate([text]))
    assert queue.tokens == [part.tokens for part in parts if part.tokens]


@settings(max_examples=60)
@given(TEXTS)
def test_every_consumer_reads_the_same_tokens(exported: Exported, text: str) -> None:
    check_same(exported, text)


@pytest.mark.parametrize(
    "exported", [name for name in TOKENIZERS if not name.startswith("old")], indirect=True
)
@settings(max_examples=30)
@given(SPECIAL_TEXTS)
def test_and_so_where_a_text_spells_special_tokens(exported: Exported, text: str) -> None:
    check_same(exported, text)
    # What a corpus is cleaned to, and so what is trained on, is what the vocabulary reads.
    assert exported.tokenizer.encode([normalised(text)]) == exported.tokenizer.encode([text])


@pytest.mark.parametrize("exported", ["old unigram", "old bpe"], indirect=True)
def test_an_old_vocabulary_reads_as_when_it_was_made(exported: Exported) -> None:
    expected = json.loads((OLD / "1-ids.json").read_text(encoding="utf-8"))
    assert exported.tokenizer.encode(expected["texts"]) == expected[exported.name.removeprefix("old ")]


@pytest.mark.parametrize("exported", ["unigram"], indirect=True)
def test_a_long_line_is_the_joined_translations_of_its_sentences_everywhere(exported: Exported) -> None:
    rng = random.Random(2)
    few = [" ".join(rng.choices(WORDS, k=rng.randint(4, 9))) + rng.choice([".", "!", "?"]) for _ in range(12)]
    sentences: list[str] = []
    while len(exported.tokenizer.encode([" ".join(sentences)])[0]) < 3000:
        sentences.append(rng.choice(few))
    line = " ".join(sentences)
    settings = BeamSettings()
    translator = Translator(TorchEngine(exported.model), exported.tokenizer, settings)
    alone = {sentence: next(translator.translate([sentence])) for sentence in few}
    expected = " ".join(alone[sentence] for sentence in sentences)
    assert len(set(expected.split())) > 2  # a model that says always the same would prove nothing

    lines = ["the row", line, "", "\ufeff漢字\u200b"]
    found = [next(translator.translate(["the row"])), expected, "", "漢字"]
    assert list(translator.translate(lines)) == found
    pairs = [Pair(one, "blue") for one in lines]
    evaluated = evaluate_model(exported.model, exported.tokenizer, pairs, "de", settings)
    assert list(evaluated.translations) == found
    limits = ServingLimits(waiting_sentences=50, characters=200_000)
    router, engine = ModelRouter(exported.model), TorchEngine(exported.model)
    app = create_app(router, engine, exported.tokenizer, settings, limits)
    with TestClient(app) as client:
        answer = client.post("/translate", json={"text": lines}).json()
        assert [one["text"] for one in answer["translations"]] == found
        explained = client.post("/explain", json={"text": line}).json()
    assert explained["translation"] == expected
    assert len(explained["sentences"]) == len(sentences)
    assert exported.ask(translate=lines) == [found, found]


@pytest.mark.parametrize("exported", ["unigram", "bpe"], indirect=True)
@pytest.mark.parametrize("unit", ["blue", "blue ", "blue, ", "漢", "漢 ", "\u200b", "ö\u0308"])
def test_no_length_is_an_error(exported: Exported, unit: str) -> None:
    line = unit * 3 * MAX_SOURCE_TOKENS
    onnx, huggingface = exported.ask(parts=line)
    assert [tokens for _, tokens in onnx] == [tokens for _, tokens in huggingface if onnx]
    assert [list(part) for part in exported.tokenizer.parts([line])[0]] == onnx
    assert all(len(tokens) < MAX_SOURCE_TOKENS for _, tokens in onnx)
    assert normalised("".join(text for text, _ in onnx)).replace(" ", "") == normalised(line).replace(" ", "")
