"""Batched, cached beam search against a slow obvious one, against enumeration, and its own rules."""

import copy
import itertools
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from automoe.data.text_parts import MAX_SOURCE_TOKENS
from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.design.model_options import ModelOptions
from automoe.errors import InputError
from automoe.inference.backends import make_engine
from automoe.inference.beam_settings import LARGEST_PENALTY, MOST_TOKENS, BeamSettings
from automoe.inference.engine import Engine, Hypothesis
from automoe.inference.torch_engine import TorchEngine
from automoe.model.transformer import Transformer
from helpers.slow_search import FORBIDDEN, assert_same, log_probabilities, random_batch, slow_beam_search


def reference(model: Transformer) -> Engine:
    return TorchEngine(model.eval())


def one_graph(model: Transformer) -> Engine:
    return make_engine(copy.deepcopy(model).float(), "onnx", threads=1)


ENGINES = pytest.mark.parametrize("engine", [reference, one_graph])


def random_model(seed: int, vocabulary_size: int, norm: str = "post") -> Transformer:
    """A small random mixture of experts; float64, so that no two hypotheses tie by rounding."""
    rng = random.Random(seed)

    def experts() -> tuple[tuple[int, ...], int]:
        sizes = tuple(rng.choice((0, 8, 16)) for _ in range(rng.randint(1, 3)))
        return sizes, rng.randint(1, len(sizes))

    encoder_layers = rng.randint(1, 3)
    architecture = Architecture(
        encoder_width=rng.choice((8, 16)),
        decoder_width=rng.choice((8, 16)),
        qkv_dim=16,
        encoder=tuple(EncoderLayer(rng.choice((1, 2)), *experts()) for _ in range(encoder_layers)),
        decoder=tuple(
            DecoderLayer(
                rng.choice((1, 4)), 2, *experts(), encoder_layers_attended=rng.randint(1, encoder_layers)
            )
            for _ in range(rng.randint(1, 2))
        ),
    )
    options = ModelOptions(norm=norm, encoder_dropout=0.3, decoder_dropout=0.3)
    model = Transformer(architecture, vocabulary_size, options)
    model.initialise(seed)
    return model.double()


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize(
    "settings",
    [
        BeamSettings(beam_size=1, max_length_ratio=1, max_length_extra=4),
        BeamSettings(beam_size=3, max_length_ratio=1.5, max_length_extra=2, n_best=3),
        BeamSettings(beam_size=5, length_penalty=0, max_length_ratio=0, max_length_extra=9, n_best=2),
        BeamSettings(beam_size=5, length_penalty=1.2, max_length_ratio=2, max_length_extra=0, min_length=1),
        BeamSettings(beam_size=4, max_length_ratio=1, max_length_extra=3, min_length=5, n_best=4),
        BeamSettings.exactly(6, beam_size=2),
    ],
)
@ENGINES
def test_equals_the_slow_search(
    settings: BeamSettings, norm: str, engine: Callable[[Transformer], Engine]
) -> None:
    for seed in range(4):
        model = random_model(seed, 14, norm)
        source_BS = random_batch(seed, 14, lengths=[5, 2, 7, 1])
        found = engine(model).search(source_BS.numpy(), settings)
        for row, hypotheses in zip(source_BS.tolist(), found, strict=True):
            assert_same(hypotheses, slow_beam_search(model, [t for t in row if t != PAD_ID], settings))


@ENGINES
def test_an_unlimited_beam_finds_what_enumeration_finds(engine: Callable[[Transformer], Engine]) -> None:
    vocabulary_size, limit = 6, 4
    words = [t for t in range(vocabulary_size) if t not in (*FORBIDDEN, EOS_ID)]
    everything = [p for n in range(limit) for p in itertools.product(words, repeat=n)]
    settings = BeamSettings(
        beam_size=len(everything),
        max_length_ratio=0,
        max_length_extra=limit,
        min_length=1,
        n_best=len(everything),
    )
    model = random_model(3, vocabulary_size).eval()
    source_BS = random_batch(3, vocabulary_size, [4])

    expected = []
    with torch.no_grad():
        for prefix in everything:
            log_probability = sum(
                log_probabilities(model, source_BS[0].tolist(), prefix[:n])[token]
                for n, token in enumerate((*prefix, EOS_ID))
            )
            score = log_probability / (len(prefix) + 1) ** 0.6
            expected.append(Hypothesis(prefix, score, log_probability))
    expected.sort(key=lambda h: -h.score)

    (found,) = engine(model).search(source_BS.numpy(), settings)
    assert_same(found, expected)


def test_exactly_takes_that_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(1, 14)
    steps = []
    step = model.step
    monkeypatch.setattr(
        model, "step", lambda tokens, state: steps.append(tokens.shape) or step(tokens, state)
    )
    settings = BeamSettings.exactly(11, beam_size=5)
    found = reference(model).search(random_batch(1, 14, [4, 6]).numpy(), settings)
    assert steps == [(2, 5)] * 11
    assert [len(hypotheses[0].tokens) for hypotheses in found] == [10, 10]


def test_finished_sentences_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(1, 14)
    rows = []
    step = model.step
    monkeypatch.setattr(model, "step", lambda tokens, state: rows.append(len(tokens)) or step(tokens, state))
    # The limit is the source length, and the first sentences are short.
    settings = BeamSettings(2, max_length_ratio=1, max_length_extra=0, min_length=2, length_penalty=0)
    reference(model).search(random_batch(1, 14, [2, 3, 9]).numpy(), settings)
    assert rows[:3] == [3, 3, 2]  # one of three is more than a quarter
    assert all(count <= 1 for count in rows[3:])


@ENGINES
def test_padding_and_begin_of_sentence_are_never_generated(
    engine: Callable[[Transformer], Engine],
) -> None:
    model = random_model(2, 8)
    with torch.no_grad():  # make both the most probable tokens by far
        model.embedding[[PAD_ID, BOS_ID]] *= 50
    for hypotheses in engine(model).search(random_batch(2, 8, [3, 5, 4]).numpy(), BeamSettings(3, n_best=3)):
        assert all(token not in FORBIDDEN for h in hypotheses for token in h.tokens)


@ENGINES
def test_the_search_is_deterministic(engine: Callable[[Transformer], Engine]) -> None:
    model = random_model(4, 14)
    source_BS = random_batch(4, 14, [4, 4])
    first, second = (engine(model).search(source_BS.numpy(), BeamSettings(3)) for _ in range(2))
    assert first == second


def test_impossible_settings_are_refused_all_at_once() -> None:
    with pytest.raises(InputError) as refused:
        BeamSettings(beam_size=0, length_penalty=-1, min_length=0, n_best=0)
    assert len(refused.value.problems) == 4
    with pytest.raises(InputError, match=r"n_best: expected at most beam_size \(2\), got 3"):
        BeamSettings(beam_size=2, n_best=3)


def test_a_penalty_of_the_longest_translation_keeps_scores_apart_in_float32() -> None:
    longest = BeamSettings(length_penalty=LARGEST_PENALTY, max_length_ratio=100, max_length_extra=MOST_TOKENS)
    power = np.float32(longest.max_length(MAX_SOURCE_TOKENS)) ** np.float32(longest.length_penalty)
    numbers = np.finfo(np.float32)
    for log_probability in (numbers.eps, 1e6):
        assert numbers.tiny < np.float32(log_probability) / power < numbers.max
    with pytest.raises(InputError, match=r"length_penalty: expected at most 5, got 5\.1"):
        BeamSettings(length_penalty=5.1)
