"""A finished graph becomes a session or a file, however large it is.

Protobuf's messages end at 2 GiB. The weights of a larger graph lie beside it, in a file of their own.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime as ort
from onnx import helper

from automoe.errors import InputError
from automoe.inference.graph import OPSET, tensors_of
from automoe.storage import whole_file

LARGEST_BYTES = 2**31 - 2**24
"""Of the weights within a graph: protobuf's limit, but for the room that the nodes need."""
SMALLEST_APART = 1024
"""Bytes of a tensor that is worth lying beside the graph; ONNX Runtime infers shapes from smaller ones."""
OLDEST_RUNTIME = (1, 30)
"""The ONNX Runtime that can compute these graphs; `pyproject.toml` asks for it."""


def open_session(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    """A session on the CPU.

    Args:
        model: of a large one, the weights are moved out.
        threads: 0 is one a core.

    Raises:
        InputError: the ONNX Runtime that is installed is too old, or a large model does not fit on the disk.
    """
    _refuse_old_runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads must not take the processor from whoever computes next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    if not _is_large(model):
        return ort.InferenceSession(model.SerializeToString(), options, providers)
    # In memory, ONNX Runtime finds only weights of the outermost graph. It may go on reading the file, which
    # Linux then keeps, without a name, and Windows does not let go.
    with TemporaryDirectory(prefix="automoe-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "graph.onnx"
        save_graph(model, path)
        return ort.InferenceSession(path, options, providers)


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph; the weights of a large one go to `path` with `.data` at its end, which must not exist.

    Args:
        model: of a large one, the weights are moved out.

    Raises:
        InputError: the folder is missing, or the disk is full or refuses.
    """
    with whole_file(path) as temporary:
        onnx.save_model(
            model,
            temporary,
            save_as_external_data=_is_large(model),
            location=f"{path.name}.data",
            size_threshold=SMALLEST_APART,
        )


def _is_large(model: onnx.ModelProto) -> bool:
    # `ByteSize()` of what is too large raises.
    return sum(map(_bytes_of, tensors_of(model.graph))) > LARGEST_BYTES


def _bytes_of(tensor: onnx.TensorProto) -> int:
    size: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(size * math.prod(tensor.dims))


def _refuse_old_runtime() -> None:
    numbers = tuple(map(int, re.findall(r"\d+", ort.__version__)[:2]))
    if numbers < OLDEST_RUNTIME:
        oldest = ".".join(map(str, OLDEST_RUNTIME))
        raise InputError(
            f"ONNX Runtime {ort.__version__} is too old for the graphs of AutoMoE (opset {OPSET})",
            [f"pip install 'onnxruntime>={oldest}'"],
        )
