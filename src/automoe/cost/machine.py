"""The machine that computes: which it is, and whose the processor was while a figure was taken."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from automoe.errors import checked
from automoe.inference.backends import GENERATIONS, LIBRARIES


@checked("this is no description of a machine")
@dataclass(frozen=True, slots=True)
class Machine:
    """What computes: the processor, and the versions of the libraries that matter to the backend."""

    cpu: str
    versions: dict[str, str]


def this_machine(backend: str) -> Machine:
    """This machine, as profiles record it."""
    libraries = ["automoe", "torch", *LIBRARIES.get(backend, ())]
    versions = {library: version(library) for library in libraries}
    if backend in GENERATIONS:
        versions["automoe's engine"] = GENERATIONS[backend]
    return Machine(_cpu_name(), versions)


def _cpu_name(info: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = info.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Within, torch computes with this many threads; None: as it is.

    Nothing where torch has not been imported: then no engine computes with it.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    usual = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


@dataclass(frozen=True, slots=True)
class ProcessorTimes:
    """Linux's counters: of each of this process's threads, and of the machine as a whole.

    Attributes:
        thread_ns: thread id -> nanoseconds it ran, nanoseconds it could have run but had to wait.
        machine_ticks, stolen_ticks: processor time in all, and taken by the hypervisor.
    """

    thread_ns: dict[str, tuple[int, int]]
    machine_ticks: int
    stolen_ticks: int

    @staticmethod
    def read(proc: Path = Path("/proc")) -> ProcessorTimes | None:
        """None where the system does not have these files."""
        try:
            threads = {}
            for path in proc.glob("self/task/*/schedstat"):
                ran, waited, _ = map(int, path.read_text().split())
                threads[path.parent.name] = (ran, waited)
            # cpu user nice system idle iowait irq softirq steal ...; guest times are part of user.
            ticks = [int(field) for field in (proc / "stat").read_text().split("\n")[0].split()[1:9]]
            return ProcessorTimes(threads, sum(ticks), ticks[7]) if threads else None
        except (OSError, ValueError, IndexError):
            return None


def stolen_share_between(before: ProcessorTimes | None, after: ProcessorTimes | None) -> float | None:
    """`Latency.stolen_share` of the time between two readings.

    Waiting over running and waiting, of this process's threads, plus the hypervisor's share.
    """
    if before is None or after is None:
        return None
    grown = [
        (ran - before.thread_ns.get(thread, (0, 0))[0], waited - before.thread_ns.get(thread, (0, 0))[1])
        for thread, (ran, waited) in after.thread_ns.items()
    ]
    ran_ns, waited_ns = (sum(part) for part in zip(*grown, strict=True))
    ticks = after.machine_ticks - before.machine_ticks
    by_hypervisor = (after.stolen_ticks - before.stolen_ticks) / ticks if ticks else 0.0
    by_processes = waited_ns / (ran_ns + waited_ns) if ran_ns + waited_ns else 0.0
    return min(1.0, by_processes + by_hypervisor)
