"""Joining the processes of one run, in one process that is told it has company."""

import pytest
import torch.distributed

from automoe.processes import joined_processes


@pytest.fixture
def connect(monkeypatch):
    """A group of this process alone, as torchrun's; gone after the test."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    init = torch.distributed.init_process_group

    def connect(timeout=None) -> None:
        init("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)

    monkeypatch.setattr(torch.distributed, "init_process_group", connect)
    yield connect
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_a_connection_made_here_ends_here(connect):
    with joined_processes():
        assert torch.distributed.is_initialized()
    assert not torch.distributed.is_initialized()


def test_a_connection_of_the_callers_stays(connect):
    connect()
    with joined_processes():
        pass
    assert torch.distributed.is_initialized()


def test_a_process_alone_is_not_connected(connect, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined_processes():
        assert not torch.distributed.is_initialized()
