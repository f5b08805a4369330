"""Which of ONNX Runtime's operators multiplies the few rows of a decoding step fastest.

    python benchmarks/small_products.py [--threads 1] [--runs 300]

A row for each shape of a matrix: 8 such products after each other in one graph, random weights, all kinds in
turns; the lower quartile of the microseconds of one product. Blocks are `MatMulNBits` with int8 arithmetic
(accuracy level 4); int8 is `DynamicQuantizeMatMul`, which the engine uses.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

CHAIN = 8
SHAPES = ((5, 192, 192), (5, 192, 768), (5, 192, 4000), (5, 512, 2048), (30, 192, 768))  # rows, in, out
KINDS = ("float32", "int8", "8 bits/64", "8 bits/128", "4 bits/64", "4 bits/128")  # bits/numbers in a block


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=300)
    arguments = parser.parse_args()
    print("rows x in x out     " + "".join(f"{kind:>12}" for kind in KINDS))
    for rows, inputs, outputs in SHAPES:
        sessions = {kind: chain(kind, inputs, outputs, arguments.threads) for kind in KINDS}
        x = np.random.default_rng(0).normal(size=(rows, inputs)).astype(np.float32)
        seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(arguments.runs):
            for kind, session in sessions.items():
                start = time.perf_counter()
                session.run(None, {"x": x})
                seconds[kind].append(time.perf_counter() - start)
        told = (1e6 * np.quantile(seconds[kind], 0.25) / CHAIN for kind in KINDS)
        print(f"{rows:3} x {inputs:4} x {outputs:4}   " + "".join(f"{us:9.1f} us" for us in told), flush=True)


def chain(kind: str, inputs: int, outputs: int, threads: int) -> onnxruntime.InferenceSession:
    """Products from `inputs` to `outputs` numbers and back, `CHAIN` of them."""
    rng = np.random.default_rng(0)
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []
    x = "x"
    for index in range(CHAIN):
        shape = (inputs, outputs) if index % 2 == 0 else (outputs, inputs)
        y = "y" if index == CHAIN - 1 else f"x.{index}"
        nodes += product(kind, rng, shape, x, y, weights)
        x = y
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])
    wanted = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "products", [given], [wanted], weights)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=11)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def product(
    kind: str,
    rng: np.random.Generator,
    shape: tuple[int, int],
    x: str,
    y: str,
    weights: list[TensorProto],
) -> list[NodeProto]:
    """`y = x W + b` in nodes; the tensors are added to `weights`."""
    inputs, outputs = shape

    def tensor(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value, f"{y}.{name}"))
        return f"{y}.{name}"

    bias = tensor("bias", np.zeros(outputs, dtype=np.float32))
    if kind == "float32":
        weight = tensor("weight", rng.normal(size=shape).astype(np.float32) / inputs**0.5)
        multiplied = helper.make_node("MatMul", [x, weight], [f"{y}.product"])
        return [multiplied, helper.make_node("Add", [f"{y}.product", bias], [y])]
    if kind == "int8":
        weight = tensor("weight", rng.integers(-127, 128, shape).astype(np.int8))
        scale = tensor("scale", np.full(outputs, 0.01, dtype=np.float32))
        parts = [x, weight, scale, "", bias]
        return [helper.make_node("DynamicQuantizeMatMul", parts, [y], domain="com.microsoft")]
    bits, block = int(kind[0]), int(kind.split("/")[1])
    blocks = -(-inputs // block)
    packed = rng.integers(0, 256, (outputs, blocks, block * bits // 8)).astype(np.uint8)
    scales = np.full(outputs * blocks, 0.01, dtype=np.float32)
    parts = [x, tensor("weight", packed), tensor("scale", scales), "", "", bias]
    return [
        helper.make_node(
            "MatMulNBits",
            parts,
            [y],
            domain="com.microsoft",
            K=inputs,
            N=outputs,
            bits=bits,
            block_size=block,
            accuracy_level=4,
        )
    ]


if __name__ == "__main__":
    main()
