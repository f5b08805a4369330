"""Whether one system's BLEU differs from another's by more than the choice of test sentences explains."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sacrebleu.significance import PairedTest

from automoe.evaluation.bleu import bleu_metric

_SEED_VARIABLE = "SACREBLEU_SEED"


@dataclass(frozen=True, slots=True)
class Significance:
    """A system against a baseline on one test set.

    Attributes:
        p: 0 to 1, how probable so large a difference would be were the systems equally good.
        bleu_difference: BLEU of the system minus that of the baseline, in points from -100 to 100.
        signature: how both were computed, resamples and seed included.
    """

    p: float
    bleu_difference: float
    signature: str


def paired_bootstrap(
    baseline: Sequence[str],
    system: Sequence[str],
    references: Sequence[str],
    target_language: str,
    *,
    samples: int = 1000,
    seed: int = 12345,
) -> Significance:
    """Paired bootstrap resampling (Koehn, EMNLP 2004) of the difference in BLEU: sacreBLEU's own test.

    Test sentences are drawn with replacement, as many as there are, the same for both systems. With d of
    the whole set and d_i of resample i, each the absolute difference in BLEU, and n resamples,
    p = (#{i: d_i - mean(d_i) > d} + 1) / (n + 1); 1 where the two have the same BLEU. It knows nothing of
    what lies outside the test set: of one sentence, every resample is the set itself.

    Args:
        baseline, system: detokenised translations of the same sentences, in the same order.
        references: one a sentence.
        target_language: a code such as `de`; BLEU is that of `automoe.evaluation.bleu`.
        samples: resamples; the least p is 1 / (samples + 1).
        seed: of the resampling, at least 1. sacreBLEU reads it from the environment, which is changed
            for a moment: not for several threads at a time.

    Raises:
        InputError: the language has no such code, or sacreBLEU's tokenizer for it is not installed.
        ValueError: there are not as many translations of each system as references, or none; or samples
            or seed is below 1.
    """
    if not len(baseline) == len(system) == len(references) or not references:
        raise ValueError(
            f"{len(baseline)} translations of the baseline and {len(system)} of the system "
            f"for {len(references)} references"
        )
    # Of a 0, sacreBLEU would make its default number of samples, and no seed.
    if samples < 1 or seed < 1:
        raise ValueError(f"expected samples and seed of at least 1, got {samples} and {seed}")
    systems = [("baseline", baseline), ("system", system)]
    metrics = {"BLEU": bleu_metric(target_language)}
    with _sacrebleu_seed(seed):
        test = PairedTest(systems, metrics, [references], test_type="bs", n_samples=samples, n_jobs=1)
    signatures, scores = test()
    # Its type allows for the column of names, which this one is not.
    compared: Any = scores["BLEU"]
    difference = compared[1].score - compared[0].score
    # sacreBLEU counts resamples that differ by more, not by as much: equal systems would get the least p.
    p = compared[1].p_value if difference else 1.0
    return Significance(float(p), float(difference), str(signatures["BLEU"]))


@contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    before = os.environ.get(_SEED_VARIABLE)
    os.environ[_SEED_VARIABLE] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SEED_VARIABLE]
        else:
            os.environ[_SEED_VARIABLE] = before
