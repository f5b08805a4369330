"""The paired bootstrap against a slow one made of sacreBLEU's corpus scores."""

import os
import random

import pytest
import sacrebleu

from automoe.evaluation.significance import paired_bootstrap

WORDS = ["the", "a", "cat", "dog", "house", "tree", "sees", "likes", "small", "old", "runs", "with"]
VARIABLE = "SACREBLEU_SEED"


def sentences(count: int) -> list[str]:
    draw = random.Random(1)
    return [" ".join(draw.choices(WORDS, k=draw.randint(6, 12))) for _ in range(count)]


def translations(references: list[str], wrong: float, seed: int) -> list[str]:
    """The references with this share of their words replaced."""
    draw = random.Random(seed)
    return [
        " ".join("wrong" if draw.random() < wrong else word for word in reference.split())
        for reference in references
    ]


def bleu(hypotheses: list[str], references: list[str]) -> float:
    return sacrebleu.corpus_bleu(hypotheses, [references]).score


def resampled_p(baseline: list[str], system: list[str], references: list[str], samples: int) -> float:
    """How often a resample's difference strays from the mean of them by more than the one observed."""
    draw = random.Random(2)
    differences = []
    for _ in range(samples):
        chosen = draw.choices(range(len(references)), k=len(references))
        target = [references[i] for i in chosen]
        differences.append(
            abs(bleu([system[i] for i in chosen], target) - bleu([baseline[i] for i in chosen], target))
        )
    observed = abs(bleu(system, references) - bleu(baseline, references))
    mean = sum(differences) / samples
    return sum(difference - mean > observed for difference in differences) / samples


REFERENCES = sentences(25)
BASELINE = translations(REFERENCES, 0.3, seed=1)


# The standard error of a p of 0.28 is 0.023 by 400 resamples, of smaller ones less.
@pytest.mark.parametrize(("wrong", "roughly"), [(0.29, 0.28), (0.24, 0.17), (0.2, 0.03), (0.05, 0.001)])
def test_p_is_that_of_a_slow_resampling(wrong: float, roughly: float) -> None:
    system = translations(REFERENCES, wrong, seed=2)
    found = paired_bootstrap(BASELINE, system, REFERENCES, "en")
    slow = resampled_p(BASELINE, system, REFERENCES, 400)
    assert slow == pytest.approx(roughly, abs=0.03)
    assert found.p == pytest.approx(slow, abs=0.04)
    assert found.bleu_difference == pytest.approx(bleu(system, REFERENCES) - bleu(BASELINE, REFERENCES))


def test_the_least_p_is_one_resample_of_one_more_than_there_are() -> None:
    assert paired_bootstrap(BASELINE, REFERENCES, REFERENCES, "en", samples=99).p == pytest.approx(1 / 100)


def test_the_difference_has_a_sign_and_p_has_none() -> None:
    worse = translations(REFERENCES, 0.4, seed=3)
    down, up = (paired_bootstrap(*pair, REFERENCES, "en") for pair in ((BASELINE, worse), (worse, BASELINE)))
    assert down.bleu_difference == -up.bleu_difference < 0
    assert down.p == up.p


def test_identical_systems_are_not_significant_nor_those_that_differ_in_blanks() -> None:
    spaced = [line.replace(" ", "  ") for line in BASELINE]
    for same in (BASELINE, spaced):
        found = paired_bootstrap(BASELINE, same, REFERENCES, "en")
        assert (found.p, found.bleu_difference) == (1.0, 0.0)


def test_a_seed_gives_the_same_p_again_whatever_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    system = translations(REFERENCES, 0.29, seed=2)
    monkeypatch.delenv(VARIABLE, raising=False)
    first = paired_bootstrap(BASELINE, system, REFERENCES, "en", samples=200, seed=7)
    assert VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, "none")
    assert paired_bootstrap(BASELINE, system, REFERENCES, "en", samples=200, seed=7) == first
    assert os.environ[VARIABLE] == "none"
    others = {
        paired_bootstrap(BASELINE, system, REFERENCES, "en", samples=200, seed=seed).p for seed in (8, 9, 10)
    }
    assert others != {first.p}
    assert {"bs:200", "seed:7", "tok:13a"} <= set(first.signature.split("|"))


def test_a_failure_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "3")
    with pytest.raises(AttributeError):
        paired_bootstrap([None], ["a"], ["a"], "en")
    assert os.environ[VARIABLE] == "3"


def test_no_process_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise AssertionError("forked")

    monkeypatch.setattr(os, "fork", refuse)
    assert 0 < paired_bootstrap(BASELINE, BASELINE[::-1], REFERENCES, "en", samples=10).p <= 1


@pytest.mark.parametrize(
    ("baseline", "system", "references"),
    [([], [], []), (["a"], ["a", "b"], ["a"]), (["a", "b"], ["a"], ["a"]), (["a"], ["a"], ["a", "b"])],
)
def test_unequal_or_empty_sets_are_an_error(
    baseline: list[str], system: list[str], references: list[str]
) -> None:
    with pytest.raises(ValueError, match="references"):
        paired_bootstrap(baseline, system, references, "en")


@pytest.mark.parametrize("settings", [{"samples": 0}, {"seed": 0}, {"seed": -1}])
def test_settings_that_sacrebleu_would_replace_are_an_error(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        paired_bootstrap(["a"], ["b"], ["a"], "en", **settings)
