"""Hypervolume of nsga2 against evolution and random, at equal evaluations, on the saved supernet of a run.

    python benchmarks/front_hypervolume.py [RUN RECIPE [KEY=VALUE ...]] [--cost latency_ms] [--seeds 3]
        [--evaluations 200] [--run-seed 1]
    python benchmarks/front_hypervolume.py runs/libreoffice-en-de recipes/libreoffice-en-de.yaml

Without RUN and RECIPE they are the demo's.

The run needs its supernet (`automoe supernet RECIPE`), and for a latency its device profile. Scores are the
recipe's: with inherited weights, on the first `search.sentences` validation sentences. An architecture is
scored once; scores are kept in `RUN/front_hypervolume.jsonl`, so a benchmark that was killed goes on.

Every strategy may score `--evaluations` candidates, without bounds; one that finds nothing new any more stops
before, so the table says how many it did score.

The hypervolume is the area that a front dominates, up to the worst loss and the worst cost that any of the
searches saw, as a share of the area between these and the best of both: 0 to 1, the more the better.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev

from automoe.cost.costs import COSTS, Conditions, prices
from automoe.cost.sources import latency_source
from automoe.design.architecture import Architecture
from automoe.progress import Reporter
from automoe.run.context import Run
from automoe.run.corpora import corpus_values
from automoe.run.device_profile import find_latency_file
from automoe.run.folder import RunFolder
from automoe.run.prepare import prepare
from automoe.run.recipe import load_recipe
from automoe.run.scoring import inherited_score
from automoe.run.supernet import train_supernet
from automoe.search.candidate import Candidate, score_of
from automoe.search.driver import run_search
from automoe.search.evaluator import Price, Score
from automoe.search.evolution import EvolutionSettings, evolution
from automoe.search.log import CandidateLog, SearchName
from automoe.search.nsga2 import nsga2
from automoe.search.pareto import LOSS, Point, SearchObjective, point_of
from automoe.search.random_search import random_search
from automoe.search.strategy import Space, Strategy
from automoe.storage import append_to_journal, read_journal

ROOT = Path(__file__).parent.parent


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The area of what points of two objectives, the lower the better, dominate up to a reference point."""
    area, best = 0.0, reference[1]
    for x, y in sorted(points):
        if x < reference[0] and y < best:
            area += (reference[0] - x) * (best - y)
            best = y
    return area


def strategies(evaluations: int, objectives: Sequence[SearchObjective]) -> dict[str, Strategy]:
    """Each strategy with settings in the proportions of the paper's that add up to so many candidates."""
    population = max(2, evaluations // 5)
    children = max(2, evaluations // 10)
    iterations, rest = divmod(evaluations - population, children)
    settings = EvolutionSettings(
        iterations=iterations,
        population=population + rest,
        parents=max(2, population // 4),
        mutations=children - children // 2,
        crossovers=children // 2,
    )
    assert settings.budget == evaluations
    return {
        "nsga2": nsga2(settings, objectives),
        "evolution": evolution(settings),
        "random": random_search(evaluations),
    }


def compare(
    space: Space,
    costs: dict[str, Price],
    score: Score,
    cost: SearchObjective,
    evaluations: int,
    seeds: int,
    said: Callable[[str], None] = lambda line: None,
) -> str:
    """The table: a row a strategy, its share of the hypervolume with each seed, mean and deviation."""
    objectives = (SearchObjective(LOSS), cost)
    found: dict[str, list[list[Point]]] = {}
    for seed in range(1, seeds + 1):
        for name, strategy in strategies(evaluations, objectives).items():
            search = SearchName(name, name, "whole")
            with tempfile.TemporaryDirectory() as folder:
                log = CandidateLog(Path(folder) / "candidates.jsonl")
                result = run_search(search, space, strategy, (), costs, score, random.Random(seed), log)
            points = [p for c in result.candidates if (p := point_of(c, objectives)) is not None]
            found.setdefault(name, []).append(points)
            best_loss = min(map(score_of, result.candidates))
            said(f"seed {seed}, {name}: {len(points)} candidates, best {best_loss:.4f}")
    every = list(itertools.chain.from_iterable(points for of_seeds in found.values() for points in of_seeds))
    worst, best = (tuple(pick(values) for values in zip(*every, strict=True)) for pick in (max, min))
    whole = hypervolume([best], worst)
    lines = [
        f"| hypervolume of {LOSS} and {cost.name} | candidates | mean | ± | "
        + " | ".join(f"seed {seed}" for seed in range(1, seeds + 1))
        + " |",
        "| --- |" + " ---: |" * (3 + seeds),
    ]
    for name, of_seeds in found.items():
        shares = [hypervolume(points, worst) / whole for points in of_seeds]
        spread = f"{stdev(shares):.4f}" if seeds > 1 else "–"
        counts = " ".join(str(len(points)) for points in of_seeds)
        cells = " | ".join(f"{share:.4f}" for share in shares)
        lines.append(f"| {name} | {counts} | {fmean(shares):.4f} | {spread} | {cells} |")
    return "\n".join(lines)


def remembered(
    score: Callable[[Architecture], float], path: Path, supernet: str
) -> Callable[[Architecture], float]:
    """`score`, each architecture once a supernet; what is known is kept in `path`."""

    def parse(plain: dict) -> tuple[str, Candidate]:
        architecture = Architecture.from_dict(plain["architecture"])
        return plain["supernet"], Candidate(architecture, score=float(plain["score"]))

    records = read_journal(path, parse, "delete these lines; what they held is computed again")
    known = {c.architecture: score_of(c) for of, c in records if of == supernet}

    def scored(architecture: Architecture) -> float:
        if architecture not in known:
            known[architecture] = score(architecture)
            record = {
                "supernet": supernet,
                "score": known[architecture],
                "architecture": architecture.to_dict(),
            }
            append_to_journal(path, [record], durable=True)
        return known[architecture]

    return scored


def main(arguments: Sequence[str] | None = None) -> None:
    """Search and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=ROOT / "runs" / "demo")
    parser.add_argument("recipe", type=Path, nargs="?", default=ROOT / "recipes" / "demo.yaml")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--cost", choices=list(COSTS), default="flops")
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--run-seed", type=int, default=1)
    given = parser.parse_intermixed_args(arguments)
    if given.evaluations < 20:
        parser.error("--evaluations: expected at least 20")
    loaded, reporter = load_recipe(given.recipe, given.overrides), Reporter()
    cost = COSTS[given.cost]
    folder = RunFolder(given.run, loaded.recipe.name, reporter.say)
    with folder.locked():
        run = Run(loaded, folder, reporter)
        seeded = run.with_seed(given.run_seed)
        values = run.values | run.former_values | corpus_values(run, "train", "valid")
        folder.finished("prepare", values)
        seeded.folder.finished("supernet", values)
        prepared = prepare(run)
        stage, supernet = train_supernet(seeded, prepared)
        conditions = Conditions(run.protocol)
        if cost.measured:
            file = find_latency_file(run)
            if file is None:
                parser.error(f"--cost {cost.name}: no search of the recipe prices it by a file")
            conditions = Conditions(
                run.protocol, latency_source(run.protocol, run.recipe.latency, file, reporter.say)
            )
        score = inherited_score(seeded, supernet, prepared)
        score = remembered(score, given.run / "front_hypervolume.jsonl", stage.fingerprint)
        objective = SearchObjective(cost.name, cost.larger_is_better)
        priced = prices(conditions, [cost.name])
        print(compare(run.space, priced, score, objective, given.evaluations, given.seeds, reporter.say))


if __name__ == "__main__":
    main()
