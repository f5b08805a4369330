"""The four special tokens every vocabulary of the project starts with.

They are constants, not settings: model, batches, search and exported models all rely on them,
and a tokenizer is refused when its first four entries differ.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

PAD_ID, BOS_ID, EOS_ID, UNK_ID = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")


def _holds_others(size: int) -> int:
    if 0 < size <= len(SPECIAL_TOKENS):
        raise ValueError(f"expected 0 for none, or more than the {len(SPECIAL_TOKENS)} special tokens")
    return size


ShortlistSize = Annotated[int, Field(ge=0, le=1_000_000), AfterValidator(_holds_others)]
"""Tokens of a shortlist (`automoe.data.shortlist`), special ones counted; 0 is none: the whole vocabulary."""
