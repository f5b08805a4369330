"""The search finds the best member of a space that brute force can list."""

import random

import pandas
import pytest

from automoe.search.candidate import front
from automoe.search.constraint import parse_constraints
from automoe.search.driver import run_search
from automoe.search.evaluator import Price
from automoe.search.evolution import EvolutionSettings, evolution
from automoe.search.log import CandidateLog, SearchName
from helpers import toy_space

pytestmark = pytest.mark.slow

COSTS = {"flops": toy_space.flops, "latency_ms": toy_space.latency_ms}


@pytest.mark.parametrize("bounds", [{}, {"flops": 900}, {"latency_ms": 9}, {"flops": 1200, "latency_ms": 11}])
def test_evolution_finds_the_best_member_under_constraints(tmp_path, bounds):
    space = toy_space.ToySpace()
    feasible = [
        member for member in space.members() if all(COSTS[c](member) <= most for c, most in bounds.items())
    ]
    best = min(feasible, key=toy_space.score)
    settings = EvolutionSettings(iterations=12, population=40, parents=12, mutations=15, crossovers=15)
    assert settings.budget < 0.21 * 1944
    result = run_search(
        SearchName("automoe", "evolution", "whole"),
        space,
        evolution(settings),
        parse_constraints(bounds, dict.fromkeys(COSTS, False)),
        {"flops": Price(toy_space.flops), "latency_ms": Price(toy_space.latency_ms, measured=True)},
        toy_space.score,
        random.Random(1),
        CandidateLog(tmp_path / "candidates.jsonl"),
    )
    assert result.best.architecture == best

    table = pandas.read_json(tmp_path / "candidates.jsonl", lines=True)
    scored = table[table["score"].notna()]
    assert scored.loc[scored["score"].idxmin(), "architecture"] == best.to_dict()
    assert result.best in front(result.candidates, "flops")
