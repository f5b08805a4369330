"""Settings of trainings: what is impossible is said, all of it."""

import math

import pytest

from automoe.errors import InputError
from automoe.training.rules import RULES, Rule, random_members
from automoe.training.settings import SupernetSettings, TrainingSettings, decisive


def test_impossible_settings_list_every_problem():
    with pytest.raises(InputError) as caught:
        TrainingSettings(steps=0, peak_rate=math.nan, warmup_steps=-1, label_smoothing=2, accumulation=0)
    text = str(caught.value)
    for name in ("steps", "peak_rate", "warmup_steps", "label_smoothing", "accumulation"):
        assert f"- {name}: expected" in text


def test_no_more_warmup_than_steps():
    assert TrainingSettings(steps=5, peak_rate=1e-3, warmup_steps=5).warmup_steps == 5
    with pytest.raises(InputError, match=r"warmup_steps: expected at most steps \(5\), got 6"):
        TrainingSettings(steps=5, peak_rate=1e-3, warmup_steps=6)


def test_an_unknown_schedule_or_rule_is_told_the_known_ones():
    with pytest.raises(InputError) as caught:
        SupernetSettings(
            steps=5, peak_rate=1e-3, warmup_steps=0, schedule="linear", decay_share=2.0, rule="all"
        )
    text = str(caught.value)
    assert "schedule: expected 'cosine' or 'constant', got 'linear'" in text
    assert "decay_share: expected at most 1, got 2.0" in text
    assert (
        "rule: expected one of random, sandwich, balanced, half_dense, mixture_of_supernets, got 'all'"
        in text
    )


def test_a_rule_of_another_program_is_known(monkeypatch):
    monkeypatch.setitem(RULES, "ours", Rule(random_members, members=1))
    assert SupernetSettings(steps=5, peak_rate=1e-3, warmup_steps=0, rule="ours").rule == "ours"


def test_what_came_later_decides_nothing_at_the_value_that_it_had_before():
    assert decisive({"steps": 3, "optimizer": "adam", "device": "cpu"}) == {"steps": 3}
    assert decisive({"steps": None, "optimizer": None, "validate_every": None}) == {"steps": None}
    assert decisive({"steps": 3, "optimizer": "muon"}) == {"steps": 3, "optimizer": "muon"}
