"""How many of a trained decoder's experts a step wakes, beside tokens spread evenly over the experts.

    python benchmarks/woken_experts.py [MODEL ...]      model folders; by default the demo's winner

A step of beam search decodes one token of each beam, and reads an expert's weights if any of them is sent
there. Latencies of random weights (`automoe latency`, profiles) assume that tokens choose evenly and
independently. This tells what a trained model does with 100 real sentences, one at a time: the weights of
the experts it wakes, relative to that assumption.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from automoe.data.corpus import load_pairs
from automoe.inference.backends import make_engine
from automoe.inference.model_folder import load_model
from automoe.inference.translator import Translator
from automoe.model.experts import MixtureOfExperts
from automoe.run.recipe import load_recipe

ROOT = Path(__file__).parent.parent
SENTENCES = 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "models", nargs="*", default=[ROOT / "runs" / "demo" / "seed-1" / "train-automoe" / "model"]
    )
    recipe = load_recipe(ROOT / "recipes" / "demo.yaml").recipe
    lines = [pair.source for pair in load_pairs(recipe.data.test, recipe.data.limits)[0][:SENTENCES]]
    for folder in parser.parse_args().models:
        if not Path(folder).is_dir():
            print(f"no model at {folder}: run `make demo` first, or name another")
            continue
        print(f"{folder}: {woken_share(folder, lines)}", flush=True)


def woken_share(folder: str | Path, lines: list[str]) -> str:
    """Translate the lines one by one; the woken weights of the decoder's mixtures over those expected."""
    model, tokenizer = load_model(folder)
    woken: list[int] = []
    expected: list[float] = []

    def count(mixture: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        assert isinstance(mixture, MixtureOfExperts)
        _, _, routing = mixture.route(inputs[0])
        weights = torch.tensor([sum(p.numel() for p in e.parameters()) for e in mixture.experts])
        E, tokens = len(weights), len(inputs[0])
        woken.append(int(weights[routing.tokens_per_expert_E > 0].sum()))
        expected.append(float(weights.sum()) * (1 - (1 - mixture.top_k / E) ** tokens))

    for block in model.decoder.modules():
        if isinstance(block, MixtureOfExperts) and block.router is not None:
            block.register_forward_hook(count)
    for _ in Translator(make_engine(model), tokenizer).translate(lines, batch_tokens=1):
        pass
    if not expected:
        return f"no mixture in the decoder: {model.architecture}"
    return f"{sum(woken) / sum(expected):.0%} of the weights that evenly spread tokens wake"


if __name__ == "__main__":
    main()
