"""The vocabulary's table is in a graph once, and what ONNX Runtime computes with is packed all the same."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.inference import graph_model
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.finished_graph import open_session
from automoe.inference.graph import tensors_of
from automoe.inference.graph_model import ModelGraph
from automoe.inference.translation_graph import search_inputs, translation_graph
from automoe.inference.weight_shapes import weight_shapes

V = 499  # unlike any other size
WIDTHS = [(16, 16), (16, 12), (12, 16)]


def model(encoder_width: int, decoder_width: int) -> ModelGraph:
    layers = (EncoderLayer(2, (8,)),), (DecoderLayer(2, 2, (8,)),)
    architecture = Architecture(encoder_width, decoder_width, 8, *layers)
    rng = np.random.default_rng(0)
    shapes = weight_shapes(architecture, V, "pre")
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return ModelGraph(architecture, "pre", weights)


def tables(graph: onnx.GraphProto) -> list[list[int]]:
    return [list(tensor.dims) for tensor in tensors_of(graph) if V in tensor.dims]


def graphs_within(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_within(attribute.g)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("shortlist", [False, True])
def test_the_table_is_there_once(widths: tuple[int, int], shortlist: bool) -> None:
    graph = translation_graph(model(*widths), shortlist=shortlist).graph
    assert tables(graph) == [[V, max(widths)]]


@pytest.mark.parametrize("widths", WIDTHS)
def test_the_product_of_each_step_has_a_constant_of_its_own_graph(
    widths: tuple[int, int], tmp_path: Path
) -> None:
    """Of what belongs to another graph, ONNX Runtime packs nothing."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    graph = translation_graph(model(*widths)).SerializeToString()
    onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
    (inner,) = [
        part
        for part in graphs_within(onnx.load(tmp_path / "optimised.onnx").graph)
        for tensor in part.initializer
        if list(tensor.dims) == [widths[1], V]
    ]
    (name,) = [tensor.name for tensor in inner.initializer if V in tensor.dims]
    (used,) = [node for node in inner.node if name in node.input]
    assert (used.op_type, list(used.input)[1]) == ("MatMul", name)


@pytest.mark.parametrize("widths", WIDTHS)
def test_a_table_that_would_be_turned_in_every_step_is_there_twice(
    widths: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source_BS = np.array([[7, 8, 9, 2], [5, 2, 0, 0]])
    inputs = search_inputs(source_BS, [9, 9], BeamSettings(3, n_best=3))
    expected = open_session(translation_graph(model(*widths)), 1).run(None, inputs)
    monkeypatch.setattr(graph_model, "MOST_FOLDED_BYTES", 4 * V * widths[1] - 1)
    large = translation_graph(model(*widths))
    assert sorted(tables(large.graph)) == sorted([[V, max(widths)], [widths[1], V]])
    for output, same in zip(open_session(large, 1).run(None, inputs), expected, strict=True):
        np.testing.assert_array_equal(output, same)
