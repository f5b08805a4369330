"""Models with random weights that translate digits to digits: teachers which nobody has to train."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from automoe.data.tokenizer import Tokenizer, train_tokenizer
from automoe.design.architecture import dense
from automoe.inference.model_folder import save_model
from automoe.model.transformer import Transformer


def digit_tokenizer(size: int) -> Tokenizer:
    """A vocabulary of `size` tokens for the corpora of the tiny run."""
    rng = random.Random(1)
    return train_tokenizer([" ".join(rng.choices("0123456789", k=5)) for _ in range(400)], size, "bpe")


def save_teacher(folder: Path, tokenizer: Tokenizer, seed: int = 1) -> Path:
    """The folder of a model whose translations depend much on the source, and so differ from each other."""
    model = Transformer(dense(16, 32, 2, 2, 1), tokenizer.vocabulary_size)
    model.initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    save_model(folder, model, tokenizer, {})
    return folder
