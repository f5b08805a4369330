"""What goes over the wire, in JSON; the OpenAPI page is made from these classes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from automoe.data.tokenizer import Tokenizer
from automoe.serving.service import TranslatedText
from automoe.serving.translation import Translated
from automoe.web.expert_grid import grids_of


def _is_unicode(text: str) -> str:
    """JSON can spell half a surrogate pair, which is no character and cannot be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"character {error.start} is half a surrogate pair") from error
    return text


Text = Annotated[str, AfterValidator(_is_unicode)]

# Tags tell pydantic which alternative is meant, so that it complains about that one alone.
ONE, SEVERAL = "one text", "several texts"


def _one_or_several(value: Any) -> str:
    return SEVERAL if isinstance(value, list) else ONE


Texts = Annotated[
    Annotated[Text, Tag(ONE)] | Annotated[list[Text], Tag(SEVERAL)], Discriminator(_one_or_several)
]


class TranslateRequest(BaseModel):
    """Texts to translate; a text may have several lines, which are translated one by one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Texts = Field(description="One text or a list of them; an empty one stays empty.")
    beam_size: int | None = Field(None, ge=1, description="1 is greedy; by default the server's.")
    n_best: int = Field(1, ge=1, description="Hypotheses wanted for each text; above 1, texts of one line.")


class HypothesisMessage(BaseModel):
    """One hypothesis of a line."""

    text: str
    score: float = Field(description="Length-normalised log probability; larger is better.")


class TranslationMessage(BaseModel):
    """One translated text."""

    text: str
    hypotheses: list[HypothesisMessage] = Field(
        description="The n_best of a text of one line, best first; empty for blank texts and several lines."
    )

    @staticmethod
    def of(translated: TranslatedText) -> TranslationMessage:
        """The message for one text."""
        hypotheses = translated.lines[0].hypotheses if len(translated.lines) == 1 else ()
        return TranslationMessage(
            text=translated.text,
            hypotheses=[HypothesisMessage(text=h.text, score=h.score) for h in hypotheses],
        )


class TranslateResponse(BaseModel):
    """One translation a text, in the order of the request."""

    translations: list[TranslationMessage]


class ExplainRequest(BaseModel):
    """A text to translate and to explain, line by line."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Text
    beam_size: int | None = Field(None, ge=1, description="1 is greedy; by default the server's.")


class LayerMessage(BaseModel):
    """One layer and the tokens of its stack."""

    name: str = Field(description='For instance "encoder.0".')
    experts: list[int] = Field(description="The FFN size of each expert; one for a dense layer.")
    chosen: list[list[int]] = Field(
        description="For each token the experts it used, as indices of `experts`, most probable first."
    )


class StackMessage(BaseModel):
    """Encoder or decoder: its tokens and which experts they used."""

    tokens: list[str] = Field(
        description="Subwords; ▁ begins a word. The encoder's are those it read, the decoder's those it "
        "wrote: a column is the computation that predicted that token."
    )
    layers: list[LayerMessage]
    mean_ffn_sizes: list[float] = Field(
        description="For each token the mean, over the layers, of the FFN size it used."
    )


class SentenceMessage(BaseModel):
    """One line of the text, or one sentence of a long line."""

    translation: str
    encoder: StackMessage
    decoder: StackMessage

    @staticmethod
    def of(sentence: Translated, tokenizer: Tokenizer) -> SentenceMessage:
        """The message for a sentence that was translated with `explain`."""
        assert sentence.routing is not None
        return SentenceMessage.model_validate(
            {"translation": sentence.hypotheses[0].text, **grids_of(sentence.routing, tokenizer)}
        )


class ExplainResponse(BaseModel):
    """The translation, and the routing of each sentence that was translated: neither blank nor copied."""

    translation: str
    sentences: list[SentenceMessage]


class HealthMessage(BaseModel):
    """The server answers and its translating thread works."""

    status: str
    waiting_sentences: int


class ErrorMessage(BaseModel):
    """The body of every answer that is not a success."""

    error: str = Field(description="What is wrong and how to mend it, in one message.")
