"""An exported Hugging Face folder translates as the original does, where AutoMoE is not installed."""

import ast
import dataclasses
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import tokenizers
import torch
import yaml
from safetensors.torch import load_file
from torch.nn import functional as F

from automoe.cli.main import main
from automoe.data.tokenizer import Tokenizer, train_tokenizer
from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.design.model_options import ModelOptions
from automoe.errors import InputError
from automoe.export.huggingface import export_huggingface, exported_name
from automoe.inference.backends import make_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.model_folder import save_model
from automoe.inference.translator import Translator
from automoe.model.transformer import Transformer
from helpers.paths import REPOSITORY

ARCHITECTURE = Architecture(
    encoder_width=24,
    decoder_width=32,
    qkv_dim=32,
    encoder=(EncoderLayer(4, (48, 0, 32), top_k=2), EncoderLayer(2, (64,))),
    decoder=(DecoderLayer(4, 2, (64, 48, 0)), DecoderLayer(2, 4, (64,), encoder_layers_attended=2)),
)
TEXTS = [
    "",
    "Der Bär isst.",
    "  Zwei   Leerzeichen\tund\nZeilen ",
    "<s> wörtlich </s> <pad> <unk>",
    "漢字 ist unbekannt 🙂",
    "e\u0301 and \u00e9 are the same",
]


class Exported(NamedTuple):
    """A model folder, its export, and what a program without AutoMoE got out of that."""

    model: Transformer
    tokenizer: Tokenizer
    sources: list[list[int]]
    folder: Path
    answers: dict[str, Any]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    rng = random.Random(3)
    words = ["der", "Bär", "isst", "zwei", "Leerzeichen", "und", "Zeilen", "wörtlich", "<s>", "</s>", "ist"]
    text = [" ".join(rng.choices(words, k=rng.randint(2, 8))) + rng.choice(".,!?;:") for _ in range(300)]
    return train_tokenizer([*text, "the quick brown fox jumps over the lazy dog é"], 50)


def sources_of(tokenizer: Tokenizer, count: int, seed: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [
        [*(rng.randrange(4, tokenizer.vocabulary_size) for _ in range(rng.randint(1, 9))), EOS_ID]
        for _ in range(count)
    ]


def padded(rows: list[list[int]]) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [PAD_ID] * (width - len(row)) for row in rows])


def trained(tokenizer: Tokenizer, steps: int = 120) -> Transformer:
    """A model on its way to copying its source: it is sure of some tokens and in doubt about others."""
    model = Transformer(ARCHITECTURE, tokenizer.vocabulary_size, ModelOptions("pre", 0.1, 0.1))
    model.initialise(1)
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(steps):
        sources = sources_of(tokenizer, 32, 1000 + step)
        hidden_BTD = model(padded(sources), padded([[BOS_ID, *source[:-1]] for source in sources])).hidden_BTD
        loss = F.cross_entropy(
            model.logits(hidden_BTD).flatten(0, 1), padded(sources).flatten(), ignore_index=PAD_ID
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def carrying(tokenizer: Tokenizer) -> Transformer:
    """A model whose decoder carries vectors on instead of keys and values, in its first layer, too."""
    fast = tuple(
        dataclasses.replace(ARCHITECTURE.decoder[0], self_attention_heads=0, mixer=mixer)
        for mixer in ("ssru", "average_attention")
    )
    architecture = dataclasses.replace(ARCHITECTURE, decoder=(*fast, ARCHITECTURE.decoder[1]))
    model = Transformer(architecture, tokenizer.vocabulary_size, ModelOptions("pre"))
    model.initialise(6)
    return model.eval()


def untrained(tokenizer: Tokenizer) -> Transformer:
    """A model that rarely ends a sentence: the longest translation allowed does."""
    model = Transformer(ARCHITECTURE, tokenizer.vocabulary_size, ModelOptions("post"))
    model.initialise(5)
    return model.eval()


@pytest.fixture(scope="module")
def both(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """A trained, an untrained and a carrying model, asked in one process that cannot import AutoMoE."""
    folder = tmp_path_factory.mktemp("huggingface")
    models = {
        "trained": trained(tokenizer),
        "untrained": untrained(tokenizer),
        "carrying": carrying(tokenizer),
    }
    sources = sources_of(tokenizer, 28, 7)
    questions = []
    for name, model in models.items():
        card = {"license": "mpl-2.0", "validation": {"valid": 1.25}, "bleu": 30.5}
        save_model(folder / name, model, tokenizer, card)
        export_huggingface(folder / name, folder / f"{name}-hf")
        target = [BOS_ID, *sources[0]]
        question = {
            "folder": str(folder / f"{name}-hf"),
            "texts": TEXTS,
            "sources": sources,
            "target": target,
        }
        questions.append(question)
    (folder / "questions.json").write_text(json.dumps(questions))
    client = REPOSITORY / "tests" / "helpers" / "huggingface_client.py"
    done = subprocess.run(
        [sys.executable, client, folder / "questions.json", folder / "answers.json"],
        cwd=folder,
        env=os.environ | {"HF_HOME": str(folder / "home"), "HF_MODULES_CACHE": str(folder / "modules")},
        stdin=subprocess.DEVNULL,  # transformers 5 would ask whether the tokenizer's folder is trusted
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads((folder / "answers.json").read_text())
    return {
        name: Exported(model, tokenizer, sources, folder / f"{name}-hf", answer)
        for (name, model), answer in zip(models.items(), answers, strict=True)
    }


@pytest.fixture(params=["trained", "untrained", "carrying"])
def exported(both: dict[str, Exported], request: pytest.FixtureRequest) -> Exported:
    return both[request.param]


def ours(exported: Exported, settings: BeamSettings) -> list[list[int]]:
    translator = Translator(make_engine(exported.model), exported.tokenizer, settings)
    return [list(found[0].tokens) for found in translator.search(exported.sources, 200)]


def theirs(sequences: list[list[int]]) -> list[list[int]]:
    """Tokens between BOS and the first EOS. After that `generate` fills up, with EOS where PAD is token 0."""
    found = []
    for sequence in sequences:
        assert sequence[0] == BOS_ID
        end = sequence.index(EOS_ID)
        assert set(sequence[end + 1 :]) <= {PAD_ID, EOS_ID}
        found.append(sequence[1:end])
    return found


def test_every_tensor_is_loaded_under_its_new_name(exported: Exported) -> None:
    assert exported.answers["loading"] == {}
    assert exported.answers["dtype"] == "torch.float32"
    weights = load_file(exported.folder / "model.safetensors")
    assert len(weights) == len(exported.model.state_dict())
    for name, tensor in exported.model.state_dict().items():
        assert torch.equal(weights[exported_name(name)], tensor)


def test_the_logits_are_the_same(exported: Exported) -> None:
    target_BT = torch.tensor([[BOS_ID, *exported.sources[0]]] * len(exported.sources))
    with torch.inference_mode():
        model = exported.model
        logits_BTV = model.logits(model(padded(exported.sources), target_BT).hidden_BTD)
    torch.testing.assert_close(torch.tensor(exported.answers["logits"]), logits_BTV, rtol=0, atol=1e-5)


def test_the_default_beam_search_finds_the_same_translations(exported: Exported) -> None:
    found = theirs(exported.answers["beams"])
    assert len(set(map(tuple, found))) > 22  # a model that says always the same would prove nothing
    assert found == ours(exported, BeamSettings())
    assert found[:3] == theirs(exported.answers["uncached"])
    assert found[:3] == theirs(exported.answers["alone"])


def test_greedy_search_finds_the_same_translations(exported: Exported) -> None:
    assert theirs(exported.answers["greedy"]) == ours(exported, BeamSettings(beam_size=1))


def test_a_lower_limit_is_kept(exported: Exported) -> None:
    settings = BeamSettings(max_length_ratio=0, max_length_extra=4)
    assert theirs(exported.answers["short"]) == ours(exported, settings)[:12]


def test_both_models_and_both_searches_are_put_to_work(both: dict[str, Exported]) -> None:
    """The tests above would be weak if no translation met its limit, or beam search were as greedy."""
    limits = [BeamSettings().max_length(len(source)) - 1 for source in both["untrained"].sources]
    lengths = [len(tokens) for tokens in ours(both["untrained"], BeamSettings())]
    assert sum(length == limit for length, limit in zip(lengths, limits, strict=True)) > 3
    for exported in both.values():
        assert ours(exported, BeamSettings()) != ours(exported, BeamSettings(beam_size=1))
    copied = sum(
        tokens == source[:-1]
        for tokens, source in zip(ours(both["trained"], BeamSettings()), both["trained"].sources, strict=True)
    )
    assert copied > 3


def test_text_becomes_the_same_tokens_and_tokens_the_same_text(exported: Exported) -> None:
    tokenizer = exported.tokenizer
    assert exported.answers["encoded"] == [[*tokens, EOS_ID] for tokens in tokenizer.encode(TEXTS)]
    assert exported.answers["decoded"] == tokenizer.decode(exported.sources)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_text_that_spells_special_tokens_is_spelled(
    kind: Literal["unigram", "bpe"], tmp_path: Path
) -> None:
    spelling = train_tokenizer(["a < b > c / s pad unk"] * 50, 18, kind)
    save_model(tmp_path / "model", untrained(spelling), spelling, {})
    export_huggingface(tmp_path / "model", tmp_path / "out")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    theirs.encode_special_tokens = True  # as tokenizer_config.json's `split_special_tokens` sets it
    assert min(spelling.encode(["</s>"])[0]) > UNK_ID
    assert [theirs.encode(text).ids for text in TEXTS] == [[*ids, EOS_ID] for ids in spelling.encode(TEXTS)]


def test_the_pipeline_translates_texts(exported: Exported) -> None:
    expected = list(Translator(make_engine(exported.model), exported.tokenizer).translate(TEXTS))
    # One line of a stream cannot hold a line break; a text of the pipeline can.
    found = [text.replace("\n", " ") for text in exported.answers["pipeline"]]
    assert found == expected
    assert exported.answers["one"] == [{"translation_text": expected[0]}]


def test_the_model_card_has_the_fields_of_a_hub_and_the_figures(exported: Exported) -> None:
    _, fields, text = (exported.folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(fields) == {
        "library_name": "transformers",
        "pipeline_tag": "translation",
        "tags": ["automoe", "mixture-of-experts", "translation"],
        "license": "mpl-2.0",
    }
    assert "| validation loss, nats a token | 1.25 |" in text
    assert "| bleu | 30.5 |" in text
    last = len(exported.model.architecture.decoder) - 1
    assert f"| decoder {last} | 2 self, 4 cross | last 2 encoder layers | 64 | 1 |" in text
    carrying = ["SSRU, 2 cross", "average attention, 2 cross"] if last > 1 else ["4 self, 2 cross"]
    for index, mixer in enumerate(carrying):
        assert f"| decoder {index} | {mixer} | last encoder layer | 64, 48, identity | 1 |" in text
    assert "| encoder 0 | 4 |  | 48, identity, 32 | 2 |" in text
    parameters = sum(tensor.numel() for tensor in exported.model.parameters())
    assert f"| parameters, all | {parameters:,} |" in text


@pytest.fixture
def model_folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    save_model(tmp_path / "model", untrained(tokenizer), tokenizer, {})
    return tmp_path / "model"


def test_the_command_exports_and_replaces_its_own_export(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model_folder.parent
    command = [
        "automoe",
        "export",
        str(model_folder),
        "--to",
        "huggingface",
        "-o",
        str(folder / "deep" / "out"),
    ]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert str(folder / "deep" / "out") in capsys.readouterr().out
    names = sorted(path.name for path in (folder / "deep" / "out").iterdir())
    assert names == [
        "README.md",
        "config.json",
        "configuration_automoe.py",
        "generation_automoe.py",
        "generation_config.json",
        "model.safetensors",
        "modeling_automoe.py",
        "pipeline_automoe.py",
        "text_parts.py",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    (folder / "deep" / "out" / "README.md").write_text("old")
    export_huggingface(model_folder, folder / "deep" / "out")
    assert "AutoMoE" in (folder / "deep" / "out" / "README.md").read_text()
    assert [path.name for path in (folder / "deep").iterdir()] == ["out"]


def test_what_is_no_model_is_refused_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["automoe", "export", str(tmp_path), "--to", "huggingface", "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "config.json is missing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_holds_something_else_is_refused(model_folder: Path) -> None:
    folder = model_folder.parent
    (folder / "photos").mkdir()
    (folder / "photos" / "cat.jpg").write_text("")
    (folder / "file").write_text("")
    (folder / "link").symlink_to(folder / "photos")
    for output in ("photos", "file", "link", "model"):
        before = sorted(path.name for path in folder.rglob("*"))
        with pytest.raises(InputError, match=output):
            export_huggingface(model_folder, folder / output)
        assert sorted(path.name for path in folder.rglob("*")) == before
    (folder / "empty").mkdir()
    export_huggingface(model_folder, folder / "empty")
    assert (folder / "empty" / "config.json").is_file()


def test_a_failed_write_leaves_the_old_export(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder.parent
    export_huggingface(model_folder, folder / "out")
    before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("automoe.export.huggingface.save_file", full)
    for output in ("out", "new"):
        with pytest.raises(InputError, match="No space left"):
            export_huggingface(model_folder, folder / output)
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == before
    assert sorted(path.name for path in folder.iterdir()) == ["model", "out"]


def test_a_card_without_facts_says_so(tokenizer: Tokenizer, tmp_path: Path) -> None:
    dense = dataclasses.replace(
        ARCHITECTURE,
        encoder=(EncoderLayer(2, (8,)),),
        decoder=(DecoderLayer(2, 2, (8,)),),
    )
    model = Transformer(dense, tokenizer.vocabulary_size)
    model.initialise(0)
    save_model(tmp_path / "model", model, tokenizer, {})
    export_huggingface(tmp_path / "model", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "license: unknown" in card
    assert "without mixtures of experts" in card
    assert "None were recorded" in card


def relative_imports(file: Path) -> set[str]:
    """The modules beside it that a file imports, wherever in it."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    return {str(node.module) for node in nodes if node.level == 1}


def test_a_module_that_is_loaded_names_all_that_it_leads_to(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """`transformers` 4 copies what the module that it loads imports, not what that imports in its turn."""
    save_model(tmp_path / "model", untrained(tokenizer), tokenizer, {})
    export_huggingface(tmp_path / "model", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    classes = [*config["auto_map"].values(), *(one["impl"] for one in config["custom_pipelines"].values())]
    loaded = {name.partition(".")[0] for name in classes}
    assert loaded == {"configuration_automoe", "modeling_automoe", "pipeline_automoe"}
    for module in loaded:
        direct = relative_imports(tmp_path / "out" / f"{module}.py")
        reached = {module, *direct}
        while (
            more := set().union(*(relative_imports(tmp_path / "out" / f"{m}.py") for m in reached)) - reached
        ):
            reached |= more
        assert reached == {module, *direct}, module
