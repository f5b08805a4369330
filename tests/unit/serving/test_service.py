"""Lines and limits, with a stand-in for the queue that answers each sentence with itself in capitals."""

import asyncio
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.data.text_parts import MAX_SOURCE_TOKENS
from automoe.errors import InputError
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.translator import Translation
from automoe.serving.limits import ServingLimits
from automoe.serving.service import Service, TooLargeError
from automoe.serving.translation import Translated
from helpers.served import tiny_model

_, TOKENIZER = tiny_model()


class Capitals:
    def __init__(self):
        self.sentences = []

    async def submit(self, sentences):
        self.sentences += sentences
        texts = TOKENIZER.decode([s.tokens for s in sentences])
        return [Translated((Translation(text.upper(), -1.0),), None) for text in texts]


def translate(texts, capitals=None, server=None, limits=None, **request):
    service = Service(capitals or Capitals(), TOKENIZER, server or BeamSettings(), limits or ServingLimits())
    return asyncio.run(service.translate(texts, **request))


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.sampled_from(["the cat", "a dog", " ", "", "\r\n", "\n", "\r"]), max_size=8).map("".join),
        max_size=5,
    )
)
def test_lines_are_translated_one_by_one_between_the_same_breaks(texts):
    translated = translate(texts)
    for text, result in zip(texts, translated, strict=True):
        lines = re.split("\r\n|\r|\n", text)
        assert re.findall("\r\n|\r|\n", result.text) == re.findall("\r\n|\r|\n", text)
        assert re.split("\r\n|\r|\n", result.text) == [" ".join(line.upper().split()) for line in lines]
        assert len(result.lines) == sum(bool(line.strip()) for line in lines)


@pytest.mark.parametrize(
    ("texts", "limits", "part"),
    [
        (["a"] * 4, ServingLimits(texts=3), "4 texts: send at most 3"),
        (["aaa", "bbb"], ServingLimits(characters=5), "6 characters: send at most 5"),
        (["a\n" * 4], ServingLimits(waiting_sentences=3), "4 lines: send at most 3"),
    ],
)
def test_a_request_beyond_a_limit_is_refused_before_it_is_queued(texts, limits, part):
    capitals = Capitals()
    with pytest.raises(TooLargeError, match=part):
        translate(texts, capitals, limits=limits)
    assert capitals.sentences == []


def test_requests_at_a_limit_are_served():
    limits = ServingLimits(texts=2, characters=14, waiting_sentences=2)
    assert [t.text for t in translate(["the cat"] * 2, limits=limits)] == ["THE CAT"] * 2


def test_a_line_of_any_length_is_translated_in_parts_that_are_queued_as_one_request():
    class Queue(Capitals):
        requests = 0

        async def submit(self, sentences):
            self.requests += 1
            return await super().submit(sentences)

    queue = Queue()
    line = "the cat sat, the dog ran on " * 400
    (translated,) = translate([f"a mat\n{line}\n漢字"], queue, limits=ServingLimits(waiting_sentences=3))
    expected = (
        line.strip().upper().replace(",", "")
    )  # a comma is unknown, and unknown tokens have no spelling
    assert translated.text == f"A MAT\n{expected}\n漢字"
    assert [len(found.sentences) for found in translated.lines] == [1, len(queue.sentences) - 1, 0]
    assert queue.requests == 1
    assert len(queue.sentences) > 100
    assert max(len(sentence.tokens) for sentence in queue.sentences) <= MAX_SOURCE_TOKENS


@pytest.mark.parametrize(
    ("request_", "beam_size"), [({}, 3), ({"beam_size": 2}, 2), ({"n_best": 4}, 4), ({"n_best": 2}, 3)]
)
def test_a_request_may_change_the_servers_beam(request_, beam_size):
    capitals = Capitals()
    translate(["the cat"], capitals, BeamSettings(beam_size=3, length_penalty=0.2), **request_)
    (sentence,) = capitals.sentences
    assert sentence.settings.beam_size == beam_size
    assert sentence.settings.n_best == request_.get("n_best", 1)
    assert sentence.settings.length_penalty == 0.2


@pytest.mark.parametrize("request_", [{"beam_size": 11}, {"beam_size": 2, "n_best": 3}, {"n_best": 11}])
def test_an_impossible_beam_is_refused(request_):
    with pytest.raises(InputError, match="beam"):
        translate(["the cat"], **request_)


def test_hypotheses_of_several_lines_are_refused_by_name():
    with pytest.raises(InputError, match="one line") as refused:
        translate(["the cat", "the\ncat"], n_best=2)
    assert refused.value.problems == ("text 1",)
