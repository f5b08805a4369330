"""`automoe fidelity`: how far supernets may be believed, measured on members that are trained as well.

trainings/HASH         each member from scratch, with the recipe's settings, once for all rules
supernet-RULE          each rule's supernet, all with as many updates of a member
fidelity/members*      what the members are worth (-I-N: of the share of one process)
fidelity/losses-*      their losses with a supernet's weights, after steps of their own
fidelity/fidelity.*    the result: table, figures, picture
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from automoe.cost.costs import COSTS, Conditions, share_of
from automoe.data.corpus import load_pairs
from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.evaluation.scores import evaluate_model
from automoe.model.sharing import Supernet
from automoe.processes import is_first_process, wait_for_all
from automoe.progress import Reporter
from automoe.report.fidelity_picture import Point, draw_fidelity
from automoe.run.context import Run, check_engines
from automoe.run.corpora import corpus_values
from automoe.run.folder import MayOverwrite, RunFolder, Stage, never
from automoe.run.inputs import GREEDY
from automoe.run.prepare import Prepared, prepare
from automoe.run.recipe import LoadedRecipe, OwnSteps
from automoe.run.scoring import inherited_score, own_score
from automoe.run.supernet import train_supernet
from automoe.run.train import Training, training_keys
from automoe.search.ranking import Fidelity, Member, fidelity, spread_members
from automoe.storage import append_to_journal, digest, read_journal, write_json, write_text
from automoe.training.history import read_history
from automoe.training.results import TrainingDiverged
from automoe.training.rules import RULES
from automoe.training.settings import SupernetSettings

BLEU_SENTENCES = 500
SCRATCH = "from scratch"
"""Stands for a rule where members are judged in the middle of their own training."""
_MEND = "delete these lines; what they held is computed again"


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        members: of the space, how many. `rules`: of supernets, by name.
        own_steps: numbers of steps of their own after which inherited weights are judged; 0 as they are.
        own_rate: the highest learning rate of those steps.
    """

    members: int = 20
    rules: tuple[str, ...] = ("random", "balanced", "sandwich")
    own_steps: tuple[int, ...] = (0, 100)
    own_rate: float = 1e-3

    def __post_init__(self) -> None:
        problems = [
            f"--rules: unknown rule {rule!r} (known: {', '.join(RULES)})"
            for rule in self.rules
            if rule not in RULES
        ]
        problems += [f"--own-steps: expected at least 0, got {n}" for n in self.own_steps if n < 0]
        for option, values in (("--rules", self.rules), ("--own-steps", self.own_steps)):
            if len(set(values)) < len(values):
                problems.append(f"{option}: expected each once, got {', '.join(map(str, values))}")
        if not (self.own_rate > 0 and math.isfinite(self.own_rate)):
            problems.append(f"--own-rate: expected a number above 0, got {self.own_rate}")
        if self.members < 2:
            problems.append(f"--members: expected at least 2, got {self.members}")
        if problems:
            raise InputError("this study is impossible", problems)


@dataclass(frozen=True)
class _Own:
    """A member trained from scratch; without loss and BLEU when its training diverged."""

    architecture: Architecture
    loss: float | None = None
    bleu: float | None = None


def study_fidelity(
    loaded: LoadedRecipe,
    runs_folder: Path,
    reporter: Reporter,
    study: Study,
    share: tuple[int, int] | None = None,
    may_overwrite: MayOverwrite = never,
) -> Path | None:
    """Train members and supernets, compare their losses; the folder of the result.

    It is the run folder of the recipe's first seed: what a run has trained there is used, and the other way
    round. Killed, it continues.

    Args:
        share: (i, n): train only the i-th of n parts of the members and supernets, for several processes at
            once, and stop; None does what is left, and the rest.

    Raises:
        InputError: as `run_recipe`; several shares may be at work at once.
    """
    name = loaded.recipe.name
    folder = RunFolder(runs_folder / name, name, reporter.say, may_overwrite)
    with folder.locked(shared=share is not None):
        return _study(Run(loaded, folder, reporter), study, share)


def _study(run: Run, study: Study, share: tuple[int, int] | None) -> Path | None:
    recipe, reporter = run.recipe, run.reporter
    seed = recipe.seeds[0]
    supernets = [f"seed-{seed}/{_supernet_settings(run, rule)[1]}" for rule in study.rules]
    check_engines(run)
    corpora = corpus_values(run, "train", "valid")
    run.folder.expect(run.values | run.former_values | corpora, ["prepare", *supernets])
    prepared = prepare(run)
    run = run.with_seed(seed)
    result = run.folder.path / "fidelity"
    if is_first_process():
        result.mkdir(parents=True, exist_ok=True)
    wait_for_all()
    conditions = Conditions(run.protocol)
    drawn = spread_members(
        run.space, study.members, random.Random(run.seed), lambda a: COSTS["flops"].price(a, conditions)
    )
    if share:
        # Supernets first: no single member takes as long.
        index, parts = share[0] - 1, share[1]
        for rule in study.rules[index::parts]:
            _train_supernet(run, prepared, rule)
        mine = drawn[(index - len(study.rules)) % parts :: parts]
        _train_members(run, prepared, mine, result, f"members-{share[0]}-{parts}.jsonl")
        return None
    owns = [
        own for own in _train_members(run, prepared, drawn, result, "members.jsonl") if own.loss is not None
    ]
    flops = {own.architecture: COSTS["flops"].price(own.architecture, conditions) for own in owns}
    budget = _flops_budget(run, flops.values())
    measured: dict[tuple[str, int], list[Member]] = {}
    for rule in study.rules:
        stage, supernet = _train_supernet(run, prepared, rule)
        if not is_first_process():
            continue
        for steps in study.own_steps:
            score = inherited_score(run, supernet, prepared)
            if steps:
                own = OwnSteps(steps=steps, candidates=len(owns), peak_rate=study.own_rate)
                values = run.chosen("training")
                keys = [
                    digest([stage.fingerprint, decides, run.seed, study.own_rate])
                    for decides in (values, values | run.formerly("training"))
                ]
                journals = [result / f"losses-{rule}-{steps}-{key[:8]}.jsonl" for key in keys]
                journal = next((path for path in journals if path.exists()), journals[0])
                score = own_score(run, supernet, prepared, own, journal)
            bar = reporter.bar(f"fidelity {rule}, {steps} own steps")
            members = []
            for done, known in enumerate(owns, start=1):
                loss = score(known.architecture)
                if known.loss is not None and math.isfinite(loss):
                    costs = {"flops": flops[known.architecture]}
                    members.append(Member(known.architecture, known.loss, loss, known.bleu, costs))
                bar(done, len(owns), f"{loss:.3f}")
            measured[rule, steps] = members
    if is_first_process():
        _write(result, measured | _from_scratch(run, prepared, owns, flops), budget)
    return result


def at_equal_compute(settings: SupernetSettings, rule: str) -> SupernetSettings:
    """The settings with another rule, and as many updates of a member as their own rule makes."""
    share = RULES[settings.rule].members / RULES[rule].members
    steps = max(1, round(settings.steps * share))
    warmup_steps = min(steps, round(settings.warmup_steps * share))
    changed = {"rule": rule, "steps": steps, "warmup_steps": warmup_steps}
    return SupernetSettings(**(dataclasses.asdict(settings) | changed))


def _train_supernet(run: Run, prepared: Prepared, rule: str) -> tuple[Stage, Supernet]:
    return train_supernet(run, prepared, *_supernet_settings(run, rule))


def _supernet_settings(run: Run, rule: str) -> tuple[SupernetSettings, str]:
    """Of a rule's supernet, and what its stage is called; the recipe's own is used where it is the same."""
    settings = at_equal_compute(run.recipe.supernet, rule)
    return settings, "supernet" if settings == run.recipe.supernet else f"supernet-{rule}"


def _train_members(
    run: Run, prepared: Prepared, drawn: Sequence[Architecture], folder: Path, journal: str
) -> list[_Own]:
    """Each member from scratch: its validation loss, and its greedy BLEU on validation sentences."""
    data = run.recipe.data
    journals = sorted(folder.glob("members*.jsonl"))
    known = {key: own for path in journals for key, own in read_journal(path, _parse, _MEND)}
    wait_for_all()  # nobody writes before all have looked
    pairs = load_pairs(data.valid, data.limits)[0][:BLEU_SENTENCES]
    greedy = dataclasses.replace(run.recipe.translation, beam_size=1, n_best=1)
    owns = []
    for place, architecture in enumerate(drawn, start=1):
        title = f"fidelity: member {place} of {len(drawn)}"
        translated_as = run.chosen(*GREEDY)
        keys = [digest([key, translated_as]) for key in training_keys(run, prepared, architecture)]
        key = next((key for key in keys if key in known), keys[0])
        if key not in known:
            try:
                single, result = Training(run, prepared, architecture).finish(title)
                translated = evaluate_model(
                    single.network, prepared.tokenizer, pairs, data.target_language, greedy
                )
                known[key] = _Own(architecture, result.validation["valid"], translated.scores.bleu)
            except TrainingDiverged as error:
                run.reporter.say(f"{title} is left out: {error.summary}")
                known[key] = _Own(architecture)
            if is_first_process():
                record = {
                    "key": key,
                    **dataclasses.asdict(known[key]),
                    "architecture": architecture.to_dict(),
                }
                append_to_journal(folder / journal, [record], durable=True)
        own = known[key]
        if own.loss is not None:
            run.reporter.say(f"{title}: {own.loss:.3f} nats, {own.bleu:.1f} BLEU  {architecture}")
        owns.append(own)
    return owns


def _from_scratch(
    run: Run, prepared: Prepared, owns: Sequence[_Own], flops: Mapping[Architecture, float]
) -> dict[tuple[str, int], list[Member]]:
    """Members judged by their own training when it was not at its end, as the rungs of a race judge them.

    By (`SCRATCH`, step) of each validation before the last; of members that were trained in this folder.
    """
    found: dict[tuple[str, int], list[Member]] = {}
    for own in owns:
        for record in read_history(Training(run, prepared, own.architecture).folder):
            step, loss = int(record["step"]), record.get("validation/valid")
            if own.loss is not None and loss is not None and step < run.recipe.training.steps:
                costs = {"flops": flops[own.architecture]}
                member = Member(own.architecture, own.loss, loss, own.bleu, costs)
                found.setdefault((SCRATCH, step), []).append(member)
    return {key: members for key, members in sorted(found.items()) if len(members) > 1}


def _parse(plain: Mapping[str, Any]) -> tuple[str, _Own]:
    architecture = Architecture.from_dict(plain["architecture"])
    loss, bleu = plain["loss"], plain["bleu"]
    return str(plain["key"]), _Own(architecture, loss if loss is None else float(loss), bleu)


def _flops_budget(run: Run, flops: Iterable[float]) -> float:
    """The recipe's first bound on FLOPs; without one the median of the members'."""
    for system in run.recipe.searched:
        bound = run.recipe.constraints_of(system).get("flops")
        if bound is not None:
            share = share_of(bound)
            if share is None:
                return float(bound)
            return share * COSTS["flops"].price(run.baseline, Conditions(run.protocol))
    return median(flops)


def _write(folder: Path, measured: Mapping[tuple[str, int], list[Member]], budget: float) -> None:
    judged = {member.architecture: member for members in measured.values() for member in members}
    rows = []
    for (rule, steps), members in measured.items():
        within = [member for member in members if member.costs["flops"] <= budget]
        rows.append((rule, steps, fidelity(members), fidelity(within) if len(within) > 1 else None))
    write_json(
        folder / "fidelity.json",
        {
            "flops_budget": budget,
            "results": [
                {
                    "rule": rule,
                    "own_steps": steps,
                    "all": dataclasses.asdict(everything),
                    "within_budget": None if within is None else dataclasses.asdict(within),
                }
                for rule, steps, everything, within in rows
            ],
            "members": [
                {
                    "architecture": architecture.to_dict(),
                    "description": str(architecture),
                    "flops": known.costs["flops"],
                    "loss": known.own_loss,
                    "bleu": known.own_bleu,
                    "losses": {
                        f"{rule}-{steps}": member.inherited_loss
                        for (rule, steps), members in measured.items()
                        for member in members
                        if member.architecture == architecture
                    },
                }
                for architecture, known in judged.items()
            ],
        },
    )
    heading = "| rule | own steps | tau | Spearman | regret (nats) | regret (BLEU) |"
    heading += " within the budget: members | tau | regret (nats) | regret (BLEU) |\n"
    lines = [f"| {rule} | {n} | {_cells(f)} | {_within_cells(w)} |\n" for rule, n, f, w in rows]
    note = (
        f"\n{len(judged)} members, each trained from scratch too. Budget: {budget / 1e9:.3g} GFLOPs. Regret: "
        "what the member with the best inherited loss is worse, trained by itself, than the best. "
        f"`{SCRATCH}`: no supernet, the loss of the member's own training after so many steps.\n"
    )
    write_text(folder / "fidelity.md", heading + "| --- |" + " ---: |" * 9 + "\n" + "".join(lines) + note)
    draw_fidelity(
        {
            rule if not steps else f"{rule}, {steps} own steps": [
                Point(
                    member.own_loss,
                    member.inherited_loss,
                    member.architecture.experts_a_layer,
                    member.costs["flops"] <= budget,
                )
                for member in members
            ]
            for (rule, steps), members in measured.items()
            if rule != SCRATCH
        },
        folder / "fidelity.png",
    )


def _cells(found: Fidelity) -> str:
    bleu = "–" if found.regret_bleu is None else f"{found.regret_bleu:.2f}"
    return f"{found.kendall_tau:.2f} | {found.spearman:.2f} | {found.regret_nats:.3f} | {bleu}"


def _within_cells(found: Fidelity | None) -> str:
    if found is None:
        return "– | – | – | –"
    tau, _, *regrets = _cells(found).split(" | ")
    return " | ".join([str(found.members), tau, *regrets])
