"""The log of a search: what pandas reads, what a kill leaves, what is refused."""

import json

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.errors import InputError
from automoe.search.candidate import Candidate
from automoe.search.log import CandidateLog, LogEntry, SearchName
from helpers import toy_space

COSTS = ("latency_ms", "flops", "parameters", "throughput_sentences_s")
MEMBERS = list(toy_space.ToySpace().members())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "candidates.jsonl"


def entry(number, costs, score, feasible=True, system="automoe"):
    search = SearchName(system, "evolution", "whole")
    return LogEntry(search, number // 2, number, Candidate(MEMBERS[number], costs, score), feasible)


def three_lines(path):
    log = CandidateLog(path)
    log.append(entry(0, {"flops": 100.0, "latency_ms": 1.1}, 5.5))
    log.append(entry(1, {"flops": 900.0}, None, feasible=False))
    log.append(entry(2, {"flops": 50.0, "latency_ms": 2.25}, 5.25))
    return log


def test_pandas_reads_a_row_a_candidate_and_a_column_a_cost(path):
    three_lines(path)
    table = pandas.read_json(path, lines=True)
    assert list(table["system"]) == ["automoe"] * 3
    assert list(table["strategy"]) == ["evolution"] * 3
    assert list(table["space"]) == ["whole"] * 3
    assert list(table["iteration"]) == [0, 0, 1]
    assert list(table["index"]) == [0, 1, 2]
    assert list(table["flops"]) == [100, 900, 50]
    assert list(table["feasible"]) == [True, False, True]
    assert table["score"].isna().tolist() == [False, True, False]
    assert table["latency_ms"].isna().tolist() == [False, True, False]
    assert {"flops", "latency_ms"} <= set(table.columns)
    assert table["description"][1] == str(MEMBERS[1])
    assert table["architecture"][1] == MEMBERS[1].to_dict()


@settings(max_examples=50)
@given(
    costs=st.dictionaries(st.sampled_from(COSTS), st.floats(0, 1e18)),
    score=st.none() | st.floats(-1e6, 1e6),
    member=st.sampled_from(MEMBERS),
)
def test_what_is_read_back_is_what_was_written_to_the_last_bit(tmp_path_factory, costs, score, member):
    path = tmp_path_factory.mktemp("log") / "candidates.jsonl"
    written = LogEntry(
        SearchName("hat", "random", "dense"), 3, 7, Candidate(member, costs, score), score is not None
    )
    CandidateLog(path).append(written)
    log = CandidateLog(path)
    assert log.entries == (written,)
    assert log.known(member) == Candidate(member, costs, score)


def test_nothing_is_known_of_what_was_never_evaluated(path):
    assert three_lines(path).known(MEMBERS[9]) == Candidate(MEMBERS[9], {}, None)


def test_costs_and_score_may_come_in_different_lines(path):
    log = three_lines(path)
    log.append(entry(1, {"latency_ms": 3.5}, None, feasible=False, system="feasibility"))
    log.append(entry(1, {"flops": 900.0}, 4.5, system="random"))
    for read in (log, CandidateLog(path)):
        assert read.known(MEMBERS[1]) == Candidate(MEMBERS[1], {"flops": 900.0, "latency_ms": 3.5}, 4.5)
        assert len(read.entries) == 5


def test_a_candidate_that_is_evaluated_again_alike_is_not_written_again(path):
    log = three_lines(path)
    before = path.read_bytes()
    log.append(log.entries[1])
    CandidateLog(path).append(log.entries[2])
    assert path.read_bytes() == before


def test_a_kill_at_any_byte_loses_only_the_line_being_written(path):
    whole = three_lines(path)
    content = path.read_bytes()
    second_end = content.index(b"\n", content.index(b"\n") + 1) + 1
    for kept in range(second_end, len(content)):
        path.write_bytes(content[:kept])
        log = CandidateLog(path)
        assert log.entries == whole.entries[:2]
        log.append(whole.entries[2])
        assert path.read_bytes() == content


def test_an_empty_file_and_a_missing_file_are_empty_logs(path):
    assert CandidateLog(path).entries == ()
    path.touch()
    assert CandidateLog(path).entries == ()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda line: line[:40], "line 2"),
        (lambda line: line.replace('"flops": 900.0', '"flops": "many"'), "line 2: flops"),
        (lambda line: line.replace('"qkv_dim": 8', '"qkv_dim": 0'), "line 2: .*qkv_dim"),
        (lambda line: line.replace('"feasible"', '"possible"'), "line 2: .*feasible: missing"),
        (lambda line: line.replace('"flops": 900.0', '"flops": NaN'), "line 2: flops"),
        (lambda line: json.dumps([line]), "line 2"),
        (lambda line: "", "line 2"),
        (lambda line: line.replace("evolution", "evolut\udcff"), "line 2"),
    ],
)
def test_a_damaged_line_is_named_and_the_file_left_alone(path, damage, told):
    three_lines(path)
    lines = path.read_text().split("\n")
    lines[1] = damage(lines[1])
    damaged = "\n".join(lines).encode("utf-8", "surrogateescape")
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=told) as caught:
        CandidateLog(path)
    assert str(path) in caught.value.summary
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    "content", [b"precious text without an end", b"a,b\n1,2\n", b"\x00\xff" * 50, b'{"other": 1}\n']
)
def test_a_foreign_file_is_refused_and_not_cut(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError):
        CandidateLog(path)
    assert path.read_bytes() == content


def test_a_long_foreign_file_gives_a_short_message(path):
    path.write_bytes(b"text\n" * 1000)
    with pytest.raises(InputError, match="and 980 more lines"):
        CandidateLog(path)


def test_a_folder_in_its_place_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        CandidateLog(tmp_path)


@pytest.mark.parametrize(
    ("costs", "score", "told"),
    [
        ({"flops": float("inf")}, 1.0, "JSON"),
        ({}, float("nan"), "JSON"),
        ({"score": 3.0}, 1.0, "column: score"),
    ],
)
def test_numbers_that_json_cannot_hold_and_costs_named_as_a_column_are_not_written(path, costs, score, told):
    log = CandidateLog(path)
    with pytest.raises(ValueError, match=told):
        log.append(entry(0, costs, score))
    assert not path.exists()
    assert log.entries == ()


OLD_LINES = """\
{"strategy":"feasibility","iteration":0,"index":0,"score":null,"latency_ms":1.5,"flops":2.0,"parameters":3.0,\
"active_parameters":null,"memory_bytes":null,"feasible":true,"description":"D","architecture":ARCHITECTURE}
{"strategy":"hat","iteration":4,"index":9,"score":5.5,"latency_ms":null,"flops":2.0,"parameters":null,\
"active_parameters":null,"memory_bytes":null,"feasible":true,"description":"D","architecture":ARCHITECTURE}
"""


def test_a_file_of_before_systems_strategies_and_spaces_had_columns_is_read_and_continued(path):
    member = MEMBERS[5]
    text = OLD_LINES.replace("ARCHITECTURE", json.dumps(member.to_dict()))
    path.write_text(text)
    log = CandidateLog(path)
    check, hat = log.entries
    assert (check.search.system, check.search.strategy) == ("feasibility", "feasibility")
    assert check.candidate == Candidate(member, {"latency_ms": 1.5, "flops": 2.0, "parameters": 3.0}, None)
    assert (hat.search.system, hat.search.strategy, hat.iteration, hat.index) == ("hat", "hat", 4, 9)
    assert hat.candidate == Candidate(member, {"flops": 2.0}, 5.5)
    assert log.known(member) == Candidate(member, {**check.candidate.costs}, 5.5)
    log.append(LogEntry(SearchName("hat", "evolution", "dense"), 4, 9, hat.candidate, feasible=True))
    assert path.read_text() == text  # known already
    log.append(entry(6, {"flops": 4.0}, 1.0))
    table = pandas.read_json(path, lines=True)
    assert table["system"].isna().tolist() == [True, True, False]
    assert len(CandidateLog(path).entries) == 3
