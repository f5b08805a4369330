"""Whether `kill -9` at random moments changes any number of a run.

    python benchmarks/kill_nine.py [--kills 5] [--seed 0]

A tiny run with every stage (supernet, searches, finals, trainings, evaluation, latency, report) is killed and
started again until it ends; then its scores, translations, candidates and digests of weights must be those
of a run that nobody disturbed. Then the next one begins, until there were enough kills. The full measure:
--kills 100.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.killed_run import killed, numbers, write_tiny_recipe_with_profile
from helpers.tiny_run import automoe

# Shares of an undisturbed run's time that one is left alone for, at least and at most; to begin takes some.
SHARES = (0.2, 0.8)


def main() -> None:
    """Kill, compare and print; exit code 1 when a number differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = write_tiny_recipe_with_profile(folder)
        run = folder / "runs" / "tiny"
        start = time.monotonic()
        _finish(recipe)
        seconds = time.monotonic() - start
        undisturbed = numbers(run)
        print(f"undisturbed: {seconds:.1f} s; {arguments.kills} kills, seed {arguments.seed}", flush=True)
        kills, runs, different = 0, 0, 0
        stages: Counter[str] = Counter()
        while kills < arguments.kills:
            shutil.rmtree(run)
            ended = False
            while kills < arguments.kills and not ended:
                ended = not killed(recipe, lambda: False, rng.uniform(*SHARES) * seconds)
                kills += not ended
                stages[_stage(run)] += not ended
            if not ended:
                _finish(recipe)
            runs += 1
            found = numbers(run)
            wrong = [key for key, value in undisturbed.items() if found[key] != value]
            different += bool(wrong)
            same = f"other numbers: {', '.join(wrong)}" if wrong else "the same numbers"
            print(f"  run {runs}, ended after {kills} kills in all: {same}", flush=True)
    hit = ", ".join(f"{stage} {count}" for stage, count in sorted(stages.items()) if count)
    print(f"  {kills} kills in {runs} runs ({hit}): {runs - different} of {runs} with the same numbers")
    sys.exit(different > 0)


def _finish(recipe: Path) -> None:
    done = automoe("run", recipe, cwd=recipe.parent)
    if done.returncode:
        sys.exit(f"the run failed with exit code {done.returncode}:\n{done.stderr}")


def _stage(run: Path) -> str:
    """The kind of stage that is begun and not finished."""
    for mark in sorted(run.glob("**/stage.json")):
        if not json.loads(mark.read_text(encoding="utf-8"))["finished"]:
            return mark.parent.name.partition("-")[0]
    return "between stages"


if __name__ == "__main__":
    main()
