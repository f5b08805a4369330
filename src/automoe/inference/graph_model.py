"""The Transformer as nodes of an ONNX graph: its encoder, and one step of its decoder.

Written node by node and not traced from the model: sizes stay free, and routing stays what it is.

Self-attention's cache is never reordered. Every position of every beam has a slot of its own, and a
hypothesis attends to the slots of its ancestors: a mask hides the others. With few beams the superfluous
products cost less than copying the cache each step.

Shapes: B sentences, S source tokens, K beams, X rows of a sentence (S or K), N = B * X rows, P slots filled
before this step (K a position), D width, C attention dimension, H heads, E head size or experts, M attended
source positions, V vocabulary, L positions, A = N * top_k assignments of a token to an expert, F FFN size,
I inputs and O outputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from automoe.data.vocabulary import PAD_ID
from automoe.design.architecture import (
    Architecture,
    CrossAttention,
    FeedForward,
    Layer,
    Norm,
    SelfAttention,
    SubLayer,
)
from automoe.inference.graph import CONTRIBUTED, FLOAT, INT32, Graph, State
from automoe.inference.model_folder import StoredModel

GraphPrecision: TypeAlias = Literal["float32", "int8"]
Weights: TypeAlias = Mapping[str, NDArray[Any]]
"""Every tensor of a model under the name it has in its file."""

NORM_EPSILON = 1e-5  # torch's
TABLED_POSITIONS = 256  # those of longer batches are computed


class Stream(NamedTuple):
    """The residual stream, with the last sub-layer's update still apart: the next norm adds it for nothing.

    Attributes:
        sum: (B, X, D). `update`: (B, X, D), and `bias`: (D,), to be added to it; empty when there is none.
    """

    sum: str
    update: str = ""
    bias: str = ""


@dataclass(frozen=True)
class ModelGraph:
    """A model whose parts can be added to a graph.

    Args:
        architecture, norm, weights: the model. `precision`: of its matrix products.
    """

    architecture: Architecture
    norm: Norm
    weights: Weights
    precision: GraphPrecision = "float32"

    @staticmethod
    def of(model: StoredModel, precision: GraphPrecision = "float32") -> ModelGraph:
        """The parts of what is in a model folder."""
        return ModelGraph(model.architecture, model.options.norm, model.weights, precision)

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return int(self.weights["embedding"].shape[0])

    def encode(self, g: Graph, source_BS: str, routed: State | None = None) -> State:
        """What the decoder reads of the source in all its steps.

        Args:
            routed: gets an entry for each mixture layer, the experts each token is sent to, (N, top_k).

        Returns:
            Each decoder layer's keys and values, (B, H, M, E), and for each number of attended layers, which
            of the M positions are no padding, (B, M), int32.
        """
        a = self.architecture
        length = g.dimension(source_BS, 1)
        positions_SD = g.op("Slice", self.positions(g, length, a.encoder_width), g.ints([0]), length)
        stream = self._embedded(g, source_BS, positions_SD, a.encoder_width)
        visible_BS = g.op("Cast", g.op("Not", g.op("Equal", source_BS, g.ints(PAD_ID))), to=INT32)
        first = len(a.encoder) - a.encoder_outputs_attended
        outputs: list[str] = []
        for layer in a.layers("encoder"):
            for sublayer in layer.sublayers:
                name = f"{layer.name}.{_NAMES[type(sublayer)]}"
                y_BSD, stream = self._before(g, f"{name}_residual.norm", stream)
                match sublayer:
                    case SelfAttention(heads):
                        parts, bias = self._queries_keys_values(g, name, y_BSD)
                        mixed_BSC = _attention(g, heads, parts, bias, visible_BS)
                        update, bias = self._linear(g, f"{name}.out", mixed_BSC)
                    case FeedForward():
                        update, bias = self._feed_forward(g, layer, sublayer, y_BSD, routed)
                    case CrossAttention():
                        raise AssertionError("an encoder has nothing to cross to")
                    case _:
                        assert_never(sublayer)
                stream = self._after(g, f"{name}_residual.norm", stream, update, bias)
            if layer.index >= first:
                output_BSD, stream = self._before(g, "encoder_norm", stream)
                outputs.append(output_BSD)
        attended = {layer.encoder_layers_attended for layer in a.decoder}
        visible = {f"visible.{n}": g.concat([visible_BS] * n, axis=1) for n in sorted(attended)}
        return self._cross_keys_values(g, outputs) | visible

    def empty_caches(self, g: Graph, batch: str) -> State:
        """The caches before the first step: what `decode` replaces, (B, H, P, E) with P = 0.

        Args:
            batch: a vector of one.
        """
        states: State = {}
        for layer in self.architecture.layers("decoder"):
            for state in layer.decoder_state(self.architecture.qkv_dim):
                if state.per == "position":
                    shape = g.shape(batch, state.heads, 0, state.size)
                    states[f"{state.name}.{layer.index}"] = g.op("ConstantOfShape", shape)
        return states

    def decode(
        self,
        g: Graph,
        tokens_BK: str,
        position_D: str,
        visible_B1KP: str,
        caches: State,
        source: State,
        routed: State | None = None,
    ) -> tuple[str, State]:
        """One position of every beam: the hidden states (B, K, D) behind it, and the caches after it.

        Args:
            position_D: the row of `positions`, or one a beam, (K, D).
            visible_B1KP: 0 at the slots a beam attends to, those of this step included, else -inf.
            source: what `encode` returned. `routed`: as of `encode`.
        """
        a = self.architecture
        stream = self._embedded(g, tokens_BK, position_D, a.decoder_width)
        after: State = {}
        for layer in a.layers("decoder"):
            for sublayer in layer.sublayers:
                name = f"{layer.name}.{_NAMES[type(sublayer)]}"
                y_BKD, stream = self._before(g, f"{name}_residual.norm", stream)
                match sublayer:
                    case SelfAttention(heads):
                        parts, bias = self._queries_keys_values(g, name, y_BKD)
                        names = [f"self_keys.{layer.index}", f"self_values.{layer.index}"]
                        past = [caches[key] for key in names]
                        mixed_BKC, *kept = _attention_after(g, heads, parts, bias, visible_B1KP, past)
                        after |= dict(zip(names, kept, strict=True))
                        update, bias = self._linear(g, f"{name}.out", mixed_BKC)
                    case CrossAttention(heads, attended):
                        q, bias = self._queries(g, name, y_BKD)
                        parts = [
                            q,
                            source[f"cross_keys.{layer.index}"],
                            source[f"cross_values.{layer.index}"],
                        ]
                        mixed_BKC = _attention(g, heads, parts, bias, source[f"visible.{attended}"])
                        update, bias = self._linear(g, f"{name}.out", mixed_BKC)
                    case FeedForward():
                        update, bias = self._feed_forward(g, layer, sublayer, y_BKD, routed)
                    case _:
                        assert_never(sublayer)
                stream = self._after(g, f"{name}_residual.norm", stream, update, bias)
        hidden_BKD, _ = self._before(g, "decoder_norm", stream)
        return hidden_BKD, after

    def logits(self, g: Graph, hidden_BKD: str) -> str:
        """Of what follows each beam, (N, V). In float32 embedding and output layer are one tensor."""
        width = self.architecture.decoder_width
        hidden_ND = g.op("Reshape", hidden_BKD, g.ints([-1, width]))
        table_VD = self.weights["embedding"][:, :width]
        if self.precision == "int8":
            return _int8_product(g, "output", hidden_ND, table_VD.T, "")
        return g.op("Gemm", hidden_ND, g.constant(f"embedding.{width}", table_VD), transB=1)

    def positions(self, g: Graph, length: str, width: int) -> str:
        """Sinusoidal positions (L, D), L at least `length`, a vector of one."""
        table = g.constant(f"positions.{width}", _sinusoids(np.arange(TABLED_POSITIONS)[:, None], width))

        def computed(g: Graph) -> State:
            rates_D, phases_D = _rates_and_phases(width)
            steps_L1 = g.op(
                "Unsqueeze", g.op("Range", g.ints(0), g.op("Squeeze", length), g.ints(1)), g.ints([1])
            )
            angles_LD = g.op("Mul", g.op("Cast", steps_L1, to=FLOAT), g.constant(f"rates.{width}", rates_D))
            angles_LD = g.op("Cast", angles_LD, to=TensorProto.DOUBLE)
            waves_LD = g.op("Sin", g.op("Add", angles_LD, g.constant(f"phases.{width}", phases_D)))
            return {"positions": g.op("Cast", waves_LD, to=FLOAT)}

        more = g.op("Squeeze", g.op("Greater", length, g.ints(TABLED_POSITIONS)))
        return g.choose(more, computed, {"positions": table})["positions"]

    def _embedded(self, g: Graph, tokens: str, positions: str, width: int) -> Stream:
        table_VD = g.constant(f"embedding.{width}", self.weights["embedding"][:, :width])
        scaled = g.op("Mul", g.op("Gather", table_VD, tokens), g.floats(width**0.5))
        return Stream(g.op("Add", scaled, positions))

    def _cross_keys_values(self, g: Graph, outputs: list[str]) -> State:
        states: State = {}
        for layer in self.architecture.layers("decoder"):
            for sublayer in layer.sublayers:
                if isinstance(sublayer, CrossAttention):
                    memory_BMD = g.concat(outputs[-sublayer.encoder_layers_attended :], axis=1)
                    for kind in ("keys", "values"):
                        flat_BMC = self._biased(g, f"{layer.name}.cross.{kind[0]}", memory_BMD)
                        split = g.op("Reshape", flat_BMC, g.ints([0, 0, sublayer.heads, -1]))
                        states[f"cross_{kind}.{layer.index}"] = g.op("Transpose", split, perm=[0, 2, 1, 3])
        return states

    def _before(self, g: Graph, name: str, stream: Stream) -> tuple[str, Stream]:
        """The input of a sub-layer, or of what follows a stack; the stream with its update added."""
        if self.norm == "post":
            return stream.sum, stream
        weight, bias = (
            g.constant(f"{name}.{part}", self.weights[f"{name}.{part}"]) for part in ("weight", "bias")
        )
        if not stream.update:
            y = g.op("LayerNormalization", stream.sum, weight, bias, axis=-1, epsilon=NORM_EPSILON)
            return y, stream
        y, added = g.name("norm"), g.name("sum")
        g.ops(
            "SkipLayerNormalization",
            *(stream.sum, stream.update, weight, bias, stream.bias),
            outputs=[y, "", "", added],
            domain=CONTRIBUTED,
            epsilon=NORM_EPSILON,
        )
        return y, Stream(added)

    def _after(self, g: Graph, name: str, stream: Stream, update: str, bias: str) -> Stream:
        if self.norm == "pre":
            return Stream(stream.sum, update, bias)
        scale, shift = (
            g.constant(f"{name}.{part}", self.weights[f"{name}.{part}"]) for part in ("weight", "bias")
        )
        inputs = (stream.sum, update, scale, shift, bias)
        return Stream(g.op("SkipLayerNormalization", *inputs, domain=CONTRIBUTED, epsilon=NORM_EPSILON))

    def _queries_keys_values(self, g: Graph, name: str, y_BXD: str) -> tuple[list[str], str]:
        """One product for the three, (B, X, C) each, and the bias (3C,) that is still to be added."""
        parts = [f"{name}.{part}" for part in "qkv"]
        weight_DO = np.concatenate([self.weights[f"{part}.weight"] for part in parts]).T
        bias_O = np.concatenate([self.weights[f"{part}.bias"] for part in parts])
        product, bias = self._product(g, f"{name}.qkv", y_BXD, weight_DO, bias_O)
        sizes = g.ints([weight_DO.shape[1] // 3] * 3)
        return g.ops("Split", product, sizes, outputs=3, axis=2), bias

    def _queries(self, g: Graph, name: str, y_BXD: str) -> tuple[str, str]:
        """(B, X, C), and a bias as of `_queries_keys_values`, which adds nothing to keys and values."""
        weight_DC, bias_C = self.weights[f"{name}.q.weight"].T, self.weights[f"{name}.q.bias"]
        product_BXC, bias = self._product(
            g, f"{name}.q", y_BXD, weight_DC, bias_C, extra_zeros=2 * len(bias_C)
        )
        return product_BXC, bias

    def _biased(self, g: Graph, name: str, x: str) -> str:
        return _plus(g, *self._linear(g, name, x))

    def _linear(self, g: Graph, name: str, x: str) -> tuple[str, str]:
        """`x W^T`, and the bias that is still to be added; empty when it is added already."""
        return self._product(g, name, x, self.weights[f"{name}.weight"].T, self.weights[f"{name}.bias"])

    def _product(
        self,
        g: Graph,
        name: str,
        x: str,
        weight_IO: NDArray[Any],
        bias_O: NDArray[Any],
        extra_zeros: int = 0,
    ) -> tuple[str, str]:
        """As `_linear`. In int8, W is rounded to 8 bits a column, and x to 8 bits as a whole, at run time.

        Args:
            extra_zeros: at the end of a bias that is returned.
        """
        if self.precision == "int8":
            return _int8_product(g, name, x, weight_IO, g.constant(f"{name}.bias", bias_O)), ""
        product = g.op("MatMul", x, g.constant(f"{name}.weight", weight_IO))
        return product, g.constant(f"{name}.bias", np.pad(bias_O, (0, extra_zeros)))

    def _feed_forward(
        self, g: Graph, layer: Layer, sublayer: FeedForward, x_BXD: str, routed: State | None
    ) -> tuple[str, str]:
        """A dense FFN or a mixture of the flattened batch, as `_linear`."""
        name = f"{layer.name}.ffn"
        if len(sublayer.experts) == 1:
            return self._expert(g, f"{name}.mixture.experts.0", sublayer.ffn_sizes[0], x_BXD)
        router_DE = self.weights[f"{name}.mixture.router.weight"].T
        x_ND = g.op("Reshape", x_BXD, g.ints([-1, router_DE.shape[0]]))
        # Never rounded to 8 bits: the choice of an expert compares near values.
        logits_NE = g.op("MatMul", x_ND, g.constant(f"{name}.router", router_DE))
        if routed is not None:
            routed[layer.name] = g.ops("TopK", logits_NE, g.ints([sublayer.top_k]), outputs=2)[1]
        mix = self._mixed_at_once if self._fits_one_operator(sublayer) else self._mixed_one_by_one
        mixed_ND = mix(g, f"{name}.mixture.experts", sublayer, x_ND, logits_NE)
        return g.op("Reshape", mixed_ND, g.op("Shape", x_BXD)), ""

    def _expert(self, g: Graph, name: str, size: int, x: str) -> tuple[str, str]:
        if not size:
            return x, ""
        return self._linear(g, f"{name}.down", g.op("Relu", self._biased(g, f"{name}.up", x)))

    def _fits_one_operator(self, sublayer: FeedForward) -> bool:
        return self.precision == "float32"

    def _mixed_at_once(self, g: Graph, name: str, sublayer: FeedForward, x_ND: str, logits_NE: str) -> str:
        """The mixture by ONNX Runtime's operator for experts of one size, smaller ones padded with zeros.

        An identity expert of width D is an FFN of size 2D: x = relu(x) - relu(-x).
        """
        width = self.weights[f"{name.removesuffix('.experts')}.router.weight"].shape[1]
        ffns = [self._padded(f"{name}.{index}", size, width) for index, size in enumerate(sublayer.ffn_sizes)]
        largest = max(len(ffn["up.bias"]) for ffn in ffns)
        tensors = []
        for part, axes in (("up.weight", (0,)), ("up.bias", (0,)), ("down.weight", (1,)), ("down.bias", ())):
            padded = []
            for ffn in ffns:
                value = ffn[part]
                padding = [(0, largest - value.shape[i] if i in axes else 0) for i in range(value.ndim)]
                padded.append(np.pad(value, padding))
            tensors.append(g.constant(f"{name}.{part}", np.stack(padded)))
        return g.op(
            "MoE",
            *(x_ND, logits_NE, *tensors),
            domain=CONTRIBUTED,
            k=sublayer.top_k,
            activation_type="relu",
            normalize_routing_weights=0,
        )

    def _padded(self, name: str, size: int, width: int) -> dict[str, NDArray[Any]]:
        if size:
            parts = ("up.weight", "up.bias", "down.weight", "down.bias")
            return {part: self.weights[f"{name}.{part}"] for part in parts}
        eye = np.eye(width, dtype=np.float32)
        up_FD = np.concatenate([eye, -eye])
        return {
            "up.weight": up_FD,
            "up.bias": np.zeros(2 * width, np.float32),
            "down.weight": up_FD.T.copy(),
            "down.bias": np.zeros(width, np.float32),
        }

    def _mixed_one_by_one(self, g: Graph, name: str, sublayer: FeedForward, x_ND: str, logits_NE: str) -> str:
        """Tokens go to their experts and come back, scaled by their gates, to their rows.

        Each expert works on the tokens it was given, none without tokens.
        """
        probabilities_NE = g.op("Softmax", logits_NE, axis=-1)
        top_k = sublayer.top_k
        gates_NK, experts_NK = g.ops("TopK", probabilities_NE, g.ints([top_k]), outputs=2)
        gates_A1 = g.op("Reshape", gates_NK, g.ints([-1, 1]))
        experts_A = g.op("Reshape", experts_NK, g.ints([-1]))
        outputs, rows = [], []
        for index, size in enumerate(sublayer.ffn_sizes):
            assignments = g.op(
                "Reshape", g.op("NonZero", g.op("Equal", experts_A, g.ints(index))), g.ints([-1])
            )
            row = assignments if top_k == 1 else g.op("Div", assignments, g.ints(top_k))
            out = _plus(g, *self._expert(g, f"{name}.{index}", size, g.op("Gather", x_ND, row)))
            outputs.append(g.op("Mul", out, g.op("Gather", gates_A1, assignments)))
            rows.append(row)
        indices_A1 = g.op("Reshape", g.concat(rows, axis=0), g.ints([-1, 1]))
        zeros_ND = g.op("ConstantOfShape", g.op("Shape", x_ND))
        reduction = "none" if top_k == 1 else "add"
        return g.op("ScatterND", zeros_ND, indices_A1, g.concat(outputs, axis=0), reduction=reduction)


_NAMES: dict[type[SubLayer], str] = {SelfAttention: "attention", CrossAttention: "cross", FeedForward: "ffn"}


def _plus(g: Graph, x: str, bias: str) -> str:
    return g.op("Add", x, bias) if bias else x


def _attention(g: Graph, heads: int, parts: Sequence[str], bias: str, visible_BM: str) -> str:
    """Attention of queries over keys and values; (B, X, C).

    Args:
        parts: (B, X, C) each, or keys and values as (B, H, M, E). `bias`: of them; empty for none.
        visible_BM: int32, 0 at what nobody attends to.
    """
    inputs = (*parts, bias, visible_BM)
    return g.op("MultiHeadAttention", *inputs, domain=CONTRIBUTED, num_heads=heads)


def _attention_after(
    g: Graph, heads: int, parts: Sequence[str], bias: str, visible_B1KP: str, past: Sequence[str]
) -> list[str]:
    """Attention over the past and each other; (B, K, C), and the past with this step's keys and values."""
    inputs = (*parts, bias, "", visible_B1KP, *past)
    return g.ops("MultiHeadAttention", *inputs, outputs=3, domain=CONTRIBUTED, num_heads=heads)


def _int8_product(g: Graph, name: str, x: str, weight_IO: NDArray[Any], bias: str) -> str:
    scale_O = np.maximum(np.abs(weight_IO).max(axis=0), 1e-12).astype(np.float32) / 127
    rounded = g.constant(f"{name}.rounded", np.rint(weight_IO / scale_O).astype(np.int8))
    scale = g.constant(f"{name}.scale", scale_O)
    inputs = (x, rounded, scale, "", bias)  # no zero point
    return g.op("DynamicQuantizeMatMul", *inputs[: 5 if bias else 3], domain=CONTRIBUTED)


def _rates_and_phases(width: int) -> tuple[NDArray[Any], NDArray[Any]]:
    columns_D = np.arange(width)
    rates_D = (10000.0 ** (-(columns_D // 2).astype(np.float32) * 2 / width)).astype(np.float32)
    return rates_D, np.where(columns_D % 2, np.pi / 2, 0.0)  # cos(x) = sin(x + pi / 2), exact in float64


def _sinusoids(steps_L1: NDArray[Any], width: int) -> NDArray[Any]:
    """As `automoe.model.attention.sinusoidal_positions`."""
    rates_D, phases_D = _rates_and_phases(width)
    angles_LD = (steps_L1.astype(np.float32) * rates_D).astype(np.float64)
    waves_LD: NDArray[Any] = np.sin(angles_LD + phases_D).astype(np.float32)
    return waves_LD
