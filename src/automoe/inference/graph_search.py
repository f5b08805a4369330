"""Beam search as nodes of an ONNX graph, around whatever decoder.

The search is the one of `automoe.inference.beam.beam_search`, for all sentences of a batch at once. An inner
loop takes one step of the sentences still in the batch; an outer one lets those that are done leave, once
they are a quarter of it: leaving copies the caches.

Shapes: B sentences still in the batch, Z at the start, K beams, N = B * K hypotheses, V vocabulary (or the
size W of a shortlist), C extensions of each, T steps taken, P = T * K slots, F hypotheses asked for
(`n_best`), L the longest translation allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from automoe.inference.graph import FLOAT, INT, Graph, State

LEAVING_SHARE = 0.25
# The log probability of what is forbidden. Finite, so that a difference of two is a number; sums of it stay
# far from any log probability, and within float32.
NEVER = -1e30

Step: TypeAlias = Callable[[Graph, str, str, str, State, State], tuple[str, State]]
"""Adds a step of a decoder, given the last tokens (B, K), the step's index (a scalar), which slots each
hypothesis sees (B, 1, K, P), what the decoder keeps, and what it reads of the sources; returns the logits
(N, V) of what follows, and what it keeps now."""


@dataclass(frozen=True)
class SearchInputs:
    """What decides a search, as names of values of the graph.

    Args:
        beam_size, n_best, min_length: int64 vectors of one. `max_lengths`: int64, (Z,).
        length_penalty: a float scalar.
    """

    beam_size: str = "beam_size"
    n_best: str = "n_best"
    min_length: str = "min_length"
    max_lengths: str = "max_lengths"
    length_penalty: str = "length_penalty"


@dataclass(frozen=True)
class _Phase:
    """What stays the same while no sentence leaves the batch."""

    limits_B1: str
    bounds_B1: str  # what a log probability is multiplied by, at the last step allowed
    offsets_B1: str  # of a sentence's first hypothesis among all
    itself_NK: str  # a new slot is visible to its own hypothesis
    enough: str  # so many sentences done end the phase
    last: str  # the index of the last beam
    extensions: str  # C
    shape_BK: str
    shape_B_: str
    shape_B1K_: str


def beam_search(
    g: Graph,
    step: Step,
    vocabulary_size: int,
    kept: State,
    source: State,
    inputs: SearchInputs,
    follows: frozenset[str] = frozenset(),
    shortlist_W: str | None = None,
) -> State:
    """The best hypotheses of each sentence, best first.

    Args:
        kept: what the decoder keeps before its first step; the first axis of each value is the sentence.
        source: what it reads of the sources, likewise.
        follows: of `kept`, what every hypothesis takes over from the one that it continues; its first axis is
            the hypothesis, N.
        shortlist_W: the tokens that the step's logits are of, ascending, where these are not all V; the
            first are the special ones.

    Returns:
        tokens: (Z, F, L), padded with PAD, without begin- and end-of-sentence.
        scores: (Z, F), `log_probability / length ** length_penalty`; -inf where there is no hypothesis.
        log_probabilities: (Z, F).
    """
    K = inputs.beam_size
    ranks_K = g.op("Range", g.ints(0), g.op("Squeeze", K), g.ints(1))
    choices = g.dimension(shortlist_W, 0) if shortlist_W else g.ints([vocabulary_size])

    def one_step(g: Graph, now: State, phase: _Phase, source: State) -> tuple[str, State]:
        length = g.op("Add", now["taken"], g.ints(1))
        visible_NP = g.op("Concat", now["visible"], phase.itself_NK, axis=1)
        visible_B1KP = g.op("Reshape", visible_NP, phase.shape_B1K_)
        keeps = {key: now[key] for key in kept}
        logits_NV, keeps = step(g, now["tokens"], now["taken"], visible_B1KP, keeps, source)

        added_NV = g.op("LogSoftmax", logits_NV, axis=1)
        added_NC, tokens_NC = g.ops("TopK", added_NV, phase.extensions, outputs=2)
        is_word_NC = g.op("GreaterOrEqual", tokens_NC, g.ints(UNK_ID))
        words_NC = g.op("Where", is_word_NC, added_NC, g.floats(NEVER))
        extended_BC = g.op("Reshape", g.op("Add", words_NC, now["log_probabilities"]), phase.shape_B_)
        best_BK, chosen_BK = g.ops("TopK", extended_BC, K, outputs=2)
        origin_BK = g.op("Div", chosen_BK, phase.extensions)
        tokens_BK = g.op("GatherElements", g.op("Reshape", tokens_NC, phase.shape_B_), chosen_BK, axis=1)
        if shortlist_W:  # up to here a token is its place in the list, which of a special one is its id
            tokens_BK = g.op("Gather", shortlist_W, tokens_BK)
        # A sentence that is done may stay in the batch beyond its limit.
        must_end_B1 = g.op("LessOrEqual", phase.limits_B1, length)
        live_BK = g.op("Where", must_end_B1, g.floats(NEVER), best_BK)

        end_N1 = g.op("Gather", added_NV, g.ints([EOS_ID]), axis=1)
        ended_BK = g.op("Reshape", g.op("Add", end_N1, now["log_probabilities"]), phase.shape_BK)
        finished = {key: now[key] for key in _FINISHED}
        finished = g.choose(
            _some_end(g, live_BK, ended_BK, length, phase, inputs),
            lambda g: _finish(g, live_BK, ended_BK, now["prefix"], finished, phase, length, inputs),
            finished,
        )
        done_B1 = _done(g, live_BK, must_end_B1, finished["bar"], phase)

        rows_N = g.op("Reshape", g.op("Add", origin_BK, phase.offsets_B1), g.ints([-1]))
        prefix_NT = g.op("Gather", now["prefix"], rows_N)
        after = {
            "taken": length,
            "tokens": tokens_BK,
            "log_probabilities": g.op("Reshape", live_BK, g.ints([-1, 1])),
            "prefix": g.op("Concat", prefix_NT, g.op("Reshape", tokens_BK, g.ints([-1, 1])), axis=1),
            "visible": g.op("Gather", visible_NP, rows_N),
            "done": done_B1,
        }
        for key in keeps.keys() & follows:
            keeps[key] = g.op("Gather", keeps[key], rows_N)
        number_done = g.op("ReduceSum", g.op("Cast", done_B1, to=FLOAT), keepdims=0)
        return g.op("Less", number_done, phase.enough), after | finished | keeps

    def one_phase(g: Graph, now: State) -> tuple[str, State]:
        phase = _phase(g, now["limits"], inputs, ranks_K, choices)
        here = {key: now[key] for key in source}
        steps = {key: now[key] for key in ("done", *_HYPOTHESES, *_FINISHED, *kept)}
        steps = g.loop(steps, lambda g, now: one_step(g, now, phase, here))
        results = {
            f"all_{key}": g.op("ScatterND", now[f"all_{key}"], now["sentences"], steps[f"finished_{key}"])
            for key in _RESULTS
        }
        staying = g.op("NonZero", g.op("Not", g.op("Squeeze", steps["done"], g.ints([1]))))
        staying_B = g.op("Reshape", staying, g.ints([-1]))
        rows_BK = g.op("Add", g.op("Mul", g.op("Unsqueeze", staying_B, g.ints([1])), K), ranks_K)
        rows_N = g.op("Reshape", rows_BK, g.ints([-1]))
        after = {"taken": steps["taken"]} | results
        for key in ("log_probabilities", "prefix", "visible", *follows):
            after[key] = g.op("Gather", steps[key], rows_N)
        for key in ("tokens", "done", *_FINISHED, *(kept.keys() - follows)):
            after[key] = g.op("Gather", steps[key], staying_B)
        for key in ("sentences", "limits", *source):
            after[key] = g.op("Gather", now[key], staying_B)
        return g.op("Greater", g.op("Size", staying_B), g.ints(0)), after

    found = g.loop(_start(g, inputs, ranks_K) | kept | source, one_phase)
    scores_ZF = found["all_scores"]
    nothing_ZF = g.op("Less", scores_ZF, g.floats(NEVER / 10))
    return {
        "tokens": found["all_tokens"],
        "scores": g.op("Where", nothing_ZF, g.floats(-np.inf), scores_ZF),
        "log_probabilities": g.op("Where", nothing_ZF, g.floats(-np.inf), found["all_log_probabilities"]),
    }


_HYPOTHESES = ("taken", "tokens", "log_probabilities", "prefix", "visible")
_RESULTS = ("tokens", "scores", "log_probabilities")
# `count`: the finished hypotheses of a sentence. `bar`: a live one that cannot reach more is of no use.
_FINISHED = ("count", "bar", *(f"finished_{key}" for key in _RESULTS))


def _start(g: Graph, inputs: SearchInputs, ranks_K: str) -> State:
    K, F = inputs.beam_size, inputs.n_best
    Z = g.dimension(inputs.max_lengths, 0)
    N = g.op("Mul", Z, K)
    L = g.op("ReduceMax", inputs.max_lengths, keepdims=1)
    is_first_K = g.op("Equal", ranks_K, g.ints(0))
    # All beams start equal: only the first may be extended, or every hypothesis would come K times.
    first_K = g.op("Where", is_first_K, g.floats(0.0), g.floats(NEVER))
    first_N1 = g.op("Reshape", g.op("Tile", first_K, Z), g.ints([-1, 1]))
    nothing_Z1 = g.op("Expand", g.constant("false", np.array(False)), g.shape(Z, 1))
    never_Z1 = g.op("Expand", g.floats(NEVER), g.shape(Z, 1))
    never_ZF = g.op("Expand", g.floats(NEVER), g.shape(Z, F))
    padding_ZFL = g.op("Expand", g.ints(PAD_ID), g.shape(Z, F, L))
    sentences_Z = g.op("Range", g.ints(0), g.op("Squeeze", Z), g.ints(1))
    return {
        "sentences": g.op("Unsqueeze", sentences_Z, g.ints([1])),
        "limits": g.op("Unsqueeze", inputs.max_lengths, g.ints([1])),
        "all_tokens": padding_ZFL,
        "all_scores": never_ZF,
        "all_log_probabilities": never_ZF,
        "taken": g.ints(0),
        "tokens": g.op("Expand", g.ints(BOS_ID), g.shape(Z, K)),
        "log_probabilities": first_N1,
        "prefix": g.op("Expand", g.ints(PAD_ID), g.shape(N, 0)),
        "visible": g.op("Expand", g.floats(0.0), g.shape(N, 0)),
        "done": nothing_Z1,
        "count": g.op("Expand", g.ints(0), g.shape(Z, 1)),
        "bar": never_Z1,
        "finished_tokens": padding_ZFL,
        "finished_scores": never_ZF,
        "finished_log_probabilities": never_ZF,
    }


def _phase(g: Graph, limits_B1: str, inputs: SearchInputs, ranks_K: str, choices: str) -> _Phase:
    K = inputs.beam_size
    B = g.dimension(limits_B1, 0)
    sentences_B = g.op("Range", g.ints(0), g.op("Squeeze", B), g.ints(1))
    same_KK = g.op("Equal", g.op("Unsqueeze", ranks_K, g.ints([1])), ranks_K)
    itself_KK = g.op("Where", same_KK, g.floats(0.0), g.floats(-np.inf))
    powers_B1 = g.op("Pow", g.op("Cast", limits_B1, to=FLOAT), inputs.length_penalty)
    return _Phase(
        limits_B1=limits_B1,
        bounds_B1=g.op("Reciprocal", powers_B1),
        offsets_B1=g.op("Mul", g.op("Unsqueeze", sentences_B, g.ints([1])), K),
        itself_NK=g.op("Tile", itself_KK, g.shape(B, 1)),
        enough=g.op("Mul", g.op("Cast", g.op("Squeeze", B), to=FLOAT), g.floats(LEAVING_SHARE)),
        last=g.op("Sub", K, g.ints([1])),
        # Of the best extensions of a hypothesis, at most three are no words: the special tokens before UNK.
        extensions=g.op("Min", g.op("Add", K, g.ints([UNK_ID])), choices),
        shape_BK=g.shape(B, K),
        shape_B_=g.shape(B, -1),
        shape_B1K_=g.shape(B, 1, K, -1),
    )


def _some_end(g: Graph, live_BK: str, ended_BK: str, length: str, phase: _Phase, inputs: SearchInputs) -> str:
    """Whether hypotheses may end, and any sentence has such a one among its best K extensions."""
    ahead_BK = g.op("Sub", ended_BK, g.op("Gather", live_BK, phase.last, axis=1))
    most = g.op("ReduceMax", ahead_BK, keepdims=0)
    may_end = g.op("Squeeze", g.op("GreaterOrEqual", length, inputs.min_length))
    return g.op("Greater", g.op("Where", may_end, most, g.floats(0.0)), g.floats(0.0))


def _done(g: Graph, live_BK: str, must_end_B1: str, bar_B1: str, phase: _Phase) -> str:
    """The sentences that no live hypothesis can improve: log probabilities only fall."""
    best_B1 = g.op("Mul", g.op("Gather", live_BK, g.ints([0]), axis=1), phase.bounds_B1)
    none_B1 = g.op("Where", must_end_B1, g.floats(-np.inf), best_B1)
    return g.op("GreaterOrEqual", bar_B1, none_B1)


def _finish(
    g: Graph,
    live_BK: str,
    ended_BK: str,
    prefix_NT: str,
    now: State,
    phase: _Phase,
    length: str,
    inputs: SearchInputs,
) -> State:
    """Hypotheses that end among the best K extensions join the finished ones, until those are K.

    Of the finished ones the best F are kept; equal ones in the order in which they finished.
    """
    K, F = inputs.beam_size, inputs.n_best
    best_BK, places_BK = g.ops("TopK", g.op("Concat", live_BK, ended_BK, axis=1), K, outputs=2)
    beams_BK = g.op("Sub", places_BK, K)
    ends_BK = g.op(
        "And", g.op("GreaterOrEqual", beams_BK, g.ints(0)), g.op("Greater", best_BK, g.floats(NEVER / 10))
    )
    number_BK = g.op("Add", now["count"], g.op("CumSum", g.op("Cast", ends_BK, to=INT), g.ints(1)))
    joins_BK = g.op("And", ends_BK, g.op("LessOrEqual", number_BK, K))
    joined_B1 = g.op("ReduceSum", g.op("Cast", joins_BK, to=INT), g.ints([1]), keepdims=1)
    count_B1 = g.op("Add", now["count"], joined_B1)

    power = g.op("Pow", g.op("Cast", length, to=FLOAT), inputs.length_penalty)
    new_BK = g.op("Where", joins_BK, best_BK, g.floats(NEVER))
    scored_BK = g.op("Where", joins_BK, g.op("Div", best_BK, power), g.floats(NEVER))
    scores = g.op("Concat", now["finished_scores"], scored_BK, axis=1)
    scores_BF, chosen_BF = g.ops("TopK", scores, F, outputs=2)
    sums = g.op("Concat", now["finished_log_probabilities"], new_BK, axis=1)

    rows_BK = g.op("Add", g.op("Max", beams_BK, g.ints(0)), phase.offsets_B1)
    prefix_BKT = g.op("Gather", prefix_NT, rows_BK)
    L = g.dimension(now["finished_tokens"], 2)
    left = g.op("Sub", L, g.dimension(prefix_NT, 1))
    padding = g.op("Concat", g.ints([0] * 5), left, axis=0)
    new_BKL = g.op("Pad", prefix_BKT, padding, g.ints(PAD_ID))
    tokens = g.op("Concat", now["finished_tokens"], new_BKL, axis=1)
    index_BFL = g.op(
        "Expand", g.op("Unsqueeze", chosen_BF, g.ints([2])), g.op("Shape", now["finished_tokens"])
    )

    worst_B1 = g.op("Gather", scores_BF, g.op("Sub", F, g.ints([1])), axis=1)
    is_full_B1 = g.op("GreaterOrEqual", count_B1, K)
    return {
        "count": count_B1,
        "bar": g.op("Where", is_full_B1, g.floats(np.inf), worst_B1),
        "finished_tokens": g.op("GatherElements", tokens, index_BFL, axis=1),
        "finished_scores": scores_BF,
        "finished_log_probabilities": g.op("GatherElements", sums, chosen_BF, axis=1),
    }
