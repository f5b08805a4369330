"""How much one request may ask for, and how much work the server holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """The defaults suit an API for sentences and short documents.

    Args:
        body_bytes: of a request's body; more is answered 413, as are the next three.
        texts: a request may hold.
        characters: of all its texts together.
        beam_size: the largest beam a request may ask for; a larger one is answered 422.
        waiting_sentences: not yet begun; while so many wait, a further request is answered 503. Before that
            one is held whole, into however many sentences its lines are split; more lines are answered 413.
        request_seconds: from a request's last byte to its answer; after that it is answered 504.
        batch_sentences, batch_tokens: one batch holds at most so many sentences, and so many source
            tokens with padding counted; a longer sentence is a batch of its own.
        gather_seconds: under load, how long a batch waits at most for the clients that the last one
            answered.
    """

    body_bytes: int = 256 * 1024
    texts: int = 64
    characters: int = 20_000
    beam_size: int = 10
    waiting_sentences: int = 256
    request_seconds: float = 60.0
    batch_sentences: int = 32
    batch_tokens: int = 2000
    gather_seconds: float = 0.04
