"""The reference engine: the model itself, step by step, in float32 or with its weights stored in float16.

The latter are packed by FBGEMM (x86 processors with AVX2) through torch's own operators: float16 is what
is read from memory, products and sums are float32. torch's int8 operators are deprecated; int8 is the
`onnx` engine's.

Shapes: B sentences, S source tokens, K beams, D width, V vocabulary, W tokens of a shortlist, C candidates.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from automoe.data.shortlist import Shortlister
from automoe.data.vocabulary import EOS_ID, PAD_ID
from automoe.errors import InputError
from automoe.inference.beam import Extensions, beam_search
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Hypothesis, Ids
from automoe.model.sublayers import Encoded
from automoe.model.transformer import DecoderState, Transformer


class TorchEngine:
    """An `Engine`, and a `Stepper` of its own, that is the model.

    Args:
        model: in evaluation mode. Shared in float32; float16 copies its linear layers.
        shortlister: which tokens may be written in translations of a batch; None is all.

    Raises:
        InputError: this processor or this build of torch cannot run packed weights; a shortlist in float16.
    """

    def __init__(
        self,
        model: Transformer,
        precision: Literal["float32", "float16"] = "float32",
        shortlister: Shortlister | None = None,
    ) -> None:
        self.architecture = model.architecture
        self.vocabulary_size = model.vocabulary_size
        self.device = model.embedding.device
        self._output: nn.Module | None = None
        self._shortlister = shortlister
        if precision == "float16":
            if shortlister is not None:
                mend = "of packed weights no rows can be chosen: use float32, or the backend onnx"
                raise InputError("backend torch has no shortlist in float16", [mend])
            if "fbgemm" not in torch.backends.quantized.supported_engines or self.device.type != "cpu":
                mend = "it needs an x86 CPU with AVX2 (FBGEMM); use float32, or the backend onnx"
                raise InputError("backend torch cannot run float16 here", [mend])
            self._output = _PackedLinear(model.output_weight_VD.detach(), None)
            model = _packed(model)
        self.model = model

    @torch.inference_mode()
    def search(
        self, source_BS: Ids, settings: BeamSettings, forced_TBK: Ids | None = None
    ) -> list[list[Hypothesis]]:
        """As `Engine.search`."""
        lengths = (source_BS != PAD_ID).sum(axis=1).tolist()
        forced = None if forced_TBK is None else torch.from_numpy(forced_TBK).to(self.device)
        encoded = self.model.encode(torch.from_numpy(source_BS).to(self.device))
        if self._shortlister is None:
            return beam_search(self, encoded, lengths, settings, forced)
        restricted = _Restricted(self.model, torch.from_numpy(self._shortlister(source_BS)))
        return beam_search(restricted, encoded, lengths, settings, forced)

    @torch.inference_mode()
    def encode(self, source_BS: Ids) -> Encoded:
        """As `Engine.encode`; on a GPU, until it is through."""
        encoded = self.model.encode(torch.from_numpy(source_BS).to(self.device))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return encoded

    def start(self, encoded: Encoded, beam_size: int, max_length: int) -> DecoderState:
        """As `Transformer.start`."""
        return self.model.start(encoded, beam_size, max_length)

    def step(self, tokens_BK: Tensor, state: DecoderState, candidates: int) -> Extensions:
        """As `Stepper.step`."""
        hidden_BKD = self.model.step(tokens_BK, state)
        logits_BKV = self.model.logits(hidden_BKD) if self._output is None else self._output(hidden_BKD)
        return extensions_of(logits_BKV, candidates)


class _Restricted:
    """A `Stepper` of a model whose output layer, so the softmax too, has the tokens of a shortlist alone."""

    def __init__(self, model: Transformer, shortlist_W: Tensor) -> None:
        self.vocabulary_size = len(shortlist_W)
        self.device = model.embedding.device
        self.start = model.start
        self._model = model
        self._shortlist_W = shortlist_W.to(self.device)
        self._rows_WD = model.output_weight_VD[self._shortlist_W]

    def step(self, tokens_BK: Tensor, state: DecoderState, candidates: int) -> Extensions:
        """As `Stepper.step`."""
        logits_BKW = self._model.step(tokens_BK, state) @ self._rows_WD.T
        # The special tokens come first, so end-of-sentence is in its place.
        found = extensions_of(logits_BKW, candidates)
        return found._replace(tokens_BKC=self._shortlist_W[found.tokens_BKC])


def extensions_of(logits_BKV: Tensor, candidates: int) -> Extensions:
    """The most probable tokens by logits, or by log probabilities; as many as `candidates`."""
    # The log probabilities of the whole vocabulary are never built.
    normaliser_BK = logits_BKV.logsumexp(dim=2)
    best_BKC = logits_BKV.topk(candidates, dim=2)
    return Extensions(
        best_BKC.values - normaliser_BK[:, :, None],
        best_BKC.indices,
        logits_BKV[:, :, EOS_ID] - normaliser_BK,
    )


class _PackedLinear(nn.Module):
    """A linear layer whose weight is stored in float16, in the order the processor reads it."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), float32."""
        out: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self._packed)
        return out


def _packed(model: Transformer) -> Transformer:
    """A copy of the model with every linear layer packed, but for the routers, which compare near values."""
    routers = {name for name, _ in model.named_modules() if name.endswith(".router")}
    # Parameters are shared with the original, not copied; modules are new.
    shared = {id(parameter): parameter for parameter in model.parameters()}
    packed = copy.deepcopy(model, shared)
    for name, module in list(packed.named_modules()):
        if isinstance(module, nn.Linear) and name not in routers:
            bias = None if module.bias is None else module.bias.detach()
            packed.set_submodule(name, _PackedLinear(module.weight.detach(), bias))
    return packed
