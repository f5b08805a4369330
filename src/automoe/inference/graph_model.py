"""The Transformer as nodes of an ONNX graph: its encoder, and one step of its decoder.

Written node by node and not traced from the model: sizes stay free, and routing stays what it is.

Self-attention's cache is never reordered. Every position of every beam has a slot of its own, and a
hypothesis attends to the slots of its ancestors: a mask hides the others. With few beams the superfluous
products cost less than copying the cache each step. What other mixers keep is one vector a hypothesis, which
`beam_search` hands on from the hypothesis that it continues (`follows`).

Shapes: B sentences, S source tokens, K beams, X rows of a sentence (S or K), N = B * X rows, P slots filled
before this step (K a position), D width, C attention dimension, H heads, E head size or experts, M attended
source positions, V vocabulary, W tokens of a shortlist, L positions, A = N * top_k assignments of a token to
an expert, F FFN size, I inputs and O outputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from automoe.data.vocabulary import PAD_ID
from automoe.design.architecture import (
    Architecture,
    AverageAttention,
    CrossAttention,
    FeedForward,
    Layer,
    Norm,
    SelfAttention,
    Ssru,
)
from automoe.inference.graph import CONTRIBUTED, FLOAT, INT, Graph, State
from automoe.inference.model_folder import BareModel
from automoe.inference.sinusoids import rates_and_phases, sinusoids

GraphPrecision: TypeAlias = Literal["float32", "int8"]
Weights: TypeAlias = Mapping[str, NDArray[Any]]
"""Every tensor of a model under the name it has in its file."""

NORM_EPSILON = 1e-5  # torch's
INVISIBLE = -1e9  # added to a score before the softmax: its weight is exactly 0 in float32
MOST_FOLDED_BYTES = 2**30  # ONNX Runtime computes a larger constant of constants again in every step
TABLED_POSITIONS = 256  # those of longer batches are computed


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
    def of(model: BareModel, precision: GraphPrecision = "float32") -> ModelGraph:
        """The parts of a model, such as one in a folder."""
        return ModelGraph(model.architecture, model.options.norm, model.weights, precision)

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return int(self.weights["embedding"].shape[0])

    def encode(self, g: Graph, source_BS: str, rows: str, routed: State | None = None) -> State:
        """What the decoder reads of the source in all its steps.

        Args:
            rows: of a sentence in a step, K; a vector of one.
            routed: gets an entry for each mixture layer, the experts each token is sent to, (N, top_k).

        Returns:
            Each decoder layer's keys and values, (B, M, C), and for each number of attended layers a mask,
            (B, 1, K, M), of 0 where there is a token and a very negative number elsewhere.
        """
        a = self.architecture
        batch, length = g.dimension(source_BS, 0), g.dimension(source_BS, 1)
        positions_SD = g.op("Slice", self.positions(g, length, a.encoder_width), g.ints([0]), length)
        x_BSD = self._embedded(g, source_BS, positions_SD, a.encoder_width)
        is_padding_BS = g.op("Equal", source_BS, g.ints(PAD_ID))
        visible_BS = g.op("Where", is_padding_BS, g.floats(INVISIBLE), g.floats(0.0))
        visible_B11S = g.op("Unsqueeze", visible_BS, g.ints([1, 2]))
        # `Attention` wants a mask with a row for each query.
        visible_B1SS = g.op("Expand", visible_B11S, g.shape(batch, 1, length, length))
        first = len(a.encoder) - a.encoder_outputs_attended
        outputs: list[str] = []
        for layer in a.layers("encoder"):
            for sublayer in layer.sublayers:
                name = f"{layer.name}.{sublayer.module_name}"
                y_BSD = self._before(g, name, x_BSD)
                match sublayer:
                    case SelfAttention(heads):
                        q, k, v = self._queries_keys_values(g, name, y_BSD)
                        mixed_BSC = _attention(g, heads, (q, k, v, visible_B1SS))
                        update_BSD = self._linear(g, f"{name}.out", mixed_BSC)
                    case FeedForward():
                        update_BSD = self._feed_forward(g, layer, sublayer, y_BSD, routed)
                    case CrossAttention() | AverageAttention() | Ssru():
                        raise AssertionError(f"an encoder layer has no {name}")
                    case _:
                        assert_never(sublayer)
                x_BSD = self._after(g, name, x_BSD, update_BSD)
            if layer.index >= first:
                outputs.append(self._final(g, "encoder_norm", x_BSD))
        visible_B1KS = g.op("Expand", visible_B11S, g.shape(batch, 1, rows, length))
        attended = {layer.encoder_layers_attended for layer in a.decoder}
        masks = {f"visible.{n}": g.concat([visible_B1KS] * n, axis=3) for n in sorted(attended)}
        return self._cross_keys_values(g, outputs) | masks

    def empty_caches(self, g: Graph, batch: str, rows: str) -> State:
        """The caches before the first step: what `decode` replaces.

        Keys and values are (B, H, P, E) with P = 0; what `follows` names is (N, D) of zeros.

        Args:
            batch, rows: B, and of each sentence in a step K; vectors of one.
        """
        states: State = {}
        for layer in self.architecture.layers("decoder"):
            for state in layer.decoder_state(self.architecture.qkv_dim):
                match state.per:
                    case "position":
                        shape = g.shape(batch, state.heads, 0, state.size)
                    case "beam":
                        shape = g.shape(g.op("Mul", batch, rows), state.heads * state.size)
                    case "source":
                        continue  # `encode` makes it
                    case _:
                        assert_never(state.per)
                states[f"{state.name}.{layer.index}"] = g.op("ConstantOfShape", shape)
        return states

    @property
    def follows(self) -> frozenset[str]:
        """Of the caches, what every hypothesis takes over from the one that it continues."""
        return frozenset(
            f"{state.name}.{layer.index}"
            for layer in self.architecture.layers("decoder")
            for state in layer.decoder_state(self.architecture.qkv_dim)
            if state.per == "beam"
        )

    def decode(
        self,
        g: Graph,
        tokens_BK: str,
        taken: str,
        position_D: str,
        visible_B1KP: str,
        caches: State,
        source: State,
        routed: State | None = None,
    ) -> tuple[str, State]:
        """One position of every beam: the hidden states (B, K, D) behind it, and the caches after it.

        Args:
            taken: the positions before this one, a scalar.
            position_D: the row of `positions`, or one a beam, (K, D).
            visible_B1KP: 0 at the slots a beam attends to, those of this step included, else -inf.
            source: what `encode` returned. `routed`: as of `encode`.
        """
        a = self.architecture
        x_BKD = self._embedded(g, tokens_BK, position_D, a.decoder_width)
        after: State = {}
        for layer in a.layers("decoder"):
            for sublayer in layer.sublayers:
                name = f"{layer.name}.{sublayer.module_name}"
                y_BKD = self._before(g, name, x_BKD)
                match sublayer:
                    case SelfAttention(heads):
                        q, k, v = self._queries_keys_values(g, name, y_BKD)
                        names = [f"self_keys.{layer.index}", f"self_values.{layer.index}"]
                        past = [caches[key] for key in names]
                        mixed_BKC, *kept = _attention_after(g, heads, (q, k, v, visible_B1KP, *past))
                        after |= dict(zip(names, kept, strict=True))
                        update_BKD = self._linear(g, f"{name}.out", mixed_BKC)
                    case AverageAttention():
                        key = f"average_sum.{layer.index}"
                        update_BKD, after[key] = self._average(g, name, y_BKD, taken, caches[key])
                    case Ssru():
                        key = f"ssru_cell.{layer.index}"
                        update_BKD, after[key] = self._ssru(g, name, y_BKD, caches[key])
                    case CrossAttention(heads, attended):
                        q = self._linear(g, f"{name}.q", y_BKD)
                        k, v = source[f"cross_keys.{layer.index}"], source[f"cross_values.{layer.index}"]
                        mixed_BKC = _attention(g, heads, (q, k, v, source[f"visible.{attended}"]))
                        update_BKD = self._linear(g, f"{name}.out", mixed_BKC)
                    case FeedForward():
                        update_BKD = self._feed_forward(g, layer, sublayer, y_BKD, routed)
                    case _:
                        assert_never(sublayer)
                x_BKD = self._after(g, name, x_BKD, update_BKD)
        return self._final(g, "decoder_norm", x_BKD), after

    def shortlisted(self, g: Graph, shortlist_W: str) -> list[str]:
        """What `logits` needs of the output layer to work on some tokens alone, gathered once for all steps.

        Whole rows are gathered, and then turned: columns would be copied number by number.

        Args:
            shortlist_W: the tokens, int64.
        """
        scales: list[str] = []
        if self.precision == "int8":
            rounded_DV, scale_V = _rounded(self._output_weight_VD.T)
            table_VD = g.constant("output.rows", rounded_DV.T)
            scales = [g.op("Gather", g.constant("output.scale", scale_V), shortlist_W)]
        else:
            table_VD = self._table(g, self.architecture.decoder_width)
        return [g.op("Transpose", g.op("Gather", table_VD, shortlist_W), perm=[1, 0]), *scales]

    def logits(self, g: Graph, hidden_BKD: str, shortlisted: Sequence[str] = ()) -> str:
        """Of what follows each beam, (N, V).

        In float32 embedding and output layer are one tensor, which is in a file once. When ONNX Runtime loads
        it, it turns it into a matrix of the graph that has the product, so packs it.

        Args:
            shortlisted: what the method of this name returned; then (N, W).
        """
        hidden_ND = g.op("Reshape", hidden_BKD, g.ints([-1, self.architecture.decoder_width]))
        if self.precision == "int8":
            if not shortlisted:
                return _int8_product(g, "output", hidden_ND, self._output_weight_VD.T, "")
            return g.op("DynamicQuantizeMatMul", hidden_ND, *shortlisted, domain=CONTRIBUTED)
        if shortlisted:
            return g.op("MatMul", hidden_ND, *shortlisted)
        if 4 * self.vocabulary_size * self.architecture.decoder_width > MOST_FOLDED_BYTES:
            return g.op("MatMul", hidden_ND, g.constant("output", self._output_weight_VD.T))
        table_VD = self._table(g, self.architecture.decoder_width)
        return g.op("MatMul", hidden_ND, g.op("Transpose", table_VD, perm=[1, 0]))

    @property
    def _output_weight_VD(self) -> NDArray[Any]:
        return self.weights["embedding"][:, : self.architecture.decoder_width]

    def _table(self, g: Graph, width: int) -> str:
        """The embedding's leading columns, (V, D)."""
        return self._leading(g, g.shared("embedding", self.weights["embedding"]), width)

    def _leading(self, g: Graph, rows: str, width: int) -> str:
        if width == max(self.architecture.encoder_width, self.architecture.decoder_width):
            return rows
        return g.op("Slice", rows, g.ints([0]), g.ints([width]), g.ints([-1]))

    def positions(self, g: Graph, length: str, width: int) -> str:
        """Sinusoidal positions (L, D), L at least `length`, a vector of one."""
        table = g.constant(f"positions.{width}", sinusoids(np.arange(TABLED_POSITIONS)[:, None], width))

        def computed(g: Graph) -> State:
            rates_D, phases_D = rates_and_phases(width)
            steps_L1 = g.op(
                "Unsqueeze", g.op("Range", g.ints(0), g.op("Squeeze", length), g.ints(1)), g.ints([1])
            )
            angles_LD = g.op("Mul", g.op("Cast", steps_L1, to=FLOAT), g.constant(f"rates.{width}", rates_D))
            angles_LD = g.op("Cast", angles_LD, to=TensorProto.DOUBLE)
            waves_LD = g.op("Sin", g.op("Add", angles_LD, g.constant(f"phases.{width}", phases_D)))
            return {"positions": g.op("Cast", waves_LD, to=FLOAT)}

        more = g.op("Squeeze", g.op("Greater", length, g.ints(TABLED_POSITIONS)))
        return g.choose(more, computed, {"positions": table})["positions"]

    def _embedded(self, g: Graph, tokens: str, positions: str, width: int) -> str:
        table = g.shared("embedding", self.weights["embedding"])
        rows = self._leading(g, g.op("Gather", table, tokens), width)
        return g.op("Add", g.op("Mul", rows, g.floats(width**0.5)), positions)

    def _cross_keys_values(self, g: Graph, outputs: list[str]) -> State:
        states: State = {}
        for layer in self.architecture.layers("decoder"):
            for sublayer in layer.sublayers:
                if isinstance(sublayer, CrossAttention):
                    memory_BMD = g.concat(outputs[-sublayer.encoder_layers_attended :], axis=1)
                    for kind in ("keys", "values"):
                        name = f"{layer.name}.cross.{kind[0]}"
                        states[f"cross_{kind}.{layer.index}"] = self._linear(g, name, memory_BMD)
        return states

    def _before(self, g: Graph, name: str, x: str) -> str:
        """The input of a sub-layer."""
        return self._normalised(g, f"{name}_residual.norm", x) if self.norm == "pre" else x

    def _after(self, g: Graph, name: str, x: str, update: str) -> str:
        """The residual stream with a sub-layer's update."""
        added = g.op("Add", x, update)
        return added if self.norm == "pre" else self._normalised(g, f"{name}_residual.norm", added)

    def _final(self, g: Graph, name: str, x: str) -> str:
        """What a stack hands on."""
        return self._normalised(g, name, x) if self.norm == "pre" else x

    def _normalised(self, g: Graph, name: str, x: str) -> str:
        parts = [g.constant(f"{name}.{part}", self.weights[f"{name}.{part}"]) for part in ("weight", "bias")]
        return g.op("LayerNormalization", x, *parts, axis=-1, epsilon=NORM_EPSILON)

    def _queries_keys_values(self, g: Graph, name: str, y_BXD: str) -> list[str]:
        """One product for the three, (B, X, C) each."""
        parts = [f"{name}.{part}" for part in "qkv"]
        weight_DO = np.concatenate([self.weights[f"{part}.weight"] for part in parts]).T
        bias_O = np.concatenate([self.weights[f"{part}.bias"] for part in parts])
        projected = self._product(g, f"{name}.qkv", y_BXD, weight_DO, bias_O)
        return g.ops("Split", projected, g.ints([weight_DO.shape[1] // 3] * 3), outputs=3, axis=2)

    def _linear(self, g: Graph, name: str, x: str) -> str:
        return self._product(g, name, x, self.weights[f"{name}.weight"].T, self.weights[f"{name}.bias"])

    def _product(self, g: Graph, name: str, x: str, weight_IO: NDArray[Any], bias_O: NDArray[Any]) -> str:
        """`x W + b`. In int8, W is rounded to 8 bits a column, and x to 8 bits as a whole, at run time."""
        bias = g.constant(f"{name}.bias", bias_O)
        if self.precision == "int8":
            return _int8_product(g, name, x, weight_IO, bias)
        return g.op("Add", g.op("MatMul", x, g.constant(f"{name}.weight", weight_IO)), bias)

    def _average(self, g: Graph, name: str, y_BKD: str, taken: str, sum_ND: str) -> tuple[str, str]:
        """Average attention: its update, (B, K, D), and the sum of its inputs, (N, D)."""
        shape = g.op("Shape", y_BKD)
        sum_BKD = g.op("Add", g.op("Reshape", sum_ND, shape), y_BKD)
        count = g.op("Cast", g.op("Add", taken, g.ints(1)), to=FLOAT)
        mean_BKD = g.op("Div", sum_BKD, count)
        gates = [f"{name}.{gate}" for gate in ("input_gate", "mean_gate")]
        halves = [
            np.concatenate([self.weights[f"{gate}.{half}.weight"] for gate in gates]).T
            for half in ("of_input", "of_mean")
        ]
        bias_O = np.concatenate([self.weights[f"{gate}.of_input.bias"] for gate in gates])
        both = g.op("Concat", y_BKD, mean_BKD, axis=2)
        gates_BKO = g.op("Sigmoid", self._product(g, f"{name}.gates", both, np.concatenate(halves), bias_O))
        size = len(bias_O) // 2
        of_input, of_mean = g.ops("Split", gates_BKO, g.ints([size, size]), outputs=2, axis=2)
        update_BKD = g.op("Add", g.op("Mul", of_input, y_BKD), g.op("Mul", of_mean, mean_BKD))
        return update_BKD, g.op("Reshape", sum_BKD, g.ints([-1, size]))

    def _ssru(self, g: Graph, name: str, y_BKD: str, cell_ND: str) -> tuple[str, str]:
        """An SSRU: its update, (B, K, D), and its cell, (N, D)."""
        bias_D = self.weights[f"{name}.forget.bias"]
        size = len(bias_D)
        weight_DO = np.concatenate(
            [self.weights[f"{name}.{part}.weight"] for part in ("forget", "candidate")]
        ).T
        bias_O = np.concatenate([bias_D, np.zeros_like(bias_D)])
        y_ND = g.op("Reshape", y_BKD, g.ints([-1, size]))
        projected_NO = self._product(g, f"{name}.both", y_ND, weight_DO, bias_O)
        forget_ND, candidate_ND = g.ops("Split", projected_NO, g.ints([size, size]), outputs=2, axis=1)
        # f c + (1 - f) x = x + f (c - x)
        kept_ND = g.op("Mul", g.op("Sigmoid", forget_ND), g.op("Sub", cell_ND, candidate_ND))
        cell_ND = g.op("Add", candidate_ND, kept_ND)
        return g.op("Reshape", g.op("Relu", cell_ND), g.op("Shape", y_BKD)), cell_ND

    def _feed_forward(
        self, g: Graph, layer: Layer, sublayer: FeedForward, x_BXD: str, routed: State | None
    ) -> str:
        """A dense FFN or a mixture of the flattened batch."""
        name = f"{layer.name}.ffn"
        if len(sublayer.experts) == 1:
            return self._expert(g, f"{name}.mixture.experts.0", sublayer.ffn_sizes[0], x_BXD)
        router_DE = self.weights[f"{name}.mixture.router.weight"].T
        x_ND = g.op("Reshape", x_BXD, g.ints([-1, router_DE.shape[0]]))
        # Never rounded to 8 bits: the choice of an expert compares near values.
        logits_NE = g.op("MatMul", x_ND, g.constant(f"{name}.router", router_DE))
        probabilities_NE = g.op("Softmax", logits_NE, axis=-1)
        chosen = g.ops("TopK", probabilities_NE, g.ints([sublayer.top_k]), outputs=2)
        if routed is not None:
            routed[layer.name] = chosen[1]
        mixed_ND = self._mixture(g, f"{name}.mixture.experts", sublayer, x_ND, *chosen)
        return g.op("Reshape", mixed_ND, g.op("Shape", x_BXD))

    def _expert(self, g: Graph, name: str, size: int, x: str) -> str:
        if not size:
            return x
        return self._linear(g, f"{name}.down", g.op("Relu", self._linear(g, f"{name}.up", x)))

    def _mixture(
        self, g: Graph, name: str, sublayer: FeedForward, x_ND: str, gates_NK: str, experts_NK: str
    ) -> str:
        """Tokens are sorted by expert and come back, scaled by their gates, to their order.

        Each expert works on the tokens it was given, none without tokens.
        """
        experts_A1 = g.op("Reshape", experts_NK, g.ints([-1, 1]))
        experts_A = g.op("Reshape", experts_NK, g.ints([-1]))
        is_chosen_AE = g.op("Equal", experts_A1, g.ints(list(range(len(sublayer.experts)))))
        sizes_E = g.op("ReduceSum", g.op("Cast", is_chosen_AE, to=INT), g.ints([0]), keepdims=0)
        assignments = g.op("Shape", experts_A)
        order_A = g.ops("TopK", experts_A, assignments, outputs=2, largest=0)[1]
        rows_A = order_A if sublayer.top_k == 1 else g.op("Div", order_A, g.ints(sublayer.top_k))
        blocks = g.ops("Split", g.op("Gather", x_ND, rows_A), sizes_E, outputs=len(sublayer.experts), axis=0)
        outputs = [
            self._expert(g, f"{name}.{index}", size, block)
            for index, (size, block) in enumerate(zip(sublayer.ffn_sizes, blocks, strict=True))
        ]
        places_A = g.ops("TopK", order_A, assignments, outputs=2, largest=0)[1]
        back_AD = g.op("Gather", g.op("Concat", *outputs, axis=0), places_A)
        scaled_AD = g.op("Mul", back_AD, g.op("Reshape", gates_NK, g.ints([-1, 1])))
        if sublayer.top_k == 1:
            return scaled_AD
        by_token = g.op("Reshape", scaled_AD, g.shape(-1, sublayer.top_k, g.dimension(x_ND, 1)))
        return g.op("ReduceSum", by_token, g.ints([1]), keepdims=0)


def _attention(g: Graph, heads: int, inputs: Sequence[str]) -> str:
    """Attention of queries (B, X, C) over keys and values (B, M, C), with a mask (B, 1, X, M); (B, X, C)."""
    return g.op("Attention", *inputs, q_num_heads=heads, kv_num_heads=heads)


def _attention_after(g: Graph, heads: int, inputs: Sequence[str]) -> list[str]:
    """The same over past keys and values, (B, H, P, E), and the new ones; the past after it, too."""
    return g.ops("Attention", *inputs, outputs=3, q_num_heads=heads, kv_num_heads=heads)


def _int8_product(g: Graph, name: str, x: str, weight_IO: NDArray[Any], bias: str) -> str:
    rounded_IO, scale_O = _rounded(weight_IO)
    inputs = (x, g.constant(f"{name}.rounded", rounded_IO), g.constant(f"{name}.scale", scale_O), "", bias)
    return g.op("DynamicQuantizeMatMul", *inputs[: 5 if bias else 3], domain=CONTRIBUTED)  # no zero point


def _rounded(weight_IO: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """A matrix in 8 bits, and the scale of each column."""
    scale_O = np.maximum(np.abs(weight_IO).max(axis=0), 1e-12).astype(np.float32) / 127
    return np.rint(weight_IO / scale_O).astype(np.int8), scale_O
