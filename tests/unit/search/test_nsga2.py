"""NSGA-II on a space of 1,944 members: its front, its log, and its end after a kill."""

import random

import pytest

from automoe.errors import InputError
from automoe.search.candidate import Candidate
from automoe.search.constraint import Constraint
from automoe.search.driver import run_search
from automoe.search.evaluator import Price
from automoe.search.evolution import EvolutionSettings
from automoe.search.log import CandidateLog, SearchName
from automoe.search.nsga2 import nsga2
from automoe.search.pareto import SearchObjective, best_spread, non_dominated
from helpers import toy_space
from helpers.toy_space import Counted, ToySpace

SMALL = EvolutionSettings(iterations=4, population=12, parents=6, mutations=6, crossovers=6)
OBJECTIVES = (SearchObjective("loss"), SearchObjective("flops"))
NAME = SearchName("front", "nsga2", "whole")


def search(path, *, settings=SMALL, objectives=OBJECTIVES, bounds=(), space=None, seed=0, **changes):
    latency = changes.get("latency_ms", toy_space.latency_ms)
    costs = {"flops": Price(toy_space.flops), "latency_ms": Price(latency, measured=True)}
    return run_search(
        NAME,
        space or ToySpace(),
        nsga2(settings, objectives),
        bounds,
        costs,
        changes.get("score", toy_space.score),
        random.Random(seed),
        CandidateLog(path),
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "candidates.jsonl"


@pytest.mark.parametrize(("cost", "most_flops"), [("flops", None), ("latency_ms", 900)])
def test_it_finds_the_front_that_brute_force_lists(path, cost, most_flops):
    one_head = (1,)
    genes = (*toy_space.GENES[:4], one_head, toy_space.FFN_SIZES, one_head, toy_space.FFN_SIZES)
    space = ToySpace(genes)
    members = list(space.members())
    bounds = () if most_flops is None else (Constraint("flops", most_flops),)
    every = [
        Candidate(a, {"flops": toy_space.flops(a), "latency_ms": toy_space.latency_ms(a)}, toy_space.score(a))
        for a in members
        if most_flops is None or toy_space.flops(a) <= most_flops
    ]
    objectives = (SearchObjective("loss"), SearchObjective(cost))
    expected = non_dominated(every, objectives)
    assert len(expected) > 8
    settings = EvolutionSettings(iterations=9, population=30, parents=15, mutations=10, crossovers=10)
    assert settings.budget < 0.45 * len(members)
    result = search(path, settings=settings, objectives=objectives, bounds=bounds, space=space)
    assert {c.architecture for c in non_dominated(result.candidates, objectives)} == {
        c.architecture for c in expected
    }


def test_parents_of_each_generation_are_the_best_spread_of_the_one_before(path):
    """The oracle replays the log: who was in each population, and who bred."""
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
    scored = [e for e in CandidateLog(path).entries if e.candidate.score is not None]
    population = [e.candidate for e in scored if e.iteration == 0]
    expected = []
    for iteration in range(1, SMALL.iterations + 1):
        parents = best_spread(population, OBJECTIVES, SMALL.parents)
        expected.append({parent.architecture for parent in parents})
        population = parents + [e.candidate for e in scored if e.iteration == iteration]
    generation = 0
    for pair in bred:
        while not pair <= expected[generation]:
            generation += 1
    assert generation == SMALL.iterations - 1


def test_the_same_seed_finds_the_same_within_the_bounds(tmp_path):
    bounds = (Constraint("flops", 1000), Constraint("latency_ms", 12))
    first, again, other = (
        search(tmp_path / f"{run}.jsonl", seed=seed, bounds=bounds) for run, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert first.candidates != other.candidates
    assert len(first.candidates) <= SMALL.budget
    assert all(c.costs["flops"] <= 1000 and c.costs["latency_ms"] <= 12 for c in first.candidates)


@pytest.mark.parametrize("fail_after", [0, 11, 12, 30, -1])
def test_a_search_that_was_killed_continues_to_the_same_result(tmp_path, fail_after):
    expected = search(tmp_path / "whole.jsonl")
    first = Counted(toy_space.score, fail_after % len(expected.candidates))
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "killed.jsonl", score=first)
    second = Counted(toy_space.score)
    assert search(tmp_path / "killed.jsonl", score=second) == expected
    assert first.calls + second.calls == [c.architecture for c in expected.candidates]
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_has_no_price_in_an_objective_is_not_bred_from(path):
    bred = []

    class Watched(ToySpace):
        def mutate(self, parent, probability, rng):
            bred.append(parent)
            return super().mutate(parent, probability, rng)

    def narrow(a):
        if a.encoder_width > 16:
            raise InputError("no price", ["encoder_width"])
        return toy_space.latency_ms(a)

    objectives = (SearchObjective("loss"), SearchObjective("latency_ms"))
    result = search(path, space=Watched(), objectives=objectives, latency_ms=narrow)
    assert any(c.architecture.encoder_width > 16 for c in result.candidates)
    assert bred
    assert all(a.encoder_width <= 16 for a in bred)


def test_a_search_whose_objective_nothing_has_ends_after_its_first_population(path):
    def never(a):
        raise InputError("no price", ["at all"])

    objectives = (SearchObjective("loss"), SearchObjective("latency_ms"))
    assert len(search(path, objectives=objectives, latency_ms=never).candidates) == SMALL.population


def test_a_small_space_is_searched_to_its_end(path):
    small = ToySpace(genes=((8, 16), (8,), (1, 2), (8, 16), (1,), (8,), (1,), (8,)))
    result = search(path, space=small)
    assert {c.architecture for c in result.candidates} == set(small.members())


@pytest.mark.parametrize("names", [[], ["loss"], ["loss", "loss"]])
def test_a_front_needs_two_objectives(names):
    with pytest.raises(InputError, match="expected at least two, each once"):
        nsga2(SMALL, tuple(map(SearchObjective, names)))
