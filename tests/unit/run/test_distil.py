"""Blocks of translations that survive a kill: the same sentences, none twice."""

import json
import os
import signal

import pytest

from automoe.data.corpus import Pair
from automoe.errors import InputError
from automoe.run.distil import BLOCK, longest_first, translated
from helpers.toy_teacher import digit_tokenizer

SOURCES = [f"sentence {number}" for number in range(3 * BLOCK + 7)]


class Shouting:
    """Translates into capitals, notes what it was given, and may kill its process at a block."""

    def __init__(self, dies_at=None):
        self.given, self._dies_at = [], dies_at

    def translate(self, lines):
        lines = list(lines)
        if len(self.given) == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.given.append(lines)
        return (line.upper() for line in lines)


def records(journal):
    """But for times."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    return [(line["block"], line["translations"]) for line in lines]


def silent(done, planned, text):
    pass


def test_every_source_is_translated_in_its_order_and_progress_ends_when_all_are(tmp_path):
    told = []
    texts, seconds = translated(
        translator := Shouting(), SOURCES, tmp_path / "j", lambda *progress: told.append(progress)
    )
    assert texts == [source.upper() for source in SOURCES]
    assert [len(block) for block in translator.given] == [BLOCK, BLOCK, BLOCK, 7]
    assert [source for block in translator.given for source in block] == SOURCES
    assert seconds >= 0
    characters = sum(map(len, SOURCES))
    assert [done for done, _, _ in told] == [
        sum(map(len, SOURCES[:count])) for count in (0, BLOCK, 2 * BLOCK, 3 * BLOCK, len(SOURCES))
    ]
    assert {planned for _, planned, _ in told} == {characters}
    assert told[-1][2] == f"characters, {len(SOURCES):,} sentences"


@pytest.mark.parametrize("torn", ["", '{"block": 2, "seconds": 0.1, "transl'])
def test_after_kill_9_it_goes_on_to_the_same_texts(tmp_path, torn):
    journal = tmp_path / "j"
    if (child := os.fork()) == 0:
        translated(Shouting(dies_at=2), SOURCES, journal, silent)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    with journal.open("a") as file:
        file.write(torn)
    resumed, whole = Shouting(), Shouting()
    assert translated(resumed, SOURCES, journal, silent)[0] == [source.upper() for source in SOURCES]
    translated(whole, SOURCES, tmp_path / "other", silent)
    assert resumed.given == whole.given[2:]
    assert records(journal) == records(tmp_path / "other")
    again = Shouting()
    assert translated(again, SOURCES, journal, silent)[0] == [source.upper() for source in SOURCES]
    assert again.given == []


@pytest.mark.parametrize(
    "record",
    [
        {"block": 0, "seconds": 1.0, "translations": ["too few"]},
        {"block": 9, "seconds": 1.0, "translations": []},
        {"block": 1, "seconds": 1.0, "translations": [""] * BLOCK},
        {"block": 0},
    ],
)
def test_a_journal_of_something_else_is_refused(tmp_path, record):
    (tmp_path / "j").write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match=r"then that stage runs again") as caught:
        translated(Shouting(), SOURCES, tmp_path / "j", silent)
    assert caught.value.problems[0].startswith("line 1: ")


def test_sources_come_once_longest_first_and_those_with_too_many_tokens_not_at_all():
    tokenizer = digit_tokenizer(25)
    sources = ["1 2", "3 4 5", "1 2", "6", "7 8", "1 2 3 4 5 6 7 8"]
    pairs = [Pair(source, "x") for source in sources]
    lengths = {source: len(tokenizer.encode([source])[0]) for source in sources}
    assert lengths["1 2"] == lengths["7 8"] < lengths["3 4 5"] < lengths[sources[-1]]
    assert longest_first(pairs, tokenizer, 100) == [sources[-1], "3 4 5", "1 2", "7 8", "6"]
    assert longest_first(pairs, tokenizer, lengths["3 4 5"]) == ["3 4 5", "1 2", "7 8", "6"]
    assert longest_first(pairs, tokenizer, lengths["1 2"]) == ["1 2", "7 8", "6"]
