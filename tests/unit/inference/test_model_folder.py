"""A model folder: readable by whom the umask lets, and never a mixture of two models."""

import errno
import itertools
import json
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from automoe.data.shortlist import Shortlist
from automoe.data.tokenizer import Tokenizer, train_tokenizer
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.errors import InputError
from automoe.inference.model_folder import (
    SHORTLIST,
    add_to_card,
    load_model,
    read_card,
    read_model,
    save_model,
)
from automoe.model.transformer import Transformer
from automoe.storage import write_json
from helpers.toy_pairs import corpus_of

ARCHITECTURE = Architecture(
    encoder_width=8, decoder_width=8, qkv_dim=8,
    encoder=(EncoderLayer(2, (8,)),), decoder=(DecoderLayer(2, 2, (8,)),),
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    rng = random.Random(0)
    texts = [" ".join(rng.choices("abcdefg", k=9)) for _ in range(200)]
    return train_tokenizer(texts, 16, "bpe")


def model_of(version: int, tokenizer: Tokenizer) -> Transformer:
    model = Transformer(ARCHITECTURE, tokenizer.vocabulary_size)
    model.initialise(version)
    return model


@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
def test_every_file_has_the_mode_of_the_umask(tokenizer: Tokenizer, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        save_model(tmp_path / "model", model_of(1, tokenizer), tokenizer, {})
        add_to_card(tmp_path / "model", {"BLEU": 3.5})
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()}
    assert modes == dict.fromkeys(("config.json", "model.safetensors", "tokenizer.json"), 0o666 & ~umask)


def test_facts_are_added_to_the_card(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_model(tmp_path, model_of(1, tokenizer), tokenizer, {"version": 1, "BLEU": 2.0})
    add_to_card(tmp_path, {"BLEU": 3.5, "corpus": "ü"})
    assert read_card(tmp_path) == {"version": 1, "BLEU": 3.5, "corpus": "ü"}
    load_model(tmp_path)


def killed_at(operation: int, write: Callable[[], None]) -> bool:
    """Whether `write` was killed by the n-th time it touched a file's name; in a process of its own."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(method: Callable[..., object]) -> Callable[..., object]:
            def wrapped(*values: object, **named: object) -> object:
                nonlocal count
                count += 1
                if count == operation:
                    os._exit(1)
                return method(*values, **named)

            return wrapped

        Path.replace = counted(Path.replace)
        Path.unlink = counted(Path.unlink)
        try:
            write()
        except BaseException:
            os._exit(2)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1)
    return status == 1


def test_a_kill_leaves_the_old_model_the_new_one_or_none(tokenizer: Tokenizer, tmp_path: Path) -> None:
    models = {version: model_of(version, tokenizer) for version in (1, 2)}
    found: list[int | None] = []
    for operation in range(1, 50):
        folder = tmp_path / str(operation)
        save_model(folder, models[1], tokenizer, {"version": 1})
        killed = killed_at(operation, lambda f=folder: save_model(f, models[2], tokenizer, {"version": 2}))
        try:
            loaded, _ = load_model(folder)
        except InputError:
            found.append(None)
        else:
            version = read_card(folder)["version"]
            assert torch.equal(loaded.embedding, models[version].embedding)
            found.append(version)
        if not killed:
            break
    kinds = [found[0], *(b for a, b in itertools.pairwise(found) if a != b)]
    assert kinds == [1, None, 2]


def refused_at(flush: int, write: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether `write` met a disk that was full when the n-th file was to be flushed, and said so."""
    whole, flushed = os.fsync, 0

    def counted(descriptor: int) -> None:
        nonlocal flushed
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            flushed += 1
            if flushed == flush:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", counted)
        try:
            write()
        except InputError as error:
            return os.strerror(errno.ENOSPC) in str(error)
    return False


def test_a_disk_that_is_full_at_the_end_leaves_the_old_model(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path, model_of(1, tokenizer), tokenizer, {"version": 1})
    content = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    new = model_of(2, tokenizer)
    flush = 1
    while refused_at(flush, lambda: save_model(tmp_path, new, tokenizer, {"version": 2}), monkeypatch):
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == content
        flush += 1
    assert flush > 3  # each of the files was refused once
    assert read_card(tmp_path) == {"version": 2}


def test_a_shortlist_is_read_and_leaves_with_its_model(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_model(tmp_path, model_of(1, tokenizer), tokenizer, {})
    plain = read_model(tmp_path)
    assert plain.shortlist is None
    assert plain.shortlister(0) is None
    with pytest.raises(InputError, match="has no shortlist"):
        plain.shortlister(8)
    learned = Shortlist.learn(corpus_of([([4, 5], [6]), ([5], [7])]), tokenizer.vocabulary_size)
    learned.save(tmp_path / SHORTLIST)
    shortlister = read_model(tmp_path).shortlister(8)
    assert shortlister is not None
    source_BS = np.array([[4, 2]])
    assert shortlister(source_BS).tolist() == learned.of(source_BS, 8).tolist()
    save_model(tmp_path, model_of(2, tokenizer), tokenizer, {})
    assert read_model(tmp_path).shortlist is None
    Shortlist.learn(corpus_of([([4], [6])]), tokenizer.vocabulary_size + 1).save(tmp_path / SHORTLIST)
    with pytest.raises(InputError, match="not this model's"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"norm": "Pre"}, "norm: expected 'pre' or 'post', got 'Pre'"),
        ({"encoder_dropout": "0.5"}, "encoder_dropout: expected a number, got '0.5'"),
        ({"dropout": 0.5}, "dropout"),
        ([], "keys and values"),
    ],
)
def test_options_that_no_model_has_are_refused(
    tokenizer: Tokenizer, tmp_path: Path, options: object, problem: str
) -> None:
    save_model(tmp_path, model_of(1, tokenizer), tokenizer, {})
    config = json.loads((tmp_path / "config.json").read_text())
    write_json(tmp_path / "config.json", config | {"options": options})
    with pytest.raises(InputError, match=r"config\.json") as caught:
        load_model(tmp_path)
    assert problem in str(caught.value)


@pytest.mark.parametrize("content", ["", "[" * 100_000, "{"])
def test_a_damaged_configuration_says_how_to_go_on(
    tokenizer: Tokenizer, tmp_path: Path, content: str
) -> None:
    save_model(tmp_path, model_of(1, tokenizer), tokenizer, {})
    (tmp_path / "config.json").write_text(content)
    for read in (load_model, read_card, lambda folder: add_to_card(folder, {})):
        with pytest.raises(InputError, match=r"config\.json: is damaged") as caught:
            read(tmp_path)
        assert "anew" in caught.value.problems[-1]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_type_are_named(tokenizer: Tokenizer, tmp_path: Path, kind: torch.dtype) -> None:
    save_model(tmp_path, model_of(1, tokenizer), tokenizer, {})
    weights = load_file(tmp_path / "model.safetensors")
    weights["embedding"] = weights["embedding"].to(kind)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="the weights do not fit") as refused:
        read_model(tmp_path)
    (problem,) = refused.value.problems
    assert problem.startswith("embedding: has ")
