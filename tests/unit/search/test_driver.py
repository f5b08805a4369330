"""The loop of every search, with strategies made up for the purpose; and what two real ones did, recorded."""

import json
import random

import pytest

from automoe.search import log
from automoe.search.constraint import Constraint
from automoe.search.driver import run_search
from automoe.search.evaluator import Price
from automoe.search.evolution import EvolutionSettings, evolution
from automoe.search.log import CandidateLog, SearchName
from automoe.search.random_search import random_search
from automoe.search.strategy import TRIES_PER_CANDIDATE, Proposal, new_candidates
from automoe.storage import append_to_journal, digest
from helpers import toy_space
from helpers.toy_space import Counted, ToySpace, build

NAME = SearchName("mine", "made up", "whole")
SMALL = EvolutionSettings(iterations=4, population=12, parents=6, mutations=6, crossovers=6)
COSTS = {"flops": Price(toy_space.flops), "latency_ms": Price(toy_space.latency_ms, measured=True)}
BOUNDS = (Constraint("flops", 1000), Constraint("latency_ms", 12))


def search(strategy, path, **changes):
    arguments = {
        "search": NAME, "space": ToySpace(), "strategy": strategy, "constraints": BOUNDS, "prices": COSTS,
        "score": toy_space.score, "rng": random.Random(0), "log": CandidateLog(path / "candidates.jsonl"),
    }  # fmt: skip
    return run_search(**arguments | changes)


@pytest.mark.parametrize(
    ("strategy", "recorded"),
    [
        (evolution(SMALL), "633be8ad3c8ac4a0633b4a2a09529a31ac08053027eab17275f781837dcd2435"),
        (random_search(30), "0047398005e64b43cd5567416ec3dabbe5dca49d692d354dad98ae6d51c1d408"),
    ],
    ids=["evolution", "random"],
)
def test_the_sequence_of_candidates_is_the_recorded_one(tmp_path, strategy, recorded):
    """A run folder of an older version continues only if the same seed still proposes the same."""
    search(strategy, tmp_path)
    lines = map(json.loads, (tmp_path / "candidates.jsonl").read_text().splitlines())
    columns = ("iteration", "index", "feasible", "flops", "latency_ms", "score", "description")
    assert digest([[line.get(column) for column in columns] for line in lines]) == recorded


def test_a_strategy_is_told_the_scored_candidate_or_none(tmp_path):
    good, slow = (build([width, 8, 1, 8, 1, 8, 2, 8]) for width in (16, 32))
    heavy = build([32] * 2 + [1, 32] * 3)
    assert toy_space.flops(heavy) > 1000 >= toy_space.flops(slow)
    bounds = (Constraint("flops", 1000), Constraint("latency_ms", toy_space.latency_ms(slow) - 0.1))
    told = []

    def strategy(space, feasible, rng):
        for iteration, architecture in enumerate((good, heavy, slow, good)):
            told.append((yield Proposal(architecture, iteration)))

    latency = Counted(toy_space.latency_ms)
    costs = COSTS | {"latency_ms": Price(latency, measured=True)}
    result = search(strategy, tmp_path, constraints=bounds, prices=costs)
    (candidate,) = result.candidates
    assert told == [candidate, None, None, None]
    assert result.best == candidate
    assert candidate.costs == {name: price.of(good) for name, price in COSTS.items()}
    assert candidate.score == toy_space.score(good)
    assert heavy not in latency.calls
    entries = [e for e in CandidateLog(tmp_path / "candidates.jsonl").entries if e.search == NAME]
    assert [(e.candidate.architecture, e.iteration, e.index, e.feasible) for e in entries] == [
        (good, 0, 0, True), (heavy, 1, 1, False), (slow, 2, 2, False),
    ]  # fmt: skip


def test_a_strategy_is_given_a_feasible_member_and_one_that_finds_none_is_a_mistake(tmp_path):
    given = []

    def nothing(space, feasible, rng):
        given.append(feasible)
        yield Proposal(build([32] * 2 + [1, 32] * 3), 0)

    with pytest.raises(ValueError, match="made up proposed nothing feasible"):
        search(nothing, tmp_path)
    (feasible,) = given
    assert all(bound.holds({name: price.of(feasible) for name, price in COSTS.items()}) for bound in BOUNDS)


def test_an_error_of_the_score_reaches_the_caller(tmp_path):
    def stop(architecture):
        raise StopIteration("out of data")

    with pytest.raises(StopIteration, match="out of data"):
        search(random_search(3), tmp_path, score=stop)


def test_the_disk_is_waited_for_only_where_an_evaluation_took_long(tmp_path, monkeypatch):
    waited = {}

    def append(path, records, *, durable):
        waited.update({record["description"]: (durable, record) for record in records})
        append_to_journal(path, records, durable=durable)

    monkeypatch.setattr(log, "append_to_journal", append)
    search(evolution(SMALL), tmp_path)
    assert {durable for durable, _ in waited.values()} == {True, False}
    for durable, record in waited.values():
        assert durable == (record["score"] is not None or "latency_ms" in record)


def test_a_bound_from_below_is_kept(tmp_path):
    costs = COSTS | {"throughput_sentences_s": Price(lambda a: 1000 / toy_space.latency_ms(a), measured=True)}
    fast = Constraint("throughput_sentences_s", 100, at_least=True)
    result = search(evolution(SMALL), tmp_path, constraints=(BOUNDS[0], fast), prices=costs)
    found = [candidate.costs["throughput_sentences_s"] for candidate in result.candidates]
    assert min(found) >= 100
    assert len(found) > SMALL.population
    logged = CandidateLog(tmp_path / "candidates.jsonl").entries
    slow = [e for e in logged if e.candidate.costs.get("throughput_sentences_s", 100) < 100]
    assert slow
    assert not any(e.feasible for e in slow)


@pytest.mark.parametrize("feasible_one_in", [1, 3, 200])
def test_new_candidates_end_when_enough_are_found_or_tries_run_out(feasible_one_in):
    """The oracle counts: every n-th proposal is told to be feasible."""
    wanted = 4
    found = []

    def strategy(space, feasible, rng):
        found.extend((yield from new_candidates(space.smallest, wanted, iteration=7)))

    told = []
    proposals = strategy(ToySpace(), None, None)
    proposal = next(proposals)
    while proposal is not None:
        assert proposal == Proposal(ToySpace().smallest(), 7)
        told.append(len(told) + 1 if (len(told) + 1) % feasible_one_in == 0 else None)
        try:
            proposal = proposals.send(told[-1])
        except StopIteration:
            proposal = None
    assert found == [number for number in told if number is not None]
    assert len(told) == min(wanted * feasible_one_in, wanted * TRIES_PER_CANDIDATE)
    assert len(found) == min(wanted, wanted * TRIES_PER_CANDIDATE // feasible_one_in)
