"""What a search prices latencies by (profile, predictor, measurement), and the check of its winner."""

import dataclasses
import json
import random
from pathlib import Path

import pytest

from automoe.cost.costs import Conditions, prices
from automoe.cost.counting import count
from automoe.cost.device.profile import load_profile
from automoe.cost.measure import Latency, summarise
from automoe.cost.predictor import fit_predictor
from automoe.cost.protocol import MeasuringProtocol
from automoe.cost.sources import is_of_another_machine, latency_source, measure_against_budget
from automoe.design.architecture import Architecture, dense
from automoe.design.architecture_file import save_architecture
from automoe.errors import InputError
from automoe.progress import Reporter
from automoe.run.budget import candidate_prices, find_budget
from automoe.run.context import Run
from automoe.run.device_profile import find_latency_file
from automoe.run.folder import RunFolder
from automoe.run.recipe import LoadedRecipe, load_recipe
from automoe.run.search import remembered
from automoe.search.winner import Measured
from helpers.paths import TEST_DATA
from helpers.tiny_run import write_made_up_profile, write_tiny_recipe

TABLE = TEST_DATA / "latency" / "raspberrypi_last_400.csv"


@pytest.fixture
def loaded(tmp_path) -> LoadedRecipe:
    return load_recipe(write_tiny_recipe(tmp_path, constraints="{latency_ms: 80%}"))


@pytest.fixture
def profile(tmp_path, loaded) -> Path:
    return write_made_up_profile(tmp_path / "device.json", loaded)


def test_a_profile_prices_every_member_of_its_space(loaded, profile, rng):
    said = []
    recipe, protocol = loaded.recipe, loaded.recipe.protocol()
    latency_ms = latency_source(protocol, recipe.latency, profile, said.append)
    priced = prices(Conditions(protocol, latency_ms), ["latency_ms"])
    assert set(priced) == {"latency_ms", "flops", "parameters", "active_parameters", "memory_bytes"}
    predict = load_profile(profile).predict
    for architecture in (loaded.space.largest_dense(), *(loaded.space.sample(rng) for _ in range(20))):
        assert priced["latency_ms"].of(architecture) == predict(architecture).latency_ms
        counts = count(
            architecture,
            MeasuringProtocol(source_length=5, target_length=5, vocabulary_size=24, beam_size=2, norm="pre"),
        )
        assert priced["flops"].of(architecture) == counts.flops
        assert priced["memory_bytes"].of(architecture) == counts.memory_bytes
    assert said == []
    assert not is_of_another_machine(recipe.latency, profile)
    with pytest.raises(InputError):
        priced["latency_ms"].of(dense(512, 2048, 8, 6, 6))


def test_a_profile_of_another_machine_is_used_with_a_warning_and_of_another_protocol_refused(loaded, profile):
    plain = json.loads(profile.read_text())
    plain["machine"]["cpu"] = "a phone's"
    profile.write_text(json.dumps(plain))
    said = []
    settings, protocol = loaded.recipe.latency, loaded.recipe.protocol()
    latency_source(protocol, settings, profile, said.append)
    assert any("a phone's" in line for line in said)
    assert is_of_another_machine(settings, profile)
    changed = dataclasses.replace(protocol, threads=2, beam_size=5, batch=3)
    with pytest.raises(InputError, match="threads") as caught:
        latency_source(changed, settings, profile, said.append)
    assert "beam_size" in str(caught.value)
    assert "batch" in str(caught.value)


def run_of(folder: Path, *overrides: str) -> Run:
    changed = load_recipe(folder / "tiny.yaml", overrides)
    return Run(changed, RunFolder(folder / "run", "tiny", print, lambda refusal: True), Reporter())


def test_a_profile_of_other_conditions_is_refused_by_the_budget(loaded, profile, tmp_path):
    run = run_of(tmp_path, f"latency.profile={profile}", "latency.beam_size=3")
    with pytest.raises(InputError, match="beam_size"):
        find_budget(run, find_latency_file(run))


def test_a_profile_that_the_recipe_lacks_is_made_once_and_used(loaded, profile, tmp_path, monkeypatch):
    made = []

    def make(space, protocol, output, say, progress):
        made.append((space, protocol))
        output.write_bytes(profile.read_bytes())

    monkeypatch.setattr("automoe.run.device_profile.make_profile", make)
    for _ in range(2):
        run = run_of(tmp_path)
        (constraint,) = find_budget(run, find_latency_file(run)).constraints["automoe"]
        largest_dense = load_profile(profile).predict(loaded.space.largest_dense())
        assert constraint.bound == pytest.approx(0.8 * largest_dense.latency_ms)
    assert made == [(loaded.space, loaded.recipe.protocol())]
    find_latency_file(run_of(tmp_path, "latency.beam_size=4"))
    assert made[1][1] == dataclasses.replace(loaded.recipe.protocol(), beam_size=4)


@pytest.mark.parametrize(
    "override",
    ["search.constraints={flops: 90%}", "latency.source=measurement"],
    ids=["flops", "measurement"],
)
def test_no_profile_is_made_when_nothing_goes_by_one(loaded, tmp_path, monkeypatch, override):
    monkeypatch.delattr("automoe.run.device_profile.make_profile")
    assert find_latency_file(run_of(tmp_path, override)) is None


def test_another_profile_is_another_budget(loaded, profile, tmp_path):
    run = run_of(tmp_path, f"latency.profile={profile}")
    (before,) = find_budget(run, profile).constraints["automoe"]
    plain = json.loads(profile.read_text())
    for entry in plain["entries"]:
        entry["ms"] *= 2
    profile.write_text(json.dumps(plain))
    run = run_of(tmp_path, f"latency.profile={profile}")
    (after,) = find_budget(run, profile).constraints["automoe"]
    assert after.bound == pytest.approx(2 * before.bound)


def test_a_throughput_is_bounded_from_below_and_priced_by_the_profile(loaded, profile, tmp_path):
    """With batches of one, sentences a second are 1000 / latency_ms: a bound on one is one on the other."""
    by_latency = run_of(tmp_path, f"latency.profile={profile}", "search.constraints={latency_ms: 40}")
    by_throughput = run_of(
        tmp_path, "name=tiny", f"latency.profile={profile}", "search.constraints={throughput_sentences_s: 25}"
    )
    (most,) = find_budget(by_latency, profile).constraints["automoe"]
    (least,) = find_budget(by_throughput, profile).constraints["automoe"]
    assert str(least) == "throughput_sentences_s >= 25"
    priced = candidate_prices(by_throughput, profile)
    assert {"latency_ms", "throughput_sentences_s"} <= set(priced)
    kept = []
    for architecture in [loaded.space.sample(random.Random(seed)) for seed in range(50)]:
        costs = {name: price.of(architecture) for name, price in priced.items()}
        assert most.holds(costs) == least.holds(costs)
        kept.append(least.holds(costs))
    assert 0 < sum(kept) < 50


def test_a_predictor_that_can_price_nothing_of_the_space_is_one_clear_error(loaded, tmp_path):
    file = tmp_path / "predictor.json"
    fit_predictor(TABLE).save(file)
    source = ("latency.source=predictor", f"latency.predictor={file}")
    run = run_of(tmp_path, *source, "search.constraints={latency_ms: 100}")
    with pytest.raises(InputError, match="no architecture of this space satisfies") as caught:
        find_budget(run, find_latency_file(run))
    assert "could not be priced" in caught.value.problems[0]
    assert "qkv_dim: 32, fitted at 512" in caught.value.problems[0]
    # A share of the largest dense architecture's latency needs that latency.
    run = run_of(tmp_path, *source)
    with pytest.raises(InputError, match="80% is a share of what the baseline costs") as caught:
        find_budget(run, find_latency_file(run))
    assert "qkv_dim: 32, fitted at 512" in str(caught.value)


class Device:
    """Stands for `measure_latency`: a model takes a time of its own, and all of them drift."""

    def __init__(self, monkeypatch, latencies_ms: dict[Architecture, float], drift: float) -> None:
        self.calls: list[tuple[Architecture, int]] = []
        self.latencies_ms, self.drift = latencies_ms, drift
        for module in ("measure", "sources"):
            monkeypatch.setattr(f"automoe.cost.{module}.measure_latency", self)

    def __call__(self, engine, protocol, *, runs) -> Latency:
        self.calls.append((engine.architecture, runs))
        ms = self.latencies_ms[engine.architecture] * (1 + self.drift * len(self.calls))
        return summarise([ms / 2] * runs, [ms / 2] * runs, 0.0, threads=1)


@pytest.mark.parametrize("here", [True, False], ids=["this machine", "another machine"])
def test_a_baseline_outside_the_space_is_measured_beside_its_largest_dense_member(
    loaded, profile, tmp_path, monkeypatch, here
):
    deep = dataclasses.replace(loaded.space.largest_dense(), encoder=loaded.space.largest_dense().encoder * 3)
    assert deep not in loaded.space
    save_architecture(deep, tmp_path / "deep.yaml")
    changed = "systems=[{name: mine, search: evolution}, {name: deep, architecture: deep.yaml}]"
    run = run_of(tmp_path, f"latency.profile={profile}", changed, "baseline=deep")
    device = Device(monkeypatch, {deep: 50.0, loaded.space.largest_dense(): 10.0}, drift=0.0)
    if not here:
        plain = json.loads(profile.read_text())
        profile.write_text(json.dumps(plain | {"machine": plain["machine"] | {"cpu": "a phone's"}}))
    (constraint,) = find_budget(run, profile).constraints["mine"]
    predict = load_profile(profile).predict
    if here:
        assert constraint.bound == pytest.approx(0.8 * 5 * predict(run.space.largest_dense()).latency_ms)
        assert {architecture for architecture, _ in device.calls} == {deep, loaded.space.largest_dense()}
    else:
        assert constraint.bound == pytest.approx(0.8 * predict(deep).latency_ms)
        assert device.calls == []


@pytest.mark.parametrize(("candidate_ms", "kept"), [(7.5, True), (9.0, False)])
def test_a_share_is_judged_against_the_largest_dense_of_the_same_rounds(
    loaded, monkeypatch, candidate_ms, kept
):
    latency = dataclasses.replace(loaded.recipe.latency, runs=90)
    smallest, largest_dense = loaded.space.smallest(), loaded.space.largest_dense()
    # Within the three rounds the machine becomes half as fast again.
    device = Device(monkeypatch, {smallest: candidate_ms, largest_dense: 10.0}, drift=0.1)
    measured = measure_against_budget(
        loaded.recipe.protocol(), latency, loaded.recipe.search.constraints, smallest, largest_dense
    )
    assert device.calls == [(smallest, 30), (largest_dense, 30)] * 3
    assert measured.maximum_ms == pytest.approx(0.8 * measured.reference_ms)
    assert measured.latency_ms > 1.2 * candidate_ms
    assert measured.holds == kept
    assert measured.noise is None


def test_a_bound_in_milliseconds_is_judged_by_the_clock_alone(loaded, monkeypatch):
    smallest, largest_dense = loaded.space.smallest(), loaded.space.largest_dense()
    device = Device(monkeypatch, {smallest: 9.5}, drift=0.0)
    asked = (loaded.recipe.protocol(), loaded.recipe.latency, {"latency_ms": 9.0}, smallest, largest_dense)
    measured = measure_against_budget(*asked)
    assert device.calls == [(smallest, 10)]
    assert (measured.maximum_ms, measured.reference_ms, measured.holds) == (9.0, None, False)
    assert measured.bounded == ("latency_ms",)
    elsewhere = measure_against_budget(*asked, judged=False)
    assert elsewhere.maximum_ms is None
    assert elsewhere.holds
    assert not elsewhere.judged
    assert "on another device" in str(elsewhere)


@pytest.mark.parametrize(("bound", "kept"), [(190.0, True), (210.0, False), ("95%", False), ("40%", True)])
def test_a_throughput_is_judged_as_measured(loaded, monkeypatch, bound, kept):
    """Two sentences in 10 ms are 200 a second, half of the 400 of the largest dense, which needs 5 ms."""
    smallest, largest_dense = loaded.space.smallest(), loaded.space.largest_dense()
    Device(monkeypatch, {smallest: 10.0, largest_dense: 5.0}, drift=0.0)
    protocol = dataclasses.replace(loaded.recipe.protocol(), batch=2)
    bounds = {"throughput_sentences_s": bound, "flops": 1.0}
    measured = measure_against_budget(protocol, loaded.recipe.latency, bounds, smallest, largest_dense)
    assert measured.holds is kept
    assert measured.maximum_ms is None
    assert len(measured.broken) == (0 if kept else 1)
    assert all("throughput_sentences_s >= " in text and "200 sentences/s" in text for text in measured.broken)
    assert measured.bounded == ("throughput_sentences_s",)
    assert measured.judged
    assert "another device" not in str(measured)


def test_a_candidate_with_several_bounds_that_follow_from_its_latency_is_measured_once(loaded, monkeypatch):
    smallest, largest_dense = loaded.space.smallest(), loaded.space.largest_dense()
    device = Device(monkeypatch, {smallest: 4.0, largest_dense: 10.0}, drift=0.1)
    settings = dataclasses.replace(loaded.recipe.latency, source="measurement")
    protocol = loaded.recipe.protocol()
    latency_ms = latency_source(protocol, settings, None, print)
    priced = prices(Conditions(protocol, latency_ms), ["latency_ms", "throughput_sentences_s"])
    for index, architecture in enumerate((smallest, largest_dense), start=1):
        ms = priced["latency_ms"].of(architecture)
        assert ms == pytest.approx(device.latencies_ms[architecture] * (1 + 0.1 * index))
        assert priced["throughput_sentences_s"].of(architecture) == pytest.approx(1000 / ms)
    assert device.calls == [(smallest, 10), (largest_dense, 10)]


def test_what_was_measured_before_a_kill_is_not_measured_again(loaded, tmp_path, rng):
    members = list(dict.fromkeys(loaded.space.sample(rng) for _ in range(6)))
    calls = []

    def measure(architecture: Architecture) -> Measured:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(architecture)
        return Measured(len(calls) / 3, maximum_ms=2.0, reference_ms=2.5)

    first = remembered(measure, tmp_path / "measured.json")
    found = [first(member) for member in members[:3]]
    with pytest.raises(KeyboardInterrupt):
        first(members[3])
    calls.clear()
    again = remembered(measure, tmp_path / "measured.json")
    assert [again(member) for member in members[:3]] == found
    assert calls == []
    assert again(members[3]) == dataclasses.replace(found[0], latency_ms=1 / 3)
    assert calls == [members[3]]
