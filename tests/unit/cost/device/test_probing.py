"""Probing a device: against a device whose parts are known, the profile recovers them."""

import json
import random
from dataclasses import replace

import pytest

from automoe.cost.beside import Ratio
from automoe.cost.device import probing
from automoe.cost.device.check import check_profile
from automoe.cost.device.probes import Probe, needed_terms, probes
from automoe.cost.device.probing import make_profile
from automoe.cost.machine import Machine
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture
from automoe.design.space import SearchSpace, load_space
from automoe.errors import InputError
from helpers.paths import RECIPES

SPACES = RECIPES / "spaces"
LATENCY = {"source_length": 4, "target_length": 4, "vocabulary_size": 100, "threads": 1}
PROTOCOL = MeasuringProtocol(backend="torch", **LATENCY)


def small_space(**changes) -> SearchSpace:
    common = {"widths": [8, 16], "layer_counts": [2, 3], "self_attention_heads": [2, 4], "top_k": [1]}
    plain = {
        "qkv_dim": 8,
        "experts": "fractional",
        "encoder": common | {"ffn_sizes": [8, 16, 32], "max_experts": 3},
        "decoder": common
        | {
            "layer_counts": [1, 2],
            "ffn_sizes": [0, 8, 16],
            "max_experts": 5,
            "top_k": [1, 2],
            "cross_attention_heads": [2, 4],
            "encoder_layers_attended": [1, 2],
        },
    }
    return SearchSpace.from_dict(plain | changes)


class KnownDevice:
    """A device that takes known times; its speed drifts, and it can be made to stop or to be noisy."""

    def __init__(self, noise: float = 0.0, stop_after: int | None = None, noisy_calls: tuple[int, ...] = ()):
        self.noise, self.stop_after, self.noisy_calls = noise, stop_after, noisy_calls
        self.rng = random.Random(3)
        self.probes: list[Probe] = []

    def __call__(self, probe: Probe, turns: int) -> Ratio:
        if len(self.probes) == self.stop_after:
            raise KeyboardInterrupt
        self.probes.append(probe)
        slow = 1 + 0.3 * self.rng.random()  # of the machine, in this minute
        ours = true_ms(probe.architecture, 100 if probe.full_vocabulary else 0)
        reference = true_ms(small_space().largest_dense(), 100)
        noise = 1 + self.noise * self.rng.gauss(0, 1)
        return Ratio(
            encoder=ours[0] / reference[0] * noise,
            decoder=ours[1] / reference[1] * noise,
            reference_encoder_ms=reference[0] * slow,
            reference_decoder_ms=reference[1] * slow,
            spread=0.9 if len(self.probes) in self.noisy_calls else 0.01,
            stolen_share=0.0,
        )


def true_ms(a: Architecture, vocabulary_size: int) -> tuple[float, float]:
    """Encoder and decoder: costs of every part, with overheads, mixtures' costs concave in the experts."""

    def experts(width, layer):
        count, sizes = len(layer.experts), layer.ffn_sizes
        if sizes == (0,):
            return 0.0
        busy = 1.0 if count == 1 else 0.4 + 0.9 * count**0.5
        return busy * layer.top_k**0.5 * width * sum(sizes) / count / 100

    def attention(width, heads):
        return 0.2 + width / 50 + heads / 20

    encoder = 0.5 + a.encoder_width / 100
    for layer in a.encoder:
        encoder += attention(a.encoder_width, layer.self_attention_heads) + experts(a.encoder_width, layer)
    decoder = 3 + a.decoder_width / 30 + vocabulary_size * a.decoder_width / 500
    for layer in a.decoder:
        heads, attended = layer.cross_attention_heads, layer.encoder_layers_attended
        decoder += {
            "self_attention": attention(a.decoder_width, layer.self_attention_heads),
            "average_attention": 0.15 + a.decoder_width**2 / 900,
            "ssru": 0.1 + a.decoder_width**2 / 2000,
        }[layer.mixer]
        decoder += attention(a.decoder_width, heads) * (1 + attended / 4) + attended * a.encoder_width / 90
        decoder += 5 * experts(a.decoder_width, layer)
    return encoder, decoder


def make(space, device, path, say=lambda text: None):
    return make_profile(space, PROTOCOL, path, say, measure=device)


def slowness(profile) -> float:
    """The machine's usual slowness, which scales every time of the profile alike."""
    return profile.quality.reference_ms["decoder"] / true_ms(small_space().largest_dense(), 100)[1]


def test_a_check_of_batches_tells_the_error_of_the_sentences_a_second(tmp_path):
    """Of a device that has become twice as slow in everything but the reference: half the throughput."""
    space, protocol = small_space(), replace(PROTOCOL, batch=64)
    device = KnownDevice()
    profile = make_profile(space, protocol, tmp_path / "device.json", print, measure=device)

    def slower(probe, turns):
        ratio = device(probe, turns)
        return replace(ratio, encoder=2 * ratio.encoder, decoder=2 * ratio.decoder)

    exact, halved = (check_profile(profile, space, 20, measure=measure) for measure in (device, slower))
    assert exact.batch == halved.batch == 64
    assert exact.throughput_percentage_error < 1
    # Predicted as twice what is measured: 64 / ms against 64 / (2 ms), an error of 100 %, of the time 50 %.
    assert halved.throughput_percentage_error == pytest.approx(100, abs=2)
    assert halved.mean_absolute_percentage_error == pytest.approx(50, abs=1)


def test_the_parts_of_a_known_device_are_recovered(tmp_path):
    space = small_space()
    profile = make(space, KnownDevice(), tmp_path / "device.json")
    rng = random.Random(5)
    for architecture in [*(space.sample(rng) for _ in range(40)), space.largest(), space.smallest()]:
        predicted = profile.predict(architecture)
        encoder_ms, decoder_ms = true_ms(architecture, 100)
        assert predicted.encoder_ms == pytest.approx(encoder_ms * slowness(profile), rel=0.01)
        assert predicted.decoder_ms == pytest.approx(decoder_ms * slowness(profile), rel=0.01)
    parts = {
        (p.stack, p.layer, p.kind): p.ms / slowness(profile) for p in profile.predict(space.largest()).parts
    }
    width = max(space.decoder.widths)
    assert parts["decoder", None, "output"] == pytest.approx(100 * width / 500, rel=0.01)
    assert parts["decoder", None, "overhead"] == pytest.approx(3 + width / 30, rel=0.05)
    assert profile.quality.whole_error_percent < 1
    assert (tmp_path / "device.json").exists()


def with_mixers(space: SearchSpace, *mixers: str) -> SearchSpace:
    return replace(space, decoder=replace(space.decoder, mixers=mixers))


def test_the_mixers_of_a_known_device_are_recovered(tmp_path):
    space = with_mixers(small_space(), "ssru", "self_attention", "average_attention")
    profile = make(space, KnownDevice(), tmp_path / "device.json")
    rng = random.Random(5)
    for architecture in [*(space.sample(rng) for _ in range(40)), space.largest(), space.smallest()]:
        expected_ms = true_ms(architecture, 100)[1] * slowness(profile)
        assert profile.predict(architecture).decoder_ms == pytest.approx(expected_ms, rel=0.01)


@pytest.mark.parametrize(
    ("measured", "asked"), [("self_attention", "ssru"), ("average_attention", "self_attention")]
)
def test_a_mixer_that_was_not_measured_is_named(tmp_path, measured, asked):
    profile = make(with_mixers(small_space(), measured), KnownDevice(), tmp_path / "device.json")
    with pytest.raises(InputError) as caught:
        profile.predict(with_mixers(small_space(), asked).largest())
    mend = "make a profile of a space with it among decoder.mixers"
    assert f"decoder[0]: {asked} was not measured; {mend}" in caught.value.problems


def test_noise_of_the_measurements_does_not_grow_in_the_predictions(tmp_path):
    space = small_space()
    profile = make(space, KnownDevice(noise=0.03), tmp_path / "device.json")
    rng = random.Random(6)
    errors = []
    for architecture in [space.sample(rng) for _ in range(60)]:
        expected = sum(true_ms(architecture, 100)) * slowness(profile)
        errors.append(abs(profile.predict(architecture).latency_ms / expected - 1))
    assert sum(errors) / len(errors) < 0.03


@pytest.mark.parametrize("name", [path.stem for path in sorted(SPACES.glob("*.yaml"))])
def test_the_probes_of_every_shipped_space_cover_all_its_parts(name):
    space = load_space(SPACES / f"{name}.yaml")
    inventory = needed_terms(space)
    covered = {use.term for probe in probes(space) for use in inventory.uses(probe.architecture)}
    assert covered == inventory.terms
    rng = random.Random(0)
    for architecture in [
        space.largest(),
        space.smallest(),
        space.largest_dense(),
        space.uniform(space.largest_dense()),
    ]:
        inventory.uses(architecture)
    for _ in range(30):
        inventory.uses(space.sample(rng))


@pytest.mark.parametrize("placement", ["every", "every_other"])
def test_spaces_with_fixed_placement_have_their_parts_too(placement):
    space = small_space(placement=placement)
    inventory = needed_terms(space)
    covered = {use.term for probe in probes(space) for use in inventory.uses(probe.architecture)}
    assert covered == inventory.terms
    inventory.uses(space.largest_dense())


def test_probes_stay_small_enough_to_build():
    space = load_space(SPACES / "paper-16-standard.yaml")
    for probe in probes(space):
        if not probe.whole:
            for width, layers in (
                (probe.architecture.encoder_width, probe.architecture.encoder),
                (probe.architecture.decoder_width, probe.architecture.decoder),
            ):
                assert sum(2 * width * sum(layer.ffn_sizes) for layer in layers) <= 64_000_000


def test_a_killed_profile_continues_and_ends_the_same(tmp_path):
    space = small_space()
    output = tmp_path / "device.json"
    whole = KnownDevice()
    uninterrupted = make(space, whole, tmp_path / "other.json")
    with pytest.raises(KeyboardInterrupt):
        make(space, KnownDevice(stop_after=10), output)
    assert not output.exists()
    partial = tmp_path / "device.json.partial.jsonl"
    partial.write_text(partial.read_text() + '{"probe": 10, "rat')  # killed while writing
    said: list[str] = []
    second = KnownDevice()
    second.rng.setstate(rng_after(10))
    continued = make(space, second, output, said.append)
    assert "10 of" in said[0]
    assert second.probes == whole.probes[10:]
    assert continued.entries == uninterrupted.entries
    assert not partial.exists()


def rng_after(measurements: int) -> tuple:
    device = KnownDevice()
    for probe in probes(small_space())[:measurements]:
        device(probe, 10)
    return device.rng.getstate()


def test_measurements_of_another_protocol_are_not_mixed_in(tmp_path):
    space = small_space()
    output = tmp_path / "device.json"
    with pytest.raises(KeyboardInterrupt):
        make(space, KnownDevice(stop_after=5), output)
    said: list[str] = []
    device = KnownDevice()
    make_profile(space, MeasuringProtocol(backend="onnx", **LATENCY), output, said.append, measure=device)
    assert "starting over" in said[0]
    assert len(device.probes) == len(probes(space))


def test_a_partial_file_of_an_earlier_version_is_continued(tmp_path, monkeypatch):
    machine = Machine("Abacus 1", {"torch": "2.0", "automoe": "0.1"})
    monkeypatch.setattr(probing, "this_machine", lambda backend: machine)
    output = tmp_path / "device.json"
    with pytest.raises(KeyboardInterrupt):
        make(small_space(), KnownDevice(stop_after=5), output)
    header = (tmp_path / "device.json.partial.jsonl").read_text().splitlines()[0]
    # What version 0.1 wrote for this space, protocol and machine.
    digest = "87832c5204c9a6115210d836dbb55371534005bd910bf0a854a3cac3f656b929"
    assert json.loads(header) == {"fingerprint": digest}


@pytest.mark.parametrize("content", ['{"my": "only notes"}', '{"my": "only notes"}\n'])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, content):
    partial = tmp_path / "device.json.partial.jsonl"
    partial.write_text(content)
    with pytest.raises(InputError, match="line 1: is no measurement"):
        make(small_space(), KnownDevice(), tmp_path / "device.json")
    assert partial.read_text() == content


def test_a_damaged_partial_file_is_named_with_its_line(tmp_path):
    space = small_space()
    output = tmp_path / "device.json"
    with pytest.raises(KeyboardInterrupt):
        make(space, KnownDevice(stop_after=5), output)
    partial = tmp_path / "device.json.partial.jsonl"
    lines = partial.read_text().splitlines()
    lines[2] = '{"probe": 1}'
    partial.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="line 3") as caught:
        make(space, KnownDevice(), output)
    assert "delete it" in str(caught.value)


def test_a_noisy_probe_is_measured_again_and_counted_if_it_stays_noisy(tmp_path):
    said: list[str] = []
    device = KnownDevice(noisy_calls=(2, 5, 6))  # the second passes when repeated, the fourth does not
    profile = make(small_space(), device, tmp_path / "device.json", said.append)
    assert len(device.probes) == profile.quality.probes + 2
    assert profile.quality.noisy == 1
    assert "too busy during 1 of" in said[-1]


def test_fewer_than_ten_turns_or_samples_are_refused(tmp_path):
    space = small_space()
    with pytest.raises(InputError, match="turns: at least 10, not 9"):
        make_profile(space, PROTOCOL, tmp_path / "device.json", print, turns=9, measure=KnownDevice())
    profile = make(space, KnownDevice(), tmp_path / "device.json")
    with pytest.raises(InputError, match="samples: at least 10, not 9"):
        check_profile(profile, space, 9, measure=KnownDevice())


def test_a_check_of_a_true_profile_is_good_whatever_the_machine_drifted(tmp_path):
    space = small_space()
    profile = make(space, KnownDevice(), tmp_path / "device.json")

    def slower_now(probe, turns):
        encoder_ms, decoder_ms = true_ms(space.largest_dense(), 100)
        slow = {"reference_encoder_ms": 2 * encoder_ms, "reference_decoder_ms": 2 * decoder_ms}
        return replace(KnownDevice()(probe, turns), **slow)

    report = check_profile(profile, space, 20, measure=slower_now)
    assert report.mean_absolute_percentage_error < 1
    assert report.kendall_tau > 0.98
    assert report.good
    assert report.drift_percent == pytest.approx(100 * (2 / slowness(profile) - 1), rel=0.02)
    assert report.uncorrected_percentage_error > 30


def test_a_check_of_a_profile_of_another_device_says_so(tmp_path):
    space = small_space()
    profile = make(space, KnownDevice(), tmp_path / "device.json")

    def another_device(probe, turns):
        ratio = KnownDevice()(probe, turns)
        return replace(ratio, decoder=ratio.decoder * 2)

    report = check_profile(profile, space, 20, measure=another_device)
    assert not report.good
    assert report.bias_percent < -30


def test_a_check_against_another_space_is_refused(tmp_path):
    profile = make(small_space(), KnownDevice(), tmp_path / "device.json")
    with pytest.raises(InputError, match="another space"):
        check_profile(profile, load_space(SPACES / "demo.yaml"), 20, measure=KnownDevice())


def test_the_file_is_small_and_says_where_it_is_from(tmp_path):
    make(small_space(), KnownDevice(), tmp_path / "device.json")
    plain = json.loads((tmp_path / "device.json").read_text())
    assert plain["machine"]["cpu"]
    assert set(plain["machine"]["versions"]) == {"automoe", "torch"}
    assert plain["protocol"]["vocabulary_size"] == 100
    assert plain["quality"]["turns"] == 12
    assert (tmp_path / "device.json").stat().st_size < 60_000
