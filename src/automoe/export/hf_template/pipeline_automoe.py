"""`pipeline("translation", FOLDER, trust_remote_code=True)`, which transformers 5 no longer has of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from transformers.pipelines.base import ChunkPipeline

from .text_parts import LineSplitter, Part, join_parts, wordless_tokens


class AutomoeTranslationPipeline(ChunkPipeline):
    """Texts in, translations out, as from the pipeline of transformers 4; a blank text gives an empty one.

    A long text is translated in parts; unknown text, in which the vocabulary knows no letter, is copied.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __call__(self, *texts: Any, **arguments: Any) -> Any:
        """The translations of a text or of texts, each a `{"translation_text": ...}`.

        With `num_return_sequences` above 1, each of several texts has a list of them.

        Args:
            arguments: `truncation` cuts a text to what the tokenizer calls the longest; `return_tensors`
                gives `translation_token_ids` instead of texts; `clean_up_tokenization_spaces` is the
                tokenizer's; `src_lang` and `tgt_lang` must be the model's; others are `generate`'s.
        """
        inputs = arguments.pop("inputs", None) if not texts else texts[0] if len(texts) == 1 else list(texts)
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        found = super().__call__(inputs, **arguments)
        if isinstance(inputs, list) and all(len(one) == 1 for one in found):
            return [one[0] for one in found]
        return found

    def _sanitize_parameters(
        self,
        truncation: Any = None,
        clean_up_tokenization_spaces: bool | None = None,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        return_tensors: bool | None = None,
        return_text: bool | None = None,
        **generate_arguments: Any,
    ) -> tuple[dict[str, Any], ...]:
        config = self.model.config
        self._check_language("src_lang", src_lang, config.source_language)
        self._check_language("tgt_lang", tgt_lang, config.target_language)
        if return_text is False and not return_tensors:
            raise ValueError("return_text=False leaves nothing to return; return_tensors=True returns tokens")
        if generate_arguments.get("return_dict_in_generate"):
            raise ValueError("this pipeline returns translations only; for scores call model.generate")
        after = {
            "return_tensors": return_tensors,
            "clean_up_tokenization_spaces": clean_up_tokenization_spaces,
        }
        return (
            {} if truncation is None else {"truncation": truncation},
            generate_arguments,
            {name: value for name, value in after.items() if value is not None},
        )

    @staticmethod
    def _check_language(name: str, asked: str | None, own: str | None) -> None:
        """Refuse another language than the model's, where that is known; regions do not matter."""
        if asked is None or own is None:
            return
        if re.split("[-_]", asked.lower())[0] != re.split("[-_]", own.lower())[0]:
            raise ValueError(
                f"{name}: this model has one pair of languages, and {asked!r} is not its {own!r}"
            )

    def preprocess(self, text: Any, truncation: Any = False) -> Iterator[dict[str, Any]]:
        """Token ids of each part of the text, which end with end-of-sentence; `copied` is not translated."""
        if not isinstance(text, str):
            raise ValueError(f"expected a text or a list of texts, got {text!r:.60}")
        if re.search("[\ud800-\udfff]", text):
            raise ValueError(f"half a surrogate pair is no text: {text!r:.60}")
        for number, part in enumerate(parts := self._parts(text, truncation), start=1):
            ids = torch.tensor([[*part.tokens, self.tokenizer.eos_token_id]])
            yield {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                "copied": None if part.tokens else part.text,
                "is_last": number == len(parts),
            }

    def _parts(self, text: str, truncation: Any) -> list[Part]:
        """At least one; cut rather than split where that was asked for."""
        if truncation in (False, None, "do_not_truncate"):
            tokens = self._encode(text)
        else:
            tokens = self.tokenizer(text, truncation=truncation)["input_ids"][:-1]  # without end-of-sentence
        return self._splitter.parts(text, tokens) or [Part("", [])]

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
        rows = len(model_inputs["input_ids"])
        tokens = self.model.generate(**model_inputs, **generate_arguments)
        # A row a part, however many translations each has: the parts of a batch are taken apart by rows.
        return {"tokens": tokens.unflatten(0, (rows, -1)), "copied": copied, "is_last": is_last}

    def postprocess(
        self, model_outputs: list[dict[str, Any]], return_tensors: bool = False, **decode_arguments: Any
    ) -> list[dict[str, Any]]:
        """The translations of one text, best first; the k-th is made of the k-th of each part."""
        ranks = range(model_outputs[0]["tokens"].shape[1])
        if return_tensors:
            return [
                {"translation_token_ids": torch.cat([part["tokens"][0, rank] for part in model_outputs])}
                for rank in ranks
            ]

        def text(part: dict[str, Any], rank: int) -> str:
            if part["copied"] is not None:
                return part["copied"]
            tokens = part["tokens"][0, rank]
            return self.tokenizer.decode(tokens, skip_special_tokens=True, **decode_arguments)

        return [
            {
                "translation_text": " ".join(
                    join_parts([text(part, rank) for part in model_outputs]).splitlines()
                )
            }
            for rank in ranks
        ]
