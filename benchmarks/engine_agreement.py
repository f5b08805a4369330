"""Whether the engines translate like the reference: on the shipped test set, with a trained model.

    python benchmarks/engine_agreement.py [MODEL]      a model folder; by default the demo's winner

Prints for each engine how many of the first 500 translations differ from those of torch in float32, how many
of these are near-ties (the reference gives both the same score to 1e-4), and BLEU on the whole test set.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from automoe.data.corpus import load_pairs
from automoe.data.vocabulary import BOS_ID, EOS_ID
from automoe.evaluation.scores import evaluate_translations
from automoe.inference.backends import make_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Hypothesis
from automoe.inference.model_folder import load_model
from automoe.inference.translator import Translator
from automoe.model.transformer import Transformer
from automoe.run.recipe import load_recipe

ROOT = Path(__file__).parent.parent
ENGINES = (("torch", "float32"), ("torch", "float16"), ("onnx", "float32"), ("onnx", "int8"))
COMPARED = 500
NEAR_TIE = 1e-4  # of the score


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "model", nargs="?", default=ROOT / "runs" / "demo" / "seed-1" / "train-automoe" / "model"
    )
    arguments = parser.parse_args()
    recipe = load_recipe(ROOT / "recipes" / "demo.yaml").recipe
    if not Path(arguments.model).is_dir():
        print(f"no model at {arguments.model}: run `make demo` first, or name another")
        return
    model, tokenizer = load_model(arguments.model)
    pairs = load_pairs(recipe.data.test, recipe.data.limits)[0]
    sources = [[*tokens, EOS_ID] for tokens in tokenizer.encode([pair.source for pair in pairs])]
    settings = BeamSettings()
    reference: list[Hypothesis] = []
    for backend, precision in ENGINES:
        translator = Translator(make_engine(model, backend, precision), tokenizer, settings)  # type: ignore[arg-type]
        start = time.perf_counter()
        found = [hypotheses[0] for hypotheses in translator.search(sources, batch_tokens=2000)]
        seconds = time.perf_counter() - start
        reference = reference or found
        texts = tokenizer.decode([hypothesis.tokens for hypothesis in found])
        bleu = evaluate_translations(texts, [p.target for p in pairs], recipe.data.target_language).bleu
        different = [i for i in range(min(COMPARED, len(pairs))) if found[i].tokens != reference[i].tokens]
        near = [
            i
            for i in different
            if abs(score(model, sources[i], found[i].tokens, settings) - reference[i].score) < NEAR_TIE
        ]
        print(
            f"{backend:5} {precision:8} BLEU {bleu:6.2f}, {len(different):3} of the first {COMPARED} differ, "
            f"{len(near)} of them near-ties; {len(pairs)} sentences in {seconds:.1f} s",
            flush=True,
        )


@torch.inference_mode()
def score(model: Transformer, source: list[int], tokens: tuple[int, ...], settings: BeamSettings) -> float:
    """What the reference model gives a translation, by teacher forcing."""
    output = model(torch.tensor([source]), torch.tensor([[BOS_ID, *tokens]]))
    log_probabilities_TV = model.logits(output.hidden_BTD[0]).log_softmax(dim=-1)
    total = log_probabilities_TV.gather(1, torch.tensor([*tokens, EOS_ID])[:, None]).sum()
    return float(total) / (len(tokens) + 1) ** settings.length_penalty


if __name__ == "__main__":
    main()
