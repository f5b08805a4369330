"""An output layer of some tokens alone: every engine, against the forward pass and a softmax over these."""

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.data.shortlist import Shortlist, Shortlister
from automoe.data.tokenizer import train_tokenizer
from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.errors import InputError
from automoe.inference.backends import make_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Ids
from automoe.inference.model_folder import SHORTLIST, model_of, read_model, save_model
from automoe.inference.translator import Translator
from automoe.model.transformer import Transformer
from helpers.random_models import (
    TOLERANCE,
    VOCABULARY,
    architectures,
    batch,
    random_model,
    without_mixtures,
)
from helpers.toy_pairs import corpus_of

ENGINES = [("torch", "float32"), ("onnx", "float32"), ("onnx", "int8")]
SMALL = Architecture(16, 16, 8, (EncoderLayer(2, (8,)),), (DecoderLayer(2, 2, (8, 24)),))


def always(shortlist_W: Ids) -> Shortlister:
    return lambda source_BS: shortlist_W


shortlists = st.sets(st.integers(4, VOCABULARY - 1), min_size=1).map(
    lambda others: np.array([0, 1, 2, 3, *sorted(others)])
)


@torch.inference_mode()
def restricted_log_probability(
    model: Transformer, source: list[int], tokens: tuple[int, ...], shortlist_W: Ids
) -> float:
    """Of a translation, by the teacher-forced pass and a softmax over the shortlist."""
    target_in = torch.tensor([[BOS_ID, *tokens]])
    logits_TW = model.logits(model(torch.tensor([source]), target_in).hidden_BTD)[0][:, shortlist_W]
    places = [shortlist_W.tolist().index(token) for token in (*tokens, EOS_ID)]
    return float(logits_TW.log_softmax(-1).gather(1, torch.tensor(places)[:, None]).sum())


@pytest.mark.parametrize(("backend", "precision"), ENGINES)
@settings(deadline=None, max_examples=12)
@given(
    architecture=architectures(),
    norm=st.sampled_from(["pre", "post"]),
    beam_size=st.integers(1, 4),
    shortlist_W=shortlists,
    seed=st.integers(0, 99),
)
def test_what_is_found_is_as_probable_as_it_says(
    backend: str,
    precision: str,
    architecture: Architecture,
    norm: str,
    beam_size: int,
    shortlist_W: Ids,
    seed: int,
) -> None:
    if precision == "int8":  # rounding may send a token of a random router to another expert
        architecture = without_mixtures(architecture)
    model = random_model(architecture, norm, seed)
    source_BS = batch(seed, [5, 2, 4])
    searched = BeamSettings(beam_size, n_best=beam_size, max_length_ratio=1, max_length_extra=3, min_length=1)
    engine = make_engine(model, backend, precision, shortlister=always(shortlist_W))
    for source_S, hypotheses in zip(source_BS, engine.search(source_BS, searched), strict=True):
        assert hypotheses
        source = source_S[source_S != PAD_ID].tolist()
        for one in hypotheses:
            assert set(one.tokens) <= set(shortlist_W[3:].tolist())
            expected = restricted_log_probability(model, source, one.tokens, shortlist_W)
            length = len(one.tokens) + 1
            assert abs(one.log_probability - expected) < TOLERANCE[precision] * length


@settings(deadline=None, max_examples=25)
@given(
    architecture=architectures(),
    norm=st.sampled_from(["pre", "post"]),
    searched=st.builds(
        BeamSettings,
        beam_size=st.just(4),
        n_best=st.integers(1, 4),
        length_penalty=st.sampled_from([0.0, 0.6, 1.5]),
        max_length_ratio=st.sampled_from([0.5, 1.0]),
        max_length_extra=st.integers(0, 4),
        min_length=st.integers(1, 4),
    ),
    shortlist_W=shortlists,
    seed=st.integers(0, 99),
)
def test_onnx_searches_like_the_model(
    architecture: Architecture, norm: str, searched: BeamSettings, shortlist_W: Ids, seed: int
) -> None:
    model = random_model(architecture, norm, seed=seed)
    source_BS = batch(seed, [6, 1, 3, 3, 2])
    found, expected = (
        make_engine(model, backend, shortlister=always(shortlist_W)).search(source_BS, searched)
        for backend in ("onnx", "torch")
    )
    for mine, reference in zip(found, expected, strict=True):
        assert [h.tokens for h in mine] == [h.tokens for h in reference]
        for one, other in zip(mine, reference, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-4)


@pytest.mark.parametrize(("backend", "precision"), ENGINES)
def test_a_shortlist_of_all_changes_nothing(backend: str, precision: str) -> None:
    model = random_model(SMALL)
    source_BS = batch(2, [6, 3])
    searched = BeamSettings(3, n_best=3)
    found, expected = (
        make_engine(model, backend, precision, shortlister=shortlister).search(source_BS, searched)
        for shortlister in (always(np.arange(VOCABULARY)), None)
    )
    for mine, whole in zip(found, expected, strict=True):
        assert [h.tokens for h in mine] == [h.tokens for h in whole]
        assert [h.score for h in mine] == pytest.approx([h.score for h in whole], rel=1e-5)


def test_each_batch_has_its_own() -> None:
    asked: list[Ids] = []

    def shortlister(source_BS: Ids) -> Ids:
        asked.append(source_BS)
        return np.array([0, 1, 2, 3, 10 + len(asked)])

    for backend in ("onnx", "torch"):
        asked.clear()
        engine = make_engine(random_model(SMALL), backend, shortlister=shortlister)
        for number, source_BS in enumerate((batch(1, [4]), batch(2, [3, 5])), start=1):
            for (best,) in engine.search(source_BS, BeamSettings.exactly(4, beam_size=2)):
                assert set(best.tokens) <= {3, 10 + number}
            assert asked[-1] is source_BS


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_forced_tokens_need_not_be_in_it(backend: str) -> None:
    model = random_model(SMALL)
    source_BS = batch(3, [4])
    shortlist_W = np.array([0, 1, 2, 3, 7, 9])
    forced_TBK = np.array([5, 20, 11, 8, 22])[:, None, None]
    with torch.inference_mode():
        read = torch.from_numpy(forced_TBK[:, 0, 0])[None]
        logits_TV = model.logits(model(torch.from_numpy(source_BS), read).hidden_BTD)[0]
    engine = make_engine(model, backend, forced=True, shortlister=always(shortlist_W))
    ((one,),) = engine.search(source_BS, BeamSettings.exactly(5, beam_size=1), forced_TBK)
    assert list(one.tokens) == shortlist_W[3:][logits_TV[:4, shortlist_W[3:]].argmax(dim=1)].tolist()


def test_packed_weights_have_none() -> None:
    with pytest.raises(InputError, match="no shortlist in float16"):
        make_engine(random_model(SMALL), "torch", "float16", shortlister=always(np.arange(6)))


WORDS = ["der", "Bär", "isst", "zwei", "Bären", "und", "liest", "Text", "Leerzeichen", "wörtlich"]
SIZE = 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a shortlist of a corpus in which each word becomes itself."""
    tokenizer = train_tokenizer([" ".join(pair) for pair in itertools.permutations(WORDS, 2)], 34)
    model = Transformer(SMALL, tokenizer.vocabulary_size)
    model.initialise(4)
    folder = tmp_path_factory.mktemp("shortlisted")
    save_model(folder, model, tokenizer, {})
    pairs = [(tokens, tokens) for tokens in tokenizer.encode(WORDS)]
    Shortlist.learn(corpus_of(pairs), tokenizer.vocabulary_size).save(folder / SHORTLIST)
    return folder


def command(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """A command in a process that cannot import torch."""
    program = "import sys; sys.modules['torch'] = None; from automoe.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], input=text, capture_output=True, encoding="utf-8"
    )


@pytest.mark.slow
def test_translate_has_the_option_and_needs_no_torch(folder: Path) -> None:
    stored = read_model(folder)
    engines = [make_engine(model_of(stored), shortlister=stored.shortlister(size)) for size in (SIZE, 0)]
    restricted, whole = (
        list(Translator(engine, stored.tokenizer).translate(["zwei Bären"])) for engine in engines
    )
    assert restricted != whole
    for size, expected in ((SIZE, restricted), (0, whole)):
        done = command("translate", str(folder), "--shortlist", str(size), text="zwei Bären\n")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == expected


@pytest.mark.slow
def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns(SHORTLIST))
    out = ("--output", str(tmp_path / "out"))
    for arguments, message in (
        (("translate", str(bare), "--shortlist", "9"), "has no shortlist"),
        (("translate", str(folder), "--shortlist", "3"), "more than the 4 special tokens"),
        (("serve", str(bare), "--shortlist", "9"), "has no shortlist"),
        (("export", str(bare), "--to", "onnx", "--shortlist", "9", *out), "has no shortlist"),
        (("export", str(folder), "--to", "huggingface", "--shortlist", "9", *out), "has no shortlist"),
    ):
        done = command(*arguments)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "out").exists()
