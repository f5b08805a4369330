"""What a search prices latencies by (profile, predictor, measurement), and the check of its winner."""

import dataclasses
import json
from pathlib import Path

import pytest

from automoe import pricing, search_stages
from automoe.cost.counting import count
from automoe.cost.device.profile import load_profile
from automoe.cost.measure import Latency, summarise
from automoe.cost.predictor import fit_predictor
from automoe.cost.protocol import MeasuringProtocol
from automoe.cost.sources import (
    candidate_costs,
    is_of_another_machine,
    latency_source,
    measure_against_budget,
)
from automoe.design.architecture import Architecture, dense
from automoe.errors import InputError
from automoe.progress import Reporter
from automoe.run.folder import RunFolder
from automoe.run.recipe import LoadedRecipe, load_recipe
from automoe.run.search import SearchStages, remembered
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
    costs = candidate_costs(loaded.recipe, latency_source(loaded.recipe, profile, said.append))
    assert set(costs) == {"latency_ms", "flops", "parameters", "active_parameters", "memory_bytes"}
    predict = load_profile(profile).predict
    for architecture in (loaded.space.largest_dense(), *(loaded.space.sample(rng) for _ in range(20))):
        assert costs["latency_ms"](architecture) == predict(architecture).latency_ms
        counts = count(
            architecture,
            MeasuringProtocol(source_length=5, target_length=5, vocabulary_size=24, beam_size=2, norm="pre"),
        )
        assert costs["flops"](architecture) == counts.flops
        assert costs["memory_bytes"](architecture) == counts.memory_bytes
    assert said == []
    assert not is_of_another_machine(loaded.recipe, profile)
    with pytest.raises(InputError):
        costs["latency_ms"](dense(512, 2048, 8, 6, 6))


def test_a_profile_of_another_machine_is_used_with_a_warning_and_of_another_protocol_refused(loaded, profile):
    plain = json.loads(profile.read_text())
    plain["machine"]["cpu"] = "a phone's"
    profile.write_text(json.dumps(plain))
    said = []
    latency_source(loaded.recipe, profile, said.append)
    assert any("a phone's" in line for line in said)
    assert is_of_another_machine(loaded.recipe, profile)
    changed = loaded.recipe.model_copy(
        update={"latency": dataclasses.replace(loaded.recipe.latency, threads=2, beam_size=5)}
    )
    with pytest.raises(InputError, match="threads") as caught:
        latency_source(changed, profile, said.append)
    assert "beam_size" in str(caught.value)


def stages(loaded: LoadedRecipe, folder: Path, *overrides: str) -> SearchStages:
    changed = load_recipe(folder / "tiny.yaml", overrides)
    return SearchStages(changed, RunFolder(folder / "run", "tiny", print), Reporter())


def test_a_profile_of_other_conditions_is_refused_by_the_budget(loaded, profile, tmp_path):
    searching = stages(loaded, tmp_path, f"latency.profile={profile}", "latency.beam_size=3")
    with pytest.raises(InputError, match="beam_size"):
        searching.budget(searching.latency_file())


def test_a_profile_that_the_recipe_lacks_is_made_once_and_used(loaded, profile, tmp_path, monkeypatch):
    made = []

    def make(space, protocol, output, say, progress):
        made.append((space, protocol))
        output.write_bytes(profile.read_bytes())

    monkeypatch.setattr(search_stages, "make_profile", make)
    for _ in range(2):
        searching = stages(loaded, tmp_path)
        _, (constraint,) = searching.budget(searching.latency_file())
        largest_dense = load_profile(profile).predict(loaded.space.largest_dense())
        assert constraint.maximum == pytest.approx(0.8 * largest_dense.latency_ms)
    assert made == [(loaded.space, loaded.recipe.protocol())]
    stages(loaded, tmp_path, "latency.beam_size=4").latency_file()
    assert made[1][1] == dataclasses.replace(loaded.recipe.protocol(), beam_size=4)


@pytest.mark.parametrize(
    "override",
    ["search.constraints={flops: 90%}", "latency.source=measurement"],
    ids=["flops", "measurement"],
)
def test_no_profile_is_made_when_nothing_goes_by_one(loaded, tmp_path, monkeypatch, override):
    monkeypatch.delattr(search_stages, "make_profile")
    assert stages(loaded, tmp_path, override).latency_file() is None


def test_another_profile_is_another_budget(loaded, profile, tmp_path):
    searching = stages(loaded, tmp_path, f"latency.profile={profile}")
    _, (before,) = searching.budget(profile)
    plain = json.loads(profile.read_text())
    for entry in plain["entries"]:
        entry["ms"] *= 2
    profile.write_text(json.dumps(plain))
    _, (after,) = searching.budget(profile)
    assert after.maximum == pytest.approx(2 * before.maximum)


def test_a_predictor_that_can_price_nothing_of_the_space_is_one_clear_error(loaded, tmp_path):
    file = tmp_path / "predictor.json"
    fit_predictor(TABLE).save(file)
    source = ("latency.source=predictor", f"latency.predictor={file}")
    searching = stages(loaded, tmp_path, *source, "search.constraints={latency_ms: 100}")
    with pytest.raises(InputError, match="no architecture of this space satisfies") as caught:
        searching.budget(searching.latency_file())
    assert "could not be priced" in caught.value.problems[0]
    assert "qkv_dim: 32, fitted at 512" in caught.value.problems[0]
    # A share of the largest dense architecture's latency needs that latency.
    searching = stages(loaded, tmp_path, *source)
    with pytest.raises(InputError, match="80% is a share of the largest dense") as caught:
        searching.budget(searching.latency_file())
    assert "qkv_dim: 32, fitted at 512" in str(caught.value)


class Device:
    """Stands for `measure_latency`: a model takes a time of its own, and all of them drift."""

    def __init__(self, monkeypatch, latencies_ms: dict[Architecture, float], drift: float) -> None:
        self.calls: list[tuple[Architecture, int]] = []
        self.latencies_ms, self.drift = latencies_ms, drift
        monkeypatch.setattr(pricing, "measure_latency", self)

    def __call__(self, engine, *, runs, **protocol) -> Latency:
        self.calls.append((engine.architecture, runs))
        ms = self.latencies_ms[engine.architecture] * (1 + self.drift * len(self.calls))
        return summarise([ms / 2] * runs, [ms / 2] * runs, 0.0, threads=1)


@pytest.mark.parametrize(("candidate_ms", "kept"), [(7.5, True), (9.0, False)])
def test_a_share_is_judged_against_the_largest_dense_of_the_same_rounds(
    loaded, monkeypatch, candidate_ms, kept
):
    latency = dataclasses.replace(loaded.recipe.latency, runs=90)
    recipe = loaded.recipe.model_copy(update={"latency": latency})
    smallest, largest_dense = loaded.space.smallest(), loaded.space.largest_dense()
    # Within the three rounds the machine becomes half as fast again.
    device = Device(monkeypatch, {smallest: candidate_ms, largest_dense: 10.0}, drift=0.1)
    measured = measure_against_budget(recipe, smallest, largest_dense)
    assert device.calls == [(smallest, 30), (largest_dense, 30)] * 3
    assert measured.maximum_ms == pytest.approx(0.8 * measured.reference_ms)
    assert measured.latency_ms > 1.2 * candidate_ms
    assert measured.holds == kept
    assert measured.noise is None


def test_a_bound_in_milliseconds_is_judged_by_the_clock_alone(loaded, monkeypatch):
    search = loaded.recipe.search.model_copy(update={"constraints": {"latency_ms": 9.0}})
    recipe = loaded.recipe.model_copy(update={"search": search})
    smallest = loaded.space.smallest()
    device = Device(monkeypatch, {smallest: 9.5}, drift=0.0)
    measured = measure_against_budget(recipe, smallest, loaded.space.largest_dense())
    assert device.calls == [(smallest, 10)]
    assert (measured.maximum_ms, measured.reference_ms, measured.holds) == (9.0, None, False)
    elsewhere = measure_against_budget(recipe, smallest, loaded.space.largest_dense(), judged=False)
    assert elsewhere.maximum_ms is None
    assert elsewhere.holds


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
