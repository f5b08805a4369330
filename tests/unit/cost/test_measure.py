"""The latency protocol: what it runs and how it sums up. Times come from an injected clock."""

import statistics
from collections import defaultdict
from dataclasses import replace

import pytest
import torch

from automoe.cost.measure import measure_latency, measure_together, random_engine, summarise, why_noisy
from automoe.cost.protocol import MeasuringProtocol
from automoe.data.vocabulary import EOS_ID
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer, dense
from automoe.errors import InputError
from automoe.inference.backends import engine_of, make_engine
from automoe.model.experts import MixtureOfExperts
from automoe.model.transformer import Transformer

SMALL = dense(16, 32, 2, 1, 1)
SHORT = MeasuringProtocol(vocabulary_size=20, target_length=2)


class Recorded:
    """A model whose calls are written down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model = Transformer(SMALL, 50)
        self.model.initialise(0)
        self.sources: list[torch.Tensor] = []
        self.step_shapes: list[tuple[int, ...]] = []
        self.modes: set[tuple[bool, bool]] = set()
        self.threads: set[int] = set()
        encode, step = self.model.encode, self.model.step

        def recording_encode(source_BS):
            self.sources.append(source_BS)
            self.modes.add((self.model.training, torch.is_inference_mode_enabled()))
            self.threads.add(torch.get_num_threads())
            return encode(source_BS)

        def recording_step(tokens_BK, state):
            self.step_shapes.append(tuple(tokens_BK.shape))
            return step(tokens_BK, state)

        monkeypatch.setattr(self.model, "encode", recording_encode)
        monkeypatch.setattr(self.model, "step", recording_step)
        self.engine = make_engine(self.model)


def test_every_run_is_another_random_sentence_and_exactly_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch)
    protocol = MeasuringProtocol(source_length=7, target_length=9, beam_size=3, batch=2)
    latency = measure_latency(recorded.engine, protocol, runs=10)
    sources = recorded.sources[::2]  # encoded by itself, then within the search
    assert all(map(torch.equal, sources, recorded.sources[1::2]))
    all_runs = len(sources)
    assert latency.runs == 10 <= all_runs  # a few more to warm up
    assert recorded.step_shapes == [(2, 3)] * 9 * all_runs
    assert all(source_BS.shape == (2, 7) for source_BS in sources)
    assert all((source_BS[:, -1] == EOS_ID).all() for source_BS in sources)
    assert len({tuple(source_BS.flatten().tolist()) for source_BS in sources}) == all_runs


def test_the_seed_decides_the_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch)
    for seed in (1, 1, 2):
        measure_latency(recorded.engine, SHORT, runs=10, seed=seed)
    all_runs = len(recorded.sources) // 3
    first, again, other = (recorded.sources[i * all_runs] for i in range(3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_evaluation_mode_without_autograd_and_threads_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch)
    usual = torch.get_num_threads()
    latency = measure_latency(recorded.engine, replace(SHORT, threads=usual + 1), runs=10)
    assert recorded.modes == {(False, True)}
    assert recorded.threads == {usual + 1}
    assert latency.threads == usual + 1
    assert torch.get_num_threads() == usual


def test_threads_are_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Transformer(SMALL, 50)
    usual = torch.get_num_threads()

    def fail(source_BS):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "encode", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        measure_latency(make_engine(model), MeasuringProtocol(threads=usual + 1), runs=10)
    assert torch.get_num_threads() == usual


def test_times_are_taken_around_encoder_and_decoder() -> None:
    # The clock is read before the encoder by itself, after it, and after the translation, which has one, too:
    # 2 s, and 5 s of which 3 are the decoder's.
    readings = iter(value for run in range(1000) for value in (run * 10.0, run * 10.0 + 2, run * 10.0 + 7))
    protocol = replace(SHORT, target_length=1)
    engine = random_engine(SMALL, protocol)
    latency = measure_latency(engine, protocol, runs=10, clock=lambda: next(readings))
    assert (latency.encoder_ms, latency.decoder_ms, latency.latency_ms) == (2000, 3000, 5000)
    assert latency.spread_ms == 0


def test_an_architecture_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    measure_latency(random_engine(SMALL, SHORT), SHORT, runs=10)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_an_engine_of_random_weights_leaves_the_number_of_threads_alone(backend: str) -> None:
    usual = torch.get_num_threads()
    random_engine(SMALL, replace(SHORT, backend=backend, threads=usual + 1))
    assert torch.get_num_threads() == usual


def test_truncated_mean_and_spread_by_hand() -> None:
    # Ten runs: one falls away at each end, 1 and 1000; 2..9 remain.
    totals = [1000.0, 1.0, *map(float, range(2, 10))]
    latency = summarise([0.25 * t for t in totals], [0.75 * t for t in totals], None, 2)
    assert latency.latency_ms == pytest.approx(5.5)  # the mean of 2..9
    assert latency.encoder_ms == pytest.approx(0.25 * 5.5)
    assert latency.decoder_ms == pytest.approx(0.75 * 5.5)
    assert latency.spread_ms == pytest.approx(3.5)  # quartiles 3.75 and 7.25
    assert latency.noisy  # 3.5 of 5.5 is no steady machine
    assert latency.stolen_share is None


def test_a_fifth_falls_away_whatever_the_number_of_runs() -> None:
    latencies = [float(i) for i in range(300)]
    latency = summarise(latencies, [0.0] * 300, 0.0, 1)
    assert latency.latency_ms == pytest.approx(statistics.fmean(range(30, 270)))


@pytest.mark.parametrize(("stolen_share", "noisy"), [(None, False), (0.01, False), (0.3, True)])
def test_a_busy_machine_is_called_noisy(stolen_share: float | None, noisy: bool) -> None:
    assert summarise([10.0] * 10, [20.0] * 10, stolen_share, 1).noisy is noisy


def test_too_few_runs_and_every_problem_of_a_protocol_are_named() -> None:
    with pytest.raises(InputError, match="runs: at least 10, not 9"):
        measure_latency(random_engine(SMALL, SHORT), SHORT, runs=9)
    with pytest.raises(InputError) as refused:
        MeasuringProtocol(threads=0, beam_size=0, source_length=0, vocabulary_size=4, batch=0)
    names = [problem.split(":")[0] for problem in refused.value.problems]
    assert names == ["threads", "beam_size", "source_length", "vocabulary_size", "batch"]
    with pytest.raises(InputError, match="onnx has no float16; choose of torch: float32, float16"):
        MeasuringProtocol(backend="onnx", precision="float16")


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_random_weights_have_the_norm_and_vocabulary_that_are_stated(monkeypatch, norm) -> None:
    models: list[Transformer] = []

    def recording(model, *rest, **more):
        models.append(model)
        return make_engine(model, *rest, **more)

    monkeypatch.setattr("automoe.cost.measure.make_engine", recording)
    engine = random_engine(SMALL, replace(SHORT, norm=norm))
    assert [model.options.norm for model in models] == [norm]
    assert engine.vocabulary_size == SHORT.vocabulary_size


def test_a_batch_of_one_is_left_out_of_the_plain_protocol() -> None:
    assert "batch" not in SHORT.plain()
    assert replace(SHORT, batch=4).plain() == SHORT.plain() | {"batch": 4}


def test_no_shortlist_is_left_out_too_and_one_holds_more_than_the_special_tokens() -> None:
    assert "shortlist" not in SHORT.plain()
    assert replace(SHORT, shortlist=9).plain() == SHORT.plain() | {"shortlist": 9}
    assert (SHORT.output_tokens, replace(SHORT, shortlist=9).output_tokens) == (20, 9)
    assert replace(SHORT, shortlist=99).output_tokens == 20
    with pytest.raises(InputError, match="shortlist: expected 0 for none, or more than the 4 special tokens"):
        replace(SHORT, shortlist=4)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_what_is_measured_has_as_many_tokens_as_the_protocol_says(monkeypatch, backend) -> None:
    """Random weights and a model alike, however large the batch."""
    found: list[int] = []

    def recording(make):
        def made(model, *rest, shortlister=None, **more):
            *rest, choose = rest if shortlister is None else (*rest, shortlister)

            def counted(source_BS):
                chosen = choose(source_BS)
                found.append(len(chosen))
                return chosen

            return make(model, *rest, shortlister=counted, **more)

        return made

    for make in (make_engine, engine_of):
        monkeypatch.setattr(f"automoe.cost.measure.{make.__name__}", recording(make))
    protocol = replace(SHORT, backend=backend, shortlist=9, batch=3)
    model = Transformer(SMALL, 30)
    model.initialise(1)
    measure_together(protocol, {"random": SMALL}, runs=10)
    measure_together(protocol, {"trained": model}, runs=10)
    assert set(found) == {9}
    assert len(found) == 2 * 12


def test_tokens_of_random_weights_spread_over_the_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of E experts, N tokens routed evenly wake E (1 - (1 - 1/E)^N); fresh weights would wake hardly one."""
    experts = (64, 64, 64, 64)
    encoder, decoder = (EncoderLayer(4, experts),) * 4, (DecoderLayer(4, 4, experts),) * 4
    architecture = Architecture(64, 64, 64, encoder, decoder)
    awake: dict[str, list[int]] = defaultdict(list)
    route = MixtureOfExperts.route

    def recording_route(mixture, tokens_ND):
        routed = route(mixture, tokens_ND)
        awake[mixture.name].append(int((routed[2].tokens_per_expert_E > 0).sum()))
        return routed

    monkeypatch.setattr(MixtureOfExperts, "route", recording_route)
    protocol = MeasuringProtocol(vocabulary_size=1000, target_length=10, threads=1)
    measure_latency(random_engine(architecture, protocol), protocol, runs=10)
    assert len(awake) == 8
    even = 4 * (1 - (1 - 1 / 4) ** 5)
    for layer, counts in awake.items():
        expected = even if layer.startswith("decoder") else 4
        assert statistics.fmean(counts) > 0.75 * expected, layer


QUIET = summarise([1.0] * 20, [9.0] * 20, 0.01, threads=1)


def test_a_quiet_machine_is_believed():
    assert why_noisy(QUIET) is None
    assert why_noisy(QUIET, summarise([1.0] * 20, [9.0] * 20, None, threads=1)) is None


@pytest.mark.parametrize(
    ("decoder_ms", "stolen", "expected", "absent"),
    [
        ([9.0] * 20, 0.37, "took 37% of the processor time", "spreads"),
        ([9.0] * 10 + [19.0] * 10, 0.0, "spreads over 67% of the figure", "took"),
        ([9.0] * 10 + [19.0] * 10, 0.37, "and the middle half of the runs spreads over 67%", "rounds"),
    ],
)
def test_the_reasons_are_named_with_their_figures_and_the_mend(decoder_ms, stolen, expected, absent):
    text = why_noisy(QUIET, summarise([1.0] * 20, decoder_ms, stolen, threads=1))
    assert text is not None
    assert expected in text
    assert absent not in text
    assert "stop other programs" in text
