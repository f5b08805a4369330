"""`pipeline("translation", FOLDER, trust_remote_code=True)`, which transformers 5 no longer has of itself."""

from __future__ import annotations

from typing import Any

from transformers import Pipeline


class AutomoeTranslationPipeline(Pipeline):
    """Texts in, as many `{"translation_text": ...}` out; a blank text gives an empty one."""

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

    def preprocess(self, text: str) -> dict[str, Any]:
        """Token ids that end with end-of-sentence."""
        return dict(self.tokenizer(text, return_tensors="pt", return_token_type_ids=False))

    def _forward(self, model_inputs: dict[str, Any], **generate_arguments: Any) -> dict[str, Any]:
        blank = model_inputs["input_ids"][:, 0] == self.tokenizer.eos_token_id
        return {"tokens": self.model.generate(**model_inputs, **generate_arguments), "blank": blank}

    def postprocess(self, model_outputs: dict[str, Any]) -> dict[str, str]:
        """The text of one translation."""
        if bool(model_outputs["blank"]):
            return {"translation_text": ""}
        text = self.tokenizer.decode(model_outputs["tokens"].flatten(), skip_special_tokens=True)
        return {"translation_text": text}
