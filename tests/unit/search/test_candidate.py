"""The front of several candidates."""

from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.search.candidate import Candidate, front
from helpers.toy_space import ToySpace

POINTS = st.lists(st.tuples(st.integers(0, 6), st.none() | st.integers(0, 6)), max_size=20)


@settings(max_examples=200)
@given(points=POINTS, larger_is_better=st.booleans())
def test_the_front_is_what_comparing_all_pairs_leaves(points, larger_is_better):
    architecture = ToySpace().smallest()
    candidates = [Candidate(architecture, {"flops": cost}, score) for cost, score in points]
    candidates.append(Candidate(architecture, {"latency_ms": 1}, 0))
    scored = [(cost, score) for cost, score in points if score is not None]
    sign = -1 if larger_is_better else 1
    expected = [
        (cost, score)
        for cost, score in scored
        if not any(sign * c <= sign * cost and s <= score and (c, s) != (cost, score) for c, s in scored)
    ]
    found = front(candidates, "flops", larger_is_better=larger_is_better)
    assert [(candidate.costs["flops"], candidate.score) for candidate in found] == sorted(
        expected, key=lambda point: (sign * point[0], point[1])
    )
