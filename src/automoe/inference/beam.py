"""Batched beam search, whatever engine computes the model.

Shapes: B sentences still in the batch, S source tokens, K beams, V vocabulary, L the longest translation
allowed, C extensions each beam may hand on (enough for the best 2K that are allowed, at most V).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from automoe.errors import InputError
from automoe.inference.engine import Engine, Extensions, State
from automoe.vocabulary import BOS_ID, EOS_ID, PAD_ID

# Finished sentences leave the batch once they are this share of it: leaving copies the caches.
LEAVING_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class BeamSettings:
    """How a translation is searched. Lengths are in tokens and count the end-of-sentence token.

    Args:
        beam_size: hypotheses kept a step; 1 is greedy search.
        length_penalty: the exponent of the length a hypothesis's log probability is divided by.
        max_length_ratio, max_length_extra: a translation has at most
            `ratio * source tokens + extra` tokens; the last one allowed is always end-of-sentence.
        min_length: no hypothesis is shorter. 2, the default, rules out the empty translation.
        n_best: hypotheses returned for each sentence, at most `beam_size`.

    Raises:
        InputError: listing every value that makes no sense.
    """

    beam_size: int = 5
    length_penalty: float = 0.6
    max_length_ratio: float = 1.5
    max_length_extra: int = 20
    min_length: int = 2
    n_best: int = 1

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # of a recipe

    def __post_init__(self) -> None:
        rules = (
            (self.beam_size >= 1, f"beam_size: at least 1, not {self.beam_size}"),
            (self.length_penalty >= 0, f"length_penalty: at least 0, not {self.length_penalty}"),
            (self.max_length_ratio >= 0, f"max_length_ratio: at least 0, not {self.max_length_ratio}"),
            (self.max_length_extra >= 0, f"max_length_extra: at least 0, not {self.max_length_extra}"),
            (self.min_length >= 1, f"min_length: at least 1, not {self.min_length}"),
            (
                1 <= self.n_best <= self.beam_size,
                f"n_best: from 1 to beam_size {self.beam_size}, not {self.n_best}",
            ),
        )
        problems = [problem for good, problem in rules if not good]
        if problems:
            raise InputError("these beam settings are impossible", problems)

    @staticmethod
    def exactly(steps: int, beam_size: int = 5) -> BeamSettings:
        """The papers' latency protocol: exactly `steps` decoding steps whatever the model predicts."""
        return BeamSettings(beam_size, max_length_ratio=0, max_length_extra=steps, min_length=steps)

    def max_length(self, source_tokens: int) -> int:
        """The most tokens a translation of `source_tokens` tokens may have, and so the most steps."""
        longest = int(self.max_length_ratio * source_tokens + self.max_length_extra)
        return max(longest, self.min_length)


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished translation.

    Attributes:
        tokens: without begin- and end-of-sentence.
        score: what hypotheses are ranked by, `log_probability / (len(tokens) + 1) ** length_penalty`.
        log_probability: natural logarithm, end-of-sentence included.
    """

    tokens: tuple[int, ...]
    score: float
    log_probability: float


def beam_search(engine: Engine, source_BS: Tensor, settings: BeamSettings) -> list[list[Hypothesis]]:
    """Translate a batch: for each sentence its `n_best` hypotheses, best first; see `BeamSearch`.

    Args:
        engine: searched without autograd.
        source_BS: int64, each row ends with EOS and is padded on the right with PAD.
    """
    lengths = (source_BS != PAD_ID).sum(dim=1).tolist()
    with torch.inference_mode():
        return search_encoded(engine, engine.encode(source_BS), lengths, settings)


def search_encoded(
    engine: Engine, encoded: Any, source_lengths: Sequence[int], settings: BeamSettings
) -> list[list[Hypothesis]]:
    """`beam_search` after the encoder, for callers who time or cache the encoder apart.

    Call it inside `torch.inference_mode()`. `encoded` is the engine's; `source_lengths` are tokens of each
    sentence without padding.
    """
    search = BeamSearch(engine, settings)
    search.admit(encoded, source_lengths)
    found: list[list[Hypothesis]] = [[] for _ in source_lengths]
    while search.live:
        for sentence, hypotheses in search.step():
            found[sentence] = hypotheses
    return found


@dataclass(slots=True)
class _Row:
    """A sentence in the batch. `length`: tokens of its hypotheses so far; `limit`: the most it may have."""

    sentence: int
    limit: int
    length: int = 0
    done: bool = False
    finished: list[Hypothesis] = field(default_factory=list)


class BeamSearch:
    """A search in progress, of sentences that may enter and leave it between two steps.

    The search is the one of the papers' toolkit (fairseq). At each step every live hypothesis is
    extended with every token but padding and begin-of-sentence, and the extensions are ranked by log
    probability. Those among the best K that end the sentence are finished; the best K that do not
    live on. A sentence is done when K of its hypotheses are finished, or at its last allowed step,
    where only end-of-sentence may follow. It is left earlier when no live hypothesis can still enter
    the `n_best`, which changes no result: log probabilities only fall, so a live one of log
    probability p can reach at most `p / max_length ** length_penalty`.

    Finished hypotheses are ranked by log probability over `length ** length_penalty`, where the length
    counts end-of-sentence. This is not the penalty of GNMT (Wu et al., 2016), which divides by
    `((5 + length) / 6) ** alpha` and punishes short hypotheses less at equal exponent.

    The result is deterministic: equal scores go to the hypothesis that finished first, equal
    extensions to the beam of lower index. Sentences do not influence each other: the result does
    not depend on the batch, up to rounding.

    Use it inside `torch.inference_mode()`.

    Args:
        engine: computes. `settings`: of all sentences.
    """

    def __init__(self, engine: Engine, settings: BeamSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._admitted = 0
        self._clear()

    def _clear(self) -> None:
        K, device = self._settings.beam_size, self._engine.device
        self._state: State | None = None
        self._rows: list[_Row] = []
        self._tokens_BK = torch.empty(0, K, dtype=torch.int64, device=device)
        self._scores_BK = torch.empty(0, K, device=device)
        # Tokens so far, on the right: of a row of length n, the last n columns.
        self._prefix_BKL = torch.empty(0, K, 0, dtype=torch.int64, device=device)

    @property
    def live(self) -> int:
        """Sentences that are not done."""
        return sum(not row.done for row in self._rows)

    def admit(self, encoded: Any, source_lengths: Sequence[int]) -> None:
        """Sentences enter; they are numbered in the order they enter the search, from 0.

        Args:
            encoded: the engine's. If other sentences are live, the engine must be able to `join`.
            source_lengths: tokens of each without padding.
        """
        limits = [self._settings.max_length(length) for length in source_lengths]
        if self._state is None:
            self._state = self._engine.start(encoded, self._settings.beam_size, max(limits, default=0))
        else:
            assert self._engine.join is not None
            self._leave()
            self._engine.join(self._state, encoded)
        self._rows += [_Row(self._admitted + i, limit) for i, limit in enumerate(limits)]
        self._admitted += len(limits)
        more = (len(limits), self._settings.beam_size)
        # All beams start equal: only the first may be extended, or every hypothesis would come K times.
        scores_BK = self._scores_BK.new_full(more, -torch.inf)
        scores_BK[:, 0] = 0
        self._scores_BK = torch.cat((self._scores_BK, scores_BK))
        self._tokens_BK = torch.cat((self._tokens_BK, self._tokens_BK.new_full(more, BOS_ID)))
        prefix_BKL = self._prefix_BKL.new_full((*more, self._prefix_BKL.shape[2]), PAD_ID)
        self._prefix_BKL = torch.cat((self._prefix_BKL, prefix_BKL))

    def step(self) -> list[tuple[int, list[Hypothesis]]]:
        """Decode one position of all; returns those that are done by it with their `n_best`, best first."""
        assert self._state is not None, "nothing is live"
        K = self._settings.beam_size
        # Of the best extensions of a beam, at most three are forbidden: padding, begin- and end-of-sentence.
        C = min(2 * K + 3, self._engine.vocabulary_size)
        extensions = self._engine.step(self._tokens_BK, self._state, C)
        for row in self._rows:
            row.length += 1
        scores_BC, origin_BC, tokens_BC = _best_extensions(
            extensions,
            self._scores_BK,
            too_short=[row.length < self._settings.min_length for row in self._rows],
            must_end=[index for index, row in enumerate(self._rows) if row.length == row.limit],
        )
        ends_BC = tokens_BC == EOS_ID
        self._finish(scores_BC[:, :K], origin_BC[:, :K], ends_BC[:, :K])

        # The best K that go on, in order: a stable sort puts the ended extensions last.
        going_BK = ends_BC.to(torch.uint8).sort(dim=1, stable=True).indices[:, :K]
        self._scores_BK, origin_BK, self._tokens_BK = (
            x.gather(1, going_BK) for x in (scores_BC, origin_BC, tokens_BC)
        )
        done = []
        for row, best_live in zip(self._rows, self._scores_BK[:, 0].tolist(), strict=True):
            if not row.done and (row.length == row.limit or _is_done(row, best_live, self._settings)):
                row.done = True
                best = sorted(row.finished, key=lambda h: -h.score)[: self._settings.n_best]
                done.append((row.sentence, best))
        if not self.live:
            self._clear()
            return done
        self._state.reorder(origin_BK)
        columns_BKL = origin_BK[:, :, None].expand(-1, -1, self._prefix_BKL.shape[2])
        prefix_BKL = self._prefix_BKL.gather(1, columns_BKL)
        self._prefix_BKL = torch.cat((prefix_BKL, self._tokens_BK[:, :, None]), dim=2)
        if self.live <= (1 - LEAVING_SHARE) * len(self._rows):
            self._leave()
        return done

    def _finish(self, scores_BK: Tensor, origin_BK: Tensor, ends_BK: Tensor) -> None:
        """Keep those of the best K extensions that end their sentence."""
        ending_BK = ends_BK & (scores_BK != -torch.inf)
        for index, rank in ending_BK.nonzero().tolist():
            row = self._rows[index]
            if not row.done and len(row.finished) < self._settings.beam_size:
                log_probability = float(scores_BK[index, rank])
                first = self._prefix_BKL.shape[2] - (row.length - 1)
                prefix = self._prefix_BKL[index, origin_BK[index, rank], first:].tolist()
                score = _score(log_probability, row.length, self._settings)
                row.finished.append(Hypothesis(tuple(prefix), score, log_probability))

    def _leave(self) -> None:
        """Sentences that are done leave the batch."""
        remaining = [index for index, row in enumerate(self._rows) if not row.done]
        if self._state is None or len(remaining) == len(self._rows):
            return
        self._rows = [self._rows[index] for index in remaining]
        remaining_B = torch.tensor(remaining, device=self._engine.device)
        self._state.keep(remaining_B)
        self._tokens_BK, self._scores_BK = self._tokens_BK[remaining_B], self._scores_BK[remaining_B]
        first = self._prefix_BKL.shape[2] - max(row.length for row in self._rows)
        self._prefix_BKL = self._prefix_BKL[remaining_B, :, first:]


def _best_extensions(
    extensions: Extensions, scores_BK: Tensor, *, too_short: Sequence[bool], must_end: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The best 2K extensions of each sentence, best first: log probability, beam extended, token added.

    At most K of 2K end the sentence (one a beam), so K that go on are always among them. Forbidden
    tokens keep their share of the probability. Rows that are `too_short` may not end; in the rows
    `must_end` only end-of-sentence may follow.
    """
    added_BKC, tokens_BKC = extensions.log_probability_BKC, extensions.tokens_BKC
    B, K, C = added_BKC.shape
    forbidden_BKC = (tokens_BKC == PAD_ID) | (tokens_BKC == BOS_ID)
    if any(too_short):
        short_B = torch.tensor(too_short, device=tokens_BKC.device)
        forbidden_BKC |= (tokens_BKC == EOS_ID) & short_B[:, None, None]
    added_BKC = added_BKC.masked_fill(forbidden_BKC, -torch.inf)
    if must_end:
        tokens_BKC = tokens_BKC.clone()
        added_BKC[must_end] = -torch.inf
        added_BKC[must_end, :, 0] = extensions.end_BK[must_end]
        tokens_BKC[must_end, :, 0] = EOS_ID
    # The best 2K of a sentence hold at most 2K of one beam.
    log_probability_BKC = scores_BK[:, :, None] + added_BKC
    ranked = log_probability_BKC.view(B, K * C).sort(dim=1, descending=True, stable=True)
    chosen_BC = ranked.indices[:, : 2 * K]
    tokens_BC = tokens_BKC.view(B, K * C).gather(1, chosen_BC)
    return ranked.values[:, : 2 * K], chosen_BC // C, tokens_BC


def _score(log_probability: float, length: int, settings: BeamSettings) -> float:
    return log_probability / math.pow(length, settings.length_penalty)


def _is_done(row: _Row, best_live: float, settings: BeamSettings) -> bool:
    """Enough hypotheses are finished, or no live one can still enter the `n_best`."""
    if len(row.finished) >= settings.beam_size:
        return True
    if len(row.finished) < settings.n_best:
        return False
    worst_kept = sorted((h.score for h in row.finished), reverse=True)[settings.n_best - 1]
    return worst_kept >= _score(best_live, row.limit, settings)
