"""Continuous batching: one thread translates, and what comes meanwhile joins the batch in progress."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from automoe.inference.beam import BeamSettings
from automoe.serving.limits import Limits
from automoe.serving.translation import Answer, More, Sentence, Translated

# Sentences join a batch when they are this share of it: joining copies the caches.
JOINING_SHARE = 0.25

_Waiting: TypeAlias = dict[asyncio.Future[Translated], Sentence]


class QueueFullError(Exception):
    """More sentences are waiting than the server is willing to hold; the client may try again."""


class Batcher:
    """A queue of sentences and the one thread that works it off; used from one event loop.

    Sentences are begun in the order they came. A batch is the oldest waiting sentence and those after
    it with the same search settings, as far as the limits of a batch allow. Others with these settings
    join it later, but never before an older one with other settings, which waits for the batch to end.

    Args:
        work: translates a batch, answers each sentence as soon as it is done, and may ask for more; called
            in the thread, never twice at once. What it raises is raised by `submit` for every sentence
            it has not answered yet.
        limits: `waiting_sentences` and `batch_*` of them.
        on_batch: told how many sentences are translated together, whenever some begin; in the thread.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Sentence], Answer, More], None],
        limits: Limits,
        on_batch: Callable[[int], None],
    ) -> None:
        self._work = work
        self._limits = limits
        self._on_batch = on_batch
        self._lock = threading.Lock()  # of the queue: the thread takes from it
        self._waiting: _Waiting = {}  # oldest first
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="translation")

    @property
    def waiting(self) -> int:
        """Sentences not yet begun."""
        return len(self._waiting)

    async def submit(self, sentences: Sequence[Sentence]) -> list[Translated]:
        """Queue sentences and wait for their translations, in their order.

        When the caller is cancelled, those that have not begun leave the queue.

        Raises:
            QueueFullError: not all of them fit; none is queued.
        """
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Translated]] = [loop.create_future() for _ in sentences]
        with self._lock:
            if len(self._waiting) + len(sentences) > self._limits.waiting_sentences:
                raise QueueFullError
            self._waiting.update(zip(futures, sentences, strict=True))
        self._arrived.set()
        try:
            return list(await asyncio.gather(*futures))
        finally:
            with self._lock:
                for future in futures:
                    self._waiting.pop(future, None)
            for future in futures:
                future.cancel()

    async def run(self) -> None:
        """Work until cancelled; a batch that has begun is finished by the thread all the same."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while batch := self._take():
                    futures = list(batch)
                    try:
                        await loop.run_in_executor(self._thread, self._translate, loop, batch, futures)
                    except Exception as error:  # handed to whoever waits for it; the server goes on
                        for future in futures:
                            if not future.done():
                                future.set_exception(error)
        finally:
            self._thread.shutdown(wait=False)

    def _translate(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: _Waiting,
        futures: list[asyncio.Future[Translated]],
    ) -> None:
        """In the thread: work on a batch; the futures of sentences that join it are appended."""
        sentences = list(batch.values())
        settings = sentences[0].settings

        def answer(number: int, result: Translated) -> None:
            loop.call_soon_threadsafe(_answer, futures[number], result)

        def more(begun: int, longest: int) -> list[Sentence]:
            if len(self._waiting) < JOINING_SHARE * begun:
                return []
            joining = self._take(settings, begun, longest)
            futures.extend(joining)
            if joining:
                self._on_batch(begun + len(joining))
            return list(joining.values())

        self._on_batch(len(sentences))
        self._work(sentences, answer, more)

    def _take(self, settings: BeamSettings | None = None, begun: int = 0, longest: int = 0) -> _Waiting:
        """Sentences that may be translated together, taken out of the queue.

        Args:
            settings: of the batch they join, with `begun` sentences and a longest of `longest` tokens.
        """
        limits = self._limits
        taken: _Waiting = {}
        with self._lock:
            for future, sentence in self._waiting.items():
                if settings not in (None, sentence.settings):
                    if begun:
                        break
                    continue
                longest = max(longest, len(sentence.tokens))
                size = begun + len(taken) + 1
                if size > 1 and (size > limits.batch_sentences or size * longest > limits.batch_tokens):
                    break
                taken[future] = sentence
                settings = sentence.settings
            for future in taken:
                del self._waiting[future]
        return taken


def _answer(future: asyncio.Future[Translated], result: Translated) -> None:
    if not future.done():  # its caller may have left
        future.set_result(result)
