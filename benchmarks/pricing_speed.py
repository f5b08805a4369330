"""Speed of pricing: the costs of a default search, 15 x 125 candidates of the paper's space (M = 6).

    python benchmarks/pricing_speed.py [--profile device.json] [--candidates 1875]

Without a profile of that space, one is made up: its parts take a time in proportion to their parameters
(pricing takes as long whatever the figures are).
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from automoe.cost.beside import Ratio
from automoe.cost.costs import Conditions, prices
from automoe.cost.counting import count
from automoe.cost.device.probes import Probe
from automoe.cost.device.probing import make_profile
from automoe.cost.protocol import MeasuringProtocol
from automoe.cost.sources import latency_source
from automoe.design.space import SearchSpace
from automoe.run.recipe import load_recipe

RECIPE = Path(__file__).parent.parent / "recipes" / "wmt14-en-de.yaml"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--candidates", type=int, default=15 * 125)
    arguments = parser.parse_args()
    loaded = load_recipe(RECIPE)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.profile or Path(folder) / "device.json"
        if arguments.profile is None:
            make_up_profile(loaded.space, loaded.recipe.protocol(), path)
        rng = random.Random(1)
        candidates = [loaded.space.sample(rng) for _ in range(arguments.candidates)]
        start = time.perf_counter()
        protocol = loaded.recipe.protocol()
        latency_ms = latency_source(protocol, loaded.recipe.latency, path, print)
        priced = prices(Conditions(protocol, latency_ms), ["latency_ms"])
        for architecture in candidates:
            for price in priced.values():
                price.of(architecture)
        seconds = time.perf_counter() - start
    print(f"{len(candidates)} candidates, {len(priced)} costs each: {seconds:.2f} s, profile read included")


def make_up_profile(space: SearchSpace, protocol: MeasuringProtocol, path: Path) -> None:
    """A profile of a device on which a model takes a time in proportion to its active parameters."""
    reference = count(space.largest_dense()).active_parameters

    def measure(probe: Probe, turns: int) -> Ratio:
        ratio = count(probe.architecture).active_parameters / reference
        return Ratio(ratio, ratio, 100.0, 400.0, spread=0.0, stolen_share=0.0)

    make_profile(space, protocol, path, print, measure=measure)


if __name__ == "__main__":
    main()
