"""A `Transformer` as two ONNX graphs: one encodes a batch, one decodes a position for all its beams.

    encoder   source (B, S)  ->  for each decoder layer: cross_keys and cross_values (B, M, C)
    decoder   tokens (B, K), position, visible (B, 1, K, P + K), source_visible (B, 1, K, S),
              the encoder's outputs, self_keys and self_values (B, H, P, E) of each layer, candidates C
              ->  log_probabilities and extensions (B, K, C), end (B, K), new_self_keys, new_self_values

The graphs are written node by node and not traced from the model: sizes stay free, routing stays what it is
(each expert works on the tokens it was given, none without tokens).

Self-attention's cache is never reordered. Every position of every beam has a slot of its own, and a
hypothesis attends to the slots of its ancestors: `visible` is 0 there and very negative elsewhere. With
few beams the superfluous products cost less than copying the cache each step.

Shapes: B sentences, S source tokens, K beams or experts a token (`top_k`), X rows of a sentence (S or K),
P slots filled before this step (K a position), D width, C attention dimension or candidates, H heads,
E head size or experts, M attended source positions, V vocabulary, N tokens, A = N * K assignments of a token
to an expert, I inputs and O outputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias, assert_never, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from automoe.data.vocabulary import EOS_ID, PAD_ID
from automoe.design.architecture import CrossAttention, FeedForward, SelfAttention
from automoe.errors import InputError
from automoe.model.attention import Attention
from automoe.model.experts import ExpertModule, MixtureOfExperts
from automoe.model.sublayers import Block, FeedForwardModule, Residual
from automoe.model.transformer import Transformer

GraphPrecision = Literal["float32", "int8"]

OPSET = 23  # the first with `Attention`
LARGEST_BYTES = 2**31 - 1  # protobuf's limit
CONTRIBUTED = "com.microsoft"  # the domain of ONNX Runtime's own operators
INVISIBLE = -1e9  # added to a score before the softmax: its weight is exactly 0 in float32
_FLOAT, _INT = TensorProto.FLOAT, TensorProto.INT64

_Shape: TypeAlias = Sequence[str | int | None] | int
"""Dimensions (their names where they vary, None where even that), or only how many."""
_Value: TypeAlias = tuple[str, int, _Shape]
"""An input or output of a graph: name, type, shape."""


def encoder_graph(model: Transformer, precision: GraphPrecision) -> onnx.ModelProto:
    """The encoder, and the keys and values every decoder layer reads in all its steps.

    Raises:
        InputError: the model is too large for a graph.
    """
    a = model.architecture
    graph = _Graph(precision)
    table = graph.constant("embedding", model.embedding[:, : a.encoder_width])
    steps = graph.op("Range", graph.ints(0), graph.dimension("source", 1), graph.ints(1))
    x = graph.embed(table, "source", graph.op("Unsqueeze", steps, graph.ints([1])), a.encoder_width)
    padding = graph.op("Equal", "source", graph.ints(PAD_ID))
    hidden = graph.op("Where", padding, graph.floats(INVISIBLE), graph.floats(0.0))
    # `Attention` wants a mask with a row for each query.
    rows = graph.op("Shape", "source", start=1)
    square = graph.op("Concat", graph.ints([1, 1]), rows, graph.ints([1]), axis=0)
    mask = graph.op("Expand", graph.op("Unsqueeze", hidden, graph.ints([1, 2])), square)

    outputs: list[str] = []
    for block in cast(Iterable[Block], model.encoder):
        for sublayer, module, residual in block.parts():
            y = graph.before(residual, x)
            match sublayer:
                case SelfAttention():
                    update = graph.self_attention(cast(Attention, module), y, mask)
                case CrossAttention():
                    raise AssertionError("an encoder has nothing to cross to")
                case FeedForward():
                    update = graph.feed_forward(cast(FeedForwardModule, module).mixture, y)
                case _:
                    assert_never(sublayer)
            x = graph.after(residual, x, update)
        if block.layer.index >= len(a.encoder) - a.encoder_outputs_attended:
            outputs.append(graph.norm(model.encoder_norm, x))

    names = []
    for block in cast(Iterable[Block], model.decoder):
        for sublayer, module, _ in block.parts():
            match sublayer:
                case CrossAttention():
                    attention = cast(Attention, module)
                    memory = graph.concat(outputs[-sublayer.encoder_layers_attended :], axis=1)
                    linears = attention.k, attention.v
                    states = sublayer.decoder_state(a.decoder_width, a.qkv_dim)
                    for state, linear in zip(states, linears, strict=True):
                        names.append(f"{state.name}_{block.layer.index}")
                        graph.op("Identity", graph.linear(memory, linear), output=names[-1])
                case SelfAttention() | FeedForward():
                    pass  # reads nothing of the source
                case _:
                    assert_never(sublayer)
    return graph.model([("source", _INT, ["B", "S"])], [(name, _FLOAT, 3) for name in names])


def decoder_graph(model: Transformer, precision: GraphPrecision) -> onnx.ModelProto:
    """One step of the decoder with the output layer and the choice of the best extensions.

    Raises:
        InputError: the model is too large for a graph.
    """
    a = model.architecture
    graph = _Graph(precision)
    table = graph.constant("embedding", model.output_weight_VD)
    x = graph.embed(table, "tokens", "position", a.decoder_width)
    inputs: list[_Value] = [
        ("tokens", _INT, ["B", "K"]),
        ("position", _INT, []),
        ("candidates", _INT, [1]),
        ("visible", _FLOAT, 4),
        ("source_visible", _FLOAT, 4),
    ]
    outputs: list[_Value] = []
    for block in cast(Iterable[Block], model.decoder):
        for sublayer, module, residual in block.parts():
            y = graph.before(residual, x)
            states = sublayer.decoder_state(a.decoder_width, a.qkv_dim)
            names = [f"{state.name}_{block.layer.index}" for state in states]
            match sublayer:
                case SelfAttention():
                    inputs += [(name, _FLOAT, 4) for name in names]
                    new = [f"new_{name}" for name in names]
                    attention = cast(Attention, module)
                    update = graph.self_attention(attention, y, "visible", past=names, new=new)
                    outputs += [(name, _FLOAT, 4) for name in new]
                case CrossAttention():
                    # Without the last dimension of what is attended, ONNX infers a wrong shape.
                    inputs += [(name, _FLOAT, [None, None, a.qkv_dim]) for name in names]
                    mask = graph.concat(["source_visible"] * sublayer.encoder_layers_attended, axis=3)
                    update = graph.cross_attention(cast(Attention, module), y, names[0], names[1], mask)
                case FeedForward():
                    update = graph.feed_forward(cast(FeedForwardModule, module).mixture, y)
                case _:
                    assert_never(sublayer)
            x = graph.after(residual, x, update)

    logits = graph.output_layer(graph.norm(model.decoder_norm, x), model.output_weight_VD, table)
    log_probabilities = graph.op("LogSoftmax", logits, axis=-1)
    graph.op("TopK", log_probabilities, "candidates", output=["log_probabilities", "extensions"])
    graph.op("Gather", log_probabilities, graph.ints(EOS_ID), axis=2, output="end")
    outputs += [
        ("log_probabilities", _FLOAT, ["B", "K", "C"]),
        ("extensions", _INT, ["B", "K", "C"]),
        ("end", _FLOAT, ["B", "K"]),
    ]
    return graph.model(inputs, outputs)


class _Graph:
    """A graph that grows: every method adds nodes and returns the name of their output."""

    def __init__(self, precision: GraphPrecision) -> None:
        self.precision = precision
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def model(self, inputs: Sequence[_Value], outputs: Sequence[_Value]) -> onnx.ModelProto:
        """The finished model."""
        infos = [
            [
                helper.make_tensor_value_info(name, kind, [None] * shape if isinstance(shape, int) else shape)
                for name, kind, shape in group
            ]
            for group in (inputs, outputs)
        ]
        tensors = list(self._initializers.values())
        graph = helper.make_graph(self._nodes, "automoe", infos[0], infos[1], tensors)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIBUTED, 1)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="automoe")
        if made.ByteSize() > LARGEST_BYTES:
            mend = "use the backend torch, or precision int8"
            raise InputError("the model is too large for one ONNX graph (2 GiB)", [mend])
        return made

    def op(
        self,
        kind: str,
        *inputs: str,
        output: str | Sequence[str] | int = 1,
        domain: str = "",
        **attributes: Any,
    ) -> Any:
        """Add a node; `output` names its outputs or says how many, and their names are returned."""
        if isinstance(output, int):
            names = [f"{kind}.{len(self._nodes)}.{i}" for i in range(output)]
        else:
            names = [output] if isinstance(output, str) else list(output)
        self._nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names[0] if len(names) == 1 else names

    def constant(self, name: str, value: Tensor | NDArray[Any]) -> str:
        """A tensor that is part of the model; one of a name that is known already is the same."""
        if name not in self._initializers:
            array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
            self._initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def ints(self, value: int | list[int]) -> str:
        return self.constant(f"int.{value}", np.array(value, dtype=np.int64))

    def floats(self, value: float) -> str:
        return self.constant(f"float.{value}", np.array(value, dtype=np.float32))

    def dimension(self, x: str, axis: int) -> str:
        """A scalar: the size of one dimension."""
        return str(self.op("Gather", self.op("Shape", x), self.ints(axis)))

    def concat(self, parts: Sequence[str], axis: int) -> str:
        return parts[0] if len(parts) == 1 else str(self.op("Concat", *parts, axis=axis))

    def embed(self, table: str, tokens: str, positions: str, width: int) -> str:
        """Embeddings with `automoe.model.attention.sinusoidal_positions`; positions: (S, 1), or a scalar."""
        columns = np.arange(width)
        rates_D = (10000.0 ** (-(columns // 2).astype(np.float32) * 2 / width)).astype(np.float32)
        phases_D = np.where(columns % 2, np.pi / 2, 0.0)  # cos(x) = sin(x + pi / 2), exact enough in float64
        angles = self.op(
            "Mul", self.op("Cast", positions, to=_FLOAT), self.constant("position_rates", rates_D)
        )
        angles = self.op("Cast", angles, to=TensorProto.DOUBLE)
        waves = self.op("Sin", self.op("Add", angles, self.constant("position_phases", phases_D)))
        scaled = self.op("Mul", self.op("Gather", table, tokens), self.floats(width**0.5))
        return str(self.op("Add", scaled, self.op("Cast", waves, to=_FLOAT)))

    def linear(self, x: str, *layers: nn.Linear) -> str:
        """`x W^T + b`; several layers with one input are computed as one, their outputs side by side."""
        weights = [layer.weight.detach().cpu().numpy() for layer in layers]
        biases = [layer.bias.detach().cpu().numpy() for layer in layers]
        name = f"linear.{len(self._nodes)}"
        return self.product(x, name, np.concatenate(weights).T, np.concatenate(biases))

    def product(self, x: str, name: str, weight_IO: NDArray[Any], bias_O: NDArray[Any] | None) -> str:
        """`x W + b`, in int8: W rounded to 8 bits a column, x to 8 bits as a whole, at run time."""
        if self.precision == "float32":
            out = self.op("MatMul", x, self.constant(f"{name}.weight", weight_IO))
            return out if bias_O is None else str(self.op("Add", out, self.constant(f"{name}.bias", bias_O)))
        scale_O = np.maximum(np.abs(weight_IO).max(axis=0), 1e-12).astype(np.float32) / 127
        rounded_IO = np.rint(weight_IO / scale_O).astype(np.int8)
        bias = [] if bias_O is None else [self.constant(f"{name}.bias", bias_O)]
        return str(
            self.op(
                "DynamicQuantizeMatMul",
                x,
                self.constant(f"{name}.weight", rounded_IO),
                self.constant(f"{name}.scale", scale_O),
                "",  # no zero point
                *bias,
                domain=CONTRIBUTED,
            )
        )

    def output_layer(self, x: str, weight_VD: Tensor, table: str) -> str:
        """Logits (B, K, V). In float32 the embedding itself is the weight, one tensor for both."""
        if self.precision == "int8":
            return self.product(x, "output", weight_VD.detach().cpu().numpy().T, None)
        width, size = weight_VD.shape[1], weight_VD.shape[0]
        flat_ND = self.op("Reshape", x, self.ints([-1, width]))
        logits_NV = self.op("Gemm", flat_ND, table, transB=1)
        shape = self.op("Concat", self.op("Shape", x, end=2), self.ints([size]), axis=0)
        return str(self.op("Reshape", logits_NV, shape))

    def norm(self, module: nn.Module, x: str) -> str:
        """A layer norm; the identity adds nothing."""
        if not isinstance(module, nn.LayerNorm):
            return x
        name = f"norm.{len(self._nodes)}"
        weight = self.constant(f"{name}.weight", module.weight)
        bias = self.constant(f"{name}.bias", module.bias)
        return str(self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=module.eps))

    def before(self, residual: Residual, x: str) -> str:
        return self.norm(residual.norm, x) if residual.pre else x

    def after(self, residual: Residual, x: str, update: str) -> str:
        if residual.pre:
            return str(self.op("Add", x, update))
        norm = residual.norm
        name = f"norm.{len(self._nodes)}"
        weight = self.constant(f"{name}.weight", norm.weight)
        bias = self.constant(f"{name}.bias", norm.bias)
        return str(
            self.op("SkipLayerNormalization", x, update, weight, bias, domain=CONTRIBUTED, epsilon=norm.eps)
        )

    def self_attention(
        self, attention: Attention, x_BXD: str, mask: str, past: Sequence[str] = (), new: Sequence[str] = ()
    ) -> str:
        """Attention of the rows over each other, after the `past` keys and values; (B, X, D)."""
        projected = self.linear(x_BXD, attention.q, attention.k, attention.v)
        sizes = self.ints([attention.q.out_features] * 3)
        q, k, v = self.op("Split", projected, sizes, axis=2, output=3)
        mixed = f"Attention.{len(self._nodes)}"
        heads = attention.heads
        inputs, outputs = (q, k, v, mask, *past), [mixed, *new]
        self.op("Attention", *inputs, output=outputs, q_num_heads=heads, kv_num_heads=heads)
        return self.linear(mixed, attention.out)

    def cross_attention(
        self, attention: Attention, x_BXD: str, keys_BMC: str, values_BMC: str, mask: str
    ) -> str:
        """Attention of the rows over keys and values that are ready; (B, X, D)."""
        q_BXC = self.linear(x_BXD, attention.q)
        heads = attention.heads
        mixed_BXC = self.op(
            "Attention", q_BXC, keys_BMC, values_BMC, mask, q_num_heads=heads, kv_num_heads=heads
        )
        return self.linear(mixed_BXC, attention.out)

    def feed_forward(self, mixture: MixtureOfExperts, x_BXD: str) -> str:
        """A dense FFN, or a mixture over the flattened batch; (B, X, D)."""
        if mixture.router is None:
            return self.expert(_experts(mixture)[0], x_BXD)
        width = mixture.router.in_features
        out_ND = self.mixture(mixture, mixture.router, self.op("Reshape", x_BXD, self.ints([-1, width])))
        return str(self.op("Reshape", out_ND, self.op("Shape", x_BXD)))

    def expert(self, expert: ExpertModule, x: str) -> str:
        if not expert.size:
            return x
        return self.linear(self.op("Relu", self.linear(x, expert.up)), expert.down)

    def mixture(self, mixture: MixtureOfExperts, router: nn.Linear, x_ND: str) -> str:
        """Tokens go to their experts and come back, scaled by their gates, to their rows.

        The router is never rounded to 8 bits: its choice compares near values.
        """
        weight_DE = router.weight.detach().cpu().numpy().T
        logits_NE = self.op("MatMul", x_ND, self.constant(f"router.{len(self._nodes)}", weight_DE))
        probabilities_NE = self.op("Softmax", logits_NE, axis=-1)
        gates_NK, experts_NK = self.op("TopK", probabilities_NE, self.ints([mixture.top_k]), output=2)
        gates_A1 = self.op("Reshape", gates_NK, self.ints([-1, 1]))  # A = N * top_k assignments
        experts_A = self.op("Reshape", experts_NK, self.ints([-1]))
        outputs, rows = [], []
        for index, expert in enumerate(_experts(mixture)):
            chosen = self.op("NonZero", self.op("Equal", experts_A, self.ints(index)))
            assignments = self.op("Reshape", chosen, self.ints([-1]))
            row = assignments
            if mixture.top_k > 1:
                row = self.op("Div", assignments, self.ints(mixture.top_k))
            out = self.expert(expert, self.op("Gather", x_ND, row))
            outputs.append(self.op("Mul", out, self.op("Gather", gates_A1, assignments)))
            rows.append(row)
        indices_A1 = self.op("Reshape", self.concat(rows, axis=0), self.ints([-1, 1]))
        zeros_ND = self.op("ConstantOfShape", self.op("Shape", x_ND))
        mixed_AD = self.concat(outputs, axis=0)
        reduction = "none" if mixture.top_k == 1 else "add"
        return str(self.op("ScatterND", zeros_ND, indices_A1, mixed_AD, reduction=reduction))


def _experts(mixture: MixtureOfExperts) -> list[ExpertModule]:
    return cast(list[ExpertModule], list(mixture.experts))
