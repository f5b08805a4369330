"""What a run was asked for, as its report tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from automoe.search.constraint import Constraint


@dataclass(frozen=True)
class Asked:
    """The question that a report answers.

    Attributes:
        run: its name.
        facts: budget, space, data and the like: what it is, and what was asked, in words.
        source_language, target_language: codes such as `de`.
        budgets: by searched system, what it has to keep.
        shares: by searched system, the bounds that are a share of what the reference costs: cost name to the
            share, from 0.
        dropped: what was left out of the corpora, in words; nothing where nothing was.
    """

    run: str
    facts: Mapping[str, str]
    source_language: str
    target_language: str
    budgets: Mapping[str, Sequence[Constraint]] = field(default_factory=dict)
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    dropped: Sequence[str] = ()
