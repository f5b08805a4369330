"""How a run's time is divided: whatever corpus and machine, what is planned fits and can be loaded."""

import dataclasses
import math

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from automoe.cost.costs import Conditions
from automoe.cost.protocol import MeasuringProtocol
from automoe.data.corpus import CorpusSource
from automoe.design.architecture_file import save_architecture
from automoe.design.space import load_space
from automoe.run.machine_speed import largest_within_budget
from automoe.run.plan import (
    ALGORITHMS,
    FEWEST_STEPS,
    MOST_EPOCHS,
    SAFETY,
    CorpusFacts,
    DoesNotFit,
    MachineSpeed,
    Wish,
    batch_tokens,
    best_plan,
    plan_scale,
)
from automoe.run.recipe import load_recipe
from automoe.run.recipe_text import BASELINE, RECIPE, SPACE, ProjectData, recipe_text, space_text
from automoe.run.scales import SCALES
from automoe.search.race import plan_rungs

SMALL = SCALES[1]
EN_DE = CorpusFacts(40_000, 1000, 1000, 800_000.0, 10.0)
DATA = ProjectData(
    CorpusSource(path="data/train.tsv"), CorpusSource(path="v.tsv"), CorpusSource(path="t.tsv"), "en", "de"
)
# As on two cores: the shipped demo's.
TWO_CORES = MachineSpeed(
    member=list(SMALL.ladder())[1],
    supernet_tokens_s=9500.0,
    member_tokens_s=12_000.0,
    scored_sentences_s=1000.0,
    translated_sentences_s=200.0,
    member_s=0.010,
    reference_s=0.0126,
    baseline_s=0.025,
)


def logarithmic(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(math.log(low), math.log(high)).map(math.exp)


def facts() -> st.SearchStrategy[CorpusFacts]:
    return st.builds(
        CorpusFacts,
        train_pairs=st.integers(8, 50_000_000),
        valid_pairs=st.integers(1, 2000),
        test_pairs=st.integers(1, 2000),
        target_tokens=logarithmic(30, 2e9),
        prepare_s=logarithmic(0.01, 10_000),
    )


def speeds() -> st.SearchStrategy[MachineSpeed]:
    return st.builds(
        MachineSpeed,
        member=st.sampled_from([member for scale in SCALES for member in scale.ladder()]),
        supernet_tokens_s=logarithmic(10, 1e6),
        member_tokens_s=logarithmic(10, 1e6),
        scored_sentences_s=logarithmic(1, 1e5),
        translated_sentences_s=logarithmic(0.5, 1e4),
        member_s=logarithmic(1e-4, 10),
        reference_s=logarithmic(1e-4, 10),
        baseline_s=logarithmic(1e-4, 10),
    )


def wishes() -> st.SearchStrategy[Wish]:
    bounds = st.sampled_from(
        [{"latency_ms": 20.0}, {"latency_ms": "40%"}, {"flops": 2e7}, {"flops": "25%", "latency_ms": 9.5}]
    )
    return st.builds(
        Wish,
        bounds=bounds,
        hours=logarithmic(0.001, 8760),
        gpu=st.booleans(),
        precision=st.sampled_from(["32-true", "bf16-mixed"]),
    )


@given(st.sampled_from(SCALES), facts(), speeds(), wishes())
def test_what_is_planned_fits_or_the_least_time_is_told(scale, corpus, speed, wish):
    try:
        plan = plan_scale(scale, corpus, speed, wish)
    except DoesNotFit as error:
        least = float(error.summary.rpartition(" ")[2])
        assert least > wish.hours
        assert (
            plan_scale(scale, corpus, speed, dataclasses.replace(wish, hours=1.001 * least)).steps
            >= FEWEST_STEPS
        )
        return
    assert plan.hours <= wish.hours
    assert plan.tokens <= max(MOST_EPOCHS * corpus.target_tokens, FEWEST_STEPS * plan.batch_tokens)
    assert plan_rungs(plan.candidates, plan.steps, 0.6)[0].step > plan.warmup_steps
    assert 1 <= plan.sentences <= corpus.valid_pairs


@given(facts(), speeds(), wishes())
def test_more_hours_never_train_less(corpus, speed, wish):
    try:
        plan = plan_scale(SMALL, corpus, speed, wish)
    except DoesNotFit:
        return
    longer = plan_scale(SMALL, corpus, speed, dataclasses.replace(wish, hours=2 * wish.hours))
    # A more thorough search may take what little time there is.
    assert longer.steps >= plan.steps or longer.algorithm.budget > plan.algorithm.budget


def independent_seconds(plan, corpus, speed, wish) -> float:
    """What the trainings alone must take, from the recipe's numbers: a lower bound of any honest estimate."""
    supernet = plan.supernet_steps * plan.batch_tokens / speed.supernet_tokens_s
    training = plan.steps * plan.batch_tokens / speed.member_tokens_s
    rungs = plan_rungs(plan.candidates, plan.steps, 0.6)
    survivors = [rung.finalists for rung in rungs[1:]] + [1]
    lost = sum((rung.finalists - left) * rung.step for rung, left in zip(rungs, survivors, strict=True))
    scored = 2 * plan.algorithm.budget * plan.sentences / speed.scored_sentences_s
    tested = corpus.test_pairs / speed.translated_sentences_s
    trainings = 2 if wish.with_baseline else 1
    return supernet + (trainings + 0.98 * lost / plan.steps) * training + scored + tested + corpus.prepare_s


@given(st.sampled_from(SCALES), facts(), speeds(), wishes())
def test_the_estimate_holds_all_that_the_recipe_says(scale, corpus, speed, wish):
    try:
        plan = plan_scale(scale, corpus, speed, wish)
    except DoesNotFit:
        return
    assert 3600 * plan.hours >= SAFETY * independent_seconds(plan, corpus, speed, wish)


@given(facts(), speeds(), wishes())
@example(CorpusFacts(16, 2, 2, 120.0, 0.1, 32, 100), TWO_CORES, Wish({"flops": "50%"}, 0.2))
@example(CorpusFacts(50_000_000, 2000, 2000, 1.2e9, 9000.0), TWO_CORES, Wish({"latency_ms": 20.0}, 100))
def test_every_recipe_can_be_loaded_and_says_what_was_planned(tmp_path_factory, corpus, speed, wish):
    try:
        plan = best_plan(lambda scale: (corpus, speed), wish)
    except DoesNotFit:
        assume(False)
    folder = tmp_path_factory.mktemp("project")
    protocol = MeasuringProtocol(backend="onnx", precision="int8", threads=3)
    (folder / RECIPE).write_text(recipe_text("my-project", DATA, plan, wish, protocol), encoding="utf-8")
    (folder / SPACE).write_text(space_text(plan.scale), encoding="utf-8")
    save_architecture(plan.scale.baseline, folder / BASELINE)
    loaded = load_recipe(folder / RECIPE)
    recipe = loaded.recipe
    assert loaded.space == plan.scale.space == load_space(folder / SPACE)
    assert recipe.search.constraints == wish.bounds
    assert (recipe.training.steps, recipe.supernet.steps) == (plan.steps, plan.supernet_steps)
    assert recipe.training.batch_tokens == recipe.supernet.batch_tokens == plan.batch_tokens
    assert recipe.training.precision == recipe.supernet.precision == wish.precision
    assert recipe.search.algorithm == plan.algorithm
    assert (recipe.latency.backend, recipe.latency.precision, recipe.latency.threads) == ("onnx", "int8", 3)
    assert ("dense" in loaded.architectures) == wish.with_baseline
    assert loaded.baseline == (
        plan.scale.baseline if wish.with_baseline else plan.scale.space.largest_dense()
    )
    assert recipe.data.train.path == str(folder / "data" / "train.tsv")


@pytest.mark.parametrize(
    "text",
    ["no", "on", "a: b # c", 'say "x"', "back\\slash", " edge ", "über\u2028line\x85", "🙂", "1e3", "~"],
)
def test_whatever_a_path_or_a_code_spells_stays_text(tmp_path, text):
    plan = plan_scale(SMALL, EN_DE, TWO_CORES, Wish({"flops": 1e8}, 1))
    data = dataclasses.replace(DATA, train=CorpusSource(path=f"x/{text}.tsv"), source_language=text)
    (tmp_path / RECIPE).write_text(
        recipe_text("n", data, plan, Wish({"flops": 1e8}, 1), MeasuringProtocol()), encoding="utf-8"
    )
    (tmp_path / SPACE).write_text(space_text(plan.scale), encoding="utf-8")
    recipe = load_recipe(tmp_path / RECIPE).recipe
    assert recipe.data.source_language == text
    assert recipe.data.train.path == str(tmp_path / "x" / f"{text}.tsv")


def looking(corpus: CorpusFacts, slower: float):
    """A machine on which each scale is so many times slower than the one before; and what was looked at."""
    seen = []

    def look(scale):
        seen.append(scale.name)
        factor = slower ** SCALES.index(scale)
        return corpus, dataclasses.replace(
            TWO_CORES,
            supernet_tokens_s=40_000 / factor,
            member_tokens_s=50_000 / factor,
            member=next(iter(scale.ladder())),
        )

    return look, seen


@pytest.mark.parametrize(
    ("pairs", "hours", "scale", "looked_at"),
    [
        (20, 1, "tiny", ["tiny"]),  # there is nothing to learn for a larger one
        (40_000, 0.25, "small", ["tiny", "small"]),
        (40_000, 10, "medium", ["tiny", "small", "medium"]),
        (50_000_000, 200, "large", ["tiny", "small", "medium", "large"]),
        (50_000_000, 0.1, "tiny", ["tiny", "small"]),  # there is no time for a larger one
    ],
)
def test_text_and_time_decide_how_large_models_may_be(pairs, hours, scale, looked_at):
    corpus = dataclasses.replace(
        EN_DE, train_pairs=pairs, target_tokens=20.0 * pairs, valid_pairs=min(1000, pairs // 10)
    )
    look, seen = looking(corpus, slower=4.0)
    plan = best_plan(look, Wish({"latency_ms": "33%"}, hours))
    assert (plan.scale.name, seen) == (scale, looked_at)
    assert plan.tokens >= plan.scale.least_tokens


def test_a_larger_scale_that_cannot_keep_the_budget_is_left():
    look, _ = looking(EN_DE, slower=1.5)

    def strict(scale):
        if scale is not SCALES[0]:
            raise DoesNotFit("too slow")
        return look(scale)

    assert best_plan(strict, Wish({"latency_ms": 5.0}, 1)).scale is SCALES[0]


def test_the_demos_corpus_gets_a_run_like_the_demos():
    plan = plan_scale(SMALL, EN_DE, TWO_CORES, Wish({"latency_ms": "40%"}, 0.25))
    demo = load_recipe("recipes/demo.yaml").recipe
    assert 0.5 * demo.training.steps < plan.steps < 2 * demo.training.steps
    assert plan.batch_tokens == demo.training.batch_tokens
    assert plan.algorithm == dataclasses.replace(ALGORITHMS[1]) == demo.search.algorithm
    assert plan.scale.space == load_space("recipes/spaces/demo.yaml")


@given(st.sampled_from(SCALES), logarithmic(1, 1e10), st.booleans())
def test_batches_are_never_more_than_a_part_of_the_text(scale, tokens, gpu):
    batch = batch_tokens(scale, tokens, gpu)
    assert 100 <= batch <= max(100, tokens / 20)


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.name)
def test_a_ladder_falls_from_the_largest_dense_member_to_the_smallest_member(scale):
    ladder = list(scale.ladder())
    assert ladder[0] == scale.space.largest_dense()
    assert ladder[-1] == scale.space.smallest()
    assert all(member in scale.space for member in ladder)


def test_the_member_that_is_timed_is_the_largest_that_keeps_every_bound():
    ladder = list(SMALL.ladder())
    latencies = {member: 10.0 - index for index, member in enumerate(ladder)} | {SMALL.baseline: 20.0}
    conditions = Conditions(MeasuringProtocol(), latencies.__getitem__)

    def found(**bounds):
        return largest_within_budget(SMALL, conditions, Wish(bounds, 1))

    assert found(latency_ms=100.0) == ladder[0]
    assert found(latency_ms=8.5) == ladder[2]
    assert found(latency_ms="45%") == ladder[1]
    assert found(latency_ms=8.5, flops=1e12) == ladder[2]
    with pytest.raises(DoesNotFit) as caught:
        found(latency_ms=2.0, flops=1e12)
    smallest = latencies[ladder[-1]]
    assert f"latency_ms: {smallest:.4g} ms for the smallest, 2 allowed" in str(caught.value)
