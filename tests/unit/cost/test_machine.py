"""Which machine computes, and whose its processor was meanwhile."""

from pathlib import Path

import pytest
import torch

from automoe.cost.machine import ProcessorTimes, stolen_share_between, this_machine, torch_threads
from automoe.inference.backends import LIBRARIES


def test_this_machine_names_its_processor_and_the_libraries_of_the_backend() -> None:
    assert this_machine("torch").cpu
    assert set(this_machine("torch").versions) == {"automoe", "torch"}
    assert set(this_machine("onnx").versions) == {"automoe", "automoe's engine", "torch", "onnxruntime"}
    assert set(this_machine("one of another package").versions) == {"automoe", "torch"}
    assert torch.__version__.startswith(this_machine("torch").versions["torch"].split("+")[0])


def test_an_engine_of_ones_own_names_the_libraries_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIBRARIES, "counting", ("numpy",))
    assert set(this_machine("counting").versions) == {"automoe", "torch", "numpy"}


@pytest.mark.parametrize("count", [1, None])
def test_threads_are_put_back(count: int | None) -> None:
    usual = torch.get_num_threads()
    with torch_threads(count):
        assert torch.get_num_threads() == (count or usual)
    assert torch.get_num_threads() == usual


def proc(folder: Path, threads: dict[str, tuple[int, int]], stat: str) -> Path:
    for thread, (ran, waited) in threads.items():
        task = folder / "self" / "task" / thread
        task.mkdir(parents=True)
        (task / "schedstat").write_text(f"{ran} {waited} 17\n")
    (folder / "stat").write_text(stat + "\ncpu0 1 1 1\n")
    return folder


def test_stolen_share_counts_waiting_threads_and_the_hypervisor(tmp_path: Path) -> None:
    before = proc(tmp_path / "before", {"7": (1000, 500)}, "cpu  100 0 50 800 10 0 0 40 0 0")
    after = proc(tmp_path / "after", {"7": (1600, 600), "8": (200, 100)}, "cpu  160 0 60 820 10 0 0 50 0 0")
    # Waited 100 + 100 of 600 + 200 run and 200 waited: 0.2; stolen 10 ticks of 100: 0.1.
    share = stolen_share_between(ProcessorTimes.read(before), ProcessorTimes.read(after))
    assert share == pytest.approx(0.3)


def test_stolen_share_is_unknown_without_the_system_files(tmp_path: Path) -> None:
    assert ProcessorTimes.read(tmp_path) is None
    assert stolen_share_between(None, None) is None
