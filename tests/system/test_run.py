"""A real run of a tiny recipe: everything it must leave behind, and `kill -9` at random moments."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from automoe.cost.counting import count
from automoe.cost.device.profile import load_profile
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture
from automoe.training.history import read_history
from helpers.killed_run import (
    RANKING,
    SEARCHED,
    SYSTEMS,
    killed,
    numbers,
    write_tiny_recipe_with_profile,
)
from helpers.small_disk import small_disk
from helpers.tiny_run import automoe, write_tiny_recipe

pytestmark = pytest.mark.slow  # whole processes, seconds each


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    folder = tmp_path_factory.mktemp("finished")
    recipe = write_tiny_recipe_with_profile(folder)
    start = time.monotonic()
    done = automoe("run", recipe, cwd=folder)
    assert done.returncode == 0, done.stderr
    run = Path("runs") / "tiny"
    model = run / "seed-1" / "train-automoe" / "model"
    table = (folder / run / "report" / "results.md").read_text(encoding="utf-8")
    assert done.stdout.splitlines() == [
        *table.splitlines(),
        "",
        f"Open in a browser:  {run / 'report' / 'report.html'}",
        f"Pictures and table: {run / 'report'}",
        f"Trained model:      {model}",
        f"Translate with it:  echo 'Click OK.' | automoe translate {model}",
    ]
    return folder, time.monotonic() - start


def test_a_run_leaves_table_pictures_model_and_candidates(finished):
    folder, _ = finished
    run = folder / "runs" / "tiny"
    seed = run / "seed-1"
    assert {"results.md", "results.csv", "report.html"} <= {path.name for path in (run / "report").iterdir()}
    pictures = {path.name for path in (run / "report" / "seed-1").iterdir()}
    assert {"loss_curves.png", "architecture.png", "experts_a_layer.png"} <= pictures
    assert {"front_latency_ms.png", "front_flops.png", "where_the_time_goes.png"} <= pictures
    assert {f"race_{system}.png" for system in SEARCHED} <= pictures
    table = pd.read_csv(run / "report" / "results.csv").set_index("system")
    assert set(table.index) == set(SYSTEMS)
    assert set(table["seed"]) == {1}
    bound = json.loads((run / "budget" / "constraints.json").read_text())["automoe"]["flops"]
    scored = {}
    for system in SEARCHED:
        candidates = pd.read_json(seed / f"search-{system}" / "candidates.jsonl", lines=True)
        scored[system] = candidates[candidates["score"].notna()]
        assert (scored[system]["flops"] <= bound).all()
    searches = {
        system: scored[system][["system", "strategy", "space"]].drop_duplicates().to_numpy().tolist()
        for system in SEARCHED
    }
    assert searches == {
        "automoe": [["automoe", "evolution", "whole"], ["automoe", "evolution", "dense"]],
        "hat": [["hat", "evolution", "dense"]],
        "random": [["random", "random", "whole"], ["random", "random", "dense"]],
    }
    hat = scored["hat"]["architecture"]
    assert all(len(layer["experts"]) == 1 for a in hat for layer in a["encoder"] + a["decoder"])
    predicted = table["predicted_latency_ms"].dropna()
    assert set(predicted.index) == set(SEARCHED)
    assert "finals of 4: the search's number" in (run / "report" / "results.md").read_text(encoding="utf-8")


def test_the_winner_is_who_won_the_race_of_the_best_candidates(finished):
    folder, _ = finished
    seed = folder / "runs" / "tiny" / "seed-1"
    candidates = pd.read_json(seed / "search-automoe" / "candidates.jsonl", lines=True)
    by_description = candidates[candidates["score"].notna()].set_index("description")
    chosen = json.loads((seed / "search-automoe" / "chosen.json").read_text())
    assert (chosen["strategy"], chosen["rejected"]) == ("evolution", [])
    assert len(chosen["finalists"]) == 4
    measured = json.loads((seed / "search-automoe" / "measured.json").read_text())
    for finalist in chosen["finalists"]:
        architecture = Architecture.from_dict(finalist["architecture"])
        logged = by_description.loc[[str(architecture)]].iloc[0]
        assert finalist["inherited_score"] == pytest.approx(logged["score"], rel=1e-12)
        assert finalist["costs"]["flops"] == logged["flops"]
        assert {"architecture": finalist["architecture"], "measured": finalist["measured"]} in measured
    own = pd.read_json(seed / "search-automoe" / "own_steps.jsonl", lines=True)
    assert len(own) == 6
    best_own = sorted(f["score"] for f in chosen["finalists"])[0]
    assert best_own == pytest.approx(own["loss"].min(), rel=1e-12)
    race = json.loads((seed / "finals-automoe" / "race.json").read_text())
    assert race["finalists"] == [finalist["architecture"] for finalist in chosen["finalists"]]
    last = max(judged["step"] for judged in race["judged"])
    best = min((j for j in race["judged"] if j["step"] == last), key=lambda judged: judged["loss"])
    assert race["winner"] == race["finalists"][best["finalist"]]

    result = json.loads((seed / "evaluate-automoe" / "result.json").read_text())
    assert result["architecture"] == race["winner"]
    winner = Architecture.from_dict(race["winner"])
    table = pd.read_csv(folder / "runs" / "tiny" / "report" / "results.csv").set_index("system")
    latency_ms = load_profile(folder / "device.json").predict(winner).latency_ms
    assert table["predicted_latency_ms"]["automoe"] == pytest.approx(latency_ms)
    lengths = {"source_length": 5, "target_length": 5, "vocabulary_size": 24, "norm": "pre"}
    expected = count(winner, MeasuringProtocol(**lengths), routing_shares=result["routing_shares"]).flops
    assert table["flops_as_routed"]["automoe"] == expected
    card = json.loads((seed / "train-automoe" / "model" / "config.json").read_text())["card"]
    assert card["BLEU"] == result["scores"]["bleu"]
    assert card["target_tokens"] > 0  # the training's own facts are kept
    unused = [
        f"{layer.name}'s expert {number} of {len(layer.feed_forward.ffn_sizes)}"
        for layer in winner.layers()
        for number, share in enumerate(result["routing_shares"].get(layer.name, ()), 1)
        if share == 0 and layer.feed_forward.ffn_sizes[number - 1]
    ]
    told = None if winner.is_dense else ", ".join(unused) or "none"
    assert card.get("experts without a token of the test set") == told


def test_the_winner_translates_standard_input(finished):
    folder, _ = finished
    model = folder / "runs" / "tiny" / "seed-1" / "train-automoe" / "model"
    done = automoe("translate", model, cwd=folder, text="1 2 3\n\n4 5\n")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert len(lines) == 4
    assert lines[0]
    assert not lines[1]
    assert not lines[3]


def test_a_finished_run_is_skipped_and_a_changed_one_redone(finished):
    folder, _ = finished
    again = automoe("run", folder / "tiny.yaml", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "starts" not in again.stderr
    changed = automoe("evaluate", folder / "tiny.yaml", "translation.beam_size=1", "--overwrite", cwd=folder)
    assert changed.returncode == 0, changed.stderr
    assert "evaluate-dense: starts" in changed.stderr
    assert "train-dense: done before" in changed.stderr
    restored = automoe("run", folder / "tiny.yaml", "--overwrite", cwd=folder)
    assert restored.returncode == 0, restored.stderr


def test_without_a_bound_on_the_latency_no_profile_is_made_and_no_latency_predicted(tmp_path):
    recipe = write_tiny_recipe(tmp_path, steps=5)
    done = automoe(
        "run",
        recipe,
        "systems=[{name: automoe, search: evolution}, {name: dense, architecture: largest-dense}]",
        "fine_tuning=null",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "tiny"
    assert not (run / "profile").exists()
    table = pd.read_csv(run / "report" / "results.csv")
    assert table["predicted_latency_ms"].isna().all()
    assert table["latency_ms"].notna().all()
    assert not (run / "report" / "seed-1" / "front_latency_ms.png").exists()


def test_a_search_ranked_by_bleu_scores_minus_bleu(finished, tmp_path):
    recipe = write_tiny_recipe(tmp_path)
    done = automoe("search", recipe, "search.rank_by=bleu", "translation.n_best=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    log = tmp_path / "runs" / "tiny" / "seed-1" / "search-automoe" / "candidates.jsonl"
    scores = pd.read_json(log, lines=True)["score"]
    assert scores.notna().any()
    assert scores.dropna().between(-100, 0).all()


def test_two_processes_run_a_recipe_as_one_with_twice_the_accumulation(tmp_path):
    recipe = write_tiny_recipe(tmp_path, steps=12)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    double = subprocess.run(
        [*torchrun, "-m", "automoe", "run", str(recipe), "model.dropout=0", "finals={candidates: 2}"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert double.returncode == 0, double.stderr
    assert double.stdout.count("| system | BLEU |") == 1
    # Without dropout, whose masks are other ones on every process.
    single = automoe(
        "supernet", recipe, "name=single", "supernet.accumulation=2", "model.dropout=0", cwd=tmp_path
    )
    assert single.returncode == 0, single.stderr
    one, two = (read_history(tmp_path / "runs" / name / "seed-1" / "supernet") for name in ("single", "tiny"))
    assert len(one) == len(two) == 12
    for expected, found in zip(one, two, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    race = json.loads((tmp_path / "runs" / "tiny" / "seed-1" / "finals-automoe" / "race.json").read_text())
    assert len(race["judged"]) == 2


def test_a_full_disk_is_one_message_and_the_run_continues_after_it(finished, tmp_path):
    recipe = write_tiny_recipe(tmp_path, **RANKING)
    runs = tmp_path / "runs"
    runs.mkdir()
    with small_disk(runs, "400k"):
        full = automoe("run", recipe, cwd=tmp_path)
        assert full.returncode == 2, full.stderr
        assert "Traceback" not in full.stderr
        assert "cannot be written" in full.stderr
        subprocess.run(["mount", "-o", "remount,size=100m", str(runs)], check=True)
        done = automoe("run", recipe, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert numbers(runs / "tiny") == numbers(finished[0] / "runs" / "tiny")


def test_kill_9_in_a_race_and_at_random_moments_changes_no_number(finished, tmp_path):
    """Compared with a run that was never killed; several kills, the last run finishes."""
    folder, seconds = finished
    recipe = write_tiny_recipe_with_profile(tmp_path)
    seed = int(os.environ.get("KILL_SEED", time.time_ns()))
    print(f"the moments of the kills are those of KILL_SEED={seed}")
    rng = random.Random(seed)
    run = tmp_path / "runs" / "tiny" / "seed-1"
    judgements = rng.randint(1, 5)
    killed(recipe, lambda: len([*run.glob("trainings/*/judged-*.json")]) >= judgements, 10 * seconds)
    assert (run / "finals-automoe" / "stage.json").exists()
    for _ in range(3):
        killed(recipe, lambda: False, rng.uniform(0.15, 0.6) * seconds)
    done = automoe("run", recipe, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path / "runs" / "tiny") == numbers(folder / "runs" / "tiny")
