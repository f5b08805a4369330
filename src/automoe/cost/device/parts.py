"""What an architecture's latency is made of: parts whose times add up, each measurable on a device.

The model is linear. Per stack: an overhead (embedding, bookkeeping of the beam search, everything that
every step does), the decoder's output layer, and for each layer its attention and its experts.

A mixture of experts of different sizes costs the mean of the mixtures that have all experts of one size:
with E experts and n_e tokens sent to expert e, a mixture takes `overhead(E) + sum_e c(size_e, n_e)`, and
as long as no position among the experts is special (all n_e have one distribution) the expectation is
`1/E sum_e M(E, size_e)`, where `M(E, s)` is the mixture of E experts of size s. Likewise, c is linear in
the size, so that sizes between two measured ones are interpolated.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple, assert_never

from automoe.design.architecture import (
    MIXERS,
    STACKS,
    Architecture,
    AverageAttention,
    CrossAttention,
    FeedForward,
    Layer,
    SelfAttention,
    Ssru,
    Stack,
    SubLayer,
)
from automoe.errors import InputError

Part = Literal[
    "overhead",
    "output",
    "self_attention",
    "average_attention",
    "ssru",
    "cross_attention",
    "keys_values",
    "experts",
]


class Term(NamedTuple):
    """One part of a given size; fields that do not matter to the part are 0.

    Attributes:
        width: of the stack; for `keys_values`, of the encoder.
        layers_attended: of `cross_attention`, and of `keys_values`: what a decoder layer reads of the
            encoder, projected once a sentence. Backends count it to one stack or the other.
        experts, top_k, ffn_size: a feed-forward sub-layer with that many experts, all of that size. One
            expert of size 0 is no part: it takes no time.
    """

    stack: Stack
    part: Part
    width: int
    heads: int = 0
    layers_attended: int = 0
    experts: int = 0
    top_k: int = 0
    ffn_size: int = 0


class Use(NamedTuple):
    """`weight` times `term`, in this layer (None: in the stack as a whole)."""

    layer: int | None
    term: Term
    weight: float


class _Mixture(NamedTuple):
    weights: tuple[tuple[Term, float], ...]
    problems: tuple[str, ...]


class Inventory:
    """The parts that are known, and how architectures are put together from them.

    Args:
        terms: the known parts.
    """

    def __init__(self, terms: Iterable[Term]) -> None:
        self.terms = frozenset(terms)
        grids: dict[tuple[Stack, int, int], dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        for term in self.terms:
            if term.part == "experts":
                grids[term.stack, term.width, term.top_k][term.experts].add(term.ffn_size)
        # (stack, width, top_k) -> number of experts -> sizes, ascending.
        self._sizes = {
            key: {count: tuple(sorted(sizes)) for count, sizes in sorted(grid.items())}
            for key, grid in grids.items()
        }
        self._counts = {key: tuple(grid) for key, grid in self._sizes.items()}
        self._mixture = lru_cache(maxsize=65536)(self._mixture_of)

    def uses(self, architecture: Architecture) -> list[Use]:
        """The parts of an architecture, with their weights: its latency is the weighted sum of their times.

        Numbers of experts (from 2 up) and FFN sizes (above 0) between known ones are interpolated.

        Raises:
            InputError: naming every part that is not known and cannot be interpolated.
        """
        a = architecture
        problems: list[str] = []
        found: list[Use] = []

        def need(where: str, layer: int | None, term: Term) -> None:
            if term in self.terms:
                found.append(Use(layer, term, 1.0))
            else:
                problems.append(f"{where}: {_unknown(term, self.terms)}")

        def need_sublayer(layer: Layer, sublayer: SubLayer) -> None:
            stack, index, width = layer.stack, layer.index, layer.width
            where = f"{stack}[{index}]"
            match sublayer:
                case SelfAttention(heads):
                    need(where, index, Term(stack, "self_attention", width, heads))
                case AverageAttention():
                    need(where, index, Term(stack, "average_attention", width))
                case Ssru():
                    need(where, index, Term(stack, "ssru", width))
                case CrossAttention(heads, attended):
                    need(where, index, Term(stack, "cross_attention", width, heads, attended))
                    for side in STACKS:
                        place = index if side == stack else None
                        need(
                            where, place, Term(side, "keys_values", a.encoder_width, layers_attended=attended)
                        )
                case FeedForward(_, top_k):
                    mixture = self._mixture(stack, width, tuple(sorted(sublayer.ffn_sizes)), top_k)
                    found.extend([Use(index, term, weight) for term, weight in mixture.weights])
                    problems.extend([f"{where}.experts: {problem}" for problem in mixture.problems])
                case _:
                    assert_never(sublayer)

        def need_layers(stack: Stack) -> None:
            for layer in a.layers(stack):
                for sublayer in layer.sublayers:
                    need_sublayer(layer, sublayer)

        need("encoder_width", None, Term("encoder", "overhead", a.encoder_width))
        need_layers("encoder")
        need("decoder_width", None, Term("decoder", "overhead", a.decoder_width))
        need("decoder_width", None, Term("decoder", "output", a.decoder_width))
        need_layers("decoder")
        if problems:
            raise InputError("parts of this architecture were not measured", list(dict.fromkeys(problems)))
        return found

    def _mixture_of(self, stack: Stack, width: int, experts: tuple[int, ...], top_k: int) -> _Mixture:
        """The parts of a feed-forward sub-layer with experts of these sizes, in any order."""
        if experts == (0,):
            return _Mixture((), ())
        key = (stack, width, top_k)
        counts = _between(self._counts.get(key, ()), len(experts), least=2)
        if not counts:
            known = _listed(self._counts.get(key, ()))
            problem = f"{len(experts)} experts with top_k {top_k} at width {width} were not measured"
            return _Mixture((), (f"{problem} (measured: {known})",))
        weights: defaultdict[Term, float] = defaultdict(float)
        problems = []
        for size in experts:
            for count, count_weight in counts:
                sizes = _between(self._sizes[key][count], size, least=1)
                if not sizes:
                    known = _listed(self._sizes[key][count])
                    problems.append(f"FFN size {size} is outside what was measured ({known})")
                for known_size, size_weight in sizes:
                    term = Term(stack, "experts", width, 0, 0, count, top_k, known_size)
                    weights[term] += count_weight * size_weight / len(experts)
        return _Mixture(tuple(weights.items()), tuple(problems))


@lru_cache(maxsize=4096)
def _between(known: tuple[int, ...], value: int, least: int) -> tuple[tuple[int, float], ...]:
    """Linear interpolation: known values and their weights; nothing where it would be a guess.

    Args:
        known: ascending.
        least: a known value below it is no end of an interval; it is of another kind.
    """
    place = bisect_left(known, value)
    if place < len(known) and known[place] == value:
        return ((value, 1.0),)
    if place == 0 or place == len(known) or known[place - 1] < least:
        return ()
    low, high = known[place - 1], known[place]
    share = (value - low) / (high - low)
    return ((low, 1 - share), (high, share))


def _unknown(term: Term, terms: frozenset[Term]) -> str:
    """Why the term is unknown: its kind, its width, or its heads and attended layers at that width."""
    widths = sorted({t.width for t in terms if (t.stack, t.part) == (term.stack, term.part)})
    if not widths and term.part in MIXERS:
        return f"{term.part} was not measured; make a profile of a space with it among decoder.mixers"
    if term.width not in widths:
        of = "encoder width" if term.part == "keys_values" else "width"
        return f"{of} {term.width} was not measured (measured: {_listed(widths)})"
    alike = [t for t in terms if t[:3] == term[:3]]
    known = sorted({(t.heads, t.layers_attended) for t in alike})
    name = term.part.replace("_", "-")
    if term.part == "cross_attention":
        pairs = ", ".join(f"{heads} over {attended}" for heads, attended in known)
        return (
            f"{name} of {term.heads} heads over {term.layers_attended} encoder layers was not measured "
            f"(measured: {pairs})"
        )
    return f"{name} of {term.heads} heads was not measured (measured: {_listed(h for h, _ in known)})"


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, values)) or "nothing"
