"""A graph larger than one protobuf may be is a session, and files, like any other."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from automoe.errors import InputError
from automoe.inference import finished_graph
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.finished_graph import open_session, save_graph
from automoe.inference.graph_model import GraphPrecision, ModelGraph
from automoe.inference.translation_graph import search_inputs, translation_graph
from helpers.paths import REPOSITORY
from helpers.served import tiny_model


def graph(precision: GraphPrecision = "float32") -> onnx.ModelProto:
    model, _ = tiny_model()
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return translation_graph(ModelGraph(model.architecture, model.options.norm, weights, precision))


def translations(session: onnxruntime.InferenceSession) -> list[np.ndarray]:
    source_BS = np.array([[7, 8, 9, 3], [20, 21, 3, 0], [5, 3, 0, 0]])
    return session.run(None, search_inputs(source_BS, [9, 9, 9], BeamSettings(n_best=3)))


def from_file(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_beyond_the_limit_a_session_and_a_file_compute_the_same(
    precision: GraphPrecision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = translations(open_session(graph(precision), 1))
    save_graph(graph(precision), tmp_path / "small.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
    monkeypatch.setattr(finished_graph, "LARGEST_BYTES", 10_000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    large = graph(precision)
    found = [translations(open_session(large, 1))]
    assert list((tmp_path / "temporary").iterdir()) == []
    assert large.ByteSize() < 100_000 < graph(precision).ByteSize()
    save_graph(graph(precision), tmp_path / "large.onnx")
    assert sorted(path.name for path in tmp_path.glob("large*")) == ["large.onnx", "large.onnx.data"]
    found += [translations(from_file(tmp_path / f"{size}.onnx")) for size in ("large", "small")]
    for outputs in found:
        for output, same in zip(outputs, expected, strict=True):
            np.testing.assert_array_equal(output, same)


def test_the_limit_is_that_of_a_protobuf() -> None:
    assert 2**31 - 2**25 < finished_graph.LARGEST_BYTES < 2**31


def test_an_older_onnxruntime_is_refused_before_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    (asked,) = re.findall(r'"onnxruntime>=(\d+)\.(\d+),', (REPOSITORY / "pyproject.toml").read_text("utf-8"))
    assert tuple(map(int, asked)) == finished_graph.OLDEST_RUNTIME
    for version in ("1.9.1", "1.22.0", f"{asked[0]}.{int(asked[1]) - 1}.9+cpu"):
        monkeypatch.setattr(onnxruntime, "__version__", version)
        with pytest.raises(InputError, match=re.escape(version)) as refused:
            open_session(graph(), 1)
        assert refused.value.problems == (f"pip install 'onnxruntime>={'.'.join(asked)}'",)
    for version in (".".join(asked), "2.0.0rc1"):
        monkeypatch.setattr(onnxruntime, "__version__", version)
        open_session(graph(), 1)
