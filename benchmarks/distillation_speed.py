"""How many training sources a second a teacher translates, by engine and size of a batch.

    python benchmarks/distillation_speed.py [MODEL]     a model folder; by default the demo's deep dense model

Sentences evenly spaced over the demo's training sources, sorted by length as the stage `distil` does. The
figures are of a quiet machine, or of none.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from automoe.data.corpus import load_pairs
from automoe.data.vocabulary import EOS_ID
from automoe.inference.backends import load_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Engine
from automoe.inference.ensemble import EnsembleEngine
from automoe.inference.model_folder import load_model
from automoe.inference.translator import Translator, pad_right
from automoe.run.distil import longest_first
from automoe.run.recipe import load_recipe

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "model", nargs="?", default=ROOT / "runs" / "demo" / "seed-1" / "train-dense" / "model"
    )
    parser.add_argument("--sentences", type=int, default=1024)
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 16, 64, 256))
    parser.add_argument("--beam", type=int, default=5)
    arguments = parser.parse_args()
    if not Path(arguments.model).is_dir():
        print(f"no model at {arguments.model}: run `make demo` first, or name another")
        return
    data = load_recipe(ROOT / "recipes" / "demo.yaml").recipe.data
    onnx, tokenizer = load_engine(arguments.model, "onnx")
    model, _ = load_model(arguments.model)
    engines: dict[str, Engine] = {"onnx": onnx, "ensemble of two": EnsembleEngine([model, model])}
    sources = longest_first(load_pairs(data.train, data.limits)[0], tokenizer, data.max_tokens)
    chosen = sources[:: max(1, len(sources) // arguments.sentences)]
    encoded = [[*tokens, EOS_ID] for tokens in tokenizer.encode(chosen)]
    for name, engine in engines.items():
        translator = Translator(engine, tokenizer, BeamSettings(arguments.beam))
        for size in arguments.batches:
            batches = [encoded[start : start + size] for start in range(0, len(encoded), size)]
            translator.engine.search(pad_right(batches[len(batches) // 2]), translator.settings)
            start = time.perf_counter()
            for batch in batches:
                translator.engine.search(pad_right(batch), translator.settings)
            rate = len(encoded) / (time.perf_counter() - start)
            print(
                f"{name}: batches of {size}: {rate:,.0f} sentences/s, "
                f"{len(sources) / rate / 60:.1f} minutes for {len(sources):,} sources",
                flush=True,
            )


if __name__ == "__main__":
    main()
