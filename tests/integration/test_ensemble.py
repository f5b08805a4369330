"""The engine of several models against a slow search and enumeration, both of mean probabilities."""

import itertools
import random

import pytest
import torch

from automoe.data.vocabulary import EOS_ID, PAD_ID
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.errors import InputError
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Hypothesis
from automoe.inference.ensemble import EnsembleEngine
from automoe.inference.torch_engine import TorchEngine
from automoe.model.transformer import Transformer
from helpers.slow_search import (
    FORBIDDEN,
    assert_same,
    mean_log_probabilities,
    random_batch,
    slow_beam_search,
)


def member(seed: int, vocabulary_size: int = 14) -> Transformer:
    """A small random model of another shape for each seed; float64, so that nothing ties by rounding."""
    rng = random.Random(seed)
    architecture = Architecture(
        encoder_width=rng.choice((8, 16)),
        decoder_width=rng.choice((8, 16)),
        qkv_dim=16,
        encoder=(EncoderLayer(2, (8, 16), 1),) * rng.randint(1, 2),
        decoder=(DecoderLayer(2, 4, (rng.choice((8, 24)),), 1),) * rng.randint(1, 3),
    )
    model = Transformer(architecture, vocabulary_size)
    model.initialise(seed)
    with torch.no_grad():  # of one opinion, members would hide how they are averaged
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    return model.double().eval()


@pytest.mark.parametrize(
    "settings",
    [
        BeamSettings(beam_size=1, max_length_ratio=1, max_length_extra=4),
        BeamSettings(beam_size=4, max_length_ratio=1.5, max_length_extra=2, n_best=3),
        BeamSettings(beam_size=5, length_penalty=0, max_length_ratio=0, max_length_extra=7, min_length=4),
    ],
)
@pytest.mark.parametrize("seeds", [(1, 2), (3, 4, 5)])
def test_equals_the_slow_search_over_the_mean_of_the_members(settings: BeamSettings, seeds) -> None:
    models = [member(seed) for seed in seeds]
    source_BS = random_batch(seeds[0], 14, lengths=[5, 2, 7, 1])
    found = EnsembleEngine(models).search(source_BS.numpy(), settings)
    alone = TorchEngine(models[0]).search(source_BS.numpy(), settings)
    for row, hypotheses in zip(source_BS.tolist(), found, strict=True):
        source = [token for token in row if token != PAD_ID]
        assert_same(hypotheses, slow_beam_search(models[0], source, settings, *models[1:]))
    assert [h.tokens for h, *_ in found] != [h.tokens for h, *_ in alone]  # the others had a say


def test_an_unlimited_beam_finds_what_enumeration_finds() -> None:
    vocabulary_size, limit = 6, 3
    words = [t for t in range(vocabulary_size) if t not in (*FORBIDDEN, EOS_ID)]
    everything = [p for n in range(limit) for p in itertools.product(words, repeat=n)]
    many = len(everything)
    settings = BeamSettings(many, max_length_ratio=0, max_length_extra=limit, min_length=1, n_best=many)
    models = [member(seed, vocabulary_size) for seed in (6, 7)]
    source_BS = random_batch(3, vocabulary_size, [4])
    expected = []
    with torch.no_grad():
        for prefix in everything:
            log_probability = sum(
                mean_log_probabilities(models, source_BS[0].tolist(), prefix[:n])[token]
                for n, token in enumerate((*prefix, EOS_ID))
            )
            score = log_probability / (len(prefix) + 1) ** 0.6
            expected.append(Hypothesis(prefix, score, log_probability))
    expected.sort(key=lambda h: -h.score)
    (found,) = EnsembleEngine(models).search(source_BS.numpy(), settings)
    assert_same(found, expected)


def test_a_model_with_itself_is_that_model_and_the_order_of_members_does_not_matter() -> None:
    one, other = member(1), member(2)
    source_BS, settings = random_batch(1, 14, [6, 3, 4]).numpy(), BeamSettings(n_best=5)
    alone = TorchEngine(one).search(source_BS, settings)
    pairs = [EnsembleEngine(models).search(source_BS, settings) for models in ([one, other], [other, one])]
    for sentence, expected in zip(EnsembleEngine([one, one]).search(source_BS, settings), alone, strict=True):
        assert_same(sentence, expected)
    for sentence, expected in zip(*pairs, strict=True):
        assert_same(sentence, expected)


def test_no_members_and_members_of_other_vocabularies_are_refused() -> None:
    with pytest.raises(InputError, match="expected at least one model"):
        EnsembleEngine([])
    with pytest.raises(InputError, match=r"tokens: expected the same of all, got 14, 6"):
        EnsembleEngine([member(1), member(2, 6)])
