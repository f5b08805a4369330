"""`automoe prune`: what is removed, what is left, and that it deploys; everything in this process."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file

from automoe.cli.main import main
from automoe.cost.protocol import MeasuringProtocol
from automoe.data.batching import TokenisedCorpus
from automoe.data.corpus import CorpusSource, load_pairs
from automoe.data.shortlist import Shortlist
from automoe.design.architecture import dense
from automoe.errors import InputError
from automoe.export.huggingface import export_huggingface, exported_name
from automoe.export.onnx import export_onnx
from automoe.inference.backends import engine_of, load_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.graph_model import ModelGraph
from automoe.inference.model_folder import (
    SHORTLIST,
    add_to_card,
    load_model,
    read_card,
    read_model,
    save_model,
)
from automoe.inference.routing_graph import OnnxRouter
from automoe.inference.translator import Translator
from automoe.model.pruning import without_experts
from automoe.model.transformer import Transformer
from automoe.run import prune as module
from automoe.run.prune import PruneRequest, prune
from automoe.serving.app import create_app
from automoe.serving.limits import ServingLimits
from helpers.served import TEXTS, tiny_model
from helpers.tiny_run import Listener

# Made never to be chosen: the third expert of encoder.0 is an identity, these have weights.
UNUSED = {"encoder.0": (1,), "decoder.1": (2,)}
PROTOCOL = MeasuringProtocol(backend="onnx", threads=1, beam_size=2, source_length=4, target_length=3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model`, of which some experts get no token, and texts."""
    folder = tmp_path_factory.mktemp("pruned")
    model, tokenizer = tiny_model()
    with torch.no_grad():
        for layer, (expert,) in UNUSED.items():
            stack, index = layer.split(".")
            weight_ED = getattr(model, stack)[int(index)].ffn.mixture.router.weight
            first, second = (other for other in range(3) if other != expert)
            weight_ED[second] = -weight_ED[first]
            weight_ED[expert] = weight_ED[first] / 10  # never the largest of x, -x and x / 10
    card = {"target_language": "de", "source_language": "en", "corpus": "made-up", "BLEU": 12.0}
    save_model(folder / "model", model, tokenizer, card)
    rows = "".join(f"{source}\t{target}\n" for source, target in zip(TEXTS, reversed(TEXTS), strict=True))
    (folder / "text.tsv").write_text(rows, encoding="utf-8")
    pairs, _ = load_pairs(CorpusSource(path=str(folder / "text.tsv")))
    corpus = TokenisedCorpus.build(pairs, tokenizer, 100)
    Shortlist.learn(corpus, tokenizer.vocabulary_size).save(folder / "model" / SHORTLIST)
    return folder


def asked(trained: Path, output: Path, **changes) -> PruneRequest:
    text = CorpusSource(path=str(trained / "text.tsv"))
    request = PruneRequest(
        model=trained / "model", output=output, valid=text, protocol=PROTOCOL, min_importance=0.0, turns=2
    )
    return replace(request, **changes)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_unused_experts_leave_and_nothing_else_changes(trained, tmp_path):
    before = contents(trained)
    pruning = prune(asked(trained, tmp_path / "new" / "model"), Listener())
    assert contents(trained) == before
    output = tmp_path / "new" / "model"
    assert {layer.layer: layer.emptied for layer in pruning.layers if layer.emptied} == UNUSED
    stored = read_model(output)
    assert stored.architecture == pruning.architecture
    assert stored.architecture.encoder[0].ffn_sizes == (96, 0, 0)
    assert stored.architecture.decoder[1].ffn_sizes == (32, 64, 0)
    assert pruning.after.bleu == pruning.before.bleu

    # By hand: two matrices and two biases of each, 32 to 32 in the encoder, 24 to 8 in the decoder.
    removed = 4 * (2 * 32 * 32 + 32 + 32) + 4 * (2 * 24 * 8 + 24 + 8)
    assert pruning.before.weight_bytes - pruning.after.weight_bytes == removed
    for folder, side in ((trained / "model", pruning.before), (output, pruning.after)):
        weights = load_file(folder / "model.safetensors")
        assert side.weight_bytes == sum(tensor.nbytes for tensor in weights.values())

    card = read_card(output)
    assert card["corpus"] == "made-up"
    assert "BLEU" not in card  # of the whole model, on another text
    assert card["experts emptied by pruning"] == 2
    assert (output / SHORTLIST).read_bytes() == (trained / "model" / SHORTLIST).read_bytes()
    plain = json.loads((output / "pruning.json").read_text())
    assert plain["layers"][0]["emptied"] == [1]
    assert plain["after"]["weight_bytes"] == pruning.after.weight_bytes


def test_the_new_folder_translates_is_exported_and_serves(trained, tmp_path):
    output = tmp_path / "model"
    prune(asked(trained, output), Listener())
    for backend, precision in (("torch", "float32"), ("onnx", "float32"), ("onnx", "int8")):
        expected, found = (
            list(Translator(*load_engine(folder, backend, precision, 1)).translate(TEXTS))
            for folder in (trained / "model", output)
        )
        assert found == expected
    stored = read_model(output)
    engine = engine_of(stored, "onnx", "float32", 1)
    served = create_app(
        OnnxRouter(ModelGraph.of(stored), 1), engine, stored.tokenizer, BeamSettings(), ServingLimits()
    )
    with TestClient(served) as client:
        (answer,) = client.post("/translate", json={"text": TEXTS[0]}).json()["translations"]
    assert answer["text"] == next(Translator(*load_engine(trained / "model")).translate(TEXTS[:1]))
    export_onnx(output, tmp_path / "onnx")
    assert (tmp_path / "onnx" / "translation.onnx").is_file()
    export_huggingface(output, tmp_path / "huggingface")
    exported = load_file(tmp_path / "huggingface" / "model.safetensors")
    whole = load_file(output / "model.safetensors")
    assert exported.keys() == {exported_name(name) for name in whole}
    assert all(torch.equal(exported[exported_name(name)], tensor) for name, tensor in whole.items())
    assert "made-up" in (tmp_path / "huggingface" / "README.md").read_text(encoding="utf-8")


def test_trained_on_it_is_the_same_each_time_also_when_it_was_interrupted(trained, tmp_path, monkeypatch):
    train = CorpusSource(path=str(trained / "text.tsv"))
    changes = {"train": train, "steps": 4, "min_importance": 0.0}
    prune(asked(trained, tmp_path / "untouched"), Listener())
    prune(asked(trained, tmp_path / "once", **changes), Listener())
    compared = module._compared

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_compared", killed)
    with pytest.raises(KeyboardInterrupt):
        prune(asked(trained, tmp_path / "again", **changes), Listener())
    monkeypatch.setattr(module, "_compared", compared)
    (left,) = tmp_path.glob("again*")
    assert left.name.startswith("again.training-")
    trainings = []
    whole_train = module.train
    monkeypatch.setattr(
        module, "train", lambda *a, **k: trainings.append(result := whole_train(*a, **k)) or result
    )
    prune(asked(trained, tmp_path / "again", **changes), Listener())
    assert trainings[0].weights.parent == left
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "once", "untouched"]
    once, again, untouched = (
        load_file(tmp_path / name / "model.safetensors") for name in ("once", "again", "untouched")
    )
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not torch.equal(once["embedding"], untouched["embedding"])
    assert read_model(tmp_path / "once").architecture.encoder[0].ffn_sizes == (96, 0, 0)


def test_a_training_that_is_killed_goes_on_where_it_was_saved(trained, tmp_path):
    seen: list[int] = []

    class Watched(Listener):
        def bar(self, title):
            def heard(done, planned, text):
                if title == "train on":
                    seen.append(done)
                    if len(seen) == module.CHECKPOINT_EVERY + 3:
                        raise KeyboardInterrupt

            return heard

    text = CorpusSource(path=str(trained / "text.tsv"))
    request = asked(trained, tmp_path / "new", train=text, steps=module.CHECKPOINT_EVERY + 10)
    with pytest.raises(KeyboardInterrupt):
        prune(request, Watched())
    seen.append(0)  # so that it does not stop again
    prune(request, Watched())
    again = seen[seen.index(0) + 1 :]
    assert again == list(range(module.CHECKPOINT_EVERY + 1, module.CHECKPOINT_EVERY + 11))


def command(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Run `automoe prune`; exit code, output, messages."""
    return automoe(monkeypatch, capsys, "prune", *arguments)


def automoe(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Run any command; exit code, output, messages."""
    monkeypatch.setattr(sys, "argv", ["automoe", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    printed = capsys.readouterr()
    return int(left.value.code or 0), printed.out, printed.err


def test_an_export_tells_of_experts_that_were_seen_without_a_token(trained, tmp_path, monkeypatch, capsys):
    model = tmp_path / "model"
    shutil.copytree(trained / "model", model)
    for told in (None, "none", "encoder.0's expert 2 of 3"):
        if told:
            add_to_card(model, {"experts without a token of the test set": told})
        options = ("export", model, "--to", "huggingface", "-o", tmp_path / f"exported {told}")
        code, _, err = automoe(monkeypatch, capsys, *options)
        assert code == 0
        assert ("automoe prune" in err) == (told not in (None, "none"))
    assert "no token of its test set went to encoder.0's expert 2 of 3;" in err
    prune(asked(trained, tmp_path / "pruned", model=model), Listener())
    assert "experts without a token of the test set" not in read_card(tmp_path / "pruned")


def test_the_command_tells_what_it_did(trained, tmp_path, monkeypatch, capsys):
    options = ["--threads", 1, "--source-length", 4, "--target-length", 3, "--turns", 2]
    text = trained / "text.tsv"
    code, out, _ = command(
        monkeypatch, capsys, trained / "model", "-o", tmp_path / "new", "--valid", text, *options
    )
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "encoder.0:"
    assert "size    32:   0.0% of the tokens, importance   0.0%, removed" in lines[2]
    assert lines[-1] == f"Pruned model: {tmp_path / 'new'}"
    assert (tmp_path / "new" / "model.safetensors").is_file()


def test_bad_options_are_all_listed(trained, tmp_path, monkeypatch, capsys):
    code, out, message = command(
        monkeypatch, capsys, trained / "model", "-o", tmp_path / "new", "--min-importance", "0.1",
        "--train-source", "x", "--valid", "",
    )  # fmt: skip
    assert (code, out) == (2, "")
    for part in ("--min-importance: expected a share", "--train-source, --train-target: go together",
                 "--valid: is empty", "--steps: missing"):  # fmt: skip
        assert part in message
    code, _, message = command(monkeypatch, capsys, trained / "model", "-o", tmp_path / "new", "--steps", 3)
    assert code == 2
    assert "--valid: missing" in message
    assert "--train: missing" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"output": "here"}, "exists already"),
        ({"valid": "nowhere.tsv"}, "nowhere.tsv"),
        ({"min_importance": 0.999}, "would remove every expert of a layer"),
        ({"model": "nothing"}, "is not a model folder"),
        ({"model": "dense"}, "is a dense model"),
        ({"model": "silent"}, "give --target-language"),
        ({"model": "used"}, "every expert is used"),
        ({"train": "text.tsv", "steps": 3, "peak_rate": -1.0}, "peak_rate"),
    ],
)
def test_what_cannot_be_pruned_is_refused_and_nothing_is_written(trained, tmp_path, changes, expected):
    here = tmp_path / "here"
    here.mkdir()
    model, tokenizer = tiny_model()
    if changes.get("model") == "dense":
        model = Transformer(dense(16, 32, 2, 2, 1), tokenizer.vocabulary_size)
        model.initialise(1)
    if changes.get("model") == "used":
        model = without_experts(load_model(trained / "model")[0], UNUSED)
    if "model" in changes and changes["model"] != "nothing":
        save_model(tmp_path / changes["model"], model, tokenizer, {"target_language": "de"})
    if changes.get("model") == "silent":
        save_model(tmp_path / "silent", model, tokenizer, {})
    made = {
        name: CorpusSource(path=str(trained / value))
        if name in ("valid", "train")
        else tmp_path / value
        if isinstance(value, str)
        else value
        for name, value in changes.items()
    }
    before = contents(tmp_path)
    with pytest.raises(InputError) as refused:
        prune(asked(trained, **{"output": tmp_path / "new", **made}), Listener())
    assert expected in str(refused.value)
    assert contents(tmp_path) == before
    assert not (tmp_path / "new").exists()
