"""`automoe front` and `automoe pick` on a run that has searched."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from automoe.cli.front_commands import bounds_and_overrides
from automoe.cli.main import main
from automoe.cost.costs import COSTS
from automoe.design.architecture import Architecture
from automoe.design.architecture_file import save_architecture
from automoe.errors import InputError
from automoe.inference.model_folder import load_model
from automoe.run import pick as picking
from automoe.run.context import Run
from automoe.run.folder import RunFolder
from automoe.run.front import scored_searches, write_front
from automoe.run.pick import Pick, pick
from automoe.run.pipeline import run_recipe
from automoe.run.prepare import prepare
from automoe.run.recipe import load_recipe
from automoe.run.train import Training
from helpers.tiny_run import Listener, run_here, write_made_up_profile, write_tiny_recipe

TAUGHT = "distillation={teacher: random, students: [many]}"
OBJECTIVES = ["loss", "latency_ms", "memory_bytes"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose run `runs/tiny` has searched, once for a front and once at random."""
    folder = tmp_path_factory.mktemp("front") / "tiny"
    folder.mkdir()
    recipe = write_tiny_recipe(folder, steps=10, constraints="{}", finals="{candidates: 2, price: 1.0}")
    plain = yaml.safe_load(recipe.read_text())
    del plain["baseline"], plain["fine_tuning"]
    plain["systems"] = [
        {"name": "many", "search": "nsga2", "objectives": OBJECTIVES},
        {"name": "random", "search": "random"},
    ]
    plain["training"]["warmup_steps"] = 1
    plain["finals"]["dense"] = 0
    plain["latency"]["profile"] = "device.json"
    recipe.unlink()
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(plain))
    write_made_up_profile(folder / "device.json", load_recipe(recipe))
    run_here(recipe, until="search")
    (folder / "runs").rename(folder.parent / "runs")
    return folder.parent


@pytest.fixture
def project(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    shutil.copytree(searched, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scored(project: Path, *systems: str) -> pd.DataFrame:
    logs = [project / f"runs/tiny/seed-1/search-{name}/candidates.jsonl" for name in systems]
    table = pd.concat([pd.read_json(log, lines=True) for log in logs], ignore_index=True)
    return table[table["score"].notna()].drop_duplicates("description", keep="last")


def beaten(row: pd.Series, table: pd.DataFrame, columns: list[str]) -> bool:
    as_good = (table[columns] <= row[columns]).all(axis=1)
    return bool((as_good & (table[columns] < row[columns]).any(axis=1)).any())


def picked(project: Path, bounds: dict[str, float], *overrides: str, **asked) -> list[str]:
    listener = Listener()
    loaded = load_recipe(project / "tiny" / "recipe.yaml", overrides)
    pick(loaded, project / "runs" / "tiny", listener, Pick(bounds, **asked))
    return listener.said


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["automoe", *arguments])
    try:
        main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


@pytest.mark.parametrize("systems", [("many", "random"), ("random",)])
def test_the_front_is_what_nothing_scored_beats(project, systems):
    """A search for the best score alone has no objectives of its own: without bounds, loss and flops."""
    found = scored_searches(project / "runs/tiny", system=systems[0] if len(systems) == 1 else None)
    text, pictures = write_front(found)
    names = OBJECTIVES[1:] if len(systems) > 1 else ["flops"]
    table, columns = scored(project, *systems), ["score", *names]
    expected = {row["description"] for _, row in table.iterrows() if not beaten(row, table, columns)}
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "enc[" in line]
    assert {row[-1] for row in rows} == expected
    assert [path.name for path in pictures] == [f"front_{name}.png" for name in names]
    assert all(path.stat().st_size > 1000 for path in pictures)
    headings = [cell.strip() for cell in text.splitlines()[2].split("|")[1:-1]]
    known = table.set_index("description")
    for row in rows:
        loss, latency = row[0], row[headings.index(COSTS["latency_ms"].heading)]
        assert float(loss) == pytest.approx(known["score"][row[-1]], abs=1e-4)
        assert float(latency) == pytest.approx(known["latency_ms"][row[-1]], abs=0.051)


def test_a_search_for_a_front_prices_objectives_that_have_no_bound(project):
    assert scored(project, "many")["latency_ms"].notna().all()


def test_what_is_picked_is_the_best_within_the_bounds_and_nothing_is_searched_again(
    project, monkeypatch, capsys
):
    seed = project / "runs/tiny/seed-1"
    files = [*seed.glob("supernet/*"), *seed.glob("search-*/*")]
    kept = {path: path.read_bytes() for path in files if path.is_file()}
    table = scored(project, "many", "random")
    bound = table["flops"].quantile(0.6)
    within = table[table["flops"] <= bound]
    assert command(monkeypatch, "front", "runs/tiny") == 0
    capsys.readouterr()
    options = ("--flops", str(bound), "--latency-ms=1e5", "--name", "mine")
    assert command(monkeypatch, "pick", "runs/tiny", *options) == 0
    printed = capsys.readouterr()
    model = Path(printed.out.split("Trained model:")[1].split()[0])
    assert model == Path("runs/tiny/seed-1/train-mine/model")
    chosen = json.loads((seed / "choice-mine" / "chosen.json").read_text())
    finalists = [Architecture.from_dict(f["architecture"]) for f in chosen["finalists"]]
    assert str(finalists[0]) == within.loc[within["score"].idxmin(), "description"]
    assert len(finalists) == 2
    assert {str(a) for a in finalists} <= set(within["description"])
    assert all(f["measured"]["latency_ms"] <= 1e5 for f in chosen["finalists"])
    winner = load_model(model)[0].architecture
    assert winner in finalists
    result = json.loads((seed / "evaluate-mine" / "result.json").read_text())
    assert f"{result['scores']['bleu']:.2f}" in printed.out
    assert {path: path.read_bytes() for path in kept} == kept

    # The next better costs more than is allowed, and is what brute force says.
    told = " ".join(printed.err.split())
    (score,) = within.loc[within["description"] == str(winner), "score"]
    assert f"mine: validation loss {score:.4f} with {winner}" in told
    better = table[(table["score"] < score) & (table["latency_ms"] <= 1e5)]
    if len(better):
        cheapest = better[better["flops"] == better["flops"].min()].nsmallest(1, "score").iloc[0]
        assert f"the next better: {cheapest['flops'] * 1e-9:.3g}" in told
    else:
        assert "nothing scored is better" in told

    again = picked(project, {"flops": bound, "latency_ms": 1e5}, name="mine")
    stages = ("choice-mine", "finals-mine", "train-mine", "evaluate-mine")
    assert all(f"seed-1/{stage}: done before" in again for stage in stages)
    # The run itself goes on as if nothing had been picked.
    listener = Listener()
    run_recipe(load_recipe(project / "tiny" / "recipe.yaml"), project / "runs", listener, "search")
    assert not any(said.endswith((": starts", ": continues")) for said in listener.said)
    with pytest.raises(InputError, match="made from something else") as refused:
        picked(project, {"flops": 2 * bound}, name="mine")
    # One question, for all that would be lost.
    assert f"start again: {', '.join(f'seed-1/{stage}' for stage in stages)}" in str(refused.value)


def test_a_budget_that_nothing_keeps_names_the_closest(project):
    table = scored(project, "many", "random")
    cheapest = table.loc[table["flops"].idxmin()]
    with pytest.raises(InputError, match=r"none of the \d+ scored candidates keeps this budget") as caught:
        picked(project, {"flops": 1.0})
    assert f"the closest: {cheapest['description']}" in caught.value.problems
    assert f"lowest found {cheapest['flops']:,.6g}" in caught.value.problems[0]
    assert not list((project / "runs/tiny/seed-1").glob("choice-*"))


def test_a_cost_that_was_never_priced_is_refused(project):
    with pytest.raises(InputError, match="throughput_sentences_s: was not priced by many, random") as caught:
        picked(project, {"throughput_sentences_s": 1.0, "flops": 1e12})
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["supernet.steps=11"], "supernet.steps: 10 -> 11"),
        (["data.vocabulary.size=23"], "data.vocabulary.size: 24 -> 23"),
        (["search.sentences=39"], "search.sentences: 40 -> 39"),
    ],
)
def test_a_recipe_that_would_search_otherwise_is_refused(project, overrides, told):
    with pytest.raises(InputError, match="was made from something else") as caught:
        picked(project, {"flops": 1e12}, *overrides)
    assert told in caught.value.problems


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"name": "many"}, "many is a system of the recipe"),
        ({"name": "a/b"}, "--name: expected letters"),
        ({"name": "many-distilled"}, "many-distilled is a system of the recipe"),
        ({"name": "x" * 200}, "--name: is too long"),
        ({"system": "other"}, "there are: many, random"),
        ({"seed": 4}, "there are: 1"),
        ({"bounds": {}}, "expected at least one bound"),
        ({"bounds": {"flop": 3.0}}, "flop: unknown cost"),
        ({"bounds": {"flops": -3.0}}, "flops: "),
    ],
)
def test_what_cannot_be_picked_is_refused(project, asked, told):
    asked = {"bounds": {"flops": 1e12}} | asked
    with pytest.raises(InputError) as caught:
        picked(project, asked.pop("bounds"), TAUGHT, **asked)
    assert told in str(caught.value)


def test_a_folder_without_a_search_is_refused(project):
    for folder, told in (
        (project / "runs", "is not the folder of a run"),
        (project / "nothing", "is not the folder of a run"),
    ):
        with pytest.raises(InputError, match=told):
            scored_searches(folder)
    mark = project / "runs/tiny/seed-1/search-many/stage.json"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"finished": False}))
    assert list(scored_searches(project / "runs/tiny").logs) == ["random"]
    shutil.rmtree(project / "runs/tiny/seed-1/search-random")
    with pytest.raises(InputError, match="has no finished search"):
        picked(project, {"flops": 1e12})
    shutil.rmtree(project / "runs/tiny/seed-1")
    with pytest.raises(InputError, match="has no search yet"):
        scored_searches(project / "runs/tiny")


def test_bounds_are_spelt_as_options_and_the_rest_is_the_recipes():
    words = ["--latency-ms", "12", "training.steps=3", "--memory-bytes=20e6", "name=x"]
    assert bounds_and_overrides(words) == (
        {"latency_ms": 12.0, "memory_bytes": 20e6},
        ["training.steps=3", "name=x"],
    )
    asked = Pick({"latency_ms": 12.0, "memory_bytes": 2e7})
    assert asked.system_name == "pick-latency_ms-12-memory_bytes-2e07"
    with pytest.raises(InputError) as caught:
        bounds_and_overrides(["--flop", "--flops", "1e6", "--flops", "two", "--latency-ms"])
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "--flop", "--flops", "--flops", "--latency-ms",
    ]  # fmt: skip


def test_the_bounds_before_the_run_are_told(monkeypatch, capsys):
    assert command(monkeypatch, "pick", "--flops", "2e7", "demo") == 2
    assert "write the run or its recipe first" in capsys.readouterr().err


def test_seeds_may_be_negative_and_the_lowest_is_the_first(project):
    run = project / "runs/tiny"
    shutil.copytree(run / "seed-1", run / "seed--3")
    assert scored_searches(run).folder == run / "seed--3"
    assert scored_searches(run, 1).seed == 1
    with pytest.raises(InputError, match="there are: -3, 1"):
        scored_searches(run, 3)


def test_a_run_is_found_wherever_its_folder_is_and_whose_recipe_is_not_is_told(project, monkeypatch, capsys):
    run = (project / "runs/tiny").rename(project / "renamed")
    bounds = ("--flops", "1", "--name", "mine")
    monkeypatch.chdir(run)
    assert command(monkeypatch, "pick", ".", *bounds) == 2
    message = capsys.readouterr().err
    assert ".: its recipe is not found" in message
    assert "give the recipe's file in place of the run's folder" in message
    (run / "tiny").symlink_to(project / "tiny")
    assert command(monkeypatch, "pick", ".", *bounds) == 2
    assert "none of the" in capsys.readouterr().err


def test_what_is_told_is_of_the_finalist_that_won_the_race(project, monkeypatch):
    monkeypatch.setattr(picking, "run_finals", lambda *given: (given[-1].stage, given[-1].finalists[1]))
    said = picked(project, {"flops": 1e12}, name="mine")
    winner = load_model(project / "runs/tiny/seed-1/train-mine/model")[0].architecture
    table = scored(project, "many", "random").set_index("description")
    assert f"mine: validation loss {table['score'][str(winner)]:.4f} with {winner}" in said


def test_a_race_leaves_what_the_run_has_begun_of_a_system_designed_by_hand(project):
    table = scored(project, "many", "random").set_index("description")["flops"]
    bounds = {"flops": table[[str(a) for a in scored_searches(project / "runs/tiny").finalists]].min() - 1}
    picked(project, bounds, name="probe")
    chosen = json.loads((project / "runs/tiny/seed-1/choice-probe/chosen.json").read_text())
    winner = load_model(project / "runs/tiny/seed-1/train-probe/model")[0].architecture
    (loser,) = {Architecture.from_dict(found["architecture"]) for found in chosen["finalists"]} - {winner}
    save_architecture(loser, project / "tiny" / "by_hand.yaml")
    recipe = project / "tiny" / "recipe.yaml"
    plain = yaml.safe_load(recipe.read_text())
    plain["systems"].append({"name": "hand", "architecture": "by_hand.yaml"})
    recipe.write_text(yaml.safe_dump(plain))
    run = Run(load_recipe(recipe), RunFolder(project / "runs/tiny", "tiny", print), Listener())
    checkpoint = Training(run.with_seed(1), prepare(run), loser).folder / "checkpoint-00000009.safetensors"
    assert checkpoint.parent.is_dir()
    checkpoint.touch()  # as if its training were under way
    picked(project, bounds, name="again")
    assert checkpoint.exists()
