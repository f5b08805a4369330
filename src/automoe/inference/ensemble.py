"""Several models that translate together, each position by the mean of their probabilities.

Shapes: B sentences, S source tokens, K beams, D width, V vocabulary, M members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from automoe.data.vocabulary import PAD_ID
from automoe.errors import InputError
from automoe.inference.beam import Extensions, beam_search
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Hypothesis, Ids
from automoe.inference.torch_engine import extensions_of
from automoe.model.sublayers import Encoded
from automoe.model.transformer import DecoderState, Transformer


@dataclass(frozen=True)
class _MemberStates:
    """A `StepperState`: that of every member."""

    states: tuple[DecoderState, ...]

    def reorder(self, beams_BK: Tensor) -> None:
        for state in self.states:
            state.reorder(beams_BK)

    def keep(self, sentences_B: Tensor) -> None:
        for state in self.states:
            state.keep(sentences_B)


class EnsembleEngine:
    """An `Engine`, and a `Stepper` of its own, of M models that score each next token together.

    The probability of a token after a prefix is the mean of what the members give it.

    Args:
        models: on one device, of one vocabulary: the token of an id is the same in all, which only who loads
            them can know. They are put into evaluation mode.

    Raises:
        InputError: there is none, or they differ in the number of tokens or in their device.
    """

    def __init__(self, models: Sequence[Transformer]) -> None:
        problems = [] if models else ["expected at least one model"]
        for what, found in (
            ("tokens", {model.vocabulary_size for model in models}),
            ("device", {model.embedding.device for model in models}),
        ):
            if len(found) > 1:
                problems.append(f"{what}: expected the same of all, got {', '.join(sorted(map(str, found)))}")
        if problems:
            raise InputError("these models are no ensemble", problems)
        self.models = tuple(model.eval() for model in models)
        self.vocabulary_size = models[0].vocabulary_size
        self.device = models[0].embedding.device
        self.architecture = models[0].architecture  # a protocol of one model asks for one: the first member's

    @torch.inference_mode()
    def search(
        self, source_BS: Ids, settings: BeamSettings, forced_TBK: Ids | None = None
    ) -> list[list[Hypothesis]]:
        """As `Engine.search`."""
        lengths = (source_BS != PAD_ID).sum(axis=1).tolist()
        forced = None if forced_TBK is None else torch.from_numpy(forced_TBK).to(self.device)
        return beam_search(self, self.encode(source_BS), lengths, settings, forced)

    @torch.inference_mode()
    def encode(self, source_BS: Ids) -> tuple[Encoded, ...]:
        """As `Engine.encode`, by every member."""
        source = torch.from_numpy(source_BS).to(self.device)
        encoded = tuple(model.encode(source) for model in self.models)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return encoded

    def start(self, encoded: tuple[Encoded, ...], beam_size: int, max_length: int) -> _MemberStates:
        """As `Stepper.start`."""
        pairs = zip(self.models, encoded, strict=True)
        return _MemberStates(tuple(model.start(one, beam_size, max_length) for model, one in pairs))

    def step(self, tokens_BK: Tensor, state: _MemberStates, candidates: int) -> Extensions:
        """As `Stepper.step`."""
        log_probabilities_MBKV = torch.stack(
            [
                model.logits(model.step(tokens_BK, own)).log_softmax(dim=-1)
                for model, own in zip(self.models, state.states, strict=True)
            ]
        )
        mean_BKV = log_probabilities_MBKV.logsumexp(dim=0) - math.log(len(self.models))
        return extensions_of(mean_BKV, candidates)
