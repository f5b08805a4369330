"""A real run of a tiny recipe: everything it must leave behind, and `kill -9` at random moments."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from automoe.cost.counting import count
from automoe.cost.device.profile import load_profile
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture
from automoe.run.recipe import load_recipe
from automoe.training.history import read_history
from helpers.small_disk import small_disk
from helpers.tiny_run import automoe, write_made_up_profile, write_tiny_recipe

pytestmark = pytest.mark.slow  # whole processes, seconds each

# A bound that every machine keeps: two runs measure different latencies and must choose the same.
BOUNDS = "{flops: 90%, latency_ms: 10000}"
SYSTEMS = ["automoe", "dense", "hat", "switch", "random", "automoe-inherited", "automoe-fine-tuned"]


def write_tiny_recipe_with_profile(folder: Path) -> Path:
    recipe = write_tiny_recipe(folder, constraints=BOUNDS)
    profile = write_made_up_profile(folder / "device.json", load_recipe(recipe))
    recipe.write_text(recipe.read_text().replace("latency: {", f"latency: {{profile: {profile}, "))
    return recipe


def numbers(run: Path) -> dict[str, Any]:
    """Everything a run concludes, but for times."""
    results = {}
    for system in SYSTEMS:
        result = json.loads((run / f"evaluate-{system}" / "result.json").read_text())
        del result["translation_seconds"], result["training"]["seconds"]
        result["translations"] = (run / f"evaluate-{system}" / "translations.txt").read_text()
        results[system] = result
    return results


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    folder = tmp_path_factory.mktemp("finished")
    recipe = write_tiny_recipe_with_profile(folder)
    start = time.monotonic()
    done = automoe("run", recipe, cwd=folder)
    assert done.returncode == 0, done.stderr
    run = Path("runs") / "tiny"
    table = (folder / run / "report" / "results.md").read_text(encoding="utf-8")
    assert done.stdout.splitlines() == [
        *table.splitlines(),
        "",
        f"Pictures and table: {run / 'report'}",
        f"Trained model:      {run / 'train-automoe' / 'model'}",
        f"Translate with it:  echo 'Click OK.' | automoe translate {run / 'train-automoe' / 'model'}",
    ]
    return folder, time.monotonic() - start


def test_a_run_leaves_table_pictures_model_and_candidates(finished):
    folder, _ = finished
    run = folder / "runs" / "tiny"
    report = {path.name for path in (run / "report").iterdir()}
    assert {"results.md", "results.csv", "loss_curves.png", "architecture.png"} <= report
    assert {"front_latency_ms.png", "front_flops.png", "where_the_time_goes.png"} <= report
    table = pd.read_csv(run / "report" / "results.csv")
    assert set(table["system"]) == set(SYSTEMS)
    candidates = pd.read_json(run / "search" / "candidates.jsonl", lines=True)
    scored = candidates[candidates["score"].notna()]
    searches = scored[["system", "strategy", "space"]].drop_duplicates().to_numpy().tolist()
    assert searches == [
        ["automoe", "evolution", "whole"],
        ["hat", "evolution", "dense"],
        ["random", "random", "whole"],
    ]
    bound = json.loads((run / "budget" / "constraints.json").read_text())["flops"]
    assert (scored["flops"] <= bound).all()
    best = scored[scored["system"] == "automoe"].nsmallest(1, "score").iloc[0]
    chosen = json.loads((run / "search" / "chosen.json").read_text())["automoe"]
    assert chosen["architecture"] == best["architecture"]
    assert chosen["predicted_latency_ms"] == best["latency_ms"]
    assert (chosen["strategy"], chosen["space"]) == ("evolution", "whole")
    assert chosen["rejected"] == []
    measured = json.loads((run / "search" / "measured.json").read_text())
    assert {"architecture": chosen["architecture"], "measured": chosen["measured"]} in measured
    predicted = table.set_index("system")["predicted_latency_ms"].dropna()
    assert set(predicted.index) == {"automoe", "hat", "random"}
    assert predicted["automoe"] == best["latency_ms"]
    profile = load_profile(folder / "device.json")
    latency_ms = profile.predict(Architecture.from_dict(best["architecture"])).latency_ms
    assert latency_ms == pytest.approx(best["latency_ms"])
    routed = json.loads((run / "evaluate-automoe" / "result.json").read_text())
    card = json.loads((run / "train-automoe" / "model" / "config.json").read_text())["card"]
    assert card["BLEU"] == routed["scores"]["bleu"]
    assert card["target_tokens"] > 0  # the training's own facts are kept
    architecture = Architecture.from_dict(routed["architecture"])
    lengths = {"source_length": 5, "target_length": 5, "vocabulary_size": 24, "norm": "pre"}
    expected = count(
        architecture, MeasuringProtocol(**lengths), routing_shares=routed["routing_shares"]
    ).flops
    assert table.set_index("system")["flops_as_routed"]["automoe"] == expected
    hat = scored[scored["system"] == "hat"]["architecture"]
    assert all(len(layer["experts"]) == 1 for a in hat for layer in a["encoder"] + a["decoder"])


def test_the_winner_translates_standard_input(finished):
    folder, _ = finished
    model = folder / "runs" / "tiny" / "train-automoe" / "model"
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
    changed = automoe("evaluate", folder / "tiny.yaml", "translation.beam_size=1", cwd=folder)
    assert changed.returncode == 0, changed.stderr
    assert "evaluate-dense: starts" in changed.stderr
    assert "train-dense: done before" in changed.stderr
    restored = automoe("run", folder / "tiny.yaml", cwd=folder)
    assert restored.returncode == 0, restored.stderr


def test_without_a_bound_on_the_latency_no_profile_is_made_and_no_latency_predicted(tmp_path):
    recipe = write_tiny_recipe(tmp_path, steps=5)
    done = automoe("run", recipe, "systems=[automoe,dense]", "fine_tuning=null", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "tiny"
    assert not (run / "profile").exists()
    table = pd.read_csv(run / "report" / "results.csv")
    assert table["predicted_latency_ms"].isna().all()
    assert table["latency_ms"].notna().all()
    assert not (run / "report" / "front_latency_ms.png").exists()


def test_a_search_ranked_by_bleu_scores_minus_bleu(finished, tmp_path):
    recipe = write_tiny_recipe(tmp_path)
    done = automoe("search", recipe, "search.rank_by=bleu", "translation.n_best=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = pd.read_json(tmp_path / "runs" / "tiny" / "search" / "candidates.jsonl", lines=True)["score"]
    assert scores.notna().any()
    assert scores.dropna().between(-100, 0).all()


def test_two_processes_run_a_recipe_as_one_with_twice_the_accumulation(tmp_path):
    recipe = write_tiny_recipe(tmp_path, steps=12)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    double = subprocess.run(
        [*torchrun, "-m", "automoe", "run", str(recipe), "model.dropout=0"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert double.returncode == 0, double.stderr
    assert double.stdout.count("| system |") == 1
    # Without dropout, whose masks are other ones on every process.
    single = automoe(
        "supernet", recipe, "name=single", "supernet.accumulation=2", "model.dropout=0", cwd=tmp_path
    )
    assert single.returncode == 0, single.stderr
    one, two = (read_history(tmp_path / "runs" / name / "supernet") for name in ("single", "tiny"))
    assert len(one) == len(two) == 12
    for expected, found in zip(one, two, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)


def test_a_full_disk_is_one_message_and_the_run_continues_after_it(finished, tmp_path):
    recipe = write_tiny_recipe(tmp_path)
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


def test_kill_9_at_random_moments_changes_no_number(finished, tmp_path):
    """Compared with a run that was never killed; several kills, the last run finishes."""
    folder, seconds = finished
    recipe = write_tiny_recipe_with_profile(tmp_path)
    seed = int(os.environ.get("KILL_SEED", time.time_ns()))
    print(f"the moments of the kills are those of KILL_SEED={seed}")
    rng = random.Random(seed)
    command = [sys.executable, "-m", "automoe", "run", str(recipe)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for _ in range(5):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=rng.uniform(0.15, 0.6) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    done = automoe("run", recipe, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path / "runs" / "tiny") == numbers(folder / "runs" / "tiny")
