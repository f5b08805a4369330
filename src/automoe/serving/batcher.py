"""Dynamic batching: one thread translates whatever is waiting, so that load makes batches larger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from automoe.serving.limits import ServingLimits
from automoe.serving.translation import Sentence, Translated


class QueueFullError(Exception):
    """As many sentences are waiting as the server is willing to hold; the client may try again."""


class Batcher:
    """A queue of sentences and the one thread that works it off; used from one event loop.

    Sentences are begun in the order they came. A batch is the oldest waiting sentence and those after
    it with the same search settings, as far as the limits of a batch allow.

    Args:
        work: translates a batch; called in the thread, never twice at once. What it raises is raised
            by `submit` for every sentence of that batch.
        limits: `waiting_sentences`, `batch_*` and `gather_seconds` of them.
        on_batch: told the size of each batch when it begins.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Sentence]], Sequence[Translated]],
        limits: ServingLimits,
        on_batch: Callable[[int], None],
    ) -> None:
        self._work = work
        self._limits = limits
        self._on_batch = on_batch
        self._waiting: dict[asyncio.Future[Translated], Sentence] = {}  # oldest first
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="translation")

    @property
    def waiting(self) -> int:
        """Sentences not yet begun."""
        return len(self._waiting)

    async def submit(self, sentences: Sequence[Sentence]) -> list[Translated]:
        """Queue the sentences of one request and wait for their translations, in their order.

        All of them are queued where there is room for one, or a request of many could be refused at every
        try. When the caller is cancelled, those that have not begun leave the queue.

        Raises:
            QueueFullError: the queue is full; none is queued.
        """
        if sentences and len(self._waiting) >= self._limits.waiting_sentences:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Translated]] = [loop.create_future() for _ in sentences]
        self._waiting.update(zip(futures, sentences, strict=True))
        self._arrived.set()
        try:
            return list(await asyncio.gather(*futures))
        finally:
            for future in futures:
                self._waiting.pop(future, None)
                future.cancel()

    async def run(self) -> None:
        """Work until cancelled; a batch that has begun is finished by the thread all the same."""
        loop = asyncio.get_running_loop()
        sentences = 0  # translated by the last batch or waiting when it ended
        try:
            while True:
                await self._arrived.wait()
                await self._gather(sentences)
                batch = self._take()
                if not batch:
                    sentences = 0
                    self._arrived.clear()
                    continue
                self._on_batch(len(batch))
                try:
                    results = await loop.run_in_executor(self._thread, self._work, list(batch.values()))
                except Exception as error:  # handed to whoever waits for this batch; the server goes on
                    for future in batch:
                        if not future.done():
                            future.set_exception(error)
                else:
                    for future, result in zip(batch, results, strict=True):
                        if not future.done():
                            future.set_result(result)
                sentences = len(batch) + len(self._waiting)
        finally:
            self._thread.shutdown(wait=False)

    async def _gather(self, sentences: int) -> None:
        """Under load, wait a moment for the clients just answered, who are about to ask again.

        Else the first of them would be translated alone, and all the others would wait for it.
        """
        if sentences < 2:
            return
        expected = min(sentences, self._limits.batch_sentences)
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limits.gather_seconds
        while len(self._waiting) < expected and loop.time() < end:
            await asyncio.sleep(0.001)

    def _take(self) -> dict[asyncio.Future[Translated], Sentence]:
        """The next batch, taken out of the queue; empty when nothing waits."""
        batch: dict[asyncio.Future[Translated], Sentence] = {}
        longest = 0
        settings = None
        for future, sentence in self._waiting.items():
            if settings not in (None, sentence.settings):
                continue
            longest = max(longest, len(sentence.tokens))
            size = len(batch) + 1
            if batch and (size > self._limits.batch_sentences or size * longest > self._limits.batch_tokens):
                break
            batch[future] = sentence
            settings = sentence.settings
        for future in batch:
            del self._waiting[future]
        return batch
