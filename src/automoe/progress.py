"""What a run tells the person who waits: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from automoe.processes import is_first_process

SECONDS_BETWEEN_LINES = 15.0

_Item = TypeVar("_Item")


def counted(items: Iterable[_Item], unit: str) -> Iterator[_Item]:
    """`items`, counted live on standard error when that is a terminal and the output goes elsewhere."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.completed:,.0f} " + unit), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        for item in items:
            yield item
            progress.advance(task)


class Reporter:
    """Messages and progress on standard error, so that standard output stays clean for results."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._live = sys.stderr.isatty()

    def say(self, message: str) -> None:
        """One line of text."""
        if is_first_process():
            # A line of a log is one, however long: who reads it goes by lines.
            self._console.print(message, markup=False, soft_wrap=not self._live)

    def bar(self, title: str) -> Callable[[int, int, str], None]:
        """A callback `(done, planned, text)` for one piece of work; it ends when done equals planned."""
        if not is_first_process():
            return lambda done, planned, text: None
        return self._bar(title) if self._live else self._lines(title)

    def _bar(self, title: str) -> Callable[[int, int, str], None]:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        progress = Progress(
            TextColumn(title),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[text]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        task = progress.add_task(title, text="")

        def update(done: int, planned: int, text: str) -> None:
            if not progress.live.is_started:
                progress.start()
            progress.update(task, completed=done, total=planned, text=text)
            if done >= planned:
                progress.stop()

        return update

    def _lines(self, title: str) -> Callable[[int, int, str], None]:
        start = last = time.monotonic()
        first: int | None = None

        def update(done: int, planned: int, text: str) -> None:
            nonlocal first, last
            now = time.monotonic()
            first = done - 1 if first is None else first
            if done < planned and now - last < SECONDS_BETWEEN_LINES:
                return
            last = now
            left = (now - start) / max(1, done - first) * (planned - done)
            self.say(f"{title}: {done}/{planned} {text}, {left:.0f} s left")

        return update
