"""Which expert each token used, against the definition computed one sentence and one token at a time."""

from collections import Counter, defaultdict

import pytest
import torch

from automoe.data.corpus import Pair
from automoe.data.vocabulary import BOS_ID, EOS_ID
from automoe.design.architecture import dense
from automoe.evaluation.expert_use import ModelRouter, expert_use
from automoe.evaluation.routing import LayerRouting, mean_ffn_sizes, route_sentences
from automoe.inference.graph_model import ModelGraph
from automoe.inference.routing_graph import OnnxRouter
from automoe.model.experts import MixtureOfExperts
from automoe.model.transformer import Transformer
from helpers.served import ARCHITECTURE, tiny_model

SOURCES = [[7, 8, 9, EOS_ID], [5, EOS_ID], [9, 9, 20, 30, 31, 12, EOS_ID]]
TARGETS = [[10, 11], [6, 7, 8, 9, 40], []]


def routing_by_definition(model, source, target) -> dict[str, list[tuple[int, ...]]]:
    """Layer name to each token's experts: what enters every router, watched during one unpadded pass."""
    chosen: dict[str, list[tuple[int, ...]]] = {}

    def watch(mixture, arguments):
        if mixture.router is not None:
            probability_NE = (arguments[0] @ mixture.router.weight.T).softmax(dim=1)
            chosen[mixture.name] = [
                tuple(sorted(range(len(token)), key=lambda e: -token[e])[: mixture.top_k])
                for token in probability_NE.tolist()
            ]

    hooks = [m.register_forward_pre_hook(watch) for m in model.modules() if isinstance(m, MixtureOfExperts)]
    with torch.no_grad():
        model(torch.tensor([source]), torch.tensor([[BOS_ID, *target]]))
    for hook in hooks:
        hook.remove()
    return chosen


def one_graph(model):
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return OnnxRouter(ModelGraph(model.architecture, model.options.norm, weights), threads=1)


@pytest.mark.parametrize("router", [ModelRouter, one_graph])
@pytest.mark.parametrize(("seed", "scale"), [(1, 1), (2, 1), (2, 300)])
def test_every_token_of_a_padded_batch_has_the_experts_of_the_definition(seed, scale, router):
    """With large weights, the less probable experts are equally probable in float32: the first ones count."""
    model, _ = tiny_model(seed)
    with torch.no_grad():
        for mixture in model.modules():
            if isinstance(mixture, MixtureOfExperts) and mixture.router is not None:
                mixture.router.weight.mul_(scale)
    routed = route_sentences(router(model), SOURCES, TARGETS)
    different = set()
    for sentence, source, target in zip(routed, SOURCES, TARGETS, strict=True):
        assert sentence.source == tuple(source)
        assert sentence.target == (*target, EOS_ID)
        expected = routing_by_definition(model, source, target)
        for layers, stack, length in (
            (sentence.encoder, ARCHITECTURE.encoder, len(source)),
            (sentence.decoder, ARCHITECTURE.decoder, len(target) + 1),
        ):
            assert [layer.ffn_sizes for layer in layers] == [layer.ffn_sizes for layer in stack]
            for layer in layers:
                assert list(layer.chosen) == expected.get(layer.layer, [(0,)] * length)
                different.update((layer.layer, experts) for experts in layer.chosen)
    assert len(different) > len(ARCHITECTURE.encoder) + len(ARCHITECTURE.decoder)  # routers do differ


def test_names_are_those_of_the_layers_dense_ones_included():
    model, _ = tiny_model()
    (routed,) = route_sentences(ModelRouter(model), [[5, EOS_ID]], [[6]])
    assert [layer.layer for layer in routed.encoder] == ["encoder.0", "encoder.1", "encoder.2"]
    assert [layer.layer for layer in routed.decoder] == ["decoder.0", "decoder.1"]
    assert routed.encoder[1].chosen == ((0,), (0,))


@pytest.mark.parametrize("batch_tokens", [10, 1000])
def test_expert_use_sums_batches_and_ignores_padding(batch_tokens):
    model, tokenizer = tiny_model()
    texts = ["the cat sat", "a dog ran after the cat and the bird", "mat", "every bird sings in the sun"]
    pairs = [Pair(source, target) for source, target in zip(texts, reversed(texts), strict=True)]
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for pair in pairs:
        source, target = tokenizer.encode([pair.source, pair.target])
        for layer, chosen in routing_by_definition(model, [*source, EOS_ID], target).items():
            counts[layer].update(expert for experts in chosen for expert in experts)
    use = expert_use(model, tokenizer, pairs, batch_tokens)
    assert [layer.layer for layer in use] == ["encoder.0", "encoder.2", "decoder.0", "decoder.1"]
    for layer in use:
        count = counts[layer.layer]
        expected = [count[expert] / count.total() for expert in range(len(layer.shares))]
        assert layer.shares == pytest.approx(expected)
        assert sum(layer.shares) == pytest.approx(1)


@pytest.mark.parametrize("router", [ModelRouter, one_graph])
def test_a_dense_model_has_one_expert_everywhere(router):
    model = Transformer(dense(16, 32, 2, 2, 1), vocabulary_size=50)
    model.initialise(1)
    (routed,) = route_sentences(router(model.eval()), [[5, 6, EOS_ID]], [[7]])
    assert mean_ffn_sizes(routed.encoder) == (32.0, 32.0, 32.0)
    assert mean_ffn_sizes(routed.decoder) == (32.0, 32.0)


def test_mean_ffn_size_counts_every_expert_a_token_used():
    layers = (
        LayerRouting("encoder.0", (100, 10), ((0,), (1,))),
        LayerRouting("encoder.1", (40,), ((0,), (0,))),
        LayerRouting("encoder.2", (30, 20, 0), ((0, 1), (2, 1))),
    )
    assert mean_ffn_sizes(layers) == ((100 + 40 + 50) / 3, (10 + 40 + 20) / 3)
