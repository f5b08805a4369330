"""The gradients of a step with several members, against networks of their own and all the logits."""

import pytest
import torch
from lightning.fabric import Fabric
from torch.nn import functional as F

from automoe.data.vocabulary import PAD_ID
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.model.sharing import Supernet
from automoe.training.rules import Members
from automoe.training.settings import TrainingSettings
from automoe.training.step import step_gradients
from helpers.reversal import LARGE, SMALL, VOCABULARY, ReversalStream

SETTINGS = TrainingSettings(steps=9, peak_rate=1e-3, warmup_steps=3, balance_coefficient=0.1, device="cpu")
# Wider than SMALL here and narrower there: neither one's blocks hold the other's.
CROSSING = Architecture(
    encoder_width=16,
    decoder_width=32,
    qkv_dim=32,
    encoder=(EncoderLayer(4, (48,)), EncoderLayer(4, (64,))),
    decoder=(DecoderLayer(4, 2, (16, 24, 0)),),
)


def gradients(members, batches):
    supernet = Supernet(LARGE, VOCABULARY, norm="pre", seed=3)
    fabric = Fabric(accelerator="cpu", devices=1)
    return supernet, step_gradients(fabric, supernet, members, batches, SETTINGS, step=1)


def expected_gradients(supernet, members, batches):
    """Losses and full-size gradients: each member a network of its own, over all its logits."""
    tokens = sum(batch.target_tokens for batch in batches)
    total = {name: torch.zeros_like(p) for name, p in supernet.network.named_parameters()}
    networks = [supernet.extract(architecture) for architecture in members.architectures]
    losses = []
    for index, network in enumerate(networks):
        loss = 0.0
        for batch in batches:
            target = batch.target_out_BT.flatten()
            output = network(batch.source_BS, batch.target_in_BT)
            logits = network.logits(output.hidden_BTD).flatten(0, 1)
            data = F.cross_entropy(logits, target, label_smoothing=0.1, ignore_index=PAD_ID, reduction="sum")
            if members.teacher is not None and index != members.teacher:
                teacher = networks[members.teacher]
                teacher_hidden = teacher(batch.source_BS, batch.target_in_BT).hidden_BTD
                p = teacher.logits(teacher_hidden).flatten(0, 1).softmax(1).detach()
                taught = F.cross_entropy(logits[target != PAD_ID], p[target != PAD_ID], reduction="sum")
                data = (1 - members.distillation) * data + members.distillation * taught
            balance = sum(layer.load_balance_loss for layer in output.routing) / len(output.routing)
            loss += data + 0.1 * balance * batch.target_tokens
        (loss / tokens / len(networks)).backward()
        losses.append((loss / tokens).item())
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                total[name][tuple(map(slice, parameter.shape))] += parameter.grad
    return losses, total


@pytest.mark.parametrize(
    ("members", "order"),
    [
        (Members((SMALL,)), [0]),
        (Members((SMALL, LARGE)), [0, 1]),
        (Members((SMALL, LARGE, CROSSING), teacher=1, distillation=0.7), [1, 0, 2]),
        (Members((SMALL, CROSSING, SMALL)), [0, 1, 2]),
        (Members((CROSSING, SMALL), teacher=0), [0, 1]),
    ],
    ids=["single", "with-largest", "largest-teaches", "one-twice", "crossing"],
)
def test_equal_the_sum_over_networks_of_their_own(members, order):
    stream = ReversalStream(1)
    batches = [next(stream), next(stream)]
    supernet, found = gradients(members, batches)
    losses, total = expected_gradients(supernet, members, batches)
    assert found.losses == pytest.approx([losses[index] for index in order], rel=1e-5)
    weights = dict(supernet.network.named_parameters())
    left = dict(total)
    for name, parameter in found.blocks.named_parameters():
        block = tuple(map(slice, parameter.shape))
        assert parameter.data_ptr() == weights[name].data_ptr()
        assert torch.equal(parameter, weights[name][block])
        torch.testing.assert_close(parameter.grad, total[name][block], rtol=1e-4, atol=1e-6, msg=name)
        left[name][block] = 0
    assert not any(gradient.any() for gradient in left.values())


def test_blocks_are_no_larger_than_what_the_members_touched():
    stream = ReversalStream(1)
    _, found = gradients(Members((SMALL, CROSSING)), [next(stream)])
    shapes = {name: tuple(parameter.shape) for name, parameter in found.blocks.named_parameters()}
    assert shapes["embedding"] == (VOCABULARY, 32)
    assert {name.split(".")[1] for name in shapes if name.startswith("decoder.")} == {"0"}
    # 48 of CROSSING, whose stack is 16 wide; 24 wide is SMALL, whose expert has 32.
    sizes = [
        shape for name, shape in shapes.items() if name.startswith("encoder.0") and name.endswith("up.weight")
    ]
    assert sizes == [(48, 24)]


def test_pupils_learn_from_the_very_pass_that_taught_the_teacher():
    batch = next(ReversalStream(1))
    supernet = Supernet(LARGE, VOCABULARY, norm="pre", dropout=0.5, seed=3)
    passes = []
    supernet.network.register_forward_hook(lambda module, inputs, output: passes.append(output))
    fabric = Fabric(accelerator="cpu", devices=1)
    # The pupil has the teacher's weights, but a dropout of its own.
    members = Members((LARGE, LARGE), teacher=0, distillation=1.0)
    found = step_gradients(fabric, supernet, members, [batch], SETTINGS, step=1)
    assert len(passes) == 2
    kept = (batch.target_out_BT != PAD_ID).flatten()
    teacher, pupil = (supernet.network.logits(p.hidden_BTD).flatten(0, 1)[kept].detach() for p in passes)
    balance = sum(layer.load_balance_loss.item() for layer in passes[1].routing) / len(passes[1].routing)
    expected = F.cross_entropy(pupil, teacher.softmax(1)).item() + 0.1 * balance
    assert found.losses[1] == pytest.approx(expected, rel=1e-5)
    assert not torch.equal(teacher, pupil)
