"""The counted size of a download against the files that exports and model folders really have."""

import random
from pathlib import Path

import numpy as np
import pytest

from automoe.cost.costs import COSTS, Conditions
from automoe.cost.download import TOLERANCE, TOLERATED_BYTES, download_bytes
from automoe.cost.protocol import MeasuringProtocol
from automoe.data.tokenizer import train_tokenizer
from automoe.design.architecture import MIXERS, Architecture, DecoderLayer, EncoderLayer, Mixer, dense
from automoe.design.model_options import ModelOptions
from automoe.export.onnx import export_onnx
from automoe.inference.graph_model import ModelGraph
from automoe.inference.model_folder import save_model
from automoe.inference.translation_graph import translation_graph
from automoe.inference.weight_shapes import weight_shapes
from automoe.model.transformer import Transformer


def random_architecture(rng: random.Random, mixers: tuple[Mixer, ...]) -> Architecture:
    """Any kind of layer there is: identity experts, mixtures, top-2, wide cross-attention, all mixers."""

    def experts() -> tuple[tuple[int, ...], int]:
        sizes = tuple(rng.choice([0, 64, 200]) for _ in range(rng.choice([1, 1, 2, 5])))
        return sizes, rng.randint(1, min(2, len(sizes)))

    encoder = tuple(EncoderLayer(rng.choice([1, 4]), *experts()) for _ in range(rng.randint(1, 4)))

    def decoder_layer(mixer: Mixer) -> DecoderLayer:
        heads = rng.choice([1, 4]) if mixer == "self_attention" else 0
        attended = rng.randint(1, min(3, len(encoder)))
        return DecoderLayer(heads, rng.choice([1, 4]), *experts(), attended, mixer)

    decoder = tuple(decoder_layer(rng.choice(mixers)) for _ in range(rng.randint(1, 4)))
    return Architecture(rng.choice([64, 96]), rng.choice([64, 96]), 64, encoder, decoder)


ARCHITECTURES = [random_architecture(random.Random(seed), ("self_attention",)) for seed in range(6)]
ARCHITECTURES += [random_architecture(random.Random(seed), (mixer,)) for mixer in MIXERS for seed in range(2)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["open the file", "close every window", "the quick brown fox jumps over it"], 32)


def model_folder(folder: Path, architecture: Architecture, norm: str, tokenizer) -> Path:
    model = Transformer(architecture, tokenizer.vocabulary_size, ModelOptions(norm))
    model.initialise(0)
    save_model(folder, model, tokenizer, {})
    return folder


def assert_counted(counted: float, file: Path) -> None:
    real = file.stat().st_size
    assert abs(counted - real) <= max(TOLERANCE * real, TOLERATED_BYTES), (counted, real)


@pytest.mark.parametrize("seed", range(len(ARCHITECTURES)))
def test_a_download_is_as_large_as_the_files_that_are_written(tmp_path, tokenizer, seed):
    architecture, norm = ARCHITECTURES[seed], ("pre", "post")[seed % 2]
    model = model_folder(tmp_path / "model", architecture, norm, tokenizer)
    conditions = {"vocabulary_size": tokenizer.vocabulary_size, "norm": norm}
    reads = Conditions(MeasuringProtocol(backend="torch", **conditions))
    assert_counted(COSTS["download_bytes"].price(architecture, reads), model / "model.safetensors")
    sizes = {}
    for precision in ("float32", "int8"):
        export_onnx(model, tmp_path / precision, precision)
        protocol = MeasuringProtocol(backend="onnx", precision=precision, **conditions)
        sizes[precision] = COSTS["download_bytes"].price(architecture, Conditions(protocol))
        assert_counted(sizes[precision], tmp_path / precision / "translation.onnx")
    assert sizes["int8"] < sizes["float32"]


@pytest.mark.parametrize(("precision", "tables"), [("float32", 4), ("int8", 4 + 1)])
def test_of_a_large_vocabulary_all_tables_are_counted(precision, tables):
    """In float32 embeddings and output layer are one; in int8 the output layer is rounded, they are not."""
    architecture = dense(32, 64, 2, 1, 1)
    sizes = {}
    for vocabulary_size in (100, 5000):
        shapes = weight_shapes(architecture, vocabulary_size, "post")
        weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
        real = translation_graph(ModelGraph(architecture, "post", weights, precision)).ByteSize()
        protocol = MeasuringProtocol(backend="onnx", precision=precision, vocabulary_size=vocabulary_size)
        sizes[vocabulary_size] = real, download_bytes(architecture, protocol)
    grown = [large - small for small, large in zip(sizes[100], sizes[5000], strict=True)]
    assert grown[0] == pytest.approx(4900 * 32 * tables, rel=0.03)  # and a scale for each rounded output
    assert grown[1] == pytest.approx(grown[0], rel=1e-3)
