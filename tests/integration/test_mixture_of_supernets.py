"""Generated weights against a slow reading of the paper's formula, their gradients against autograd."""

import dataclasses
import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric import Fabric
from safetensors.torch import load_file
from torch.func import functional_call

from automoe.data.batching import TokenisedCorpus, fixed_batches
from automoe.data.tokenizer import Tokenizer
from automoe.data.vocabulary import PAD_ID
from automoe.design.architecture import MIXERS, Architecture
from automoe.design.model_options import ModelOptions
from automoe.inference.model_folder import load_model
from automoe.model.mixture_of_supernets import MixtureOfSupernets, architecture_features
from automoe.model.transformer import Transformer
from automoe.run.recipe import load_recipe
from automoe.training.checkpoint import load_weights
from automoe.training.loop import train, train_until
from automoe.training.muon import hidden_matrices
from automoe.training.objective import validation_loss
from automoe.training.rules import Members
from automoe.training.settings import TrainingSettings
from automoe.training.step import step_gradients
from helpers import shared_space
from helpers.reversal import LARGE, SMALL, VOCABULARY, ReversalStream, draw
from helpers.tiny_run import run_here, write_tiny_recipe

pytestmark = pytest.mark.slow

SPACE = dataclasses.replace(
    shared_space.SPACE, decoder=dataclasses.replace(shared_space.SPACE.decoder, mixers=MIXERS)
)
SETTINGS = TrainingSettings(
    steps=12, peak_rate=3e-3, warmup_steps=3, checkpoint_every=4, validate_every=6, device="cpu"
)


def mixture(seed=1, versions=2):
    net = MixtureOfSupernets(
        SPACE.largest(), VOCABULARY, versions=versions, norm="pre", seed=seed, mixers=SPACE.decoder.mixers
    )
    with torch.no_grad():  # so that gates differ visibly
        net.gate_router.weight.mul_(50)
    return net


def generated(net, architecture):
    """The weights of a member with a graph to the parameters: rows (of the embedding, columns) one by one."""
    weights = dict(net.network.named_parameters())
    features = torch.tensor(architecture_features(architecture, net.network.architecture))
    hidden = torch.relu(weights["unit_router.weight"] @ features + weights["unit_router.bias"])
    gates = weights["gate_router.weight"] @ hidden + weights["gate_router.bias"]
    shapes = {name: parameter.shape for name, parameter in member(architecture).named_parameters()}
    position, found = 0, {}
    own = [name for name in weights if not name.startswith(("versions", "unit_router", "gate_router"))]
    count = len(net.network.versions) + 1
    for name in own:
        if weights[name].dim() < 2:
            if name in shapes:
                found[name] = weights[name][: shapes[name][0]]
            continue
        turned = name == "embedding"
        versions = [weights[name], *(weights[f"versions.{k}.{name}"] for k in range(count - 1))]
        versions = [matrix.T if turned else matrix for matrix in versions]
        rows = []
        for row in range(versions[0].shape[0]):
            gate = torch.softmax(gates[position : position + count], 0)
            position += count
            rows.append(sum(gate[k] * versions[k][row] for k in range(count)))
        if name in shapes:
            whole = torch.stack(rows)
            whole = whole.T if turned else whole
            found[name] = whole[: shapes[name][0], : shapes[name][1]]
    assert position == len(gates)
    return found


def member(architecture):
    return Transformer(architecture, VOCABULARY, ModelOptions("pre"))


def loss_of(output, weight, batch):
    hidden = output.hidden_BTD[batch.target_out_BT != PAD_ID]
    return (hidden @ weight[:, : hidden.shape[1]].T).log_softmax(1)[:, 5].mean() + 0.1 * sum(
        routing.load_balance_loss for routing in output.routing
    )


@given(seed=st.integers(0, 10**6), versions=st.sampled_from([2, 3]))
@settings(max_examples=12, deadline=None)
def test_weights_and_gradients_are_those_of_the_formula(seed, versions):
    rng = random.Random(seed)
    net = mixture(seed, versions)
    architecture = rng.choice([SPACE.sample, lambda _: SPACE.smallest(), lambda _: SPACE.largest()])(rng)
    batch = next(ReversalStream(seed))
    ours = net.subnetwork(architecture)
    expected = generated(net, architecture)
    found = dict(ours.named_parameters())
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name].detach(), weight.detach(), atol=1e-6, rtol=1e-5, msg=name)
    copy = net.extract(architecture)
    assert all(torch.equal(value, found[name]) for name, value in copy.named_parameters())

    loss_of(ours(batch.source_BS, batch.target_in_BT), ours.embedding, batch).backward()
    gradients = net.gradients(ours)
    assert all(parameter.grad is None for parameter in ours.parameters())
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in expected.items()}
    output = functional_call(member(architecture), leaves, (batch.source_BS, batch.target_in_BT))
    loss_of(output, leaves["embedding"], batch).backward()
    trained = [name for name, leaf in leaves.items() if leaf.grad is not None]
    torch.autograd.backward([expected[n] for n in trained], [leaves[n].grad for n in trained])
    for name, parameter in net.network.named_parameters():
        if gradients.get(name) is None:
            assert parameter.grad is None or not parameter.grad.any(), name
            continue
        padded = torch.zeros_like(parameter)
        padded[tuple(map(slice, gradients[name].shape))] = gradients[name]
        torch.testing.assert_close(padded, parameter.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_muon_leaves_gates_routers_and_embeddings_to_adam():
    names = {name for name, _ in hidden_matrices(mixture().network)}
    assert not [name for name in names if "router" in name or "embedding" in name]
    assert {name for name in names if name.startswith("versions.0.")} == {
        f"versions.0.{name}" for name in names if not name.startswith("versions.")
    }


def test_members_with_the_same_blocks_have_weights_of_their_own():
    net = mixture()
    small, large = (net.extract(a) for a in (SPACE.smallest(), SPACE.largest()))
    (name,) = [
        n for n, _ in small.named_parameters() if n.startswith("encoder.0") and n.endswith(".q.weight")
    ]
    weight = small.get_parameter(name)
    block = large.get_parameter(name)[tuple(map(slice, weight.shape))]
    assert not torch.allclose(weight, block, atol=1e-3)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=50)
def test_features_tell_architectures_apart_and_are_shares(seed):
    rng = random.Random(seed)
    one, largest = SPACE.sample(rng), SPACE.largest()
    other = SPACE.mutate(one, 0.05, rng)  # mostly in a gene or two
    features = [architecture_features(a, largest) for a in (one, other, largest)]
    assert len({len(numbers) for numbers in features}) == 1
    assert (features[0] == features[1]) == (one == other)
    assert all(0 <= number <= 1 for numbers in features for number in numbers)


def test_several_members_of_a_step_add_up():
    stream = ReversalStream(1)
    batches = [next(stream)]
    fabric = Fabric(accelerator="cpu", devices=1)

    def gradients(*architectures):
        net = MixtureOfSupernets(LARGE, VOCABULARY, norm="pre", seed=3)
        blocks = step_gradients(fabric, net, Members(architectures), batches, SETTINGS, step=1).blocks
        return net, {name: parameter.grad for name, parameter in blocks.named_parameters()}

    net, both = gradients(SMALL, LARGE)
    _, small = gradients(SMALL)
    _, large = gradients(LARGE)
    assert both.keys() == small.keys() | large.keys()
    for name, total in both.items():
        expected = torch.zeros_like(net.network.get_parameter(name))
        for part in (small, large):
            if name in part:
                expected[tuple(map(slice, part[name].shape))] += part[name] / 2
        torch.testing.assert_close(
            total, expected[tuple(map(slice, total.shape))], atol=1e-6, rtol=1e-4, msg=name
        )


def one(step, rng):
    """One of the two at random."""
    return Members((draw(rng),))


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_it_learns_and_an_interrupted_training_ends_with_the_same_weights(tmp_path, optimizer):
    chosen = dataclasses.replace(SETTINGS, optimizer=optimizer)
    batches = [next(ReversalStream(9))]

    def run(folder, until=None):
        net = MixtureOfSupernets(LARGE, VOCABULARY, norm="pre", seed=3)
        given = {"validation_batches": batches, "validation_networks": {"large": LARGE, "small": SMALL}}
        arguments = (net, one, ReversalStream(1), chosen, tmp_path / folder)
        return net, train_until(*arguments, until, **given) if until else train(*arguments, **given)

    untrained = MixtureOfSupernets(LARGE, VOCABULARY, norm="pre", seed=3).network.state_dict()
    _, early = run("parts", 6)
    _, parts = run("parts")
    net, whole = run("whole")
    assert whole.validation == parts.validation
    assert whole.validation["small"] < early.validation["small"]
    weights = [load_file(result.weights) for result in (parts, whole)]
    assert weights[0].keys() == weights[1].keys() == untrained.keys()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    for name in ("unit_router.weight", "gate_router.weight", "versions.0.embedding"):
        assert not torch.equal(net.network.state_dict()[name], untrained[name])


def test_a_run_scores_and_inherits_generated_weights(tmp_path):
    recipe = write_tiny_recipe(tmp_path, steps=5)
    systems = ["systems=[{name: mine, search: evolution}]", "baseline=null"]
    run_here(recipe, "supernet.rule=mixture_of_supernets", *systems, until="train")
    folder = tmp_path / "runs" / "tiny"
    loaded, seed = load_recipe(recipe), folder / "seed-1"
    vocabulary = Tokenizer.load(folder / "prepare" / "tokenizer.json").vocabulary_size
    net = MixtureOfSupernets(loaded.space.largest(), vocabulary, norm="pre")
    load_weights(seed / "supernet" / "weights.safetensors", net.network)
    batches = fixed_batches(TokenisedCorpus.load(folder / "prepare" / "valid"), 800, range(40))
    lines = (seed / "search-mine" / "candidates.jsonl").read_text().splitlines()
    scored = [record for line in lines if (record := json.loads(line)).get("score") is not None]
    assert len(scored) > 2
    for record in scored:
        ours = net.extract(Architecture.from_dict(record["architecture"]))
        assert validation_loss(ours, batches) == pytest.approx(record["score"], abs=1e-5)
    model, _ = load_model(seed / "train-mine-inherited" / "model")
    inherited = net.extract(model.architecture).state_dict()
    assert inherited.keys() == model.state_dict().keys()
    assert all(torch.equal(value, inherited[name]) for name, value in model.state_dict().items())
    assert (seed / "train-mine-fine-tuned" / "model").is_dir()
