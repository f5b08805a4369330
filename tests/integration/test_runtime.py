"""What uses a trained model needs nothing of the extra `train`; the rest says how that is installed."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from automoe.cli.extras import EXTRAS
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.design.architecture_file import save_architecture
from automoe.inference.backends import load_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.translator import Translator
from helpers.served import serving, write_tiny_model

pytestmark = pytest.mark.slow  # whole processes

TEXT = ["the cat sat", "", "a dog ran after the bird and the cat", "<b>bold</b> words"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("runtime") / "model")


@pytest.fixture(autouse=True)
def _nothing_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the processes that a test starts, no library of the extra can be imported."""
    block = f"import sys\nsys.modules.update(dict.fromkeys({EXTRAS['train']}))\n"
    (tmp_path / "sitecustomize.py").write_text(block)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def run(program: list[str | Path], text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *program], input=text, capture_output=True, encoding="utf-8")


def automoe(*arguments: str | Path) -> str:
    done = run(["-m", "automoe", *arguments], "".join(f"{line}\n" for line in TEXT))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_these_processes_have_no_torch() -> None:
    done = run(["-c", "import torch"])
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize(("precision", "reference"), [("float32", "torch"), ("int8", "onnx")])
def test_translate(model: Path, precision: str, reference: str) -> None:
    translator = Translator(*load_engine(model, reference, precision), BeamSettings(n_best=2))
    best = list(translator.translate_n_best(TEXT))
    lines = automoe("translate", model, "--precision", precision).splitlines()
    assert lines == [both[0].text for both in best]
    found = automoe("translate", model, "--precision", precision, "--n-best", "2").splitlines()
    assert [line.rpartition(" ||| ")[0] for line in found] == [
        f"{number} ||| {translation.text}" for number, both in enumerate(best) for translation in both
    ]


def test_an_exported_folder_translates_alike(model: Path, tmp_path: Path) -> None:
    expected = automoe("translate", model)
    automoe("export", model, "--to", "onnx", "-o", tmp_path / "exported")
    done = run([tmp_path / "exported" / "translate.py"], "".join(f"{line}\n" for line in TEXT))
    assert (done.stdout, done.returncode) == (expected, 0), done.stderr


def test_serve(model: Path) -> None:
    expected = automoe("translate", model).splitlines()
    with serving(model) as (address, _):

        def ask(path: str, **body: object) -> str:
            data = json.dumps(body).encode() if body else None
            asked = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.read().decode()

        translated = json.loads(ask("/translate", text=TEXT))
        assert [translation["text"] for translation in translated["translations"]] == expected
        explained = json.loads(ask("/explain", text=TEXT[0]))
        assert explained["sentences"][0]["decoder"]["layers"]
        assert "automoe" in ask("/metrics")
        for page in ("/", "/docs"):
            assert "<html" in ask(page)


def test_what_counts_and_measures(model: Path, tmp_path: Path) -> None:
    assert json.loads(automoe("cost", "transformer-base", "--json"))["parameters"] == 44_138_496
    assert "largest dense" in automoe("space", "demo")
    small = tmp_path / "small.yaml"
    save_architecture(Architecture(16, 16, 8, (EncoderLayer(2, (8, 0)),), (DecoderLayer(2, 2, (8,)),)), small)
    for subject in (model, small):
        measured = automoe("latency", subject, "--backend", "onnx", "--runs", "10", "--json")
        assert json.loads(measured)["runs"] == 10


@pytest.mark.parametrize(
    "command",
    [
        "run demo",
        "prepare demo",
        "fidelity demo",
        "init project --source a.en --target a.de",
        "profile --space demo",
        "predictor fit table.csv",
        "latency transformer-base",
        "latency MODEL",
        "translate MODEL --backend torch",
        "export MODEL --to huggingface -o out",
    ],
)
def test_what_trains_names_the_extra(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("encoder_embed_dim,latency\n")
    before = sorted(tmp_path.iterdir())
    done = run(["-m", "automoe", *command.replace("MODEL", str(model)).split()])
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (message, mend) = done.stderr.splitlines()[-2:]
    assert message.startswith("automoe: this needs ")
    assert mend == "  - pip install 'automoe[train]'"
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before
