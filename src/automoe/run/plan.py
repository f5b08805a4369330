"""How a run's time is divided: facts of a corpus, a machine's speeds and hours in, the recipe's numbers out.

Everything here is a pure function. A run takes the time of its parts:

    prepare, profile                what the corpus and the space take
    supernet                        steps * batch / speed of a supernet's step
    search                          candidates * sentences / speed of scoring
    losers of the finals            price * training
    training                        steps * batch / speed of the largest member that keeps the budget
    baseline                        as many minutes as the winner
    evaluation, latency             test sentences, runs

The steps of a training are as many as fit, those of the supernet in proportion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from automoe.cost.costs import Bound, measured_names, share_of
from automoe.cost.device.probes import probes
from automoe.cost.device.probing import TURNS
from automoe.design.architecture import Architecture
from automoe.design.space import SearchSpace
from automoe.errors import InputError
from automoe.run.scales import SCALES, Scale
from automoe.search.evolution import EvolutionSettings
from automoe.training.rules import active_parameters
from automoe.training.settings import Precision

SAFETY = 1.15  # machines drift, and a finalist may be a mixture, which trains a little slower
STARTUP_S, REPORT_S = 20.0, 15.0
# A probe of a device profile is measured in turns with a reference; a turn and its warm-up of both take about
# as long as so many sentences of the reference (78 s for 56 probes of 12 turns beside one of 12.6 ms).
SENTENCES_A_TURN = 10.0
SHORTEST_TURN_S = 0.1
SUPERNET_SHARE = 2 / 3  # of a training's steps
FINALS_PRICE = 0.6
MOST_EPOCHS = 20.0
DROPOUT_EPOCHS = 5.0  # seen more often, pairs are learned by heart
WARMUP_SHARE, MOST_WARMUP = 1 / 12, 200
FEWEST_STEPS = 60
MANY_STEPS = 4000  # from which on more finalists race
SEARCH_SHARE = 0.12  # of all the time
MOST_SCORED_SENTENCES = 300
TIMED_BASELINE_STEPS = 50
CPU_BATCH, GPU_BATCH, GPU_LARGE_BATCH, FEWEST_BATCH = 900, 8000, 16_000, 100
BATCHES_AN_EPOCH = 20
ALGORITHMS = (
    EvolutionSettings(iterations=2, population=16, parents=4, mutations=4, crossovers=4),
    EvolutionSettings(iterations=4, population=40, parents=10, mutations=10, crossovers=10),
    EvolutionSettings(iterations=8, population=60, parents=15, mutations=15, crossovers=15),
)


@dataclass(frozen=True)
class CorpusFacts:
    """What of a corpus decides how long things take.

    Attributes:
        train_pairs, valid_pairs, test_pairs: in the parts.
        target_tokens: of the training set, with an end for each sentence.
        prepare_s: training the vocabulary and tokenising, in seconds.
        vocabulary_size: of the vocabulary that these are the tokens of.
        max_tokens: longer pairs are left out of the training.
    """

    train_pairs: int
    valid_pairs: int
    test_pairs: int
    target_tokens: float
    prepare_s: float
    vocabulary_size: int = 4000
    max_tokens: int = 100


@dataclass(frozen=True)
class MachineSpeed:
    """What a machine does with the members of one scale, measured.

    Attributes:
        member: the largest dense member looked at that keeps the budget; the other speeds are its own.
        supernet_tokens_s, member_tokens_s: target tokens a second, of real steps of both trainings.
        scored_sentences_s: of validation losses. `translated_sentences_s`: of the test set's translation.
        member_s, reference_s, baseline_s: latencies by the recipe's protocol, in seconds: of the member, the
            space's largest dense member, and the scale's baseline.
    """

    member: Architecture
    supernet_tokens_s: float
    member_tokens_s: float
    scored_sentences_s: float
    translated_sentences_s: float
    member_s: float
    reference_s: float
    baseline_s: float


@dataclass(frozen=True)
class Wish:
    """What the user asks for.

    Attributes:
        bounds: cost name to bound; a share is of what the baseline costs.
        hours: of computing, at most.
        gpu: trainings use one.
        precision: of their products, Fabric's name.
    """

    bounds: Mapping[str, Bound]
    hours: float
    gpu: bool = False
    precision: Precision = "32-true"

    @property
    def with_baseline(self) -> bool:
        """Whether the baseline is trained, too: where the budget is a share of what it costs."""
        return any(share_of(bound) is not None for bound in self.bounds.values())


class DoesNotFit(InputError):  # noqa: N818  # as the field says it
    """No member of a scale keeps the budget, or no run with it fits into the time or the memory."""


@dataclass(frozen=True)
class RunPlan:
    """The numbers of a recipe.

    Attributes:
        scale: the space and its rates. `facts`: of the corpus. `batch_tokens`: target tokens a step.
        steps, supernet_steps, warmup_steps: of a training; the warm-up of both is the same.
        candidates, dense_candidates: of the finals.
        algorithm, sentences: of the search.
        validate_every, latency_runs, dropout: as in a recipe.
        epochs: how often a training sees its text.
        seconds: what each part of the run is expected to take, before `SAFETY`.
    """

    scale: Scale
    facts: CorpusFacts
    batch_tokens: int
    steps: int
    supernet_steps: int
    warmup_steps: int
    candidates: int
    dense_candidates: int
    algorithm: EvolutionSettings
    sentences: int
    validate_every: int
    latency_runs: int
    dropout: float
    epochs: float
    seconds: Mapping[str, float]

    @property
    def tokens(self) -> int:
        """Target tokens of one training."""
        return self.steps * self.batch_tokens

    @property
    def hours(self) -> float:
        """What the whole run is expected to take at most."""
        return SAFETY * sum(self.seconds.values()) / 3600


def batch_tokens(scale: Scale, target_tokens: float, gpu: bool) -> int:
    """Target tokens a step: what suits the device, less where the corpus is small."""
    large = scale.least_tokens >= SCALES[-1].least_tokens
    usual = (GPU_LARGE_BATCH if large else GPU_BATCH) if gpu else CPU_BATCH
    return max(FEWEST_BATCH, min(usual, int(target_tokens / BATCHES_AN_EPOCH)))


def plan_scale(scale: Scale, facts: CorpusFacts, speed: MachineSpeed, wish: Wish) -> RunPlan:
    """The longest trainings of this scale that fit, up to `MOST_EPOCHS` over the text.

    Raises:
        DoesNotFit: even the shortest take longer; it says how long.
    """
    batch = batch_tokens(scale, facts.target_tokens, wish.gpu)
    choices = list(_round_numbers(FEWEST_STEPS, MOST_EPOCHS * facts.target_tokens / batch))

    def planned(steps: int, algorithm: EvolutionSettings) -> RunPlan:
        return _planned(scale, facts, speed, wish, batch, steps, algorithm)

    for algorithm in _affordable(facts, speed, wish):
        shortest = planned(choices[0], algorithm)
        if shortest.hours <= wish.hours:
            break
    if shortest.hours > wish.hours:
        parts = [f"{name}: {seconds / 3600:.3g}" for name, seconds in shortest.seconds.items()]
        raise DoesNotFit(
            f"--hours {wish.hours:g}: the shortest run on this machine takes {_ceiling(shortest.hours):g}",
            [f"hours of its parts, before {SAFETY - 1:.0%} for safety: {', '.join(parts)}"],
        )
    low, high = 0, len(choices) - 1  # choices[low] fits
    while low < high:
        middle = (low + high + 1) // 2
        if planned(choices[middle], algorithm).hours <= wish.hours:
            low = middle
        else:
            high = middle - 1
    return planned(choices[low], algorithm)


def best_plan(
    look: Callable[[Scale], tuple[CorpusFacts, MachineSpeed]],
    wish: Wish,
    scales: Sequence[Scale] = SCALES,
) -> RunPlan:
    """The plan of the largest scale whose trainings see enough text to be worth it.

    Args:
        look: measures a scale; asked from the smallest on, and no longer than larger ones may be worth it.
            It raises DoesNotFit when no member of the scale keeps the budget.

    Raises:
        DoesNotFit: even the smallest scale does not.
    """
    best = plan_scale(scales[0], *look(scales[0]), wish)
    for scale in scales[1:]:
        if best.tokens < scale.least_tokens:
            break  # and a larger scale trains slower
        try:
            plan = plan_scale(scale, *look(scale), wish)
        except DoesNotFit:
            break  # what is asked for is only possible with smaller members
        if plan.tokens < scale.least_tokens:
            break
        best = plan
    return best


def _scored_sentences(facts: CorpusFacts) -> int:
    return min(MOST_SCORED_SENTENCES, facts.valid_pairs)


def _affordable(facts: CorpusFacts, speed: MachineSpeed, wish: Wish) -> list[EvolutionSettings]:
    """From the most thorough search that takes at most its share of the time to the shortest one."""
    scoring_s = _scored_sentences(facts) / speed.scored_sentences_s
    most = 3600 * wish.hours * SEARCH_SHARE / (2 * scoring_s)
    return [a for a in reversed(ALGORITHMS) if a.budget <= most or a == ALGORITHMS[0]]


def _planned(
    scale: Scale,
    facts: CorpusFacts,
    speed: MachineSpeed,
    wish: Wish,
    batch: int,
    steps: int,
    algorithm: EvolutionSettings,
) -> RunPlan:
    epochs = steps * batch / facts.target_tokens
    plan = RunPlan(
        scale=scale,
        facts=facts,
        batch_tokens=batch,
        steps=steps,
        supernet_steps=10 * max(1, round(SUPERNET_SHARE * steps / 10)),
        warmup_steps=min(MOST_WARMUP, int(WARMUP_SHARE * steps)),
        candidates=6 if steps >= MANY_STEPS else 4,
        dense_candidates=2 if steps >= MANY_STEPS else 1,
        algorithm=algorithm,
        sentences=_scored_sentences(facts),
        validate_every=max(1, steps // 4),
        latency_runs=200 if steps >= MANY_STEPS else 100,
        dropout=0.1 if epochs > DROPOUT_EPOCHS else 0.0,
        epochs=epochs,
        seconds={},
    )
    return replace(plan, seconds=_seconds(plan, speed, wish))


def _seconds(plan: RunPlan, speed: MachineSpeed, wish: Wish) -> dict[str, float]:
    """What each part of the run takes."""
    scale, facts = plan.scale, plan.facts
    times_larger = active_parameters(scale.baseline) / active_parameters(speed.member)
    validation_s = facts.valid_pairs / speed.scored_sentences_s
    step_s = plan.batch_tokens / speed.member_tokens_s
    training_s = plan.steps * step_s + 4 * validation_s
    supernet_validations = 4 * (1 + plan.supernet_steps // plan.validate_every)
    supernet_s = plan.supernet_steps * plan.batch_tokens / speed.supernet_tokens_s
    measured = bool(measured_names(list(wish.bounds)))
    profile_s = budget_s = measuring_s = 0.0
    if measured:
        reference_s = max(SHORTEST_TURN_S, SENTENCES_A_TURN * speed.reference_s)
        profile_s = _probe_count(scale.space) * TURNS * reference_s
        beside_s = speed.baseline_s if wish.with_baseline else 0.0
        measuring_s = (plan.candidates + 2) * plan.latency_runs * (speed.member_s + beside_s)
        budget_s = plan.latency_runs * (beside_s + speed.reference_s)
    scoring_s = 2 * plan.algorithm.budget * plan.sentences / speed.scored_sentences_s
    translating_s = facts.test_pairs / speed.translated_sentences_s
    seconds = {
        "start, prepare": STARTUP_S + facts.prepare_s,
        "profile, budget": profile_s + budget_s,
        "supernet": supernet_s + supernet_validations * validation_s,
        "search": scoring_s + measuring_s,
        "losers of the finals": FINALS_PRICE * plan.steps * step_s + 2 * plan.candidates * validation_s,
        "training": training_s,
        "evaluation, latency, report": translating_s + plan.latency_runs * speed.member_s + REPORT_S,
    }
    if wish.with_baseline:
        timing_s = TIMED_BASELINE_STEPS * step_s * times_larger
        tested_s = translating_s * times_larger + plan.latency_runs * speed.baseline_s
        seconds["baseline"] = training_s + timing_s + tested_s + 4 * validation_s * (times_larger - 1)
    return seconds


@cache
def _probe_count(space: SearchSpace) -> int:
    return len(probes(space))


def _round_numbers(least: int, most: float) -> list[int]:
    """From `least` up, in steps of a tenth, at most `most` (but `least` itself always), with two digits."""
    numbers = [least]
    while True:
        following = numbers[-1] * 1.05
        unit = 10 ** max(0, int(math.log10(following)) - 1)
        following = max(numbers[-1] + unit, unit * round(following / unit))
        if following > most:
            return numbers
        numbers.append(following)


def _ceiling(hours: float) -> float:
    """Two digits, rounded up."""
    unit = 10.0 ** (math.floor(math.log10(hours)) - 1)
    return math.ceil(hours / unit) * unit
