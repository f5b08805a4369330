"""An exported ONNX folder translates where neither torch nor AutoMoE can be imported."""

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from automoe.cli.main import main
from automoe.data.shortlist import Shortlist
from automoe.data.tokenizer import Tokenizer, train_tokenizer
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.design.model_options import ModelOptions
from automoe.errors import InputError
from automoe.export.onnx import export_onnx
from automoe.inference.model_folder import SHORTLIST, save_model
from automoe.inference.torch_engine import TorchEngine
from automoe.inference.translator import Translator
from automoe.model.transformer import Transformer
from helpers.broken_exports import BREAKAGES, broken
from helpers.toy_pairs import corpus_of

ARCHITECTURE = Architecture(
    24,
    32,
    32,
    (EncoderLayer(4, (48, 0, 32), top_k=2), EncoderLayer(2, (64,))),
    (DecoderLayer(4, 2, (64, 48, 0)), DecoderLayer(2, 4, (64,), encoder_layers_attended=2)),
)
LINES = ["der Bär isst", "", "  zwei Bären ", "<s> </s> <pad>", "isst isst isst der 漢字", "und"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Transformer, Tokenizer, Path, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    words = ["der", "Bär", "isst", "zwei", "Bären", "und", "liest", "Text", "<s>", "Leerzeichen", "wörtlich"]
    lines = (" ".join(pair) for pair in itertools.permutations(words, 2))
    tokenizer = train_tokenizer([*lines, "the quick brown fox jumps over the lazy dog"], 50)
    model = Transformer(ARCHITECTURE, tokenizer.vocabulary_size, ModelOptions("pre"))
    model.initialise(5)
    save_model(folder / "model", model, tokenizer, {})
    export_onnx(folder / "model", folder / "exported")
    return model.eval(), tokenizer, folder / "model", folder / "exported"


def only(folder: Path, *packages: str) -> dict[str, str]:
    """An environment in which nothing but these packages, and what they need, can be imported."""
    for package in packages:
        found = importlib.util.find_spec(package)
        assert found is not None
        assert found.submodule_search_locations
        home = Path(next(iter(found.submodule_search_locations)))
        for path in (home, home.with_name(f"{home.name}.libs")):
            if path.exists():
                (folder / path.name).symlink_to(path)
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "PYTHONNOUSERSITE": "1"}


def test_the_folder_translates_without_torch(
    exported: tuple[Transformer, Tokenizer, Path, Path], tmp_path: Path
) -> None:
    model, tokenizer, _, folder = exported
    environment = only(tmp_path, "onnxruntime", "numpy", "tokenizers", "flatbuffers", "google")
    python = [sys.executable, "-S"]  # without site-packages
    tried = subprocess.run([*python, "-c", "import torch"], env=environment, capture_output=True, text=True)
    assert "No module named 'torch'" in tried.stderr
    translated = subprocess.run(
        [*python, str(folder / "translate.py")],
        input="\n".join([*LINES, ""]),
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert translated.returncode == 0, translated.stderr
    reference = Translator(TorchEngine(model), tokenizer)
    assert translated.stdout.split("\n")[:-1] == list(reference.translate(LINES))


def test_the_folder_translates_with_its_shortlist(
    exported: tuple[Transformer, Tokenizer, Path, Path], tmp_path: Path
) -> None:
    model, tokenizer, folder, _ = exported
    size = 16
    source, target = ([tokenizer.encode([line])[0] for line in LINES if line] for _ in range(2))
    learned = Shortlist.learn(corpus_of(list(zip(source, target, strict=True))), tokenizer.vocabulary_size)
    shutil.copytree(folder, tmp_path / "model")
    with pytest.raises(InputError, match="no shortlist"):
        export_onnx(tmp_path / "model", tmp_path / "out", shortlist=size)
    learned.save(tmp_path / "model" / SHORTLIST)
    export_onnx(tmp_path / "model", tmp_path / "out", shortlist=size)
    (tmp_path / "packages").mkdir()
    packages = ("onnxruntime", "numpy", "tokenizers", "flatbuffers", "google")
    translated = subprocess.run(
        [sys.executable, "-S", str(tmp_path / "out" / "translate.py")],
        input="\n".join([*LINES, ""]),
        env=only(tmp_path / "packages", *packages),
        capture_output=True,
        encoding="utf-8",
    )
    assert translated.returncode == 0, translated.stderr
    reference = Translator(TorchEngine(model, shortlister=learned.sized(size)), tokenizer)
    expected = [next(reference.translate([line])) for line in LINES]
    assert translated.stdout.split("\n")[:-1] == expected
    assert expected != list(Translator(TorchEngine(model), tokenizer).translate(LINES))


@pytest.mark.slow
@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_folder_is_one_message(
    exported: tuple[Transformer, Tokenizer, Path, Path], tmp_path: Path, breakage: str
) -> None:
    folder, expected = broken(exported[3], tmp_path, breakage)
    program = [sys.executable, str(folder / "translate.py")]
    done = subprocess.run(program, input="der Bär\n", capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("translate.py: ")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_int8_is_smaller_and_an_export_is_replaced(
    exported: tuple[Transformer, Tokenizer, Path, Path], tmp_path: Path
) -> None:
    _, _, model, folder = exported
    for precision in ("float32", "int8"):
        export_onnx(model, tmp_path / "out", precision)
    sizes = [(path / "translation.onnx").stat().st_size for path in (tmp_path / "out", folder)]
    assert sizes[0] < sizes[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_other_files_are_not_overwritten(
    exported: tuple[Transformer, Tokenizer, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(
        sys, "argv", ["automoe", "export", str(exported[2]), "--to", "onnx", "-o", str(tmp_path)]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
