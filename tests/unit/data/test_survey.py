"""What is told of a corpus, against counts made by hand and by pandas."""

import random

import numpy as np
import pandas as pd
import pytest

from automoe.data.corpus import Pair
from automoe.data.survey import misalignment, survey, text_keys

WORDS = [
    "the",
    "a",
    "dialog",
    "file",
    "opens",
    "click",
    "button",
    "cell",
    "sheet",
    "with",
    "of",
    "and",
    "long",
]


def sentences(count: int, seed: int = 0) -> list[Pair]:
    """Pairs whose lengths go together, as those of translations do."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        words = rng.choices(WORDS, k=rng.randint(1, 30))
        made.append(Pair(f"{number} {' '.join(words)}", f"{number} {' '.join(reversed(words))} ja"))
    return made


def test_counts_are_those_of_pandas():
    rng = random.Random(1)
    pairs = [Pair(rng.choice("abcd"), rng.choice("abcd"), rng.choice(["", "x", "y"])) for _ in range(60)]
    frame = pd.DataFrame([(p.source, p.target, p.document) for p in pairs], columns=["s", "t", "d"])
    found = survey(pairs)
    assert found.pairs == 60
    assert found.documents == frame["d"][frame["d"] != ""].nunique()
    assert found.repeated_pairs == frame.duplicated(["s", "t"]).sum()
    assert found.repeated_sources == frame.duplicated(["s"]).sum()
    assert found.copied == (frame["s"] == frame["t"]).sum()


def test_lengths_are_of_characters():
    found = survey([Pair("äö", "abcd"), Pair("abcd", "ab")])
    assert (found.source_characters, found.target_characters, found.longest_characters) == (3, 3, 4)


def test_keys_are_equal_for_what_differs_in_case_or_spelling_alone():
    keys = text_keys(["Caf\u00e9", "cafe\u0301", "CAF\u00c9", "cafe"])
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert text_keys([]).shape == (0,)


def test_aligned_text_raises_no_doubt():
    assert survey(sentences(2000)).doubts == ()


def test_shuffled_sides_are_doubted():
    pairs = sentences(2000)
    targets = [pair.target for pair in pairs]
    random.Random(2).shuffle(targets)
    (doubt,) = survey([Pair(pair.source, target) for pair, target in zip(pairs, targets, strict=True)]).doubts
    assert "hardly go together" in doubt


@pytest.mark.parametrize("missing", [2000, 3000])
def test_a_line_missing_on_one_side_is_placed_where_the_trouble_begins(missing):
    pairs = sentences(4000)
    targets = [pair.target for index, pair in enumerate(pairs) if index != missing] + ["end"]
    (doubt,) = survey([Pair(pair.source, target) for pair, target in zip(pairs, targets, strict=True)]).doubts
    assert f"within the pairs {missing + 1:,} to " in doubt
    assert doubt.count(" to ") == (4000 - missing) // 200


def test_lines_of_equal_length_and_short_texts_are_not_judged():
    equal = np.full(1000, 20)
    assert misalignment(equal, equal) == []
    rng = np.random.default_rng(0)
    assert misalignment(rng.integers(1, 99, 50), rng.integers(1, 99, 50)) == []


def test_text_that_was_not_translated_is_doubted():
    (doubt,) = survey([Pair(pair.source, pair.source) for pair in sentences(300)]).doubts
    assert doubt.startswith("100% of the pairs have two equal sides")
