"""Whatever users hand in ends in a result or in one clear refusal; `benchmarks/fuzz.py` tries much more."""

import pytest
from hypothesis import HealthCheck, given, settings

from helpers.fuzzed import KINDS
from helpers.fuzzed_requests import REQUESTS

pytestmark = pytest.mark.slow

EXAMPLES = {"recipes": 15}  # a run's first stage each


@pytest.mark.parametrize("name", [*KINDS, *REQUESTS])
def test_made_up_input_ends_in_a_result_or_a_refusal(name):
    kind = (KINDS | REQUESTS)[name]
    ends = set()

    @settings(max_examples=EXAMPLES.get(name, 40), suppress_health_check=list(HealthCheck))
    @given(kind.examples)
    def ends_well(example):
        ends.add(kind.end(example))

    ends_well()
    assert ends == {"result", "refused"}  # the examples are neither all right nor all wrong
