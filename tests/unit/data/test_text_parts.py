"""Long lines are cut where sentences end, then at clauses, then between words, and nothing is lost."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automoe.data.text_parts import STAND_INS, LineSplitter, Part, join_parts
from automoe.data.tokenizer import Tokenizer, train_tokenizer
from automoe.data.vocabulary import SPECIAL_TOKENS, UNK_ID

UNKNOWN, MARK, LETTER = 3, 8, 9


def token(character: str) -> int:
    if "α" <= character <= "ω":
        return UNKNOWN
    return LETTER if character.isalpha() else MARK


def characters(text: str) -> list[int]:
    """A token a character that is no space; Greek is unknown."""
    return [token(character) for character in text if character != " "]


def splitter(max_tokens: int) -> LineSplitter:
    return LineSplitter(
        characters, lambda text: " ".join(text.split()), UNKNOWN, frozenset({MARK}), max_tokens
    )


def parts(line: str, max_tokens: int) -> list[str]:
    return [part.text for part in splitter(max_tokens).parts(line, characters(line))]


WORDS = st.sampled_from(["one", "two", "three", "3.5", "file.txt", "v1.2!x", "e,g", "a:b"])
CLAUSES = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)
SENTENCES = st.tuples(
    st.lists(CLAUSES, min_size=1, max_size=3).map(", ".join),
    st.sampled_from([".", "!", "?!", "...", '."', ".)", "…"]),
).map("".join)


@given(st.lists(SENTENCES, min_size=2, max_size=5))
def test_a_long_line_is_its_sentences(sentences):
    longest = max(len(characters(sentence)) for sentence in sentences) + 1
    line = " ".join(sentences)
    assert parts(line, longest) == sentences
    assert parts(line, len(characters(line)) + 1) == [line]  # end-of-sentence counted, it just fits


@given(st.lists(CLAUSES, min_size=2, max_size=5), st.sampled_from([", ", "; ", ": ", " – "]))
def test_a_long_sentence_is_its_clauses(clauses, mark):
    marked = [*(clause + mark.rstrip() for clause in clauses[:-1]), clauses[-1] + "."]
    longest = max(len(characters(clause)) for clause in marked) + 1
    sentence = mark.join(clauses) + "."
    short = "Yes."
    found = parts(f"{short} {sentence}", max(longest, 5))
    assert found == [short, *(marked if len(characters(sentence)) >= max(longest, 5) else [sentence])]


@given(st.text(st.sampled_from("ab αβ.,!。، "), max_size=80), st.integers(4, 12))
def test_every_part_fits_and_nothing_is_lost(line, max_tokens):
    found = splitter(max_tokens).parts(line, characters(line))
    assert "".join("".join(part.text.split()) for part in found) == "".join(line.split())
    for part in found:
        assert len(part.tokens) < max_tokens
        tokens = characters(part.text)
        assert part.tokens == ([] if UNKNOWN in tokens and LETTER not in tokens else tokens)


def test_words_are_kept_whole_where_there_are_any():
    words = ["".join(word) for word in itertools.product("abc", repeat=3)]
    for max_tokens in (5, 10, 30):
        found = parts(" ".join(words), max_tokens)
        assert [word for part in found for word in part.split()] == words
        assert min(len(part.split()) for part in found) >= (max_tokens - 1) // 3 // 2
    assert parts("x" * 100, 30) == ["x" * 25] * 4


@pytest.mark.parametrize(
    "sentences",
    [
        ["我喜欢猫。", "你呢？", "他说：“好！”", "走吧。"],
        ["これは本です。", "「はい。」", "行こう！"],
        ["यह एक किताब है।", "वह लाल है॥", "क्या?"],
        ["هل أنت بخير؟", "نعم۔", "جيد."],
        ["ይህ መጽሐፍ ነው።", "እሺ።"],
        ["Սա գիրք է։", "Այո։"],
    ],
)
def test_sentences_of_other_scripts(sentences):
    longest = max(len(characters(sentence)) for sentence in sentences) + 1
    spaced = any(" " in sentence for sentence in sentences)
    assert parts((" " if spaced else "").join(sentences), longest) == sentences


def test_text_of_unknown_characters_alone_is_copied_whole():
    line = "αβγ  δε. " * 50
    assert splitter(5).parts(line, characters(line)) == [Part(" ".join(line.split()), [])]
    assert splitter(5).parts("", []) == []
    assert splitter(9).parts("3 . 5", [MARK] * 3) == [Part("3 . 5", [MARK] * 3)]  # nothing of it is unknown
    mixed = "αβ γδ. no"
    assert splitter(7).parts(mixed, characters(mixed)) == [Part("αβ γδ.", []), Part("no", [LETTER] * 2)]


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        ([], ""),
        (["one"], "one"),
        ([" as it is "], " as it is "),
        (["One.", "", "Two."], "One. Two."),
        (["我喜欢猫。", "走吧。"], "我喜欢猫。走吧。"),
        (["これは", "本です。"], "これは本です。"),
        (["안녕하세요", "여러분."], "안녕하세요 여러분."),
        (["Good 🙂", "Yes"], "Good 🙂 Yes"),
    ],
)
def test_translations_are_joined_as_the_script_is_written(texts, joined):
    assert join_parts(texts) == joined


def test_a_word_that_spells_a_special_token_is_copied_as_it_is():
    assert tuple(STAND_INS.values()) == SPECIAL_TOKENS[:UNK_ID]
    for kind in ("unigram", "bpe"):
        tokenizer: Tokenizer = train_tokenizer(["xyz zyx yxz", "zzz xxx yyy"], 8, kind)  # nothing of "<pad>"
        assert tokenizer.parts(["<pad> </s>\ufeff", "<s>", "漢字"]) == [
            [Part("<pad> </s>", [])],
            [Part("<s>", [])],
            [Part("漢字", [])],
        ]
