"""What experts are worth on a text, against a count token by token; and which of them are hardly used."""

from collections import defaultdict

import pytest
import torch

from automoe.data.corpus import Pair
from automoe.data.vocabulary import BOS_ID, EOS_ID
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.errors import InputError
from automoe.evaluation.expert_use import ExpertUse, expert_use, hardly_used
from automoe.model.experts import MixtureOfExperts
from helpers.served import TEXTS, tiny_model

PAIRS = [Pair(source, target) for source, target in zip(TEXTS, reversed(TEXTS), strict=True)]
TWO_MIXTURES = Architecture(
    8, 8, 8, (EncoderLayer(1, (8, 16, 0, 8)),), (DecoderLayer(1, 1, (8,)), DecoderLayer(1, 1, (16, 8)))
)


def gates_by_definition(model, tokenizer):
    """Of each layer and expert the gates of the tokens sent to it, one sentence and one token at a time."""
    found = defaultdict(lambda: defaultdict(list))

    def watch(mixture, inputs):
        for token_D in inputs[0]:
            probability_E = torch.softmax(mixture.router.weight @ token_D, 0).tolist()
            ranked = sorted(range(len(probability_E)), key=lambda e: -probability_E[e])
            for expert in ranked[: mixture.top_k]:
                found[mixture.name][expert].append(probability_E[expert])

    for module in model.modules():
        if isinstance(module, MixtureOfExperts) and module.router is not None:
            module.register_forward_pre_hook(watch)
    for pair in PAIRS:
        source, target = tokenizer.encode([pair.source, pair.target])
        with torch.no_grad():
            model(torch.tensor([[*source, EOS_ID]]), torch.tensor([[BOS_ID, *target]]))
    return found


@pytest.mark.parametrize("batch_tokens", [12, 1000])
def test_shares_and_importances_are_those_of_a_slow_count(batch_tokens):
    model, tokenizer = tiny_model()
    use = expert_use(model, tokenizer, PAIRS, batch_tokens)
    gates = gates_by_definition(model, tokenizer)
    assert [one.layer for one in use] == list(gates)
    for one in use:
        experts = range(len(one.shares))
        of_layer = [gates[one.layer][expert] for expert in experts]
        tokens, total = sum(map(len, of_layer)), sum(map(sum, of_layer))
        assert one.shares == pytest.approx([len(got) / tokens for got in of_layer])
        assert one.importances == pytest.approx([sum(got) / total for got in of_layer], rel=1e-5)
        assert one.unused == tuple(expert for expert in experts if not of_layer[expert])
    assert any(one.shares != pytest.approx(one.importances, rel=1e-3) for one in use)


USE = (
    ExpertUse("encoder.0", (0.5, 0.0, 0.0, 0.5), (0.7, 0.0, 0.0, 0.3)),
    ExpertUse("decoder.1", (0.9, 0.1), (0.98, 0.02)),
)


@pytest.mark.parametrize(
    ("min_importance", "expected"),
    [
        (0.0, {"encoder.0": (1,)}),  # the third expert is an identity: it has nothing to be removed
        (0.02, {"encoder.0": (1,)}),
        (0.03, {"encoder.0": (1,), "decoder.1": (1,)}),
        (0.3, {"encoder.0": (1,), "decoder.1": (1,)}),
        (0.7, {"encoder.0": (1, 3), "decoder.1": (1,)}),
    ],
)
def test_what_has_no_token_or_too_little_importance_is_hardly_used(min_importance, expected):
    assert hardly_used(TWO_MIXTURES, USE, min_importance) == expected


def test_no_layer_loses_every_expert_that_was_used():
    with pytest.raises(InputError) as refused:
        hardly_used(TWO_MIXTURES, USE, 0.8)
    assert refused.value.problems[0] == "encoder.0: the most important expert has 70.0%"
    assert len(refused.value.problems) == 2
    assert "at most 70.0%" in refused.value.problems[1]
