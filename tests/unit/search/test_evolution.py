"""Evolution, random search, the feasibility check and the front, on a space of 1,944 members."""

import random

import pytest

from automoe.errors import InputError
from automoe.search.constraint import Constraint
from automoe.search.driver import run_search
from automoe.search.evaluator import Price
from automoe.search.evolution import EvolutionSettings, evolution
from automoe.search.feasibility import MEASUREMENTS, check_feasible
from automoe.search.log import CandidateLog, SearchName
from automoe.search.random_search import random_search
from helpers import toy_space
from helpers.toy_space import Counted, ToySpace

SMALL = EvolutionSettings(iterations=4, population=12, parents=6, mutations=6, crossovers=6)
BOUNDS = (Constraint("flops", 1000), Constraint("latency_ms", 12))
COSTS = {"flops": toy_space.flops, "latency_ms": toy_space.latency_ms}


AUTOMOE = SearchName("automoe", "evolution", "whole")
RANDOM = SearchName("random", "random", "whole")


def prices(costs):
    return {name: Price(cost, measured=name == "latency_ms") for name, cost in costs.items()}


def search(path, seed=0, **changes):
    arguments = {
        "search": AUTOMOE,
        "space": ToySpace(),
        "strategy": evolution(SMALL),
        "constraints": BOUNDS,
        "costs": COSTS,
        "score": toy_space.score,
        "rng": random.Random(seed),
        "log": CandidateLog(path),
    } | changes
    return run_search(**arguments | {"prices": prices(arguments.pop("costs"))})


def search_at_random(path, budget, seed=0, **changes):
    return search(path, seed, **{"search": RANDOM, "strategy": random_search(budget)} | changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "candidates.jsonl"


def test_the_defaults_are_the_papers():
    paper = EvolutionSettings()
    assert (paper.iterations, paper.population, paper.parents) == (15, 125, 25)
    assert (paper.mutations, paper.mutation_probability, paper.crossovers) == (50, 0.3, 50)
    assert paper.budget == 125 + 15 * 100


def test_every_setting_out_of_range_is_listed():
    with pytest.raises(InputError) as caught:
        EvolutionSettings(iterations=-1, population=5, parents=0, mutation_probability=1.5, crossovers=-2)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "iterations", "parents", "mutation_probability", "crossovers",
    ]  # fmt: skip
    with pytest.raises(InputError, match="parents: 6, but the population has only 5"):
        EvolutionSettings(population=5, parents=6)
    with pytest.raises(InputError, match="budget: expected at least 1, got 0"):
        random_search(0)


def test_all_scored_candidates_are_feasible_distinct_and_within_the_budget(path):
    result = search(path)
    members = [candidate.architecture for candidate in result.candidates]
    assert len(members) == len(set(members))
    # Crossovers of few, alike parents may all be known already: a generation is then smaller.
    assert 0.9 * SMALL.budget <= len(members) <= SMALL.budget
    for candidate in result.candidates:
        assert candidate.costs == {name: cost(candidate.architecture) for name, cost in COSTS.items()}
        assert candidate.costs["flops"] <= 1000
        assert candidate.costs["latency_ms"] <= 12
        assert candidate.score == toy_space.score(candidate.architecture)
    assert result.best.score == min(candidate.score for candidate in result.candidates)


def test_nothing_is_evaluated_twice_and_only_what_counting_allows_is_measured(path):
    flops, latency, score = Counted(toy_space.flops), Counted(toy_space.latency_ms), Counted(toy_space.score)
    result = search(path, costs={"latency_ms": latency, "flops": flops}, score=score)
    for counted in (flops, latency, score):
        assert len(counted.calls) == len(set(counted.calls))
    assert all(toy_space.flops(architecture) <= 1000 for architecture in latency.calls)
    assert score.calls == [candidate.architecture for candidate in result.candidates]
    assert len(flops.calls) > len(latency.calls) > len(score.calls)


def test_every_evaluated_candidate_is_logged_the_infeasible_ones_without_a_score(path):
    latency = Counted(toy_space.latency_ms)
    result = search(path, costs=COSTS | {"latency_ms": latency})
    entries = [entry for entry in CandidateLog(path).entries if entry.search == AUTOMOE]
    assert [entry.index for entry in entries] == list(range(len(entries)))
    assert {entry.iteration for entry in entries} == set(range(SMALL.iterations + 1))
    assert tuple(entry.candidate for entry in entries if entry.feasible) == result.candidates
    infeasible = [entry.candidate for entry in entries if not entry.feasible]
    assert infeasible
    assert all(candidate.score is None and "flops" in candidate.costs for candidate in infeasible)
    logged = {
        e.candidate.architecture for e in CandidateLog(path).entries if "latency_ms" in e.candidate.costs
    }
    assert logged == set(latency.calls)


def test_parents_of_each_generation_are_the_best_of_the_one_before(path):
    """The oracle replays Algorithm 1 on the log: who was in each population, and who bred."""
    bred = []

    class Watched(ToySpace):
        def mutate(self, parent, probability, rng):
            bred.append({parent})
            assert probability == SMALL.mutation_probability
            return super().mutate(parent, probability, rng)

        def cross(self, a, b, rng):
            assert a != b
            bred.append({a, b})
            return super().cross(a, b, rng)

    search(path, space=Watched())
    scored = [entry for entry in CandidateLog(path).entries if entry.candidate.score is not None]
    population = [entry.candidate for entry in scored if entry.iteration == 0]
    expected_parents = []
    for iteration in range(1, SMALL.iterations + 1):
        parents = sorted(population, key=lambda candidate: candidate.score)[: SMALL.parents]
        expected_parents.append({parent.architecture for parent in parents})
        population = parents + [e.candidate for e in scored if e.iteration == iteration]
    # Every breeding pair lies inside the parents of one generation, and generations come in order.
    generation = 0
    for pair in bred:
        while not pair <= expected_parents[generation]:
            generation += 1
    assert generation == SMALL.iterations - 1


def test_the_same_seed_finds_the_same_and_another_seed_something_else(tmp_path):
    first, again, other = (search(tmp_path / f"{run}.jsonl", seed) for run, seed in enumerate((0, 0, 1)))
    assert first == again
    assert first.candidates != other.candidates


@pytest.mark.parametrize("fail_after", [0, 1, 11, 12, 13, 30, -1])
def test_a_search_that_was_killed_continues_to_the_same_result(tmp_path, fail_after):
    whole_path, killed_path = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    expected = search(whole_path)
    noise = random.Random(5)
    measured = {}

    def noisy_latency(architecture):
        """A device never measures the same twice; the log must answer for the first measurement."""
        assert architecture not in measured or architecture == in_hand
        measured[architecture] = toy_space.latency_ms(architecture)
        return measured[architecture] + noise.random() * 1e-6

    first = Counted(toy_space.score, fail_after % len(expected.candidates))
    in_hand = None
    with pytest.raises(KeyboardInterrupt):
        search(killed_path, score=first, costs=COSTS | {"latency_ms": noisy_latency})
    # The candidate in hand has been measured but not yet scored, and is not in the log.
    in_hand = list(measured)[-1]
    second = Counted(toy_space.score)
    resumed = search(killed_path, score=second, costs=COSTS | {"latency_ms": noisy_latency})
    assert [c.architecture for c in resumed.candidates] == [c.architecture for c in expected.candidates]
    assert resumed.best.architecture == expected.best.architecture
    calls = first.calls + second.calls
    assert calls == [candidate.architecture for candidate in expected.candidates]
    assert len(CandidateLog(killed_path).entries) == len(CandidateLog(whole_path).entries)


def test_a_finished_search_run_again_evaluates_nothing(path):
    def never(architecture):
        raise AssertionError(f"{architecture} was evaluated again")

    first = search(path)
    content = path.read_bytes()
    assert search(path, costs={"flops": never, "latency_ms": never}, score=never) == first
    assert path.read_bytes() == content


def test_random_search_scores_as_many_and_shares_what_evolution_found(path):
    small = ToySpace(genes=((8, 16), (8,), (1, 2), (8, 16), (1, 2), (8,), (1, 2), (8,)))
    score = Counted(toy_space.score)
    log = CandidateLog(path)
    search(path, space=small, score=score, constraints=(), log=log)
    result = search_at_random(path, 10, seed=3, space=small, constraints=(), score=score, log=log)
    assert len({candidate.architecture for candidate in result.candidates}) == 10
    assert len(score.calls) == len(set(score.calls))
    rows = [entry for entry in CandidateLog(path).entries if entry.search == RANDOM]
    assert tuple(entry.candidate for entry in rows) == result.candidates


def test_a_small_space_is_searched_to_its_end_and_no_further(path):
    small = ToySpace(genes=((8, 16), (8,), (1, 2), (8, 16), (1,), (8,), (1,), (8,)))
    expected = {a for a in small.members() if toy_space.flops(a) <= 300}
    assert 0 < len(expected) < 8
    bounds = (Constraint("flops", 300),)
    for result in (
        search(path, space=small, constraints=bounds),
        search_at_random(path, 50, space=small, constraints=bounds),
    ):
        assert {candidate.architecture for candidate in result.candidates} == expected
        assert result.best.architecture == min(expected, key=toy_space.score)


def test_in_a_space_of_one_member_that_one_is_scored_once(path):
    single = ToySpace(genes=tuple(choices[:1] for choices in toy_space.GENES))
    result = search(path, space=single, constraints=())
    assert [candidate.architecture for candidate in result.candidates] == list(single.members())


def test_the_smallest_member_starts_the_search_when_sampling_finds_nothing_else(path):
    smallest = ToySpace().smallest()
    bounds = (Constraint("flops", toy_space.flops(smallest)), Constraint("latency_ms", 5.5))

    class Unlucky(ToySpace):
        def sample(self, rng):
            return toy_space.build([max(choices) for choices in self.genes])

    result = search(path, space=Unlucky(), constraints=bounds)
    assert result.best.architecture == smallest


def test_progress_reports_each_scored_candidate_and_the_best_so_far(path):
    reports = []
    result = search(path, progress=lambda *report: reports.append(report))
    scores = [candidate.score for candidate in result.candidates]
    assert reports == [(count, min(scores[:count])) for count in range(1, len(result.candidates) + 1)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_or_cost_that_cannot_be_ranked_stops_the_search_and_names_the_architecture(path, value):
    with pytest.raises(ValueError, match=r"score of .*enc\["):
        search(path, score=lambda a: value)
    with pytest.raises(ValueError, match=r"flops of .*enc\["):
        search(path.with_name("other.jsonl"), costs=COSTS | {"flops": lambda a: value})


def test_constraints_that_nothing_satisfies_are_reported_with_the_nearest_values(path):
    members = list(ToySpace().members())
    latency = Counted(toy_space.latency_ms)
    bounds = (Constraint("flops", 250), Constraint("latency_ms", 1))
    with pytest.raises(InputError, match="no architecture") as caught:
        search(path, constraints=bounds, costs=COSTS | {"latency_ms": latency})
    flops_line, latency_line, mend = caught.value.problems
    least = {name: min(map(cost, members)) for name, cost in COSTS.items()}
    assert flops_line.startswith("flops <= 250: kept")
    assert flops_line.endswith(f"lowest found {least['flops']:,.6g}")
    assert latency_line.startswith("latency_ms <= 1: broken")
    assert f"needs {least['latency_ms']:,.6g}" in latency_line
    assert "raise the bounds" in mend
    assert len(latency.calls) <= MEASUREMENTS


def test_bounds_that_only_counting_breaks_still_name_a_latency(path):
    bounds = (Constraint("flops", 1), Constraint("latency_ms", 1000))
    with pytest.raises(InputError, match="flops <= 1: broken") as caught:
        search(path, constraints=bounds)
    assert "latency_ms <= 1,000: kept" in str(caught.value)
    assert CandidateLog(path).known(ToySpace().smallest()).costs == {
        name: cost(ToySpace().smallest()) for name, cost in COSTS.items()
    }


def test_a_member_is_found_when_the_smallest_is_not_the_cheapest(path):
    """Latency need not grow with size: here only members with a wide encoder are fast enough."""

    def odd_latency(a):
        return 100.0 if a.encoder_width == 8 else 1.0

    bounds = (Constraint("latency_ms", 5),)
    found = check_feasible(
        ToySpace(),
        bounds,
        prices(COSTS | {"latency_ms": odd_latency}),
        random.Random(0),
        CandidateLog(path),
    )
    assert found.encoder_width > 8


def test_a_constraint_on_a_cost_that_cannot_be_computed_is_bad_input(path):
    with pytest.raises(InputError, match=r"parameters <= 10: no way .*flops, latency_ms"):
        search(path, constraints=(Constraint("parameters", 10),))


def narrow_latency(a):
    """A source that can price narrow encoders only."""
    if a.encoder_width > 16:
        raise InputError("this latency cannot be predicted", [f"encoder_width: {a.encoder_width}"])
    return toy_space.latency_ms(a)


@pytest.mark.parametrize("strategy", ["evolution", "random"])
def test_what_cannot_be_priced_is_not_feasible_and_is_counted(path, strategy):
    latency, score = Counted(narrow_latency), Counted(toy_space.score)
    costs = COSTS | {"latency_ms": latency}
    if strategy == "evolution":
        result = search(path, costs=costs, score=score)
    else:
        result = search_at_random(path, 30, costs=costs, score=score)
    assert all(candidate.architecture.encoder_width <= 16 for candidate in result.candidates)
    assert all(architecture.encoder_width <= 16 for architecture in score.calls)
    refused = [a for a in latency.calls if a.encoder_width > 16]
    assert len(result.refusals) == len(refused) == len(set(refused)) > 0
    assert "cannot be predicted" in str(result.refusals[0])
    logged = {e.candidate.architecture: e for e in CandidateLog(path).entries}
    assert not any(logged[a].feasible or "latency_ms" in logged[a].candidate.costs for a in refused)


def test_without_a_bound_on_the_latency_what_cannot_be_priced_is_a_candidate_like_any_other(path):
    costs = COSTS | {"latency_ms": narrow_latency}
    result = search(path, constraints=(Constraint("flops", 1000),), costs=costs)
    assert any("latency_ms" not in candidate.costs for candidate in result.candidates)


def test_when_nothing_can_be_priced_the_error_says_why(path):
    def refuse(architecture):
        raise InputError("the latency cannot be predicted", ["decoder[0].experts: 3 experts"])

    with pytest.raises(InputError, match="no architecture") as caught:
        search(path, constraints=(Constraint("latency_ms", 12),), costs=COSTS | {"latency_ms": refuse})
    refusals, latency_line, _ = caught.value.problems
    assert "could not be priced" in refusals
    assert "decoder[0].experts: 3 experts" in refusals
    assert latency_line == "latency_ms <= 12: this cost could not be computed for any of them"
    assert not any(entry.feasible for entry in CandidateLog(path).entries)


def test_a_member_that_can_be_priced_is_found_behind_many_that_cannot(path):
    """Refusals cost nothing, so they do not count among the measurements."""
    bounds = (Constraint("latency_ms", 1000),)

    def only_one_width(a):
        if {a.encoder_width, a.decoder_width, *a.encoder[0].ffn_sizes, *a.encoder[1].ffn_sizes} != {32}:
            raise InputError("no price")
        return 1.0

    costs = prices(COSTS | {"latency_ms": only_one_width})
    found = check_feasible(ToySpace(), bounds, costs, random.Random(0), CandidateLog(path))
    assert (found.encoder_width, found.decoder_width) == (32, 32)
    tried = [entry for entry in CandidateLog(path).entries if entry.search.system == "feasibility"]
    assert len(tried) > MEASUREMENTS
