"""Adding to the package from outside: a cost, a search strategy, a supernet rule, an engine, a sub-layer.

`docs/extending.md` shows these functions; each addition takes fewer than 40 lines.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from automoe.cli.main import app
from automoe.cost.costs import COSTS, Conditions, Cost
from automoe.cost.counting import count
from automoe.data.vocabulary import BOS_ID, EOS_ID
from automoe.design.architecture import Architecture, SelfAttention, StateTensor
from automoe.design.architecture_file import load_architecture
from automoe.design.space import load_space
from automoe.inference.backends import ENGINES
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.finished_graph import open_session
from automoe.inference.graph import Graph
from automoe.inference.graph_search import SearchInputs, beam_search
from automoe.inference.onnx_engine import hypotheses
from automoe.inference.torch_engine import TorchEngine
from automoe.inference.translation_graph import INPUTS, OUTPUTS, search_inputs
from automoe.model import block
from automoe.model.sharing import Supernet
from automoe.model.sublayers import Context, SubLayerModule
from automoe.model.transformer import Transformer
from automoe.run.recipe import load_recipe
from automoe.run.systems import STRATEGIES
from automoe.search.strategy import Proposal
from automoe.training.rules import RULES, Members, Rule
from helpers.paths import REPOSITORY
from helpers.slow_search import assert_same, random_batch, slow_beam_search
from helpers.tiny_run import run_here, write_tiny_recipe

DEMO_SPACE = REPOSITORY / "recipes" / "spaces" / "demo.yaml"


def search_tiny(folder: Path, *overrides: str, strategy="evolution", until="search") -> Path:
    """Run a tiny recipe with the system `mine` in this process up to a stage; the folder of its one seed."""
    recipe = write_tiny_recipe(folder, steps=5)
    systems = f"systems=[{{name: mine, search: {strategy}}}]"
    run_here(recipe, *overrides, systems, "baseline=null", "fine_tuning=null", until=until)
    return folder / "runs" / "tiny" / "seed-1"


# --8<-- [start:cost]
def phone_bytes(architecture: Architecture, conditions: Conditions) -> float:
    """What an app for phones packs: every weight, in 8 bits."""
    return conditions.counts(architecture).total_parameters


PHONE = Cost(
    name="phone_bytes",
    unit="bytes",
    heading="on a phone (kB)",
    label="on a phone (kB)",
    scale=1e-3,
    digits=".1f",
    price=phone_bytes,
)
# --8<-- [end:cost]


def test_a_cost_can_be_bounded_and_is_reported(tmp_path, monkeypatch):
    monkeypatch.setitem(COSTS, PHONE.name, PHONE)
    run = search_tiny(tmp_path, "search.constraints={phone_bytes: 85%}", until="report")
    scored = pd.read_json(run / "search-mine" / "candidates.jsonl", lines=True).dropna(subset="score")
    largest = load_recipe(tmp_path / "tiny.yaml").space.largest_dense()
    model = Transformer(largest, 24)
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert len(scored) > 0
    assert (scored["phone_bytes"] <= 0.85 * weights).all()
    table = (run.parent / "report" / "results.md").read_text()
    assert "| on a phone (kB) |" in table
    best = scored.nsmallest(1, "score").iloc[0]
    assert f"| {best['phone_bytes'] / 1000:.1f} |" in table


def test_a_cost_shows_in_the_commands_that_print_costs(monkeypatch):
    path = REPOSITORY / "recipes" / "architectures" / "transformer-base.yaml"
    measured = dataclasses.replace(PHONE, name="seconds_on_a_phone", label="a phone's seconds", measured=True)
    monkeypatch.setitem(COSTS, PHONE.name, PHONE)
    monkeypatch.setitem(COSTS, measured.name, measured)

    def printed(*arguments: str) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == 0, done.output
        return done.stdout

    model = Transformer(load_architecture(path), 100)
    weights = sum(parameter.numel() for parameter in model.parameters())
    asked = ("cost", str(path), "--vocabulary-size", "100")
    text, plain = printed(*asked), json.loads(printed(*asked, "--json"))
    assert text.splitlines()[-1].split() == ["phone_bytes", f"{weights:,}", "bytes"]
    assert (plain["phone_bytes"], plain["total_parameters"]) == (weights, weights)
    assert [line.split()[0] for line in text.splitlines()] == list(plain)

    largest, largest_dense, smallest, _ = printed("space", str(DEMO_SPACE)).split("\n\n")[1:]
    space = load_space(DEMO_SPACE)
    members = (space.largest(), space.largest_dense(), space.smallest())
    for paragraph, member in zip((largest, largest_dense, smallest), members, strict=True):
        title, *lines = paragraph.splitlines()
        assert str(member) in title
        counts = count(member)
        assert {line.rpartition(" ")[0].strip(): float(line.split()[-1]) for line in lines} == {
            "GFLOPs a sentence": pytest.approx(counts.flops / 1e9, rel=0.005),
            "parameters (millions)": pytest.approx(counts.parameters / 1e6, abs=0.005),
            "active parameters (millions)": pytest.approx(counts.active_parameters / 1e6, abs=0.005),
            "memory (MiB)": pytest.approx(counts.memory_bytes / 2**20, abs=0.5),
            "download (MB)": pytest.approx(4 * counts.total_parameters / 1e6, rel=0.01),
            "on a phone (kB)": pytest.approx(counts.total_parameters / 1000, abs=0.05),
        }


# --8<-- [start:strategy]
def hill_climbing(steps: int):
    """From one member always to the better of it and a mutant."""

    def strategy(space, feasible, rng):
        best = None
        for step in range(steps):
            parent = feasible if best is None else best.architecture
            candidate = yield Proposal(space.mutate(parent, 0.2, rng) if step else feasible, iteration=step)
            if candidate is not None and (best is None or candidate.score < best.score):
                best = candidate

    return strategy


# --8<-- [end:strategy]


def test_a_strategy_searches_within_a_run(tmp_path, monkeypatch):
    monkeypatch.setitem(STRATEGIES, "hill_climbing", lambda effort: (hill_climbing(20), 20))
    run = search_tiny(tmp_path, strategy="hill_climbing")
    lines = pd.read_json(run / "search-mine" / "candidates.jsonl", lines=True)
    mine = lines[lines["strategy"] == "hill_climbing"]
    assert len(mine) > 2
    assert set(mine["system"]) == {"mine"}
    chosen = json.loads((run / "search-mine" / "chosen.json").read_text())
    (winner,) = chosen["finalists"]
    assert winner["score"] == pytest.approx(mine["score"].min(), rel=1e-12)  # pandas rounds the last digit
    assert chosen["strategy"] == "hill_climbing"
    assert chosen["evaluated"] == {"whole": len(mine)}


# --8<-- [start:rule]
def taught_dense(space):
    """The largest dense member, and a random dense one that it teaches."""
    dense = space.dense()
    largest = dense.largest()
    return lambda step, rng: Members((largest, dense.sample(rng)), teacher=0, distillation=0.5)


# --8<-- [end:rule]


def test_a_rule_says_what_a_supernet_trains(tmp_path, monkeypatch):
    """Without a mixture among its members, no router learns, and of each layer's experts the first alone."""
    monkeypatch.setitem(RULES, "taught_dense", Rule(taught_dense, members=2))
    run = search_tiny(tmp_path, "supernet.rule=taught_dense", until="supernet")
    trained = load_file(run / "supernet" / "weights.safetensors")
    largest = load_recipe(tmp_path / "tiny.yaml").space.largest()
    fresh = Supernet(largest, 24, norm="pre", seed=1).network.state_dict()
    assert trained.keys() == fresh.keys()
    left_alone = {name for name, weight in trained.items() if torch.equal(weight, fresh[name])}
    of_mixtures = {n for n in trained if ".router." in n or (".experts." in n and ".experts.0." not in n)}
    assert len(of_mixtures) > 2
    assert left_alone == of_mixtures


# --8<-- [start:engine]
class CountingEngine(TorchEngine):
    """The reference, counting its steps."""

    steps = 0

    def step(self, tokens_BK: Tensor, state, candidates: int):
        CountingEngine.steps += 1
        return super().step(tokens_BK, state, candidates)


# --8<-- [end:engine]


def test_an_engine_is_what_a_search_measures(tmp_path, monkeypatch):
    def make(model, threads, forced, shortlister):
        return CountingEngine(model, shortlister=shortlister)

    monkeypatch.setitem(ENGINES, "counting", {"float32": make})
    monkeypatch.setattr(CountingEngine, "steps", 0)
    run = search_tiny(
        tmp_path, "latency.backend=counting", "latency.source=measurement",
        "search.constraints={latency_ms: 10000}",
    )  # fmt: skip
    lines = pd.read_json(run / "search-mine" / "candidates.jsonl", lines=True)
    assert lines["latency_ms"].notna().any()
    # Exactly 5 steps a sentence, 10 runs and at least one more to warm up for each candidate measured.
    assert CountingEngine.steps >= 5 * 10 * lines["latency_ms"].notna().sum()
    assert CountingEngine.steps % 5 == 0


# --8<-- [start:sublayer]
class AveragingModule(SubLayerModule):
    """Average attention without its gate (Zhang et al., 2018): the mean of all positions so far.

    It keeps no keys and values but one running sum a beam.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.state = (StateTensor("running_sum", "beam", heads=1, size=width),)

    def forward(self, x_BXD: Tensor, context: Context) -> tuple[Tensor, None]:
        counts_X1 = torch.arange(1, x_BXD.shape[1] + 1, dtype=x_BXD.dtype)[:, None]
        return x_BXD.cumsum(dim=1) / counts_X1, None

    def step(self, x_BKD: Tensor, position: int, kept: dict[str, Tensor]) -> Tensor:
        kept["running_sum"] = kept["running_sum"] + x_BKD[:, :, None]
        return kept["running_sum"][:, :, 0] / (position + 1)


# --8<-- [end:sublayer]


def test_a_sublayer_that_keeps_a_running_sum_decodes_as_it_was_taught():
    """Reordering of beams, finished sentences leaving: all by the engine's own code."""
    architecture = Architecture.from_dict(
        {
            "encoder_width": 16,
            "decoder_width": 8,
            "qkv_dim": 16,
            "encoder": [{"self_attention_heads": 2, "experts": [16]}],
            "decoder": [
                {"self_attention_heads": 2, "cross_attention_heads": 4, "experts": [16, 8]},
                {"self_attention_heads": 4, "cross_attention_heads": 2, "experts": [8]},
            ],
        }
    )
    model = Transformer(architecture, 12)
    model.initialise(1)
    model.decoder[0].attention = AveragingModule(8)
    model = model.double().eval()
    source_BS = random_batch(5, 12, [3, 7, 5, 4])
    for beam_size in (1, 3):
        settings = BeamSettings(beam_size=beam_size, n_best=beam_size, max_length_extra=6)
        found = TorchEngine(model).search(source_BS.numpy(), settings)
        for row, best in zip(source_BS.tolist(), found, strict=True):
            source = [token for token in row if token]
            assert_same(best, slow_beam_search(model, source, settings))


def test_a_sublayer_of_ones_own_is_searched_by_translating(tmp_path, monkeypatch):
    """In the place of every self-attention of the decoder; candidates are ranked by BLEU, so they decode."""
    built_in = block._module

    def module(sublayer, layer, architecture):
        if layer.stack == "decoder" and isinstance(sublayer, SelfAttention):
            return AveragingModule(layer.width)
        return built_in(sublayer, layer, architecture)

    monkeypatch.setattr(block, "_module", module)
    run = search_tiny(tmp_path, "search.rank_by=bleu")
    scores = pd.read_json(run / "search-mine" / "candidates.jsonl", lines=True)["score"].dropna()
    assert len(scores) > 2
    assert scores.between(-100, 0).all()
    weights = load_file(run / "supernet" / "weights.safetensors")
    assert any(name.startswith("decoder.0.cross.") for name in weights)
    assert not any(name.startswith("decoder.0.attention.") for name in weights)


def test_the_search_in_a_graph_reorders_what_follows_its_hypothesis():
    """A decoder that keeps the sum of the tokens it read, and whose next token depends on that sum alone."""
    V, tokens = 13, 6
    table = np.random.default_rng(1).normal(size=(97, V)).astype(np.float32) * 3
    g = Graph()

    def step(g, tokens_BK, taken, visible, kept, source):
        rows_N = g.op("Add", kept["sum"], g.op("Reshape", tokens_BK, g.ints([-1])))
        logits_NV = g.op("Gather", g.constant("table", table), g.op("Mod", rows_N, g.ints(len(table))))
        return logits_NV, {"sum": rows_N}

    start = {"sum": g.op("Expand", g.ints(0), g.op("Mul", g.dimension("max_lengths", 0), "beam_size"))}
    found = beam_search(g, step, V, start, {}, SearchInputs(), follows=frozenset(start))
    for name in OUTPUTS:
        g.op("Identity", found[name], output=name)
    given = {name: shape for name, shape in INPUTS.items() if name != "source"}
    session = open_session(g.model(given, OUTPUTS), 1)
    settings = BeamSettings(beam_size=3, n_best=3, min_length=1)
    feeds = search_inputs(np.zeros((2, 1), np.int64), [tokens, 2], settings)
    feeds.pop("source")
    searched = hypotheses(*session.run(list(OUTPUTS), feeds))

    def log_probability(words) -> float:
        total, read = 0.0, BOS_ID
        for word in (*words, EOS_ID):
            logits_V = table[read % len(table)].astype(float)
            total += logits_V[word] - np.log(np.exp(logits_V).sum())
            read += word
        return total

    for found in searched:
        assert len({one.tokens for one in found}) == 3
        for one in found:
            assert one.log_probability == pytest.approx(log_probability(one.tokens), abs=1e-4)


@pytest.mark.slow
def test_mypy_lists_every_place_that_a_new_kind_must_be_added_to(tmp_path):
    shutil.copytree(REPOSITORY / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    path = tmp_path / "src" / "automoe" / "design" / "architecture.py"
    text = path.read_text()
    union = "SubLayer: TypeAlias = SelfAttention | AverageAttention | Ssru | CrossAttention | FeedForward"
    assert text.count(union) == 1
    kind = """
@dataclass(frozen=True, slots=True)
class Convolution:
    def decoder_state(self, width: int, qkv_dim: int) -> tuple[StateTensor, ...]:
        return (StateTensor("last_inputs", "beam", heads=3, size=width),)


"""
    path.write_text(text.replace(union, kind + union + " | Convolution"))
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert errors
    assert all("Convolution" in line for line in errors), errors
    places = {line.partition(":")[0].removeprefix("src/automoe/") for line in errors}
    assert places == {
        "cost/counting.py",
        "cost/device/parts.py",
        "cost/predictor.py",
        "design/architecture.py",
        "export/huggingface.py",
        "export/model_card.py",
        "inference/graph_model.py",
        "inference/weight_shapes.py",
        "model/block.py",
        "report/architecture_drawing.py",
        "report/search_front.py",
        "search/finalists.py",
        "training/rules.py",
    }
