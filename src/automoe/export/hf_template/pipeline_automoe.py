"""`pipeline("translation", FOLDER, trust_remote_code=True)`, which transformers 5 no longer has of itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from transformers.pipelines.base import ChunkPipeline

from .text_parts import LineSplitter, Part, join_parts, wordless_tokens


class AutomoeTranslationPipeline(ChunkPipeline):
    """Texts in, as many `{"translation_text": ...}` out; a blank text gives an empty one.

    A long text is translated in parts; unknown text, in which the vocabulary knows no letter, is copied.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The translations of a text or of texts, always as a list; other arguments are `generate`'s."""
        found = super().__call__(*args, **kwargs)
        return [found] if isinstance(found, dict) else found

    def _sanitize_parameters(self, **generate_arguments: Any) -> tuple[dict[str, Any], ...]:
        return {}, generate_arguments, {}

    def preprocess(self, text: str) -> Iterator[dict[str, Any]]:
        """Token ids of each part of the text, which end with end-of-sentence; `copied` is not translated."""
        parts = self._splitter.parts(text, self._encode(text)) or [Part("", [])]
        for number, part in enumerate(parts, start=1):
            ids = torch.tensor([[*part.tokens, self.tokenizer.eos_token_id]])
            yield {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                "copied": None if part.tokens else part.text,
                "is_last": number == len(parts),
            }

    @cached_property
    def _splitter(self) -> LineSplitter:
        normalizer = self.tokenizer.backend_tokenizer.normalizer
        return LineSplitter(
            self._encode,
            lambda text: normalizer.normalize_str(text) if normalizer else text,
            self.tokenizer.unk_token_id,
            wordless_tokens(self.tokenizer.get_vocab()),
        )

    def _encode(self, text: str) -> list[int]:
        # Not verbose: a long text is split, which is no reason for a warning.
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def _forward(self, model_inputs: dict[str, Any], **generate_arguments: Any) -> dict[str, Any]:
        copied, is_last = (model_inputs.pop(name) for name in ("copied", "is_last"))
        tokens = self.model.generate(**model_inputs, **generate_arguments)
        return {"tokens": tokens, "copied": copied, "is_last": is_last}

    def postprocess(self, model_outputs: list[dict[str, Any]]) -> dict[str, str]:
        """The text of one translation."""
        return {"translation_text": join_parts(map(self._text, model_outputs))}

    def _text(self, part: dict[str, Any]) -> str:
        if part["copied"] is not None:
            return part["copied"]
        return self.tokenizer.decode(part["tokens"].flatten(), skip_special_tokens=True)
