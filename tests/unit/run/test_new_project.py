"""A project from text files, with a machine whose speeds are made up."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import yaml

from automoe.cost.protocol import MeasuringProtocol
from automoe.data.corpus import CorpusSource, load_pairs
from automoe.errors import InputError
from automoe.run.machine_speed import largest_within_budget
from automoe.run.new_project import ProjectRequest, make_project
from automoe.run.plan import DoesNotFit, MachineSpeed, Wish
from automoe.run.recipe import load_recipe
from helpers.toy_text import write_pairs


def speed_of(scale, train, valid, protocol, batch_tokens, wish) -> MachineSpeed:
    """As on two cores, the tiny scale; no member of a larger one keeps the budget."""
    if scale.name != "tiny":
        raise DoesNotFit("too slow")
    assert len(train) > 0
    assert len(valid) > 0
    return MachineSpeed(next(iter(scale.ladder())), 3e4, 4e4, 2000.0, 300.0, 0.006, 0.006, 0.02)


def request(where: Path, **values) -> ProjectRequest:
    return ProjectRequest(
        **{
            "folder": where / "my-project",
            "train": CorpusSource(source_path=str(where / "train.en"), target_path=str(where / "train.de")),
            "valid": None,
            "test": None,
            "source_language": "en",
            "target_language": "de",
            "wish": Wish({"latency_ms": "40%"}, 0.5),
            "protocol": MeasuringProtocol(backend="onnx", threads=1),
            **values,
        }
    )


def made(asked: ProjectRequest) -> list[str]:
    said: list[str] = []
    make_project(asked, said.append, speed_of)
    return said


def sources(corpus: CorpusSource) -> list[str]:
    return [pair.source.casefold() for pair in load_pairs(corpus)[0]]


@pytest.mark.parametrize("count", [20, 400])
def test_a_project_has_a_recipe_that_loads_and_sets_that_are_apart(tmp_path, count):
    write_pairs(tmp_path, count)
    said = made(request(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["my-project", "train.de", "train.en"]
    recipe = load_recipe(tmp_path / "my-project" / "recipe.yaml").recipe
    assert recipe.name == "my-project"
    assert (recipe.data.source_language, recipe.data.target_language) == ("en", "de")
    sets = {name: sources(getattr(recipe.data, name)) for name in ("train", "valid", "test")}
    assert sum(map(len, sets.values())) == count
    assert len(set().union(*sets.values())) == sum(map(len, map(set, sets.values())))
    assert said[0] == f"training text: {count} of {count} pairs"
    assert f"divided by source sentence: train {len(sets['train']):,}, " in "\n".join(said)
    # What is trained is the text, in the vocabulary that the recipe asks for.
    assert 8 <= recipe.data.vocabulary.size < 4000


def test_what_became_of_the_text_is_said_as_everywhere(tmp_path):
    write_pairs(tmp_path, 40)
    with (tmp_path / "train.en").open("a", encoding="utf-8") as english:
        english.write(f"\n{'x' * 2001}\nOK\na\u200bb\n")
    with (tmp_path / "train.de").open("a", encoding="utf-8") as german:
        german.write(f"leer\n{'y' * 2001}\n{'z' * 200}\nab\n")
    (tmp_path / "test.tsv").write_text("something\tetwas\n\tleer\n", encoding="utf-8")
    said = made(request(tmp_path, test=CorpusSource(path=str(tmp_path / "test.tsv"))))
    assert said[:2] == [
        "training text: 41 of 44 pairs (dropped: 1 with an empty side, 1 over limits.max_characters, "
        "1 over limits.max_length_ratio)",
        "  with characters that show nothing, which are left out: 1",
    ]
    test = (
        "test set: 1 of 2 pairs (dropped: 1 with an empty side); 0 with a source that is in the training text"
    )
    assert test in said


def test_the_recipe_explains_itself(tmp_path):
    write_pairs(tmp_path, 60)
    made(request(tmp_path))
    text = (tmp_path / "my-project" / "recipe.yaml").read_text(encoding="utf-8")
    assert text.count("#") > 30
    expected = [float(line.split()[1]) for line in text.splitlines() if line.startswith("#    ")]
    assert sum(expected[:-1]) == pytest.approx(expected[-1], abs=0.1 * len(expected))
    assert expected[-1] <= 30
    # Both trainings as the scale's figures were found.
    assert text.count("  optimizer: muon\n  peak_rate: 0.004\n") == 2


def test_sets_that_are_given_stay_where_they_are_and_their_sources_leave_the_training(tmp_path):
    write_pairs(tmp_path, 100)
    lines = (tmp_path / "train.en").read_text(encoding="utf-8").splitlines()
    elsewhere = tmp_path / "sets of others"
    elsewhere.mkdir()
    rows = [f"{lines[7].upper()}\tneu", f"{lines[9]}\tneu", "something new\tetwas Neues"]
    (elsewhere / "test.tsv").write_text("\n".join(rows), encoding="utf-8")
    said = made(request(tmp_path, test=CorpusSource(path=str(elsewhere / "test.tsv"))))
    assert "test set: 3 of 3 pairs; 2 with a source that is in the training text" in said
    recipe = load_recipe(tmp_path / "my-project" / "recipe.yaml").recipe
    assert recipe.data.test.path == str(elsewhere / "test.tsv")
    plain = yaml.safe_load((tmp_path / "my-project" / "recipe.yaml").read_text(encoding="utf-8"))
    assert plain["data"]["test"]["path"] == "../sets of others/test.tsv"
    train, valid = sources(recipe.data.train), sources(recipe.data.valid)
    assert not {lines[7].casefold(), lines[9].casefold()} & {*train, *valid}
    assert len(train) + len(valid) == 98


def test_columns_that_are_not_used_are_said_once_a_file(tmp_path):
    write_pairs(tmp_path, 60)
    sides = [(tmp_path / f"train.{side}").read_text(encoding="utf-8").splitlines() for side in ("en", "de")]
    rows = [{"source": source, "target": target, "id": 1} for source, target in zip(*sides, strict=True)]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    (tmp_path / "test.tsv").write_text("something new\tetwas Neues\tpage\t0.5\n", encoding="utf-8")
    given = {name: CorpusSource(path=str(tmp_path / name)) for name in ("train.jsonl", "test.tsv")}
    said = made(request(tmp_path, train=given["train.jsonl"], test=given["test.tsv"]))
    assert [line for line in said if "not used" in line] == [
        "  not used: id", "  not used: column 3 (from 0)"
    ]  # fmt: skip
    assert said[said.index("  not used: id") - 1] == "training text: 60 of 60 pairs"


def test_with_both_sets_given_and_apart_nothing_is_copied(tmp_path):
    write_pairs(tmp_path, 100)
    for name in ("valid", "test"):
        (tmp_path / f"{name}.tsv").write_text(f"{name} one\t1\n{name} two\t2\n", encoding="utf-8")
    given = {name: CorpusSource(path=str(tmp_path / f"{name}.tsv")) for name in ("valid", "test")}
    made(request(tmp_path, **given))
    folder = tmp_path / "my-project"
    assert sorted(os.listdir(folder)) == ["dense.yaml", "recipe.yaml", "space.yaml"]
    assert load_recipe(folder / "recipe.yaml").recipe.data.train.source_path == str(tmp_path / "train.en")


def test_a_project_can_be_made_with_paths_relative_to_where_one_is(tmp_path, monkeypatch):
    write_pairs(tmp_path, 30)
    (tmp_path / "test.tsv").write_text("a b\tc d\n", encoding="utf-8")
    (tmp_path / "projects").mkdir()
    monkeypatch.chdir(tmp_path)
    asked = request(
        tmp_path,
        folder=Path("projects") / "My first one!",
        train=CorpusSource(source_path="train.en", target_path="train.de"),
        test=CorpusSource(path="test.tsv"),
    )
    made(asked)
    recipe = load_recipe(Path("projects") / "My first one!" / "recipe.yaml").recipe
    assert recipe.data.test.path == str(tmp_path / "test.tsv")
    assert recipe.name == "My-first-one"


def test_documents_stay_whole(tmp_path):
    rows = [f"sentence {s} of {d}\tSatz {s} aus {d}\tpage {d}" for d in range(60) for s in range(10)]
    (tmp_path / "all.tsv").write_text("\n".join(rows), encoding="utf-8")
    said = made(request(tmp_path, train=CorpusSource(path=str(tmp_path / "all.tsv"))))
    assert "  documents: 60" in said
    data = load_recipe(tmp_path / "my-project" / "recipe.yaml").recipe.data
    documents = [
        {pair.document for pair in load_pairs(getattr(data, name))[0]} for name in ("train", "valid", "test")
    ]
    assert sum(map(len, documents)) == len(set().union(*documents)) == 60


def test_whatever_a_document_is_called_the_text_stays_the_same(tmp_path):
    names = ["a\tb", "line\nbreak", "half \ud800", "", "\ufeff", "x\x00y"]
    rows = [
        {"source": f"sentence {i}\t of {i}", "target": f"Satz {i} \u2028 ja", "document": names[i % 6]}
        for i in range(60)
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    whole = CorpusSource(path=str(tmp_path / "all.jsonl"))
    made(request(tmp_path, train=whole))
    data = load_recipe(tmp_path / "my-project" / "recipe.yaml").recipe.data
    found = [pair for name in ("train", "valid", "test") for pair in load_pairs(getattr(data, name))[0]]
    expected = [(pair.source, pair.target) for pair in load_pairs(whole)[0]]
    assert sorted((pair.source, pair.target) for pair in found) == sorted(expected)


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_nothing_is_overwritten(tmp_path, kind):
    write_pairs(tmp_path, 20)
    there = tmp_path / "my-project"
    if kind == "folder":
        there.mkdir()
    elif kind == "file":
        there.write_text("mine")
    else:
        there.symlink_to(tmp_path / "nowhere")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError, match="exists already"):
        made(request(tmp_path))
    assert sorted(os.listdir(tmp_path)) == before
    assert kind != "file" or there.read_text() == "mine"


@pytest.mark.parametrize("name", [300 * "x", 250 * "x"], ids=["the folder", "its parts"])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_read(tmp_path, name):
    with pytest.raises(InputError, match="cannot be made"):
        made(request(tmp_path, folder=tmp_path / name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("my text", "my-text"), ("мой текст", "мой-текст"), (60 * "語", 50 * "語"), ("§§§", "project")],
)
def test_the_run_is_called_after_the_folder(tmp_path, folder, expected):
    write_pairs(tmp_path, 60)
    made(request(tmp_path, folder=tmp_path / folder))
    assert load_recipe(tmp_path / folder / "recipe.yaml").recipe.name == expected


def test_what_fails_late_leaves_nothing(tmp_path, monkeypatch):
    write_pairs(tmp_path, 20)

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("automoe.run.new_project.save_architecture", full)
    with pytest.raises(InputError, match="No space left"):
        made(request(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["train.de", "train.en"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"wish": Wish({"flops": "50%"}, 1e-3)}, "--hours 0.001: the shortest run on this machine takes"),
        ({"train": CorpusSource(path="nowhere.tsv")}, "nowhere.tsv"),
        ({"test": CorpusSource(path="nowhere.tsv")}, "nowhere.tsv"),
        ({"folder": Path("no/such/parent/project")}, "there is no folder no/such/parent"),
    ],
)
def test_what_cannot_be_had_is_one_message_and_leaves_nothing(tmp_path, values, expected):
    write_pairs(tmp_path, 20)
    with pytest.raises(InputError) as caught:
        made(request(tmp_path, **values))
    assert expected in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["train.de", "train.en"]


def test_a_budget_that_nothing_keeps_is_told_with_what_the_smallest_costs(tmp_path):
    write_pairs(tmp_path, 20)

    def strict(scale, train, valid, protocol, batch_tokens, wish):
        from automoe.cost.costs import Conditions

        largest_within_budget(scale, Conditions(protocol), wish)
        raise AssertionError

    asked = request(tmp_path, wish=Wish({"flops": 1000.0}, 1))
    with pytest.raises(InputError, match=r"flops: \S+ FLOPs for the smallest, 1000 allowed"):
        make_project(asked, print, strict)


def test_long_sentences_are_kept_or_refused(tmp_path):
    write_pairs(tmp_path, 40)
    for side in ("en", "de"):
        path = tmp_path / f"train.{side}"
        path.write_text("".join(f"{i} {'xyz ' * 400}\n" for i in range(40)), encoding="utf-8")
    with pytest.raises(InputError, match="too long"):
        made(request(tmp_path))


def test_the_engine_of_the_recipe_is_the_one_asked_for(tmp_path):
    write_pairs(tmp_path, 20)
    protocol = MeasuringProtocol(backend="onnx", precision="int8", threads=3)
    asked = dataclasses.replace(request(tmp_path), protocol=protocol)
    made(asked)
    latency = load_recipe(tmp_path / "my-project" / "recipe.yaml").recipe.latency
    assert (latency.backend, latency.precision, latency.threads) == ("onnx", "int8", 3)
