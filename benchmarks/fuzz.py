"""Whether any made-up input ends in a traceback or a status of 500 and more.

    python benchmarks/fuzz.py [--examples 100] [--seed 0] [--kinds recipes spaces ...]

Recipes, spaces, architecture files, corpora and requests (those of the OpenAPI document, and any bytes) are
made up by hypothesis and schemathesis, `--examples` of each kind. The full measure: --examples 1000.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.fuzzed import KINDS, Kind
from helpers.fuzzed_requests import REQUESTS

ALL = KINDS | REQUESTS


def main() -> None:
    """Try and print; exit code 1 when something was neither a result nor a refusal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=ALL, default=list(ALL))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of hypothesis, about how large its examples are
    print(f"seed {arguments.seed}")
    good = [_tried(name, ALL[name], arguments.examples, arguments.seed) for name in arguments.kinds]
    sys.exit(not all(good))


def _tried(name: str, kind: Kind, examples: int, number: int) -> bool:
    """Whether all examples of a kind end well."""
    ends: Counter[str] = Counter()
    longest_s = 0.0

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(kind.examples)
    def ends_well(example: Any) -> None:
        nonlocal longest_s
        start = time.monotonic()
        ends[kind.end(example)] += 1
        longest_s = max(longest_s, time.monotonic() - start)

    fault = None
    try:
        ends_well()
    except (Exception, ExceptionGroup) as error:
        fault = error
    told = ", ".join(f"{count:,} {end}" for end, count in sorted(ends.items(), reverse=True))
    print(f"  {name:14} {told}, longest {longest_s:.1f} s: {'FAULT' if fault else 'no fault'}", flush=True)
    if fault:
        traceback.print_exception(fault)
    return fault is None


if __name__ == "__main__":
    main()
