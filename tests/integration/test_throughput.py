"""A server's budget: throughput by batches of their own, beside the latency of single sentences."""

import dataclasses
import json
from pathlib import Path

import pytest

from automoe.cost.costs import COSTS, Conditions, Together
from automoe.cost.device.probes import needed_terms
from automoe.cost.device.profile import DeviceProfile, PartEntry, ProfileQuality
from automoe.cost.machine import this_machine
from automoe.cost.measure import Latency, summarise
from automoe.cost.protocol import MeasuringProtocol
from automoe.cost.sources import measure_against_budget
from automoe.design.architecture_file import save_architecture
from automoe.design.space import SearchSpace
from automoe.errors import InputError
from automoe.progress import Reporter
from automoe.run.budget import candidate_prices, find_budget
from automoe.run.context import Run
from automoe.run.device_profile import find_latency_file, find_throughput_file, price_inputs
from automoe.run.evaluate import measure_throughput
from automoe.run.folder import RunFolder
from automoe.run.pipeline import stage_names
from automoe.run.recipe import load_recipe
from helpers.tiny_run import run_here, write_tiny_recipe

BATCH = 64
TOGETHER = f"latency.throughput={{batch: {BATCH}, runs: 20}}"
THROUGHPUT = "search.constraints={throughput_sentences_s: 400%}"
# The time of each kind of part, so that sums of different parts differ.
KINDS = {"overhead": 3.0, "output": 5.0, "self_attention": 0.7, "cross_attention": 1.1, "keys_values": 0.3}


def part_ms(term, scale: float) -> float:
    """A made-up time of a part: linear in what is interpolated."""
    if term.part == "experts":
        return scale * term.width * (0.01 * term.ffn_size + (0.2 * term.experts if term.experts > 1 else 0))
    return scale * (KINDS[term.part] + term.width / 40 + term.heads / 3 + term.layers_attended / 7)


def slow_ms(a, scale: float) -> float:
    """The same time of a whole architecture, layer by layer and expert by expert."""
    total = 0.0
    for stack, width, layers in (
        ("encoder", a.encoder_width, a.encoder),
        ("decoder", a.decoder_width, a.decoder),
    ):
        total += KINDS["overhead"] + width / 40
        if stack == "decoder":
            total += KINDS["output"] + width / 40
        for layer in layers:
            total += KINDS["self_attention"] + width / 40 + layer.self_attention_heads / 3
            if stack == "decoder":
                attended = layer.encoder_layers_attended
                total += KINDS["cross_attention"] + width / 40 + layer.cross_attention_heads / 3
                total += attended / 7
                total += 2 * (KINDS["keys_values"] + a.encoder_width / 40 + attended / 7)  # counted to both
            sizes = layer.ffn_sizes
            if sizes != (0,):
                mean = sum(sizes) / len(sizes)
                total += width * (0.01 * mean + (0.2 * len(sizes) if len(sizes) > 1 else 0))
    return scale * total


def write_profile(path: Path, run: Run, batch: int, scale: float, cpu: str | None = None) -> Path:
    """A made-up profile of a recipe's space, of batches of this size."""
    protocol = dataclasses.replace(run.protocol, batch=batch)
    machine = this_machine(protocol.backend)
    quality = ProfileQuality(
        probes=1, turns=10, seconds=1.0, noisy=0, spread_percent=1.0, fit_error_percent=1.0, whole_models=1,
        whole_error_percent=1.0, reference=str(run.space.largest_dense()), reference_encoder_ms=1.0,
        reference_decoder_ms=1.0,
    )  # fmt: skip
    DeviceProfile(
        date="2023-07-09",
        machine=machine if cpu is None else dataclasses.replace(machine, cpu=cpu),
        protocol=protocol,
        quality=quality,
        space=json.loads(json.dumps(dataclasses.asdict(run.space))),
        qkv_dim=run.space.qkv_dim,
        entries=tuple(
            PartEntry.of(term, part_ms(term, scale)) for term in sorted(needed_terms(run.space).terms)
        ),
    ).save(path)
    return path


def run_of(folder: Path, *overrides: str) -> Run:
    recipe = folder / "tiny.yaml"
    if not recipe.exists():
        write_tiny_recipe(folder)
    return Run(
        load_recipe(recipe, overrides),
        RunFolder(folder / "run", "tiny", print, lambda refusal: True),
        Reporter(),
    )


def members(space: SearchSpace, rng, count: int = 25):
    return [space.largest_dense(), space.smallest(), *(space.sample(rng) for _ in range(count))]


def test_both_bounds_are_priced_each_by_the_profile_of_its_batch(tmp_path, rng):
    plain = run_of(tmp_path, TOGETHER)
    one = write_profile(tmp_path / "one.json", plain, 1, scale=1.0)
    many = write_profile(tmp_path / "many.json", plain, BATCH, scale=20.0)
    run = run_of(
        tmp_path, f"latency.throughput={{batch: {BATCH}, profile: many.json}}", "latency.profile=one.json",
        "search.constraints={latency_ms: 50%, throughput_sentences_s: 130%}",
    )  # fmt: skip
    assert (find_latency_file(run), find_throughput_file(run)) == (one, many)
    priced = candidate_prices(run, one, many)
    for architecture in members(run.space, rng):
        assert priced["latency_ms"].of(architecture) == pytest.approx(slow_ms(architecture, 1.0))
        expected = BATCH / (slow_ms(architecture, 20.0) / 1000)
        assert priced["throughput_sentences_s"].of(architecture) == pytest.approx(expected)
    most, least = find_budget(run, one, many).constraints["automoe"]
    baseline = run.space.largest_dense()
    assert (most.cost, most.at_least, least.cost, least.at_least) == (
        "latency_ms", False, "throughput_sentences_s", True,
    )  # fmt: skip
    assert most.bound == pytest.approx(0.5 * slow_ms(baseline, 1.0))
    assert least.bound == pytest.approx(1.3 * BATCH / (slow_ms(baseline, 20.0) / 1000))
    assert least.holds({"throughput_sentences_s": least.bound})
    assert not least.holds({"throughput_sentences_s": 0.99 * least.bound})


def test_with_a_bound_on_the_throughput_alone_one_profile_is_made_of_its_batches(tmp_path, monkeypatch):
    made = []

    def make(space, protocol, output, say, progress):
        made.append(protocol)
        write_profile(output, run_of(tmp_path), protocol.batch, 1.0)

    monkeypatch.setattr("automoe.run.device_profile.make_profile", make)
    run = run_of(tmp_path, TOGETHER, "search.constraints={throughput_sentences_s: 110%}")
    for _ in range(2):
        files = find_latency_file(run), find_throughput_file(run)
        assert files == (None, tmp_path / "run" / "profile-throughput" / "device.json")
        (least,) = find_budget(run, *files).constraints["automoe"]
    assert least.bound == pytest.approx(1.1 * 1000 * BATCH / slow_ms(run.baseline, 1.0))
    assert made == [dataclasses.replace(run.protocol, batch=BATCH)]
    # Nothing tells latencies, and nobody asked for them.
    priced = candidate_prices(run, *files)
    assert "throughput_sentences_s" in priced
    assert "latency_ms" not in priced


@pytest.mark.parametrize(
    "overrides",
    [("search.constraints={flops: 90%}", TOGETHER), (THROUGHPUT, TOGETHER, "latency.source=measurement")],
    ids=["flops", "measurement"],
)
def test_no_profile_is_made_of_batches_where_nothing_goes_by_one(tmp_path, monkeypatch, overrides):
    monkeypatch.delattr("automoe.run.device_profile.make_profile")
    assert find_throughput_file(run_of(tmp_path, *overrides)) is None


class Device:
    """Stands for measuring: a time for an architecture and a batch; it remembers what was asked."""

    def __init__(self, monkeypatch, ms) -> None:
        self.ms, self.calls = ms, []
        monkeypatch.setattr("automoe.cost.measure.measure_latency", self)

    def __call__(self, engine, protocol, *, runs) -> Latency:
        self.calls.append((engine.architecture, protocol.batch, runs))
        ms = self.ms[engine.architecture, protocol.batch]
        return summarise([ms / 2] * runs, [ms / 2] * runs, 0.0, threads=1)


@pytest.mark.parametrize(("batch_ms", "keeps_both"), [(39.0, True), (41.0, False)])
def test_a_winner_is_measured_one_by_one_and_in_batches_beside_the_baseline(
    tmp_path, monkeypatch, batch_ms, keeps_both
):
    """64 sentences in 160 ms are 400 a second; four times as many are 64 in 40 ms."""
    run = run_of(tmp_path, TOGETHER)
    ours, baseline = run.space.smallest(), run.space.largest_dense()
    times = {(ours, 1): 4.0, (baseline, 1): 10.0, (ours, BATCH): batch_ms, (baseline, BATCH): 160.0}
    device = Device(monkeypatch, times)
    bounds = {"latency_ms": "50%", "throughput_sentences_s": "400%"}
    measured = measure_against_budget(run.protocol, run.recipe.latency, bounds, ours, baseline)
    assert device.calls == [
        (ours, 1, 10), (baseline, 1, 10),
        *[(ours, BATCH, 10), (baseline, BATCH, 10)] * 2,  # they take turns
    ]  # fmt: skip
    assert (measured.latency_ms, measured.maximum_ms) == (4.0, 5.0)
    (figure,) = measured.figures
    assert figure.cost == "throughput_sentences_s"
    assert (figure.measured, figure.bound) == pytest.approx((1000 * BATCH / batch_ms, 1600))
    assert measured.holds is keeps_both
    assert ("throughput_sentences_s >= 1,600" in str(measured)) is not keeps_both
    # A bound on the latency alone measures no batches.
    device.calls.clear()
    measure_against_budget(run.protocol, run.recipe.latency, {"latency_ms": "50%"}, ours, baseline)
    assert {batch for _, batch, _ in device.calls} == {1}


def test_a_baseline_outside_the_space_is_measured_in_batches_beside_its_largest_dense_member(
    tmp_path, monkeypatch
):
    beside = run_of(tmp_path).space.largest_dense()
    deep = dataclasses.replace(beside, encoder=beside.encoder * 3)
    save_architecture(deep, tmp_path / "deep.yaml")
    run = run_of(
        tmp_path, TOGETHER, "search.constraints={throughput_sentences_s: 300%}", "baseline=deep",
        "systems=[{name: mine, search: evolution}, {name: deep, architecture: deep.yaml}]",
    )  # fmt: skip
    file = write_profile(tmp_path / "many.json", run, BATCH, scale=2.0)
    device = Device(monkeypatch, {(deep, BATCH): 700.0, (beside, BATCH): 100.0})
    (least,) = find_budget(run, None, file).constraints["mine"]
    assert least.bound == pytest.approx(3 * 1000 * BATCH / (7 * slow_ms(beside, 2.0)))
    assert {batch for _, batch, _ in device.calls} == {BATCH}


def test_what_a_stage_is_made_from_is_as_ever_without_batches_of_their_own(tmp_path):
    """So runs of earlier versions stay."""
    plain = price_inputs(run_of(tmp_path, "search.constraints={throughput_sentences_s: 9}"), Path("p.json"))
    assert not [name for name in plain if "throughput" in name or "batches" in name]
    counted = price_inputs(run_of(tmp_path), None)
    assert set(counted) == {
        "model.norm", "data.vocabulary.size", "latency.source_length", "latency.target_length",
        "latency.beam_size", "latency.shortlist",
    }  # fmt: skip
    assert measure_throughput(run_of(tmp_path), {}) is None
    recipe = run_of(tmp_path).recipe
    assert not [name for name in stage_names(recipe, "report") if "throughput" in name]
    with_batches = run_of(tmp_path, TOGETHER, "search.constraints={throughput_sentences_s: 9}")
    assert price_inputs(with_batches, None, None)["latency.throughput.batch"] == BATCH
    # A counted size depends on the engine; other counted costs do not.
    sized = price_inputs(run_of(tmp_path, "search.constraints={download_bytes: 60%}"), None)
    assert set(sized) - set(counted) == {"latency.backend", "latency.precision"}


def test_without_settings_of_its_own_a_throughput_goes_by_the_latency():
    by_latency = Conditions(dataclasses.replace(MeasuringProtocol(), batch=4), lambda _: 20.0)
    together = dataclasses.replace(by_latency, together=Together(BATCH, lambda _: 640.0))
    price = COSTS["throughput_sentences_s"].price
    assert price(None, by_latency) == 200
    assert price(None, together) == 100


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["latency.throughput={batch: 0}"], "latency.throughput.batch: expected at least 1"),
        (["latency.throughput={batch: 5000}"], "latency.throughput.batch: expected at most 1000"),
        (["latency.throughput={runs: 3}"], "latency.throughput.runs: expected at least 10"),
        (["latency.throughput={sentences: 3}"], "latency.throughput.sentences"),
        (
            [TOGETHER, "latency.source=predictor", "latency.predictor=p.json"],
            "latency.throughput: a predictor tells the latency of one sentence",
        ),
        (
            ["latency.source=measurement", "latency.throughput={profile: p.json}"],
            "latency.throughput.profile: is only used with source: profile",
        ),
        (["search.constraints={sentences_s: 400%}"], "sentences_s: unknown cost"),
        (["search.constraints={throughput_sentences_s: -400%}"], "throughput_sentences_s"),
    ],
)
def test_impossible_settings_are_named(tmp_path, overrides, expected):
    with pytest.raises(InputError) as caught:
        run_of(tmp_path, *overrides)
    (problem,) = caught.value.problems
    assert expected in problem


def test_a_profile_of_other_batches_or_of_half_a_machine_is_refused(tmp_path):
    bounds = "search.constraints={throughput_sentences_s: 400%, latency_ms: 50%}"
    plain = run_of(tmp_path, TOGETHER)
    write_profile(tmp_path / "one.json", plain, 1, 1.0)
    write_profile(tmp_path / "phone.json", plain, 1, 1.0, cpu="a phone's")
    run = run_of(tmp_path, "latency.throughput={profile: one.json}", THROUGHPUT)
    with pytest.raises(InputError, match="batch: measured for 1, wanted for 64"):
        find_budget(run, None, find_throughput_file(run))
    run = run_of(tmp_path, TOGETHER, "latency.profile=phone.json", bounds)
    with pytest.raises(InputError, match=r"latency\.throughput\.profile: missing") as caught:
        find_throughput_file(run)
    assert f"--batch {BATCH}" in caught.value.problems[0]


@pytest.mark.slow
def test_a_run_with_both_bounds_measures_and_shows_both(tmp_path):
    recipe = write_tiny_recipe(
        tmp_path, steps=4, constraints="{throughput_sentences_s: 5%, latency_ms: 900%}"
    )
    run_here(
        recipe, "fine_tuning=null", "latency.throughput={batch: 4, runs: 10}", "latency.source=measurement",
        "systems=[{name: mine, search: evolution}, {name: dense, architecture: largest-dense}]",
    )  # fmt: skip
    folder = tmp_path / "runs" / "tiny"
    timed = json.loads((folder / "seed-1" / "throughput" / "throughput.json").read_text())
    assert set(timed) == {"mine", "dense"}
    for record in timed.values():
        assert record["sentences_s"] == pytest.approx(4000 / record["latency_ms"])
    (chosen,) = json.loads((folder / "seed-1" / "search-mine" / "chosen.json").read_text())["finalists"]
    assert {"latency_ms", "throughput_sentences_s"} <= set(chosen["costs"])
    assert [figure["cost"] for figure in chosen["measured"]["figures"]] == ["throughput_sentences_s"]
    text = (folder / "report" / "results.md").read_text()
    assert f"| {timed['mine']['sentences_s']:.1f} |" in text
    assert "| latency (ms) | speed-up | sentences/s | throughput gain |" in text
    assert "sentences/s: " in text
