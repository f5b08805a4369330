"""`Graph`: an ONNX graph that grows by functions that add nodes and return the names of their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

OPSET = 23
CONTRIBUTED = "com.microsoft"  # the domain of ONNX Runtime's own operators
FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL

Dimensions: TypeAlias = Sequence[str | int | None] | None
"""Sizes, their names where they vary, or None; all None where even their number is open."""
State: TypeAlias = dict[str, str]
"""Values that a loop carries, by what they are to whoever wrote the loop."""


class Graph:
    """The nodes of one graph, or of one branch or body within another.

    A body reads whatever the graphs around it have computed before it. Constants belong to the graph that
    uses them: ONNX Runtime packs a matrix for its products only where it is a part of the same graph.

    Args:
        around: the graph this one is a part of.
    """

    def __init__(self, around: Graph | None = None) -> None:
        self._outermost: Graph = around._outermost if around else self
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, NDArray[Any]] = {}
        self._all_constants: dict[str, NDArray[Any]] = {}
        self._named = 0

    def name(self, kind: str) -> str:
        """A name that no other value has."""
        self._outermost._named += 1
        return f"{kind}.{self._outermost._named}"

    def op(
        self, kind: str, *inputs: str, domain: str = "", output: str | None = None, **attributes: Any
    ) -> str:
        """Add a node with one output; an empty name leaves an input out."""
        return self.ops(kind, *inputs, outputs=[output or self.name(kind)], domain=domain, **attributes)[0]

    def ops(
        self,
        kind: str,
        *inputs: str,
        outputs: int | Sequence[str],
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Add a node with several outputs, given by their number or their names."""
        names = [self.name(kind) for _ in range(outputs)] if isinstance(outputs, int) else list(outputs)
        self._nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """A tensor that is part of this graph; one of a name that is known already is the same."""
        self._constants.setdefault(name, value)
        self._outermost._all_constants.setdefault(name, value)
        return name

    def shared(self, name: str, value: NDArray[Any]) -> str:
        """As `constant`, of the outermost graph: for what is only looked up, in several graphs."""
        return self._outermost.constant(name, value)

    def ints(self, value: int | list[int]) -> str:
        """A scalar or a vector, int64."""
        return self.constant(f"int.{value}", np.array(value, dtype=np.int64))

    def floats(self, value: float) -> str:
        """A scalar, float32."""
        return self.constant(f"float.{value}", np.array(value, dtype=np.float32))

    def dimension(self, x: str, axis: int) -> str:
        """The size of one dimension, as a vector of one."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def shape(self, *sizes: int | str) -> str:
        """A shape of known sizes (-1 is whatever is left) and of sizes that are vectors of one."""
        if all(isinstance(size, int) for size in sizes):
            return self.ints([int(size) for size in sizes])
        return self.op(
            "Concat", *(size if isinstance(size, str) else self.ints([size]) for size in sizes), axis=0
        )

    def concat(self, parts: Sequence[str], axis: int) -> str:
        """Side by side; one part is itself."""
        return parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=axis)

    def loop(self, state: State, body: Callable[[Graph, State], tuple[str, State]]) -> State:
        """Repeat a body, at least once, until it says no; what the state is at the end.

        Args:
            body: adds the nodes of one round to its own graph, given the state before it; returns whether
                there is another round (a bool) and the state after it, of the same keys.
        """
        inner = Graph(self)
        before = {key: self.name(key) for key in state}
        more, after = body(inner, before)
        made = inner._part(before.values(), [more, *(after[key] for key in state)])
        # A loop's own two inputs, of which no body makes use.
        for name, kind in (("goes_on", BOOL), ("round", INT)):
            made.input.insert(0, helper.make_tensor_value_info(self.name(name), kind, []))
        true = self.constant("true", np.array(True))
        outputs = self.ops("Loop", "", true, *state.values(), outputs=len(state), body=made)
        return dict(zip(state, outputs, strict=True))

    def choose(self, condition: str, then: Callable[[Graph], State], otherwise: State) -> State:
        """What `then` returns if the condition holds, or else what is there already, of the same keys."""
        inner, outer = Graph(self), Graph(self)
        found = then(inner)
        outputs = self.ops(
            "If",
            condition,
            outputs=len(otherwise),
            then_branch=inner._part([], [found[key] for key in otherwise]),
            else_branch=outer._part([], list(otherwise.values())),
        )
        return dict(zip(otherwise, outputs, strict=True))

    def model(
        self, inputs: Mapping[str, tuple[int, Dimensions]], outputs: Mapping[str, tuple[int, Dimensions]]
    ) -> onnx.ModelProto:
        """The finished model.

        Args:
            inputs, outputs: type and shape by name.
        """
        given, found = (
            [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in group.items()]
            for group in (inputs, outputs)
        )
        graph = helper.make_graph(self._nodes, "automoe", given, found, self._declared())
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIBUTED, 1)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="automoe")
        for tensor in tensors_of(made.graph):
            # Only now, where it stays: what copies a message fails beyond 2 GiB.
            tensor.raw_data = self._all_constants[tensor.name].tobytes()
        return made

    def _declared(self) -> list[onnx.TensorProto]:
        """The constants of this graph, yet without what is in them."""
        return [
            onnx.TensorProto(
                name=name, dims=value.shape, data_type=helper.np_dtype_to_tensor_dtype(value.dtype)
            )
            for name, value in self._constants.items()
        ]

    def _part(self, inputs: Iterable[str], outputs: Sequence[str]) -> onnx.GraphProto:
        """This graph as a body or branch. What it returns has to be made in it; ONNX Runtime infers types."""
        made = {name for node in self._nodes for name in node.output}
        names = [name if name in made else self.op("Identity", name) for name in outputs]
        given, found = ([onnx.ValueInfoProto(name=name) for name in group] for group in (inputs, names))
        return helper.make_graph(self._nodes, self.name("part"), given, found, self._declared())


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The constants of a graph and of all graphs within it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from tensors_of(attribute.g)
