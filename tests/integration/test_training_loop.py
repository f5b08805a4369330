"""The training loop against a plain loop, against itself interrupted, and on bad days."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from automoe.data.vocabulary import PAD_ID
from automoe.errors import InputError
from automoe.model.sharing import Supernet
from automoe.training.history import read_history
from automoe.training.loop import train, train_until
from automoe.training.objective import validation_loss
from automoe.training.results import TrainingDiverged
from automoe.training.rules import Members, only
from automoe.training.schedule import learning_rate
from automoe.training.settings import TrainingSettings
from helpers.reversal import LARGE, SMALL, VOCABULARY, ReversalStream, draw

SETTINGS = TrainingSettings(
    steps=20,
    peak_rate=3e-3,
    warmup_steps=5,
    checkpoint_every=5,
    validate_every=7,
    average_checkpoints=1,
    device="cpu",
)


def settings(**changes):
    return dataclasses.replace(SETTINGS, **changes)


def supernet(dropout=0.0):
    return Supernet(LARGE, VOCABULARY, norm="pre", dropout=dropout, seed=3)


def one(step, rng):
    """One of the two at random."""
    return Members((draw(rng),))


def both(step, rng):
    """Two steps out of three both, in any order, the larger one as the teacher; else one of them."""
    architectures = rng.sample([LARGE, SMALL], 2)
    if step % 3 == 0:
        return Members(tuple(architectures[:1]))
    return Members(tuple(architectures), teacher=architectures.index(LARGE))


def copies(network):
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def test_equals_a_plain_loop(tmp_path):
    chosen = settings(
        accumulation=2, clip_norm=0.5, balance_coefficient=0.1, schedule="constant", decay_share=0.5
    )
    net = supernet()
    result = train(net, only(LARGE), ReversalStream(1), chosen, tmp_path)

    model = supernet().network
    adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9, foreach=False)
    stream = ReversalStream(1)
    for step in range(1, chosen.steps + 1):
        batches = [next(stream), next(stream)]
        tokens = sum(batch.target_tokens for batch in batches)
        loss = 0.0
        for batch in batches:
            output = model(batch.source_BS, batch.target_in_BT)
            logits, target = model.logits(output.hidden_BTD).flatten(0, 1), batch.target_out_BT.flatten()
            loss += F.cross_entropy(logits, target, label_smoothing=0.1, ignore_index=PAD_ID, reduction="sum")
            balance = sum(layer.load_balance_loss for layer in output.routing) / len(output.routing)
            loss += 0.1 * balance * batch.target_tokens
        adam.zero_grad()
        (loss / tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        adam.param_groups[0]["lr"] = learning_rate(
            step,
            steps=chosen.steps,
            warmup_steps=5,
            peak_rate=3e-3,
            final_rate_ratio=0.05,
            schedule="constant",
            decay_share=0.5,
        )
        adam.step()
        assert read_history(tmp_path)[step - 1]["loss"] == pytest.approx((loss / tokens).item(), rel=1e-4)
    for name, value in load_file(result.weights).items():
        # The gradient of a bias of keys is rounding noise, which Adam scales up.
        if not name.endswith("k.bias"):
            torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-3, atol=1e-4, msg=name)
        assert torch.equal(value, net.network.state_dict()[name])


def test_learns_reports_and_validates(tmp_path):
    stream = ReversalStream(9)
    batches = [next(stream) for _ in range(3)]
    heard = []
    net = supernet()
    result = train(
        net,
        one,
        ReversalStream(1),
        settings(steps=40, final_rate_ratio=1.0),
        tmp_path,
        validation_batches=batches,
        validation_networks={"largest": LARGE, "smallest": SMALL},
        report=heard.append,
    )
    assert [progress.step for progress in heard] == list(range(1, 41))
    assert heard[-1].tokens_per_second > 0
    history = read_history(tmp_path)
    assert [r["step"] for r in history if "validation/smallest" in r] == [7, 14, 21, 28, 35, 40]
    assert sum(r["loss"] for r in history[-5:]) < sum(r["loss"] for r in history[:5])
    assert result.target_tokens == history[-1]["target_tokens"]
    expected = {name: validation_loss(net.subnetwork(a), batches) for name, a in
                (("largest", LARGE), ("smallest", SMALL))}  # fmt: skip
    assert result.validation == pytest.approx(expected)
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = events.EventAccumulator(str(tmp_path / "tensorboard"), {"scalars": 0})
    accumulator.Reload()
    assert [e.value for e in accumulator.Scalars("loss")] == pytest.approx([r["loss"] for r in history])


def test_several_members_learn_together_and_the_teachers_losses_are_told(tmp_path):
    def pair(step, rng):
        return Members((SMALL, LARGE), teacher=1)

    stream, net = ReversalStream(9), supernet()
    watched = {"largest": LARGE, "smallest": SMALL}
    batches = [next(stream) for _ in range(3)]
    before = {name: validation_loss(net.subnetwork(a), batches) for name, a in watched.items()}
    expected = validation_loss(net.subnetwork(LARGE), [next(ReversalStream(1))])
    chosen = settings(steps=40, final_rate_ratio=1.0, balance_coefficient=0.0, label_smoothing=0.0)
    result = train(net, pair, ReversalStream(1), chosen, tmp_path,
                   validation_batches=batches, validation_networks=watched)  # fmt: skip
    assert all(result.validation[name] < before[name] for name in watched)
    first = read_history(tmp_path)[0]
    assert first["loss"] == pytest.approx(expected)
    assert first["nll"] == pytest.approx(expected)


def test_untouched_parameters_stay_as_they_were(tmp_path):
    net = supernet()
    before = copies(net.network)
    train(net, only(SMALL), ReversalStream(1), SETTINGS, tmp_path)
    inside = {name for name, _ in net.subnetwork(SMALL).named_parameters()}
    after = copies(net.network)
    for name, value in before.items():
        if name not in inside:
            assert torch.equal(value, after[name]), name
    assert not torch.equal(before["embedding"][:, :16], after["embedding"][:, :16])
    # SMALL is 24 wide in the encoder, its source embedding: what lies beyond never gets a gradient.
    assert torch.equal(before["embedding"][:, 24:], after["embedding"][:, 24:])


def test_result_is_the_mean_of_the_last_weights(tmp_path):
    net = supernet()
    seen = {}

    def report(progress):
        seen[progress.step] = copies(net.network)

    result = train(net, one, ReversalStream(1), settings(average_checkpoints=4), tmp_path, report=report)
    for name, value in load_file(result.weights).items():
        mean = torch.stack([seen[step][name] for step in (17, 18, 19, 20)]).mean(0)
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-7)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"weights.safetensors", "history.jsonl", "tensorboard"}


@pytest.mark.parametrize(("peak_rate", "expected"), [(3e-3, "last"), (0.6, "mean")])
def test_of_mean_and_last_weights_the_better_is_the_result(tmp_path, peak_rate, expected):
    # While all learn fast the last weights are best; where a high rate makes them jump about, their mean.
    chosen = settings(steps=60, average_checkpoints=12, peak_rate=peak_rate, final_rate_ratio=1.0)
    seen = {}

    def report(progress):
        seen[progress.step] = copies(net.network)

    net, stream = supernet(), ReversalStream(9)
    batches = [next(stream) for _ in range(3)]
    watched = {"valid": LARGE}
    result = train(
        net,
        one,
        ReversalStream(1),
        chosen,
        tmp_path,
        validation_batches=batches,
        validation_networks=watched,
        report=report,
    )
    steps = range(49, 61)
    both = {
        "last": seen[60],
        "mean": {name: torch.stack([seen[step][name] for step in steps]).mean(0) for name in seen[60]},
    }
    losses = {}
    for name, weights in both.items():
        other = supernet()
        other.network.load_state_dict(weights)
        losses[name] = validation_loss(other.subnetwork(LARGE), batches)
    assert min(losses, key=losses.get) == expected
    assert result.validation["valid"] == pytest.approx(losses[expected], rel=1e-5)
    for name, value in load_file(result.weights).items():
        torch.testing.assert_close(value, both[expected][name], rtol=1e-5, atol=1e-6)


def test_a_finished_training_is_not_repeated_and_not_mistaken(tmp_path):
    first = train(supernet(), one, ReversalStream(1), SETTINGS, tmp_path)
    weights = load_file(first.weights)
    net = supernet()
    again = train(net, one, ReversalStream(1), SETTINGS, tmp_path, report=lambda _: pytest.fail("trained"))
    assert again == first
    assert all(torch.equal(value, weights[name]) for name, value in copies(net.network).items())
    with pytest.raises(InputError, match="belongs to another training"):
        train(net, one, ReversalStream(1), settings(steps=21), tmp_path)


def test_caller_keeps_its_random_numbers(tmp_path):
    net = supernet(dropout=0.1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(net, one, ReversalStream(1), settings(steps=5), tmp_path)
    assert torch.equal(torch.rand(3), expected)


class InterruptError(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize(("step", "rule"), [(1, one), (7, one), (10, both), (18, one), (20, both)])
def test_resumed_after_an_exception_equals_uninterrupted(tmp_path, step, rule, optimizer):
    def interrupt(progress):
        if progress.step == step:
            raise InterruptError

    chosen = settings(average_checkpoints=3, checkpoint_every=4, optimizer=optimizer)
    whole = train(supernet(0.1), rule, ReversalStream(1), chosen, tmp_path / "whole")
    with pytest.raises(InterruptError):
        train(supernet(0.1), rule, ReversalStream(1), chosen, tmp_path / "cut", report=interrupt)
    cut = train(supernet(0.1), rule, ReversalStream(1), chosen, tmp_path / "cut")
    expected = load_file(whole.weights)
    assert all(torch.equal(value, expected[name]) for name, value in load_file(cut.weights).items())
    losses = [[r["loss"] for r in read_history(tmp_path / run)] for run in ("whole", "cut")]
    assert losses[0] == losses[1]


# The same training, on a machine without a GPU.
DEVICE = "cpu" if torch.cuda.is_available() else "auto"
OTHERWISE = {"validate_every": 3, "device": DEVICE, "checkpoint_every": 4}


def watched_training(folder, chosen, rule=both, report=None):
    """Validated on three batches as it goes."""
    stream = ReversalStream(9)
    batches = [next(stream) for _ in range(3)]
    return train(
        supernet(0.1),
        rule,
        ReversalStream(1),
        chosen,
        folder,
        validation_batches=batches,
        validation_networks=WATCHED,
        report=report,
    )


def validated(folder):
    return [r["step"] for r in read_history(folder) if "validation/largest" in r]


@pytest.mark.parametrize("rule", [one, both])
def test_validated_at_other_steps_it_is_the_same_training(tmp_path, rule):
    """Interrupted, it goes on to the same weights as without any validation; finished, it is not repeated."""

    def interrupt(progress):
        if progress.step == 12:
            raise InterruptError

    chosen = settings(average_checkpoints=3)
    never = train(
        supernet(0.1), rule, ReversalStream(1), settings(average_checkpoints=3, validate_every=99), tmp_path
    )
    with pytest.raises(InterruptError):
        watched_training(tmp_path / "cut", chosen, rule, interrupt)
    otherwise = dataclasses.replace(chosen, **OTHERWISE)
    cut = watched_training(tmp_path / "cut", otherwise, rule)
    assert validated(tmp_path / "cut") == [7, 12, 15, 18, 20]  # it went on behind step 10
    expected = load_file(never.weights)
    assert all(torch.equal(value, expected[name]) for name, value in load_file(cut.weights).items())
    again = watched_training(tmp_path / "cut", chosen, rule, lambda _: pytest.fail("trained"))
    assert again == cut


def test_a_judgement_stays_when_it_is_validated_at_other_steps(tmp_path):
    otherwise = settings(**OTHERWISE)
    whole = watched_training(tmp_path / "whole", SETTINGS)
    judged = pause(8, tmp_path / "paused", SETTINGS, both)
    assert pause(8, tmp_path / "paused", otherwise, both, report=lambda _: pytest.fail("trained")) == judged
    later = pause(13, tmp_path / "paused", otherwise, both)
    uncut = [pause(until, tmp_path / "uncut", SETTINGS, both) for until in (8, 13)]
    assert [found.validation for found in (judged, later)] == [found.validation for found in uncut]
    paused = watched_training(tmp_path / "paused", otherwise)
    expected = load_file(whole.weights)
    assert all(torch.equal(value, expected[name]) for name, value in load_file(paused.weights).items())


def test_what_an_earlier_version_began_goes_on(tmp_path, monkeypatch):
    """It took the device, and the steps between validations, for a part of what the training is."""

    def interrupt(progress):
        if progress.step == 12:
            raise InterruptError

    with monkeypatch.context() as earlier:
        earlier.setattr("automoe.training.settings.UNDECISIVE", ("checkpoint_every",))
        pause(8, tmp_path / "old", SETTINGS, both)
        with pytest.raises(InterruptError):
            watched_training(tmp_path / "old", SETTINGS, report=interrupt)
    with pytest.raises(InputError, match="belongs to another training"):
        watched_training(tmp_path / "old", settings(**OTHERWISE))
    pause(8, tmp_path / "old", SETTINGS, both, report=lambda _: pytest.fail("trained"))
    begun = watched_training(tmp_path / "old", SETTINGS)
    whole = watched_training(tmp_path / "whole", SETTINGS)
    expected = load_file(whole.weights)
    assert all(torch.equal(value, expected[name]) for name, value in load_file(begun.weights).items())


# Forks a training once everything is imported and kills it some checkpoints later, by its files and not by
# the clock, so that it gets as far on any machine; the short wait lets kills fall between checkpoints, too.
KILLING = """
import os, random, signal, sys, time
from pathlib import Path
import lightning.fabric.loggers.tensorboard, torch.utils.tensorboard
from test_training_loop import ReversalStream, both, one, pause, settings, supernet, train
folder, rng, kills = Path(sys.argv[1]), random.Random(7), 0
rule, pauses = (both, (20, 46, 90 - 1)) if sys.argv[2] == "paused" else (one, ())

def newest():
    paths = folder.glob("checkpoint-*.safetensors")
    return max((int(path.stem.removeprefix("checkpoint-")) for path in paths), default=0)

while True:
    wanted = newest() + 3 * rng.randint(1, 3)
    deadline = time.monotonic() + 120
    child = os.fork()
    if not child:
        chosen = settings(steps=90, average_checkpoints=9, checkpoint_every=3)
        for until in pauses:
            pause(until, folder, chosen, rule)
        train(supernet(0.1), rule, ReversalStream(1), chosen, folder)
        os._exit(0)
    ended, status = 0, 0
    while not ended and (kills == 6 or newest() < wanted):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            sys.exit(f"checkpoint {wanted} did not come within two minutes")
        time.sleep(0.001)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        time.sleep(rng.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if status == 0:
        print(kills)
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    kills += 1
"""


def killed_at_random_moments(folder, mode):
    """Run KILLING on a folder."""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", KILLING, str(folder), mode],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "rule"), [("straight", one), ("paused", both)])
def test_killed_at_random_moments_equals_uninterrupted(tmp_path, mode, rule):
    killed_at_random_moments(tmp_path / "killed", mode)
    chosen = settings(steps=90, average_checkpoints=9, checkpoint_every=3)
    whole = train(supernet(0.1), rule, ReversalStream(1), chosen, tmp_path / "whole")
    killed = load_file(tmp_path / "killed" / "weights.safetensors")
    assert all(torch.equal(value, killed[name]) for name, value in load_file(whole.weights).items())
    for until in (20, 46, 89) if mode == "paused" else ():
        judged = pause(until, tmp_path / "killed", chosen, rule)
        uncut = pause(until, tmp_path / "paused", chosen, rule)
        assert dataclasses.replace(judged, seconds=0) == dataclasses.replace(uncut, seconds=0)


WATCHED = {"largest": LARGE, "smallest": SMALL}


def pause(until, folder, chosen, rule, net=None, report=None):
    """Train until a step and judge on three batches."""
    stream = ReversalStream(9)
    return train_until(
        net or supernet(0.1),
        rule,
        ReversalStream(1),
        chosen,
        folder,
        until,
        validation_batches=[next(stream) for _ in range(3)],
        validation_networks=WATCHED,
        report=report,
    )


@pytest.mark.parametrize("rule", [one, both])
def test_paused_equals_unpaused_and_judges_the_mean_of_the_last_weights(tmp_path, rule):
    chosen = settings(average_checkpoints=3, checkpoint_every=4)
    seen = {}
    net = supernet(0.1)
    whole = train(net, rule, ReversalStream(1), chosen, tmp_path / "whole",
                  report=lambda progress: seen.update({progress.step: copies(net.network)}))  # fmt: skip
    stream = ReversalStream(9)
    batches = [next(stream) for _ in range(3)]
    # 18 follows a pause: of its three snapshots, those of 16 and 17 were never written.
    for until, averaged in ((7, (5, 6, 7)), (17, (15, 16, 17)), (18, (18,))):
        judged = pause(until, tmp_path / "paused", chosen, rule)
        mean = supernet()
        for name, parameter in mean.network.named_parameters():
            parameter.data.copy_(torch.stack([seen[step][name] for step in averaged]).mean(0))
        expected = {name: validation_loss(mean.subnetwork(a), batches) for name, a in WATCHED.items()}
        assert judged.validation == pytest.approx(expected)
        history = read_history(tmp_path / "paused")
        assert (judged.step, judged.target_tokens) == (until, history[-1]["target_tokens"])
        assert len(history) == until
        assert judged.seconds > 0
        assert (tmp_path / "paused" / f"checkpoint-{until:08d}.safetensors").exists()
        assert not list((tmp_path / "paused").glob("judged-*.safetensors"))
    paused = train(supernet(0.1), rule, ReversalStream(1), chosen, tmp_path / "paused")
    expected = load_file(whole.weights)
    assert all(torch.equal(value, expected[name]) for name, value in load_file(paused.weights).items())
    losses = [[r["loss"] for r in read_history(tmp_path / run)] for run in ("whole", "paused")]
    assert losses[0] == losses[1]


def test_one_supernet_and_stream_may_go_through_all_pauses(tmp_path):
    whole = train(supernet(0.1), both, ReversalStream(1), SETTINGS, tmp_path / "whole")
    net, stream, nothing = (
        supernet(0.1),
        ReversalStream(1),
        {"validation_batches": (), "validation_networks": {}},
    )
    for until in (3, 12):
        train_until(net, both, stream, SETTINGS, tmp_path / "paused", until, **nothing)
    train(net, both, stream, SETTINGS, tmp_path / "paused")
    expected = load_file(whole.weights)
    assert all(torch.equal(value, expected[name]) for name, value in copies(net.network).items())


@pytest.mark.parametrize("step", [1, 5, 10, 11])
def test_a_pause_resumed_after_an_exception_judges_the_same(tmp_path, step):
    def interrupt(progress):
        if progress.step == step:
            raise InterruptError

    chosen = settings(average_checkpoints=3, checkpoint_every=5)
    whole = pause(11, tmp_path / "whole", chosen, both)
    with pytest.raises(InterruptError):
        pause(11, tmp_path / "cut", chosen, both, report=interrupt)
    cut = pause(11, tmp_path / "cut", chosen, both)
    assert dataclasses.replace(cut, seconds=0) == dataclasses.replace(whole, seconds=0)
    assert not list((tmp_path / "cut").glob("judged-*.safetensors"))


def test_a_judgement_is_not_repeated_and_not_mistaken(tmp_path):
    def trained(progress):
        pytest.fail("trained")

    first = pause(6, tmp_path, SETTINGS, one)
    left = tmp_path / "judged-00000006-00000005.safetensors"
    left.touch()  # by a kill between the judgement and the end of its snapshots
    assert pause(6, tmp_path, SETTINGS, one, report=trained) == first
    assert not left.exists()
    with pytest.raises(InputError, match=r"judged-00000006\.json: belongs to another training"):
        pause(6, tmp_path, settings(seed=2), one)
    train(supernet(0.1), one, ReversalStream(1), SETTINGS, tmp_path)
    assert pause(6, tmp_path, SETTINGS, one, report=trained) == first


def test_a_step_that_was_passed_unjudged_or_is_none_says_the_mend(tmp_path):
    for until in (0, 20, 21):
        with pytest.raises(InputError, match=f"expected a step before the last one, 1 to 19, got {until}"):
            pause(until, tmp_path, SETTINGS, one)
    pause(6, tmp_path, SETTINGS, one)
    with pytest.raises(InputError, match="has passed step 5 without judging it") as caught:
        pause(5, tmp_path, SETTINGS, one)
    assert "it is at step 6, judge a later one; or delete the folder" in str(caught.value)
    train(supernet(0.1), one, ReversalStream(1), SETTINGS, tmp_path)
    with pytest.raises(InputError, match="has passed step 7 without judging it") as caught:
        pause(7, tmp_path, SETTINGS, one)
    assert "it is finished, train returns its result; or delete the folder" in str(caught.value)


def test_the_step_of_a_checkpoint_is_judged_by_its_weights(tmp_path):
    seen = {}
    net = supernet(0.1)

    def interrupt(progress):
        seen.update(copies(net.network))
        if progress.step == 10:
            raise InterruptError

    with pytest.raises(InterruptError):
        train(net, one, ReversalStream(1), SETTINGS, tmp_path, report=interrupt)
    judged = pause(10, tmp_path, SETTINGS, one, report=lambda _: pytest.fail("trained"))
    net.network.load_state_dict(seen)
    stream = ReversalStream(9)
    batches = [next(stream) for _ in range(3)]
    expected = {name: validation_loss(net.subnetwork(a), batches) for name, a in WATCHED.items()}
    assert judged.validation == pytest.approx(expected)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_nan_stops_with_the_step_and_keeps_the_last_good_checkpoint(tmp_path, poison):
    net = supernet()

    def report(progress):
        if progress.step == 12:
            with torch.no_grad():
                net.network.embedding[5] = poison

    with pytest.raises(TrainingDiverged, match="step 13") as caught:
        train(net, only(LARGE), ReversalStream(1), SETTINGS, tmp_path, report=report)
    good = tmp_path / "checkpoint-00000010.safetensors"
    assert f"{good} is the last good checkpoint" in str(caught.value)
    assert all(value.isfinite().all() for value in load_file(good).values())
    assert isinstance(caught.value, InputError)


def test_foreign_checkpoint_in_the_folder(tmp_path):
    def stop(progress):
        if progress.step == 6:
            raise InterruptError

    with pytest.raises(InterruptError):
        train(supernet(), one, ReversalStream(1), SETTINGS, tmp_path, report=stop)
    with pytest.raises(InputError, match=r"checkpoint-00000005\.safetensors: belongs to another training"):
        train(supernet(), one, ReversalStream(1), settings(seed=2), tmp_path)


def test_a_damaged_snapshot_is_named_and_no_result_is_written(tmp_path):
    def damage(progress):
        if progress.step == 20:
            (tmp_path / "snapshot-00000018.safetensors").write_bytes(b"")

    with pytest.raises(InputError, match=r"snapshot-00000018\.safetensors: is truncated"):
        train(supernet(), one, ReversalStream(1), settings(average_checkpoints=2), tmp_path, report=damage)
    assert not (tmp_path / "weights.safetensors").exists()


def test_a_full_disk_is_bad_input_and_leaves_only_whole_files(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", tmp_path]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        with pytest.raises(InputError, match="No space left") as caught:
            train(supernet(), one, ReversalStream(1), settings(checkpoint_every=1), tmp_path)
        assert "free some disk space" in str(caught.value)
        assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*.tmp"))
        for path in tmp_path.glob("*.safetensors"):
            load_file(path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_bfloat16_trains(tmp_path):
    net = supernet()
    train(net, one, ReversalStream(1), settings(precision="bf16-mixed", steps=30), tmp_path)
    losses = [record["loss"] for record in read_history(tmp_path)]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert all(parameter.dtype == torch.float32 for parameter in net.network.parameters())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="this machine has none"):
        train(supernet(), one, ReversalStream(1), settings(device="cuda"), tmp_path)
