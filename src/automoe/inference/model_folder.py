"""A trained model on disk: one folder, no pickle.

    model.safetensors       every tensor of `Transformer.state_dict()` under its own name
    config.json             {format, architecture, vocabulary_size, options, tokenizer_sha256, card}
    tokenizer.json          the subword vocabulary
    shortlist.safetensors   optional: the target tokens that source tokens make likely (`Shortlist`)

`config.json` is what makes the folder a model: it is written last and removed first, so a write that
is killed leaves the old model, the new one, or a folder that `load_model` refuses, never a mixture. It is
removed only when all that is new is on the disk, so a full disk costs nothing.

Reading one needs no torch, but for `load_model`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from automoe.data.shortlist import Shortlist, Shortlister
from automoe.data.tokenizer import Tokenizer
from automoe.design.architecture import Architecture
from automoe.design.model_options import ModelOptions
from automoe.errors import InputError, validate_plain
from automoe.inference.weight_shapes import weight_shapes
from automoe.storage import digest, disk_errors, file_digest, read_json, whole_files, write_json

if TYPE_CHECKING:
    from automoe.model.transformer import Transformer

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
SHORTLIST = "shortlist.safetensors"
UNUSED_EXPERTS = "experts without a token of the test set"
"""The key of a mixture's card under which the names of such experts stand, or `none`."""
FORMAT = 1
# Loading a pickle runs whatever code its author wrote: a folder that holds one is not to be trusted.
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
_MEND = "get the model folder anew, from where it was made"
_KEYS = ("architecture", "vocabulary_size", "options")
_DIGEST = "tokenizer_sha256"


class StoredWeights(Mapping[str, NDArray[np.float32]]):
    """The tensors of a safetensors file by name, each read when it is asked for.

    Args:
        path: the file. `shapes`: what it must hold, and nothing else.

    Raises:
        InputError: it is damaged, or holds other tensors; all of them are listed.
    """

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._path, self._shapes = path, shapes
        try:
            file: Any = safe_open(path, framework="numpy")  # it has no types
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: tuple(one.get_shape()) for name, one in slices.items()}
            types = {name: one.get_dtype() for name, one in slices.items()}
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: is damaged or no safetensors file", [str(error)]) from error
        problems = [f"{name}: missing" for name in shapes if name not in found]
        problems += [f"{name}: not a tensor of this architecture" for name in found if name not in shapes]
        problems += [
            f"{name}: shape {list(found[name])}, but the configuration says {list(shape)}"
            for name, shape in shapes.items()
            if name in found and found[name] != shape
        ]
        problems += [f"{name}: has {kind}, not F32" for name, kind in types.items() if kind != "F32"]
        if problems:
            raise InputError(f"{path}: the weights do not fit {CONFIG}", problems)
        self._file = file

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if name not in self._shapes:
            raise KeyError(name)
        try:
            tensor: NDArray[np.float32] = self._file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{self._path}: is damaged", [str(error)]) from error
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


@dataclass(frozen=True)
class BareModel:
    """A model as values, of which an engine can be made without torch.

    Attributes:
        weights: every tensor of the model's state by its name.
    """

    architecture: Architecture
    vocabulary_size: int
    options: ModelOptions
    weights: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class StoredModel(BareModel):
    """What is in a model folder.

    Attributes:
        shortlist: None where the folder has none.
    """

    tokenizer: Tokenizer
    shortlist: Shortlist | None = None

    def shortlister(self, size: int) -> Shortlister | None:
        """Which tokens may be written in translations of a batch, `size` for one sentence; 0 is all: None.

        Raises:
            InputError: the folder has no shortlist.
        """
        if not size:
            return None
        if self.shortlist is None:
            mend = "translate without one; `automoe run` puts one beside each model that it trains"
            raise InputError("this model has no shortlist", [f"{SHORTLIST} is missing in its folder", mend])
        return self.shortlist.sized(size)


def save_model(folder: str | Path, model: Transformer, tokenizer: Tokenizer, card: Mapping[str, Any]) -> None:
    """Write the model folder; it is created. Files in it that are no model's are left alone.

    Args:
        card: what is known of the model (its measured figures, corpus, recipe), plain JSON values.

    Raises:
        InputError: the folder cannot be written, e.g. on a full disk; a model already there is unharmed.
    """
    import torch
    from safetensors.torch import save_file

    folder = Path(folder)
    config = {
        "format": FORMAT,
        "architecture": model.architecture.to_dict(),
        "vocabulary_size": model.vocabulary_size,
        "options": asdict(model.options),
        "card": dict(card),
    }
    # Clones: a sub-network's tensors are views of its supernet's, which safetensors refuses.
    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with whole_files(folder, (WEIGHTS, TOKENIZER, CONFIG)) as files:
        save_file(weights, files[WEIGHTS])
        tokenizer.save(files[TOKENIZER])
        write_json(files[CONFIG], config | {_DIGEST: file_digest(files[TOKENIZER])})
    with disk_errors(folder):
        (folder / SHORTLIST).unlink(missing_ok=True)  # another model's


def load_model(folder: str | Path) -> tuple[Transformer, Tokenizer]:
    """Read a model folder: the model in evaluation mode, on the CPU, and its tokenizer.

    Raises:
        InputError: as `read_model`.
    """
    stored = read_model(folder)
    return model_of(stored), stored.tokenizer


def model_of(bare: BareModel) -> Transformer:
    """The model itself, in evaluation mode, on the CPU."""
    import torch

    from automoe.model.transformer import Transformer

    with torch.device("meta"):
        model = Transformer(bare.architecture, bare.vocabulary_size, bare.options)
    tensors = {name: torch.from_numpy(weight) for name, weight in bare.weights.items()}
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def read_model(folder: str | Path) -> StoredModel:
    """What is in a model folder.

    Only safetensors are read. A folder with a pickle in it, or with a link to a file outside it, is refused
    unread.

    Raises:
        InputError: a file is missing, damaged, or not to be trusted, or weights, configuration and tokenizer
            do not belong together; every file and every tensor that does not fit is listed.
    """
    folder = Path(folder)
    _refuse_untrusted(folder)
    missing = [f"{name} is missing" for name in (CONFIG, WEIGHTS, TOKENIZER) if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: is not a model folder", missing)
    architecture, vocabulary_size, options, tokenizer_sha256 = _read_config(folder / CONFIG)
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    if tokenizer.vocabulary_size != vocabulary_size:
        raise InputError(
            f"{folder}: the tokenizer is not this model's",
            [f"it has {tokenizer.vocabulary_size} tokens, the model {vocabulary_size}"],
        )
    # Another one may well have as many tokens. Folders of earlier versions do not say which is theirs.
    if tokenizer_sha256 not in (None, file_digest(folder / TOKENIZER)):
        raise InputError(
            f"{folder}: the tokenizer is not this model's",
            [f"{TOKENIZER} is not the file that {CONFIG} tells by its {_DIGEST}; {_MEND}"],
        )
    weights = StoredWeights(folder / WEIGHTS, weight_shapes(architecture, vocabulary_size, options.norm))
    shortlist = None
    if (folder / SHORTLIST).exists():
        shortlist = Shortlist.load(folder / SHORTLIST, vocabulary_size)
    return StoredModel(architecture, vocabulary_size, options, weights, tokenizer, shortlist)


def read_card(folder: str | Path) -> dict[str, Any]:
    """What `save_model` was told of the model in a folder that `load_model` accepts."""
    card = read_json(Path(folder) / CONFIG, _MEND).get("card")
    return card if isinstance(card, dict) else {}


def told_of_unused_experts(folder: str | Path) -> str | None:
    """In words, of a model whose card names experts without a token: which, and the mend; else None."""
    unused = read_card(folder).get(UNUSED_EXPERTS, "none")
    if unused == "none":
        return None
    mend = "`automoe prune` makes a model without those that a validation text does not need either"
    return f"{folder}: no token of its test set went to {unused}; {mend}"


def model_digest(folder: str | Path) -> str:
    """The SHA-256 of what decides a model's translations: weights, vocabulary, architecture and options."""
    folder = Path(folder)
    config = read_json(folder / CONFIG, _MEND)
    files = [file_digest(folder / name) for name in (WEIGHTS, TOKENIZER)]
    return digest([files, [config.get(key) for key in _KEYS]])


def add_to_card(folder: str | Path, facts: Mapping[str, Any]) -> None:
    """Record more of a model that `save_model` wrote; entries of the same names are replaced.

    Raises:
        InputError: the file cannot be written; the old one is unharmed.
    """
    path = Path(folder) / CONFIG
    config = read_json(path, _MEND)
    config["card"] = {**config["card"], **facts}
    write_json(path, config)


def _refuse_untrusted(folder: Path) -> None:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    home = folder.resolve()
    problems = [
        f"{path.name} is a pickle: delete it, only {WEIGHTS} is needed"
        for path in files
        if path.suffix.lower() in PICKLES
    ]
    problems += [
        f"{path.name} links to {path.resolve()}, outside the folder: put the file itself there"
        for path in files
        if path.is_symlink() and not path.resolve().is_relative_to(home)
    ]
    if problems:
        raise InputError(f"{folder}: is not a model folder to be trusted", problems)


def _read_config(path: Path) -> tuple[Architecture, int, ModelOptions, str | None]:
    config = read_json(path, _MEND)
    if config.get("format") != FORMAT:
        raise InputError(f"{path}: is not a model configuration of format {FORMAT}")
    missing = [f"{key}: missing" for key in _KEYS if key not in config]
    if missing:
        raise InputError(f"{path}: is not a model configuration", missing)
    vocabulary_size = config["vocabulary_size"]
    if type(vocabulary_size) is not int or vocabulary_size < 1:
        problem = f"vocabulary_size: expected a positive integer, got {vocabulary_size!r}"
        raise InputError(f"{path}: is not a model configuration", [problem])
    try:
        architecture = Architecture.from_dict(config["architecture"])
        options = validate_plain(ModelOptions, config["options"], "the options are wrong")
    except InputError as error:
        raise InputError(f"{path}: {error.summary}", error.problems) from error
    return architecture, vocabulary_size, options, config.get(_DIGEST)
