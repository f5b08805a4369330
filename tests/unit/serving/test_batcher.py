"""The queue and its thread, with a stand-in for the model that can be held up."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.inference.beam_settings import BeamSettings
from automoe.inference.translator import Translation
from automoe.serving.batcher import Batcher, QueueFullError
from automoe.serving.limits import ServingLimits
from automoe.serving.translation import Sentence, Translated

GREEDY, BEAM = BeamSettings(beam_size=1), BeamSettings(beam_size=3)


def sentence(number: int, length: int = 3, how: BeamSettings = GREEDY) -> Sentence:
    return Sentence((number,) * length, how)


def result(number: int) -> Translated:
    return Translated((Translation(str(number), 0.0),), None)


class Work:
    """Translates the number n into the text "n"; each batch waits for a permission."""

    def __init__(self, permissions: int | None = None) -> None:
        self.batches: list[list[int]] = []
        self.began = threading.Semaphore(0)
        self.allowed = None if permissions is None else threading.Semaphore(permissions)

    def __call__(self, sentences):
        self.batches.append([s.tokens[0] for s in sentences])
        self.began.release()
        if self.allowed is not None:
            assert self.allowed.acquire(timeout=10)
        if 13 in self.batches[-1]:
            raise RuntimeError("bad luck")
        return [result(s.tokens[0]) for s in sentences]

    async def until_begun(self) -> None:
        assert await asyncio.to_thread(self.began.acquire, timeout=10)


@asynccontextmanager
async def batcher_of(work: Work, **limits):
    batcher = Batcher(work, ServingLimits(**limits), on_batch=lambda size: None)
    running = asyncio.create_task(batcher.run())
    yield batcher
    running.cancel()


async def queued(batcher: Batcher, sentences) -> asyncio.Task:
    task = asyncio.create_task(batcher.submit(sentences))
    await asyncio.sleep(0)
    return task


def test_what_arrives_while_the_thread_is_busy_becomes_one_batch():
    async def scenario():
        work = Work(permissions=0)
        async with batcher_of(work) as batcher:
            tasks = [await queued(batcher, [sentence(1)])]
            await work.until_begun()
            tasks += [await queued(batcher, [sentence(n)]) for n in (2, 3, 4)]
            assert batcher.waiting == 3
            work.allowed.release(2)
            answers = await asyncio.gather(*tasks)
        assert work.batches == [[1], [2, 3, 4]]
        assert answers == [[result(n)] for n in (1, 2, 3, 4)]
        assert batcher.waiting == 0

    asyncio.run(scenario())


@settings(max_examples=30)
@given(
    requests=st.lists(
        st.lists(st.tuples(st.integers(1, 9), st.sampled_from([GREEDY, BEAM])), min_size=1, max_size=5),
        min_size=1,
        max_size=8,
    ),
    batch_sentences=st.integers(1, 5),
    batch_tokens=st.integers(1, 30),
)
def test_batches_keep_to_their_limits_and_every_caller_gets_its_own(requests, batch_sentences, batch_tokens):
    numbered = iter(range(100, 1000))
    submitted = [[sentence(next(numbered), length, how) for length, how in request] for request in requests]

    async def scenario():
        work = Work()
        limits = {"batch_sentences": batch_sentences, "batch_tokens": batch_tokens, "gather_seconds": 0.0}
        async with batcher_of(work, **limits) as batcher:
            return work.batches, await asyncio.gather(*map(batcher.submit, submitted))

    batches, answers = asyncio.run(scenario())
    assert answers == [[result(s.tokens[0]) for s in request] for request in submitted]
    by_number = {s.tokens[0]: s for request in submitted for s in request}
    assert sorted(n for batch in batches for n in batch) == sorted(by_number)
    for batch in batches:
        members = [by_number[n] for n in batch]
        assert len({s.settings for s in members}) == 1
        assert len(members) <= batch_sentences
        assert len(members) == 1 or len(members) * max(len(s.tokens) for s in members) <= batch_tokens
    for how in (GREEDY, BEAM):
        begun = [n for batch in batches for n in batch if by_number[n].settings == how]
        assert begun == sorted(begun)  # first come, first served
    firsts = [min(batch) for batch in batches]
    left = set(by_number)
    for first, batch in zip(firsts, batches, strict=True):
        assert first == min(left)  # the oldest that waits is never passed over
        left -= set(batch)


def test_a_caller_who_leaves_takes_its_waiting_sentences_along():
    async def scenario():
        work = Work(permissions=0)
        async with batcher_of(work) as batcher:
            first = await queued(batcher, [sentence(1)])
            await work.until_begun()
            leaves = await queued(batcher, [sentence(2), sentence(3)])
            stays = await queued(batcher, [sentence(4)])
            leaves.cancel()
            await asyncio.wait({leaves})
            assert batcher.waiting == 1
            first.cancel()  # has begun: its work goes on, for nobody
            work.allowed.release(2)
            assert await stays == [result(4)]
        assert work.batches == [[1], [4]]

    asyncio.run(scenario())


def test_only_a_full_queue_refuses_a_request_and_accepts_again_later():
    async def scenario():
        work = Work(permissions=0)
        async with batcher_of(work, waiting_sentences=3) as batcher:
            begun = await queued(batcher, [sentence(1)])
            await work.until_begun()
            held = [await queued(batcher, [sentence(2), sentence(3)])]
            held.append(await queued(batcher, [sentence(n) for n in (4, 5, 6)]))  # there is room for one
            assert batcher.waiting == 5
            for refused in ([sentence(7)], [sentence(8), sentence(9)]):
                with pytest.raises(QueueFullError):
                    await batcher.submit(refused)
            assert await batcher.submit([]) == []
            assert batcher.waiting == 5
            work.allowed.release(10)
            await asyncio.gather(begun, *held)
            assert await batcher.submit([sentence(10), sentence(11)]) == [result(10), result(11)]
        assert [n for batch in work.batches for n in batch] == [1, 2, 3, 4, 5, 6, 10, 11]

    asyncio.run(scenario())


@settings(max_examples=60)
@given(
    most=st.integers(1, 5),
    moves=st.lists(st.one_of(st.integers(1, 12), st.just("translate")), max_size=30),
)
def test_a_request_is_refused_when_the_queue_is_full_and_only_then(most, moves):
    """Against a count of what waits: batches of one, each let go by itself."""

    async def scenario():
        work = Work(permissions=0)
        numbers = iter(range(100, 1000))
        waiting, busy, accepted = 0, False, []
        async with batcher_of(work, waiting_sentences=most, batch_sentences=1) as batcher:
            for move in moves:
                if move == "translate":
                    if busy:
                        work.allowed.release()
                        busy = waiting > 0
                        if busy:
                            await work.until_begun()
                            waiting -= 1
                        else:
                            await asyncio.gather(*accepted)
                    continue
                request = [sentence(next(numbers)) for _ in range(move)]
                task = await queued(batcher, request)
                assert task.done() == (waiting >= most)  # at once, or not before it is translated
                if task.done():
                    with pytest.raises(QueueFullError):
                        task.result()
                    continue
                accepted.append(task)
                waiting += move
                if not busy:
                    await work.until_begun()
                    waiting, busy = waiting - 1, True
                assert batcher.waiting == waiting < most + max(12, move)
            work.allowed.release(1000)
            await asyncio.gather(*accepted)

    asyncio.run(scenario())


def test_a_failing_batch_fails_its_callers_and_nobody_else():
    async def scenario():
        work = Work(permissions=0)
        async with batcher_of(work) as batcher:
            first = await queued(batcher, [sentence(1)])
            await work.until_begun()
            unlucky = [await queued(batcher, [sentence(n)]) for n in (13, 14)]
            work.allowed.release(3)
            assert await first == [result(1)]
            for task in unlucky:
                with pytest.raises(RuntimeError, match="bad luck"):
                    await task
            assert await batcher.submit([sentence(2)]) == [result(2)]

    asyncio.run(scenario())


def test_no_sentences_need_no_batch():
    async def scenario():
        work = Work()
        async with batcher_of(work) as batcher:
            assert await batcher.submit([]) == []
            assert await batcher.submit([sentence(1)]) == [result(1)]
        assert work.batches == [[1]]

    asyncio.run(scenario())


def test_clients_that_ask_again_at_once_share_their_batches():
    async def scenario():
        work = Work(permissions=0)

        async def client(number: int, requests: int) -> None:
            for _ in range(requests):
                await batcher.submit([sentence(number)])

        async with batcher_of(work, gather_seconds=10.0) as batcher:
            clients = [asyncio.create_task(client(1, 5))]
            await work.until_begun()  # the first is alone, the others wait for it
            clients += [asyncio.create_task(client(number, 4)) for number in (2, 3)]
            await asyncio.sleep(0)
            work.allowed.release(10)
            await asyncio.gather(*clients)
        assert [len(batch) for batch in work.batches] == [1, 3, 3, 3, 3]

    asyncio.run(scenario())
