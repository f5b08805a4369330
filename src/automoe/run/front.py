"""`automoe front`: the candidates of a run's searches that are best at something, as a table and pictures.

Nothing is kept for it but what every search keeps: its `candidates.jsonl`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automoe.cost.costs import COSTS
from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.report.pictures import candidates as draw_candidates
from automoe.report.search_front import SearchFront
from automoe.report.tables import MISSING, Table
from automoe.run.folder import read_stage_json
from automoe.run.systems import DEFAULT_OBJECTIVES, objectives_named
from automoe.search.candidate import Candidate, score_of
from automoe.search.log import CandidateLog, LogEntry
from automoe.search.pareto import LOSS, SearchObjective, non_dominated, point_of
from automoe.storage import disk_errors

_MEND = "`automoe search RECIPE` searches"


@dataclass(frozen=True)
class ScoredSearches:
    """What the finished searches of one seed of a run have scored.

    Attributes:
        folder: of the seed. `seed`: its number.
        logs: by system, what its search evaluated.
        finalists: of all finished searches of the seed, as they chose them.
        objectives: of the searches for a front; of the others the loss and the costs with a bound.
        score_label: what the score is; lower is better.
    """

    folder: Path
    seed: int
    logs: Mapping[str, tuple[LogEntry, ...]]
    finalists: frozenset[Architecture]
    objectives: tuple[SearchObjective, ...]
    score_label: str

    @property
    def scored(self) -> tuple[Candidate, ...]:
        """The scored candidates, each architecture once; all keep the bounds of their search."""
        scored = {
            entry.candidate.architecture: entry.candidate
            for entries in self.logs.values()
            for entry in entries
            if entry.candidate.score is not None
        }
        return tuple(scored.values())


def scored_searches(run_folder: Path, seed: int | None = None, system: str | None = None) -> ScoredSearches:
    """Read the finished searches of a run.

    Args:
        seed: by default the lowest that the folder has. `system`: one search alone; by default all of the
            seed, whose scores are of one supernet.

    Raises:
        InputError: this is no run's folder, has no such seed or search, or none that is finished; a file is
            damaged.
    """
    if not (run_folder / "run.json").is_file():
        raise InputError(f"{run_folder}: is not the folder of a run", [_MEND])
    seeds = sorted(
        int(part.name[5:]) for part in run_folder.iterdir() if re.fullmatch(r"seed-(0|-?[1-9]\d*)", part.name)
    )
    if not seeds:
        raise InputError(f"{run_folder}: this run has no search yet", [_MEND])
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        known = ", ".join(map(str, seeds))
        raise InputError(f"{run_folder}: has no seed {seed}", [f"there are: {known}"])
    folder = run_folder / f"seed-{seed}"
    records = {
        path.parent.name.removeprefix("search-"): read_stage_json(path)
        for path in sorted(folder.glob("search-*/stage.json"))
    }
    records = {name: record for name, record in records.items() if record.get("finished")}
    if not records:
        raise InputError(f"{folder}: has no finished search", [_MEND])
    if system is not None and system not in records:
        raise InputError(f"{folder}: has no finished search {system}", [f"there are: {', '.join(records)}"])
    names = list(records) if system is None else [system]
    inputs = {name: records[name].get("inputs", {}) for name in names}
    chosen = [read_stage_json(folder / f"search-{name}" / "chosen.json") for name in records]
    objectives = {name: None for own in inputs for name in _objectives(own, inputs[own])}
    return ScoredSearches(
        folder=folder,
        seed=seed,
        logs={
            name: tuple(
                entry
                for entry in CandidateLog(folder / f"search-{name}" / "candidates.jsonl").entries
                if entry.search.system == name
            )
            for name in names
        },
        finalists=frozenset(
            Architecture.from_dict(found["architecture"]) for plain in chosen for found in plain["finalists"]
        ),
        objectives=objectives_named(list(objectives) if len(objectives) > 1 else DEFAULT_OBJECTIVES),
        score_label=_score_label(inputs[names[0]]),
    )


def write_front(searches: ScoredSearches) -> tuple[str, list[Path]]:
    """The front as text, and the pictures of it, a cost each, in the seed's folder `front`.

    The table has the candidates that no other beats in all objectives of the searches together, with all that
    is known of their costs.

    Raises:
        InputError: no candidate has a price in each of the objectives; the disk is full.
    """
    names = [objective.name for objective in searches.objectives]
    best = non_dominated(searches.scored, searches.objectives)
    if not best:
        problem = "no scored candidate has a price for each; --system NAME shows one search alone"
        raise InputError(f"{searches.folder}: has no front of {', '.join(names)}", [problem])
    costs = [cost for cost in COSTS.values() if any(cost.name in c.costs for c in best)]
    sought = [objective for objective in searches.objectives if objective.name != LOSS]
    best = tuple(sorted(best, key=lambda c: point_of(c, sought) or ()))
    rows = [
        (
            f"{score_of(c):.4f}",
            *(f"{c.costs[k.name] * k.scale:{k.digits}}" if k.name in c.costs else MISSING for k in costs),
            str(c.architecture),
        )
        for c in best
    ]
    table = Table((searches.score_label, *(cost.heading for cost in costs), "architecture"), tuple(rows))
    title = (
        f"The front of {', '.join(names)}: {len(best)} of {len(searches.scored):,} scored candidates "
        f"({searches.folder.name}: {', '.join(searches.logs)})"
    )
    found = SearchFront(searches.logs, {}, tuple(COSTS[objective.name] for objective in sought))
    pictures = []
    folder = searches.folder / "front"
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
    for cost in found.costs:
        path = folder / f"front_{cost.name}.png"
        draw_candidates(found.entries, cost.name, path, found.front(cost), score_label=searches.score_label)
        pictures.append(path)
    return f"{title}\n\n{table.markdown()}", pictures


def _objectives(system: str, inputs: Mapping[str, Any]) -> list[str]:
    """What a search went by, as its stage notes it; costs that the table has no more do not count."""
    own = inputs.get(f"systems.{system}.objectives")
    names = own or [LOSS, *inputs.get(f"systems.{system}.constraints", {})]
    return [name for name in names if name == LOSS or name in COSTS]


def _score_label(inputs: Mapping[str, Any]) -> str:
    return "minus BLEU" if inputs.get("search.rank_by") == "bleu" else "validation loss"
