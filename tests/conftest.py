"""What every test shares: fixed seeds, few threads, no network."""

import os

# Before torch and tokenizers are imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import random

import hypothesis
import pytest
import torch

# One thread: the tests' models are so small that a second one only costs, and sums are the same everywhere.
torch.set_num_threads(1)

hypothesis.settings.register_profile("automoe", derandomize=True, deadline=None)
hypothesis.settings.load_profile("automoe")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Code under test takes its own generators; this is for the tensors that tests make up."""
    torch.manual_seed(0)


@pytest.fixture
def rng() -> random.Random:
    """A seeded generator for the functions that are handed one."""
    return random.Random(0)
