"""Batched beam search, step by step, around whatever decodes a position: the reference of all engines.

Shapes: B sentences still in the batch, S source tokens, K beams, V vocabulary, L the longest translation
allowed, C extensions each beam may hand on (enough for the best 2K that are allowed, at most V).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Hypothesis

# Finished sentences leave the batch once they are this share of it: leaving copies the caches.
LEAVING_SHARE = 0.25


class Extensions(NamedTuple):
    """The tokens that may follow each hypothesis.

    Attributes:
        log_probability_BKC: of the most probable tokens, best first.
        tokens_BKC: int64, those tokens.
        end_BK: the log probability of end-of-sentence, whether or not it is among them.
    """

    log_probability_BKC: Tensor
    tokens_BKC: Tensor
    end_BK: Tensor


class StepperState(Protocol):
    """What a stepper remembers of a batch between two steps."""

    def reorder(self, beams_BK: Tensor) -> None:
        """Row k of sentence b continues what row `beams_BK[b, k]` of it had been."""

    def keep(self, sentences_B: Tensor) -> None:
        """Only these sentences (indices) stay, in this order."""


class Stepper(Protocol):
    """A decoder that is called position by position, in `torch.inference_mode`."""

    @property
    def vocabulary_size(self) -> int:
        """Of the output layer: token ids are below it."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""

    def start(self, encoded: Any, beam_size: int, max_length: int) -> Any:
        """A `StepperState` before the first of at most `max_length` positions."""

    def step(self, tokens_BK: Tensor, state: Any, candidates: int) -> Extensions:
        """Decode one position: the best `candidates` tokens after `tokens_BK`; advances the state."""


def beam_search(
    stepper: Stepper,
    encoded: Any,
    source_lengths: Sequence[int],
    settings: BeamSettings,
    forced_TBK: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """Translate an encoded batch: for each sentence its `n_best` hypotheses, best first.

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

    The result is deterministic: of equal scores the hypothesis that finished first is better; of equal
    extensions one that goes on before one that ends, then the beam of lower index, then as the stepper says.
    Sentences do not influence each other: the result does not depend on the batch, up to rounding.

    Args:
        stepper: called without autograd.
        encoded: what it starts from. `source_lengths`: tokens of each sentence, without padding.
        forced_TBK: as in `Engine.search`.
    """
    K = settings.beam_size
    # Of the best extensions of a beam, at most three are forbidden: padding, begin- and end-of-sentence.
    C = min(2 * K + 3, stepper.vocabulary_size)
    limits = [settings.max_length(length) for length in source_lengths]
    L = max(limits, default=0)
    finished: list[list[Hypothesis]] = [[] for _ in limits]
    rows = {sentence: sentence for sentence in range(len(limits))}  # batch row -> sentence, of those not done
    state = stepper.start(encoded, K, L)
    device = stepper.device
    tokens_BK = torch.full((len(limits), K), BOS_ID, device=device)
    prefix_BKL = torch.full((len(limits), K, L), PAD_ID, device=device)
    # All beams start equal: only the first may be extended, or every hypothesis would come K times.
    scores_BK = torch.full((len(limits), K), -torch.inf, device=device)
    scores_BK[:, 0] = 0

    for length in range(1, L + 1):
        if forced_TBK is not None:
            tokens_BK = forced_TBK[length - 1, : len(tokens_BK)]
        extensions = stepper.step(tokens_BK, state, C)
        must_end = [row for row, sentence in rows.items() if limits[sentence] == length]
        scores_BC, origin_BC, tokens_BC = _best_extensions(
            extensions, scores_BK, may_end=length >= settings.min_length, must_end=must_end
        )
        ends_BC = tokens_BC == EOS_ID

        ending_BK = ends_BC[:, :K] & (scores_BC[:, :K] != -torch.inf)
        for row, rank in ending_BK.nonzero().tolist():
            if row in rows and len(kept := finished[rows[row]]) < K:
                log_probability = float(scores_BC[row, rank])
                prefix = prefix_BKL[row, origin_BC[row, rank], : length - 1].tolist()
                score = _score(log_probability, length, settings)
                kept.append(Hypothesis(tuple(prefix), score, log_probability))

        # The best K that go on, in order: a stable sort puts the ended extensions last.
        going_BK = ends_BC.to(torch.uint8).sort(dim=1, stable=True).indices[:, :K]
        scores_BK, origin_BK, tokens_BK = (x.gather(1, going_BK) for x in (scores_BC, origin_BC, tokens_BC))

        best_live = scores_BK[:, 0].tolist()
        for row, sentence in list(rows.items()):
            if row in must_end or _is_done(finished[sentence], best_live[row], limits[sentence], settings):
                del rows[row]
        if not rows:
            break
        state.reorder(origin_BK)
        prefix_BKL = prefix_BKL.gather(1, origin_BK[:, :, None].expand(-1, -1, L))
        prefix_BKL[:, :, length - 1] = tokens_BK
        if len(rows) <= (1 - LEAVING_SHARE) * len(tokens_BK):
            remaining_B = torch.tensor(list(rows), device=device)
            state.keep(remaining_B)
            tokens_BK, scores_BK, prefix_BKL = (x[remaining_B] for x in (tokens_BK, scores_BK, prefix_BKL))
            rows = dict(enumerate(rows.values()))

    return [sorted(kept, key=lambda h: -h.score)[: settings.n_best] for kept in finished]


def _best_extensions(
    extensions: Extensions, scores_BK: Tensor, *, may_end: bool, must_end: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The best 2K extensions of each sentence, best first: log probability, beam extended, token added.

    At most K of 2K end the sentence (one a beam), so K that go on are always among them. Forbidden
    tokens keep their share of the probability. In the rows `must_end` only end-of-sentence may follow.
    """
    added_BKC, tokens_BKC = extensions.log_probability_BKC, extensions.tokens_BKC
    B, K, C = added_BKC.shape
    forbidden_BKC = (tokens_BKC == PAD_ID) | (tokens_BKC == BOS_ID)
    if not may_end:
        forbidden_BKC |= tokens_BKC == EOS_ID
    added_BKC = added_BKC.masked_fill(forbidden_BKC, -torch.inf)
    if must_end:
        tokens_BKC = tokens_BKC.clone()
        added_BKC[must_end] = -torch.inf
        added_BKC[must_end, :, 0] = extensions.end_BK[must_end]
        tokens_BKC[must_end, :, 0] = EOS_ID
    # The best 2K of a sentence hold at most 2K of one beam. Of equal ones, those that end come last.
    log_probability_BX = (scores_BK[:, :, None] + added_BKC).view(B, K * C)
    tokens_BX = tokens_BKC.view(B, K * C)
    ends_last_BX = (tokens_BX == EOS_ID).to(torch.uint8).sort(dim=1, stable=True).indices
    ranked = log_probability_BX.gather(1, ends_last_BX).sort(dim=1, descending=True, stable=True)
    chosen_BC = ends_last_BX.gather(1, ranked.indices[:, : 2 * K])
    return ranked.values[:, : 2 * K], chosen_BC // C, tokens_BX.gather(1, chosen_BC)


def _score(log_probability: float, length: int, settings: BeamSettings) -> float:
    return log_probability / math.pow(length, settings.length_penalty)


def _is_done(
    finished: Sequence[Hypothesis], best_live: float, max_length: int, settings: BeamSettings
) -> bool:
    """Enough hypotheses are finished, or no live one can still enter the `n_best`."""
    if len(finished) >= settings.beam_size:
        return True
    if len(finished) < settings.n_best:
        return False
    worst_kept = sorted((h.score for h in finished), reverse=True)[settings.n_best - 1]
    return worst_kept >= _score(best_live, max_length, settings)
