"""Configuration of an AutoMoE translation model for `transformers`."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class AutomoeConfig(PretrainedConfig):
    """What `config.json` says of a model.

    Args:
        architecture: `encoder_width`, `decoder_width`, `qkv_dim`, and per layer of `encoder` and `decoder`
            the heads, the FFN size of each expert (one is a dense FFN, size 0 an identity), `top_k`, and for
            a decoder layer `encoder_layers_attended`, how many of the last encoder layers it attends to, and
            `mixer`, what it has in the place of self-attention, if anything.
        norm: layer norm before each sub-layer (`pre`) or after each residual sum (`post`).
        max_length_ratio, max_length_extra: a translation has at most
            `int(ratio * source tokens + extra)` tokens; both counts include end-of-sentence.
        source_language, target_language: codes such as `en`, or None where they are not known.
    """

    model_type = "automoe"

    def __init__(
        self,
        architecture: dict[str, Any] | None = None,
        vocab_size: int = 0,
        norm: str = "post",
        max_length_ratio: float = 1.5,
        max_length_extra: int = 20,
        source_language: str | None = None,
        target_language: str | None = None,
        **kwargs: Any,
    ) -> None:
        # transformers builds a configuration without arguments to find out what the defaults are.
        self.architecture = architecture or {}
        self.vocab_size = vocab_size
        self.norm = norm
        self.max_length_ratio = max_length_ratio
        self.max_length_extra = max_length_extra
        self.source_language = source_language
        self.target_language = target_language
        # The names under which `transformers` looks for the size of the key-value cache.
        self.num_hidden_layers = len(self.architecture.get("decoder", []))
        self.hidden_size = self.architecture.get("decoder_width", 0)
        super().__init__(**kwargs)
