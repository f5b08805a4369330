"""The one loop of every search: a strategy proposes; its proposals are priced, scored, logged, and told."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from automoe.errors import InputError
from automoe.search.candidate import Candidate, score_of
from automoe.search.constraint import Constraint
from automoe.search.evaluator import Evaluator, Price, Pricing, Score
from automoe.search.feasibility import check_feasible
from automoe.search.log import CandidateLog, SearchName
from automoe.search.strategy import Proposal, Proposals, Space, Strategy

SearchProgress = Callable[[int, float], None]
"""Called after each scored candidate: (scored so far, best score)."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Args:
        best: the feasible candidate with the lowest score; of equals the first.
        candidates: all scored (so feasible) candidates, in the order they were evaluated.
        refusals: why each architecture that could not be priced was left out.
    """

    best: Candidate
    candidates: tuple[Candidate, ...]
    refusals: tuple[InputError, ...] = ()


def run_search(
    search: SearchName,
    space: Space,
    strategy: Strategy,
    constraints: Sequence[Constraint],
    prices: Mapping[str, Price],
    score: Score,
    rng: random.Random,
    log: CandidateLog,
    progress: SearchProgress | None = None,
) -> SearchResult:
    """The best architecture of `space` that `strategy` finds under the constraints.

    Args:
        search: its name in the log.
        prices: cost name -> how it is found. All are logged; a measured one is asked for only of candidates
            that satisfy the constraints on the others. One that it refuses to price is not feasible.
        score: lower is better; called for feasible candidates only, once each.
        rng: seeded alike, with the same `log`, it continues a search that was killed.

    Raises:
        InputError: no member of the space satisfies the constraints, or one is on a cost not in `prices`.
        ValueError: a cost or score is not finite.
    """
    feasible = check_feasible(space, constraints, prices, rng, log, space_name=search.space)
    pricing = Pricing(prices, constraints, log)
    evaluator = Evaluator(search, pricing, score, log)
    scored: list[Candidate] = []
    best: Candidate | None = None
    proposals = strategy(space, feasible, rng)
    proposal = _next(proposals, None)
    while proposal is not None:
        candidate = evaluator.evaluate(proposal.architecture, proposal.iteration)
        if candidate is not None:
            scored.append(candidate)
            if best is None or score_of(candidate) < score_of(best):
                best = candidate
            if progress:
                progress(len(scored), score_of(best))
        proposal = _next(proposals, candidate)
    if best is None:
        raise ValueError(f"the strategy {search.strategy} proposed nothing feasible, not even {feasible}")
    return SearchResult(best, tuple(scored), tuple(pricing.refusals.values()))


def _next(proposals: Proposals, told: Candidate | None) -> Proposal | None:
    """The next proposal, after telling what became of the one before; None at the end."""
    try:
        return proposals.send(told)
    except StopIteration:
        return None
