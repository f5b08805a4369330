"""What `generate` of an AutoMoE translation model adds to that of `transformers`: limits, and refusals.

Shapes: B sentences, S source and T target tokens, V vocabulary.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

_DEFAULTS = GenerationConfig()
# Arguments of `generate` that this model cannot obey, with what to say instead of another translation.
UNSUPPORTED = {
    "output_attentions": "it keeps no attention weights",
    "output_hidden_states": "it keeps no hidden states",
    "inputs_embeds": "give input_ids",
    "decoder_inputs_embeds": "give decoder_input_ids",
    "labels": "it is for inference; train it with the AutoMoE package",
    "guidance_scale": "it has no unconditional input",
    "token_healing": "it is for models that continue a text",
    "assistant_model": "it decodes without an assistant",
    "prompt_lookup_num_tokens": "it decodes without an assistant",
}
_NUMBERS = ("num_beams", "max_new_tokens", "max_length", "min_new_tokens", "min_length", "length_penalty")


class EndInTime(LogitsProcessor):
    """Lets only end-of-sentence follow where a sentence has reached its own longest translation.

    Its score stays what the model gave, so hypotheses that end here are ranked like all others.

    Args:
        limits_B: the most tokens of each sentence's translation, BOS and end-of-sentence counted.
        eos_token_ids: any of them ends a sentence.
    """

    def __init__(self, limits_B: Tensor, eos_token_ids: list[int]) -> None:
        self.limits_B = limits_B
        self.eos_token_ids = eos_token_ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Mask (B * beams, V) scores of the next token after (B * beams, T), the first of them BOS."""
        beams = scores.shape[0] // self.limits_B.shape[0]
        must_end = self.limits_B.repeat_interleave(beams)[:, None] <= input_ids.shape[1] + 1
        others_V = torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device)
        others_V[self.eos_token_ids] = False
        return scores.masked_fill(must_end & others_V, -torch.inf)


class Asked:
    """What a call of `generate` asks for: its arguments, else its configuration's, else the model's.

    Args:
        arguments: of the call.
        given: the `generation_config` of the call, if any. What a configuration leaves at the library's
            default it does not say (in transformers 4 a `max_length` of 20 is that).
        own: the model's `generation_config`.
    """

    def __init__(
        self, arguments: dict[str, Any], given: GenerationConfig | None, own: GenerationConfig
    ) -> None:
        self._sources: list[dict[str, Any]] = [arguments]
        for config in (given, own):
            values = {} if config is None else vars(config)
            said = {name: value for name, value in values.items() if value != getattr(_DEFAULTS, name, None)}
            self._sources.append(said)

    def value(self, name: str) -> Any:
        """The value of one argument; None where nobody says it."""
        return next((source[name] for source in self._sources if source.get(name) is not None), None)

    def refuse_unsupported(self) -> None:
        """Raise a `ValueError` for what would be ignored, or fail in the middle."""
        problems = [f"{name}: {why}" for name, why in UNSUPPORTED.items() if _is_asked(self.value(name))]
        cache = self.value("cache_implementation")
        if cache not in (None, "dynamic"):
            problems.append(
                f"cache_implementation: {cache!r} does not fit its layers, which differ; leave it out"
            )
        problems += [
            f"{name}: expected a number, got {value!r}"
            for name in _NUMBERS
            if (value := self.value(name)) is not None and not _is_number(value)
        ]
        beams = self.value("num_beams")
        if _is_number(beams) and (beams < 1 or beams != int(beams)):
            problems.append(f"num_beams: expected a whole number, at least 1, got {beams}")
        if problems:
            raise ValueError("\n  - ".join(["this model cannot generate so", *problems]))

    def longest(self, prompt: int) -> int | None:
        """The most tokens of the decoder, `prompt` and end-of-sentence counted, or None.

        Where both are said in one place `max_new_tokens` counts, as in `transformers`.
        """
        for source in self._sources:
            for name, before in (("max_new_tokens", prompt), ("max_length", 0)):
                if source.get(name) is not None:
                    if before + source[name] <= prompt:
                        raise ValueError(f"{name}: {source[name]} leaves no room for a translation")
                    return before + int(source[name])
        return None

    def fewest(self, prompt: int) -> int:
        """Before how many new tokens no sentence may end."""
        for source in self._sources:
            new, length = source.get("min_new_tokens"), source.get("min_length")
            if new is not None or length is not None:
                return max(new or 0, (length or 0) - prompt, 0)
        return 0

    def limits(self, own_B: Tensor, prompt: int) -> tuple[Tensor, int]:
        """When each sentence must end (B), and the most tokens of all, all of them counted.

        Args:
            own_B: the model's own limits, BOS and end-of-sentence counted.
            prompt: tokens that the decoder starts with.
        """
        first_end = prompt + self.fewest(prompt) + 1
        limits_B = own_B.clamp(min=first_end)
        longest = self.longest(prompt)
        if longest is None:
            return limits_B, int(limits_B.max())
        limits_B = limits_B.clamp(max=longest)
        # Where no sentence may end before the limit, it is cut off there.
        never = torch.iinfo(limits_B.dtype).max
        return limits_B.masked_fill(limits_B < first_end, never), int(limits_B.max())

    def eos_token_ids(self) -> list[int]:
        """The tokens that end a sentence."""
        found = self.value("eos_token_id")
        return [found] if isinstance(found, int) else [int(token) for token in found]


def checked_source(input_ids: Any) -> Tensor:
    """Token ids (B, S) of at least one sentence.

    Raises:
        ValueError: they are anything else.
    """
    if not isinstance(input_ids, Tensor):
        kind = type(input_ids).__name__
        raise ValueError(
            f"expected token ids as a tensor, got {kind}; of a tokenizer's batch: generate(**batch)"
        )
    if input_ids.dim() != 2 or input_ids.numel() == 0:
        shape = tuple(input_ids.shape)
        raise ValueError(
            f"expected token ids of sentences times tokens, end-of-sentence last, got shape {shape}"
        )
    return input_ids


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)  # NumPy's, too


def _is_asked(value: Any) -> bool:
    """A guidance scale of 1 guides nothing."""
    return value is True or not (value is None or value is False or (isinstance(value, float) and value == 1))
