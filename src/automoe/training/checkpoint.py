"""What training writes to disk, so that a run killed at any moment continues to the same weights.

A checkpoint is one safetensors file: weights and the optimizer's moments as tensors, everything else as JSON
in its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from automoe.errors import InputError
from automoe.storage import remove_torn_files, whole_file
from automoe.training.optimizer import BlockAdam

# The newest, and one to fall back on when the newest turns out to be damaged.
KEPT = 2
ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file, completely or not at all; `metadata` is any JSON.

    Raises:
        InputError: the disk is full or refuses; nothing is left behind, an older file stays as it was.
    """
    with whole_file(path) as temporary:
        save_file(dict(tensors), temporary, {"automoe": json.dumps(metadata)})


def read_metadata(path: Path, fingerprints: tuple[str, ...], mend: str) -> dict[str, Any]:
    """The metadata of a file that this very training wrote.

    Args:
        fingerprints: one of which the metadata's `fingerprint` must be.
        mend: how to go on without the file, for the error.

    Raises:
        InputError: the file is truncated or no safetensors file, or belongs to another training.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("automoe")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: is truncated, or not a checkpoint", [str(error), mend]) from error
    metadata = json.loads(text) if text else None
    if not isinstance(metadata, dict) or metadata.get("fingerprint") not in fingerprints:
        cause = "it was written with other settings, another architecture or another vocabulary"
        raise InputError(f"{path}: belongs to another training", [cause, mend])
    return metadata


def load_weights(path: Path, network: nn.Module) -> None:
    """Copy the weights of a file (`write_tensors` of `weights(network)`) into the network, in place."""
    with safe_open(path, "pt") as file, torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(file.get_tensor(name))


def weights(network: nn.Module) -> dict[str, Tensor]:
    """The parameters by name, detached; the same storage."""
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


def average_weights(paths: Sequence[Path], network: nn.Module) -> None:
    """Set the network's weights to the mean of several snapshots (Vaswani et al., 2017), in place."""
    load_weights(paths[0], network)
    with torch.no_grad():
        for path in paths[1:]:
            with safe_open(path, "pt") as file:
                for name, parameter in network.named_parameters():
                    parameter.add_(file.get_tensor(name).to(parameter.device))
        for parameter in network.parameters():
            parameter.div_(len(paths))


class Checkpoints:
    """The checkpoints of one training in its folder.

    Args:
        folder: exists.
        fingerprints: identify the training (settings, architecture, vocabulary); the first one is written.
    """

    def __init__(self, folder: Path, *fingerprints: str) -> None:
        self.folder = folder
        self.fingerprints = fingerprints

    def paths(self) -> list[Path]:
        """The complete checkpoints, oldest first."""
        return sorted(self.folder.glob("checkpoint-*.safetensors"))

    def save(self, step: int, network: nn.Module, optimizer: BlockAdam, state: Mapping[str, Any]) -> None:
        """Write the checkpoint of `step`; then delete all but the newest two, and what a kill cut short.

        A parameter that no sub-network has trained yet has no moments; it gets none on loading either.

        Raises:
            InputError: the disk is full; the older checkpoints are kept.
        """
        tensors = dict(weights(network))
        for name, parameter in network.named_parameters():
            adam = optimizer.state.get(parameter, {})
            tensors |= {f"{name}/{key}": adam[key] for key in ADAM_STATE if key in adam}
        metadata = {"fingerprint": self.fingerprints[0], "step": step, **state}
        write_tensors(self.folder / f"checkpoint-{step:08d}.safetensors", tensors, metadata)
        remove_torn_files(self.folder, "*.safetensors")
        for path in self.paths()[:-KEPT]:
            path.unlink()

    def load_latest(self, network: nn.Module, optimizer: BlockAdam) -> dict[str, Any] | None:
        """Restore weights and the optimizer's moments in place; None when there is no checkpoint.

        Returns:
            The `state` given to `save`, and `step`.

        Raises:
            InputError: the newest checkpoint is truncated or foreign; says what to delete and from
                where training would then resume.
        """
        paths = self.paths()
        if not paths:
            return None
        fallback = f"from {paths[-2].name}" if len(paths) > 1 else "from the beginning"
        metadata = read_metadata(paths[-1], self.fingerprints, f"delete it, then training resumes {fallback}")
        load_weights(paths[-1], network)
        with safe_open(paths[-1], "pt") as file:
            saved = set(file.keys())
            for name, parameter in network.named_parameters():
                # `step` lives beside the moments: fused Adam wants all of them on the parameter's device.
                adam = {
                    key: file.get_tensor(f"{name}/{key}").to(parameter.device)
                    for key in ADAM_STATE
                    if f"{name}/{key}" in saved
                }
                if adam:
                    optimizer.state[parameter] = adam
        return metadata

    def delete(self) -> None:
        """Delete every checkpoint, once the training is finished."""
        for path in self.paths():
            path.unlink()
