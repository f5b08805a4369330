"""Checkpoints: complete or absent, restored to the last bit, refused when damaged or foreign."""

import math
import resource

import pytest
import torch
from torch import nn

from automoe.errors import InputError
from automoe.training.checkpoint import Checkpoints, average_weights, weights, write_tensors
from automoe.training.history import History, read_history
from automoe.training.optimizer import BlockAdam
from helpers.small_disk import small_disk


class Network(nn.Module):
    def __init__(self, seed=0, width=8):
        super().__init__()
        torch.manual_seed(seed)
        self.used = nn.Linear(width, width)
        self.unused = nn.Linear(width, width)


def adam(network):
    return BlockAdam(network, betas=(0.9, 0.98), eps=1e-9)


def steps(network, optimizer, count):
    for _ in range(count):
        network.used(torch.ones(1, network.used.in_features)).square().sum().backward()
        optimizer.step(network, rate=0.1)


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of steps 1, 2 and 3 of one training, and its network and optimizer."""
    network = Network()
    optimizer = adam(network)
    checkpoints = Checkpoints(tmp_path, "mine")
    for step in (1, 2, 3):
        steps(network, optimizer, 1)
        checkpoints.save(step, network, optimizer, {"stream": {"position": step * 10}})
    return checkpoints, network, optimizer


def test_a_restored_training_goes_on_to_the_last_bit(saved):
    checkpoints, network, optimizer = saved
    other = Network(seed=1)
    other_optimizer = adam(other)
    state = checkpoints.load_latest(other, other_optimizer)
    assert state["step"] == 3
    assert state["stream"] == {"position": 30}
    assert other.unused.weight not in other_optimizer.state  # as lazily created as it was
    for net, opt in ((network, optimizer), (other, other_optimizer)):
        steps(net, opt, 5)
    for name, value in weights(network).items():
        assert torch.equal(value, weights(other)[name]), name


def test_the_newest_two_are_kept_and_leftovers_of_a_kill_ignored(saved):
    checkpoints, network, optimizer = saved
    names = ["checkpoint-00000002.safetensors", "checkpoint-00000003.safetensors"]
    assert [path.name for path in checkpoints.paths()] == names
    (checkpoints.folder / ".checkpoint-00000004.safetensors.tmp").write_bytes(b"half")
    assert checkpoints.load_latest(network, optimizer)["step"] == 3


def test_what_a_kill_cut_short_is_deleted_with_the_next_checkpoint(saved):
    checkpoints, network, optimizer = saved
    for name in (".checkpoint-00000004.safetensors.123.tmp", ".snapshot-00000004.safetensors.tmp"):
        (checkpoints.folder / name).write_bytes(b"half")
    (checkpoints.folder / "history.jsonl").write_text("")
    checkpoints.save(4, network, optimizer, {})
    names = ["checkpoint-00000003.safetensors", "checkpoint-00000004.safetensors", "history.jsonl"]
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == names


def test_no_checkpoint_is_none(tmp_path):
    network = Network()
    assert Checkpoints(tmp_path, "mine").load_latest(network, adam(network)) is None


def test_truncated_checkpoint_is_refused_with_the_mend(saved):
    checkpoints, network, optimizer = saved
    newest = checkpoints.paths()[-1]
    newest.write_bytes(newest.read_bytes()[:-10])
    with pytest.raises(InputError, match="truncated") as caught:
        checkpoints.load_latest(network, optimizer)
    assert str(newest) in str(caught.value)
    assert "delete it, then training resumes from checkpoint-00000002.safetensors" in str(caught.value)
    newest.unlink()
    assert checkpoints.load_latest(network, optimizer)["step"] == 2


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not a checkpoint at all"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "checkpoint-00000001.safetensors").write_bytes(content)
    network = Network()
    with pytest.raises(InputError, match="not a checkpoint") as caught:
        Checkpoints(tmp_path, "mine").load_latest(network, adam(network))
    assert "from the beginning" in str(caught.value)


def test_foreign_checkpoints_are_refused(saved, tmp_path):
    checkpoints, network, optimizer = saved
    before = {name: value.clone() for name, value in weights(network).items()}
    with pytest.raises(InputError, match="belongs to another training"):
        Checkpoints(tmp_path, "theirs").load_latest(network, optimizer)
    write_tensors(tmp_path / "checkpoint-00000009.safetensors", {"x": torch.zeros(1)}, {})
    with pytest.raises(InputError, match="belongs to another training"):
        checkpoints.load_latest(network, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in weights(network).items())


@pytest.fixture
def full_disk(tmp_path):
    """Of 256 KiB."""
    with small_disk(tmp_path, "256k") as folder:
        yield folder


@pytest.fixture
def small_files(tmp_path):
    """No file may grow beyond 128 KiB: what a full disk looks like, without being root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (128 << 10, hard))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("disk", ["full_disk", "small_files"])
def test_full_disk_keeps_the_previous_checkpoint_and_no_half_file(disk, request):
    folder = request.getfixturevalue(disk)
    small, large = Network(width=64), Network(width=250)
    checkpoints = Checkpoints(folder, "mine")
    checkpoints.save(1, small, adam(small), {})
    with pytest.raises(InputError, match="cannot be written") as caught:
        checkpoints.save(2, large, adam(large), {})
    assert "free some disk space" in str(caught.value)
    assert [path.name for path in folder.iterdir()] == ["checkpoint-00000001.safetensors"]
    assert checkpoints.load_latest(small, adam(small))["step"] == 1


def test_averaging_is_the_mean(tmp_path):
    networks = [Network(seed) for seed in range(3)]
    paths = [tmp_path / f"snapshot-{seed}.safetensors" for seed in range(3)]
    for path, network in zip(paths, networks, strict=True):
        write_tensors(path, weights(network), {})
    result = Network(seed=9)
    average_weights(paths, result)
    for name, value in weights(result).items():
        torch.testing.assert_close(value, torch.stack([weights(n)[name] for n in networks]).mean(0))


class Silent:
    def log_metrics(self, metrics, step): ...
    def finalize(self, status): ...


def test_history_forgets_what_came_after_the_checkpoint_and_a_torn_line(tmp_path):
    history = History(tmp_path, 0, Silent())
    for step in (1, 2, 3):
        history.log(step, {"loss": step / 2})
    history.close()
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in read_history(tmp_path)] == [1, 2, 3]
    history = History(tmp_path, 2, Silent())
    history.log(3, {"loss": 7.0})
    history.close()
    assert read_history(tmp_path) == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 1.0},
        {"step": 3, "loss": 7.0},
    ]


def test_figures_of_an_old_history_that_are_no_finite_numbers_are_left_out(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"step": 1, "loss": 0.5, "gradient_norm": Infinity}\n')
    History(tmp_path, 1, Silent()).close()
    assert read_history(tmp_path) == [{"step": 1, "loss": 0.5}]


class Heard(Silent):
    """A TensorBoard that remembers what it was told."""

    def __init__(self):
        self.steps = []

    def log_metrics(self, metrics, step):
        self.steps.append(step)


def test_history_is_on_disk_from_flush_on(tmp_path):
    tensorboard = Heard()
    history = History(tmp_path, 0, tensorboard)
    history.log(1, {"loss": 0.5})
    assert tensorboard.steps == [1]
    history.flush()
    assert read_history(tmp_path) == [{"step": 1, "loss": 0.5}]
    history.log(2, {"loss": 0.25})
    history.close()
    history.flush()
    assert read_history(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_history_leaves_out_what_is_no_number(tmp_path):
    history = History(tmp_path, 0, Silent())
    history.log(1, {"loss": 0.5, "validation/valid": math.inf, "nll": math.nan})
    history.close()
    assert read_history(tmp_path) == [{"step": 1, "loss": 0.5}]


@pytest.mark.parametrize("line", ["[1]", "{", '{"loss": 1.0}', "a photograph"])
def test_a_damaged_history_is_refused_with_its_line(tmp_path, line):
    (tmp_path / "history.jsonl").write_text(f'{{"step": 1, "loss": NaN}}\n{line}\n')
    with pytest.raises(InputError, match="line 2") as caught:
        History(tmp_path, 1, Silent())
    assert "delete it" in str(caught.value)
