"""What a run was asked for, in words: the first part of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automoe.cost.costs import COSTS, share_of
from automoe.data.corpus import CorpusSource, LoadReport
from automoe.design.space import SearchSpace, StackSpace
from automoe.report.asked import Asked
from automoe.run.budget import Budget
from automoe.run.context import Run
from automoe.run.distillation import Distillation
from automoe.run.recipe import Recipe
from automoe.run.systems import LARGEST_DENSE, UNIFORM, System
from automoe.search.constraint import Constraint


def what_was_asked(run: Run, budget: Budget, loaded: Mapping[str, LoadReport]) -> Asked:
    """The question of a run.

    Args:
        budget: its bounds as numbers. `loaded`: what became of the pairs of each corpus.
    """
    recipe, data = run.recipe, run.recipe.data
    # Without a baseline of the recipe's own, the share is of a network that is not in the table.
    of_baseline = recipe.searched if recipe.baseline_system else ()
    shares = {
        system.name: {
            name: share
            for name, bound in recipe.constraints_of(system).items()
            if (share := share_of(bound)) is not None
        }
        for system in of_baseline
    }
    facts = {
        "Translation": f"from {data.source_language} to {data.target_language}",
        "Data": _data(recipe, loaded),
        "Systems": "; ".join(_system(system) for system in recipe.systems),
    }
    if recipe.searched:
        facts["Budget"] = "; ".join(
            f"{system.name}: {_bounds(recipe, system, budget.constraints[system.name])}"
            for system in recipe.searched
        )
        facts["Space"] = _space(run.space)
        facts["Search"] = _search(recipe)
    training = recipe.training
    facts["Training"] = (
        f"{training.steps:,} steps of {training.batch_tokens:,} target tokens with "
        f"{training.optimizer.capitalize()}; {len(recipe.seeds)} seed{'s' if len(recipe.seeds) > 1 else ''}"
    )
    if recipe.distillation is not None:
        facts["Distillation"] = _distillation(recipe, recipe.distillation)
    facts["Latency"] = _protocol(run)
    return Asked(
        run=recipe.name,
        facts=facts,
        source_language=data.source_language,
        target_language=data.target_language,
        budgets=budget.constraints,
        shares=shares,
        dropped=dropped_pairs(loaded),
    )


def dropped_pairs(loaded: Mapping[str, LoadReport]) -> list[str]:
    """What was left out of each corpus and why, in words."""
    scores = {"test": "; every score is of these"}
    return [
        f"{split}: {report}{scores.get(split, '')}."
        for split, report in loaded.items()
        if report.kept < report.read
    ]


def _data(recipe: Recipe, loaded: Mapping[str, LoadReport]) -> str:
    data = recipe.data
    used = {split: report.kept for split, report in loaded.items()}
    return (
        f"{used['train']:,} pairs to train on ({_corpus(data.train)}), {used['valid']:,} to validate, "
        f"{used['test']:,} to test ({_corpus(data.test)}); a joint vocabulary of {data.vocabulary.size:,} "
        f"subwords ({data.vocabulary.kind})"
    )


def _corpus(source: CorpusSource) -> str:
    if source.dataset:
        return f"{source.dataset}, {source.split}"
    return " and ".join(
        Path(path).name for path in (source.path, source.source_path, source.target_path) if path
    )


def _system(system: System) -> str:
    if system.search:
        part = " among dense ones" if system.experts == "dense" else ""
        origin = f"found by {system.search}{part}"
    else:
        known = {LARGEST_DENSE: "the space's largest dense Transformer", UNIFORM: "a Switch Transformer"}
        origin = known.get(str(system.architecture), Path(str(system.architecture)).name)
    time = f", trained for as many minutes as {system.minutes_of}" if system.minutes_of else ""
    return f"{system.name} ({origin}{time})"


def _bounds(recipe: Recipe, system: System, constraints: Sequence[Constraint]) -> str:
    asked = recipe.constraints_of(system)
    baseline = recipe.baseline_system.name if recipe.baseline_system else "the largest dense Transformer"
    told = []
    for constraint in constraints:
        cost = COSTS[constraint.cost]
        limit = "at least" if constraint.at_least else "at most"
        text = f"{cost.heading} {limit} {constraint.bound * cost.scale:{cost.digits}}"
        share = share_of(asked[cost.name])
        told.append(text if share is None else f"{text}, {100 * share:.4g}% of what {baseline} has")
    return " and ".join(told) or "no bound"


def _space(space: SearchSpace) -> str:
    return f"{_large(space.size())} architectures; {_stack('encoder', space.encoder)}; " + _stack(
        "decoder", space.decoder
    )


def _stack(name: str, stack: StackSpace) -> str:
    return (
        f"{name} of {_range(stack.layer_counts)} layers, width {_range(stack.widths)}, up to "
        f"{stack.max_experts} experts a layer with FFNs of {_range(stack.ffn_sizes)}"
    )


def _range(choices: Sequence[int]) -> str:
    least, most = min(choices), max(choices)
    return f"{least}" if least == most else f"{least} to {most}"


def _large(number: int) -> str:
    # No float: a space may have more members than the largest float.
    digits = str(number)
    return f"{number:,}" if len(digits) <= 6 else f"{digits[0]}.{digits[1]}e{len(digits) - 1}"


def _search(recipe: Recipe) -> str:
    judge = "validation loss" if recipe.search.rank_by == "loss" else "BLEU"
    text = f"ranked by {judge} with the supernet's weights on {recipe.search.sentences:,} sentences"
    if own := recipe.search.own_steps:
        text += f"; the best {own.candidates} again after {own.steps:,} steps of their own"
    if finals := recipe.finals:
        text += f"; the best {finals.candidates} race by real training"
    return text


def _distillation(recipe: Recipe, distillation: Distillation) -> str:
    teacher = ", ".join(distillation.taught_by(recipe.names) or distillation.folders(recipe.names))
    if distillation.teacher.ensemble:
        of_seeds = " with each seed" if distillation.over_seeds(recipe.names) else ""
        teacher = f"an ensemble of {teacher}{of_seeds}"
    students = ", ".join(distillation.students)
    return (
        f"{teacher} translated the training sources (beam {distillation.beam_size}); trained on these pairs "
        f"beside the original ones, each for as many steps as without: {students}"
    )


def _protocol(run: Run) -> str:
    protocol: dict[str, Any] = run.protocol.plain()
    together = run.recipe.latency.throughput
    return (
        f"of a {'sentence' if run.protocol.batch == 1 else f'batch of {run.protocol.batch} sentences'}, "
        f"{protocol['source_length']} tokens in and {protocol['target_length']} out, beam "
        f"{protocol['beam_size']}, {protocol['backend']} {protocol['precision']}, threads: "
        f"{protocol['threads']}"
        + (f", a shortlist of {run.protocol.output_tokens} tokens" if run.protocol.shortlist else "")
        + (f"; throughput: of batches of {together.batch} sentences" if together else "")
    )
