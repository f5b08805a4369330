"""The joint subword vocabulary: training it, and turning text into token ids and back."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from automoe.data.normaliser import WORD_START, normalised, normaliser
from automoe.data.text_parts import MAX_SOURCE_TOKENS, STAND_INS, LineSplitter, Part, wordless_tokens
from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID, SPECIAL_TOKENS, UNK_ID
from automoe.errors import InputError
from automoe.storage import unreadable, write_text

# The share of all characters a vocabulary must spell; the rarest beyond it become <unk>. Web corpora hold
# thousands of stray characters, which would otherwise crowd out subwords.
CHARACTER_COVERAGE = 0.99999
# A literal "</s>" in a text must be spelled, not become EOS: no path through such a token may win.
SPECIAL_TOKEN_SCORE = -1000.0


class Tokenizer:
    """Text to token ids and back, the same up to its normaliser (`data/normaliser.py`, stored with it).

    A character the vocabulary lacks becomes `<unk>`. Text never becomes padding, BOS or EOS, not even
    when it spells one of them.

    Args:
        inner: a Hugging Face tokenizer whose first four tokens are `SPECIAL_TOKENS`.
    """

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self._inner = inner
        self._inner.encode_special_tokens = True
        self._wordless = wordless_tokens(inner.get_vocab())

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, the special ones included."""
        size: int = self._inner.get_vocab_size()
        return size

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, without BOS and EOS."""
        encoded = self._inner.encode_batch(list(texts), add_special_tokens=False)
        return [[max(token, UNK_ID) for token in text.ids] for text in encoded]

    def parts(self, lines: Sequence[str], max_source_tokens: int = MAX_SOURCE_TOKENS) -> list[list[Part]]:
        """What of each line is translated by itself, as `LineSplitter.parts`."""
        splitter = LineSplitter(
            lambda text: self.encode([text])[0], self._normalise, UNK_ID, self._wordless, max_source_tokens
        )
        return [splitter.parts(*line) for line in zip(lines, self.encode(lines), strict=True)]

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of ids; special tokens leave no trace."""
        texts: list[str] = self._inner.decode_batch([list(ids) for ids in tokens], skip_special_tokens=True)
        return texts

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Each token as the vocabulary spells it: `▁` begins a word. An unknown id is empty."""
        return [self._inner.id_to_token(token) or "" for token in tokens]

    def save(self, path: str | Path) -> None:
        """Write Hugging Face's `tokenizer.json`, complete or not at all.

        Raises:
            InputError: the disk is full or refuses.
        """
        write_text(path, self._inner.to_str(pretty=True))

    def _normalise(self, text: str) -> str:
        plain: str = self._inner.normalizer.normalize_str(text) if self._inner.normalizer else text
        return plain

    @staticmethod
    def load(path: str | Path) -> Tokenizer:
        """Read a `tokenizer.json`.

        Raises:
            InputError: the file is missing, damaged, not a tokenizer, or starts with other tokens.
        """
        path = Path(path)
        try:
            inner = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise unreadable(path, error) from error
        except Exception as error:  # the library raises plain Exception for whatever it cannot parse
            raise InputError(f"{path}: is not a tokenizer", [str(error)]) from error
        problems = [
            f"token {index} is {inner.id_to_token(index)!r}, expected {special!r}"
            for index, special in enumerate(SPECIAL_TOKENS)
            if inner.id_to_token(index) != special
        ]
        if problems:
            mend = "train a vocabulary with this program, then use its tokenizer.json"
            raise InputError(f"{path}: is another program's tokenizer", [*problems, mend])
        return Tokenizer(inner)


def train_tokenizer(
    texts: Iterable[str], vocabulary_size: int, kind: Literal["unigram", "bpe"] = "unigram"
) -> Tokenizer:
    """Train a subword vocabulary; the same texts in the same order give the same file.

    Args:
        texts: sentences of both languages.
        vocabulary_size: number of tokens, the four special ones included.
        kind: "unigram" (Kudo, 2018) or "bpe" (Sennrich et al., 2016).

    Raises:
        InputError: the texts do not have that many subwords, or need more tokens for their characters.
    """
    prepared = _normalised(texts)
    alphabet = set().union(*prepared) - {" "} | {WORD_START}
    smallest = len(SPECIAL_TOKENS) + len(alphabet)
    if not any(prepared):
        raise InputError("no vocabulary can be trained", ["the training text is empty"])
    if vocabulary_size < smallest:
        problem = f"the text has {len(alphabet)} different characters: ask for at least {smallest} tokens"
        raise InputError(f"a vocabulary of {vocabulary_size} tokens is too small", [problem])
    inner = (_train_unigram if kind == "unigram" else _train_bpe)(prepared, vocabulary_size)
    if inner.get_vocab_size() < vocabulary_size:
        problem = f"ask for at most {inner.get_vocab_size()} tokens, or give more text"
        raise InputError(f"the text is too small for a vocabulary of {vocabulary_size} tokens", [problem])
    inner.normalizer = normaliser()
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement=WORD_START)
    inner.decoder = decoders.Metaspace(replacement=WORD_START)
    inner.add_special_tokens(list(SPECIAL_TOKENS))
    replace_special_words(inner)
    return Tokenizer(inner)


def replace_special_words(inner: tokenizers.Tokenizer) -> None:
    """Let the normaliser put a stand-in, which is unknown, for each word that would become a special token.

    Those are the words of `SPECIAL_TOKENS` that the vocabulary cannot spell, for want of a `<` say.
    """
    inner.encode_special_tokens = True
    steps = [
        normalizers.Replace(word, stand_in)
        for stand_in, word in STAND_INS.items()
        if min(inner.encode(word, add_special_tokens=False).ids, default=UNK_ID) < UNK_ID
    ]
    if steps:
        first = [inner.normalizer] if inner.normalizer else []
        inner.normalizer = normalizers.Sequence([*first, *steps])


def _normalised(texts: Iterable[str]) -> list[str]:
    """Normalised texts without the rarest characters and without spelled-out special tokens."""
    prepared = [normalised(text) for text in texts]
    counts: Counter[str] = Counter()
    for text in prepared:
        counts.update(text)
    allowance = (1 - CHARACTER_COVERAGE) * counts.total()
    rare: dict[int, str] = {}
    for character, count in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        allowance -= count
        if allowance < 0:
            break
        rare[ord(character)] = " "

    # A subword learned from a literal "</s>" would be the special token itself.
    specials = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
    return [" ".join(specials.sub(" ", text).translate(rare).split()) for text in prepared]


def _train_unigram(texts: list[str], vocabulary_size: int) -> tokenizers.Tokenizer:
    """SentencePiece trains, because `tokenizers`' own unigram trainer gives another result each time."""
    import sentencepiece

    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=proto,
        model_type="unigram",
        vocab_size=vocabulary_size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        max_sentence_length=10_000_000,
        num_threads=4,  # the sums, and so the last digits, depend on it: a constant, not the machine's
        minloglevel=2,
        pad_id=PAD_ID,
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        unk_id=UNK_ID,
        pad_piece=SPECIAL_TOKENS[PAD_ID],
        bos_piece=SPECIAL_TOKENS[BOS_ID],
        eos_piece=SPECIAL_TOKENS[EOS_ID],
        unk_piece=SPECIAL_TOKENS[UNK_ID],
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=proto.getvalue())
    specials = [(token, SPECIAL_TOKEN_SCORE) for token in SPECIAL_TOKENS]
    pieces = [
        (trained.id_to_piece(index), trained.get_score(index))
        for index in range(len(SPECIAL_TOKENS), trained.vocab_size())
    ]
    return tokenizers.Tokenizer(models.Unigram([*specials, *pieces], unk_id=UNK_ID, byte_fallback=False))


def _train_bpe(texts: list[str], vocabulary_size: int) -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS[UNK_ID]))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement=WORD_START)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return inner
