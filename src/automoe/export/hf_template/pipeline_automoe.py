"""`pipeline("translation", FOLDER, trust_remote_code=True)`, which transformers 5 no longer has of itself."""

from __future__ import annotations

import re
from typing import Any

from transformers import Pipeline


class AutomoeTranslationPipeline(Pipeline):
    """Texts in, translations out, as from the pipeline of transformers 4; a blank text gives an empty one."""

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

    def preprocess(self, text: Any, truncation: Any = False) -> dict[str, Any]:
        """Token ids that end with end-of-sentence."""
        if not isinstance(text, str):
            raise ValueError(f"expected a text or a list of texts, got {text!r:.60}")
        found = self.tokenizer(text, return_tensors="pt", return_token_type_ids=False, truncation=truncation)
        return dict(found)

    def _forward(self, model_inputs: dict[str, Any], **generate_arguments: Any) -> dict[str, Any]:
        blank = model_inputs["input_ids"][:, 0] == self.tokenizer.eos_token_id
        tokens = self.model.generate(**model_inputs, **generate_arguments)
        # A row a text, however many translations each has: texts of a batch are taken apart by rows.
        return {"tokens": tokens.unflatten(0, (len(blank), -1)), "blank": blank}

    def postprocess(
        self, model_outputs: dict[str, Any], return_tensors: bool = False, **decode_arguments: Any
    ) -> list[dict[str, Any]]:
        """The translations of one text, best first."""
        translations = model_outputs["tokens"][0]
        if return_tensors:
            return [{"translation_token_ids": tokens} for tokens in translations]
        if bool(model_outputs["blank"]):
            return [{"translation_text": ""} for _ in translations]
        return [
            {"translation_text": self.tokenizer.decode(tokens, skip_special_tokens=True, **decode_arguments)}
            for tokens in translations
        ]
