"""A device profile: prediction from known parts, interpolation, refusals, the file and its differences."""

import json
import random
import re
from dataclasses import replace

import pytest

from automoe.cost.device.parts import Inventory, Term
from automoe.cost.device.profile import DeviceProfile, PartEntry, ProfileQuality, load_profile
from automoe.cost.machine import Machine
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.errors import InputError

MACHINE = Machine("Abacus 3", {"automoe": "1", "torch": "2"})
QUALITY = ProfileQuality(
    probes=3,
    turns=10,
    seconds=1.0,
    noisy=0,
    spread_percent=1.0,
    fit_error_percent=1.0,
    whole_models=1,
    whole_error_percent=1.0,
    reference="",
    reference_encoder_ms=1.0,
    reference_decoder_ms=1.0,
)
HEADS, COUNTS, SIZES, ATTENDED = (2, 4), (1, 2, 4), (8, 16), (1, 2)
_BOTH = {
    "widths": [8, 16],
    "layer_counts": [2],
    "self_attention_heads": list(HEADS),
    "ffn_sizes": [0, *SIZES],
}
SPACE = {"qkv_dim": 8, "encoder": _BOTH, "decoder": {**_BOTH, "cross_attention_heads": list(HEADS)}}


def law(term: Term) -> float:
    """A time for every part: any positive numbers that are linear in the FFN size and, from 2, in experts."""
    if term.part == "experts":
        return term.width / 8 * (0.5 * term.ffn_size + (term.experts if term.experts > 1 else 0)) * term.top_k
    return 1 + term.width / 8 + term.heads / 3 + term.layers_attended + len(term.part) / 7


def terms() -> list[Term]:
    found = []
    for stack in ("encoder", "decoder"):
        for width in (8, 16):
            found.append(Term(stack, "overhead", width))
            found += [Term(stack, "self_attention", width, heads) for heads in HEADS]
            found += [Term(stack, "keys_values", width, layers_attended=n) for n in ATTENDED]
            for count in COUNTS:
                for top_k in {1, min(2, count)}:
                    for size in SIZES if count == 1 else (0, *SIZES):
                        found.append(Term(stack, "experts", width, experts=count, top_k=top_k, ffn_size=size))
    for width in (8, 16):
        found.append(Term("decoder", "output", width))
        found += [Term("decoder", "cross_attention", width, h, n) for h in HEADS for n in ATTENDED]
    return found


def profile() -> DeviceProfile:
    return DeviceProfile(
        date="2023-07-09",
        machine=MACHINE,
        protocol=MeasuringProtocol(),
        quality=QUALITY,
        space=SPACE,
        qkv_dim=8,
        entries=tuple(PartEntry.of(term, law(term)) for term in terms()),
    )


def architecture() -> Architecture:
    return Architecture(
        encoder_width=8,
        decoder_width=16,
        qkv_dim=8,
        encoder=(EncoderLayer(2, (8, 16, 16, 0)), EncoderLayer(4, (16,))),
        decoder=(
            DecoderLayer(2, 4, (16, 8), top_k=2, encoder_layers_attended=2),
            DecoderLayer(4, 4, (0,), encoder_layers_attended=1),
        ),
    )


def test_a_prediction_is_the_sum_of_its_parts_and_a_mixture_the_mean_of_uniform_ones():
    def experts(stack, width, count, size, top_k=1):
        return law(Term(stack, "experts", width, experts=count, top_k=top_k, ffn_size=size))

    def keys_values(stack):
        return sum(law(Term(stack, "keys_values", 8, layers_attended=n)) for n in (1, 2))

    encoder_ms = (
        law(Term("encoder", "overhead", 8))
        + law(Term("encoder", "self_attention", 8, 2))
        + law(Term("encoder", "self_attention", 8, 4))
        + (experts("encoder", 8, 4, 8) + 2 * experts("encoder", 8, 4, 16) + experts("encoder", 8, 4, 0)) / 4
        + experts("encoder", 8, 1, 16)
        + keys_values("encoder")
    )
    decoder_ms = (
        law(Term("decoder", "overhead", 16))
        + law(Term("decoder", "output", 16))
        + law(Term("decoder", "self_attention", 16, 2))
        + law(Term("decoder", "self_attention", 16, 4))
        + law(Term("decoder", "cross_attention", 16, 4, 2))
        + law(Term("decoder", "cross_attention", 16, 4, 1))
        + (experts("decoder", 16, 2, 16, 2) + experts("decoder", 16, 2, 8, 2)) / 2
        + keys_values("decoder")
    )
    predicted = profile().predict(architecture())
    assert predicted.encoder_ms == pytest.approx(encoder_ms)
    assert predicted.decoder_ms == pytest.approx(decoder_ms)
    assert predicted.latency_ms == pytest.approx(encoder_ms + decoder_ms)


def test_the_parts_say_where_the_time_goes():
    predicted = profile().predict(architecture())
    places = {(part.stack, part.layer, part.kind): part.ms for part in predicted.parts}
    assert len(places) == len(predicted.parts)
    assert sum(places.values()) == pytest.approx(predicted.latency_ms)
    assert places["decoder", None, "output"] == pytest.approx(law(Term("decoder", "output", 16)))
    assert ("decoder", 1, "experts") not in places  # one identity expert takes no time
    assert {layer for stack, layer, _ in places if stack == "encoder"} == {None, 0, 1}


def test_ffn_sizes_and_numbers_of_experts_between_measured_ones_are_interpolated():
    inside = replace(architecture(), encoder=(EncoderLayer(2, (10, 14, 10)), EncoderLayer(2, (12,))))
    on_the_law = sum(
        law(Term("encoder", "experts", 8, experts=3, top_k=1, ffn_size=s)) / 3 for s in (10, 14, 10)
    )
    parts = {(p.layer, p.kind): p.ms for p in profile().predict(inside).parts if p.stack == "encoder"}
    assert parts[0, "experts"] == pytest.approx(on_the_law)
    assert parts[1, "experts"] == pytest.approx(
        law(Term("encoder", "experts", 8, experts=1, top_k=1, ffn_size=12))
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"encoder_width": 12}, "encoder_width: width 12"),
        ({"decoder_width": 32}, "decoder_width: width 32"),
        ({"qkv_dim": 16}, "qkv_dim: 16"),
        ({"encoder": (EncoderLayer(8, (8,)),) * 2}, r"encoder\[0\]: self-attention of 8 heads"),
        ({"encoder": (EncoderLayer(2, (24,)),) * 2}, r"encoder\[0\].experts: FFN size 24"),
        ({"encoder": (EncoderLayer(2, (4,)),) * 2}, "FFN size 4"),  # between the identity and the least
        ({"encoder": (EncoderLayer(2, (4, 8)),) * 2}, "FFN size 4"),
        ({"encoder": (EncoderLayer(2, (8,) * 5),) * 2}, "5 experts"),
        ({"encoder": (EncoderLayer(2, (8,) * 4, 3),) * 2}, "top_k 3"),
        ({"decoder": (DecoderLayer(2, 8, (8,)),)}, "cross-attention of 8 heads over 1"),
    ],
)
def test_an_architecture_outside_is_refused_with_a_reason(change, named):
    with pytest.raises(InputError, match=named):
        profile().predict(replace(architecture(), **change))


def test_every_part_that_is_missing_is_listed():
    outside = replace(
        architecture(), encoder=(EncoderLayer(8, (24,)), EncoderLayer(2, (8,) * 9)), decoder_width=32
    )
    with pytest.raises(InputError) as caught:
        profile().predict(outside)
    text = str(caught.value)
    for expected in ("8 heads", "FFN size 24", "9 experts", "decoder_width: width 32"):
        assert expected in text


def test_a_profile_survives_the_disk_with_the_same_predictions(tmp_path):
    path = tmp_path / "device.json"
    made = profile()
    made.save(path)
    read = load_profile(path)
    assert read == made
    assert read.predict(architecture()) == made.predict(architecture())
    assert [file.name for file in tmp_path.iterdir()] == ["device.json"]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text.replace('"ms":', '"seconds":', 1), "entries.0"),
        (lambda text: text.replace("device profile 1", "device profile 7"), "format"),
        (lambda text: "[]", "damaged"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, damage, named):
    path = tmp_path / "device.json"
    profile().save(path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=named):
        load_profile(path)


def test_a_negative_time_or_a_part_twice_is_damage(tmp_path):
    path = tmp_path / "device.json"
    profile().save(path)
    plain = json.loads(path.read_text())
    path.write_text(json.dumps(plain | {"entries": [plain["entries"][0] | {"ms": -1.0}]}))
    with pytest.raises(InputError, match=r"entries\[0\]\.ms"):
        load_profile(path)
    path.write_text(json.dumps(plain | {"entries": [plain["entries"][0]] * 2}))
    with pytest.raises(InputError, match="two times"):
        load_profile(path)


@pytest.mark.parametrize(
    ("place", "known"),
    [
        ("", "machine"),
        ("machine", "versions"),
        ("protocol", "beam_size"),
        ("quality", "spread_percent"),
        ("entries[1]", "ffn_size"),
        ("space", "qkv_dim"),
        ("space.decoder", "cross_attention_heads"),
    ],
)
def test_a_key_that_is_not_understood_is_named_with_the_known_ones(tmp_path, place, known):
    path = tmp_path / "device.json"
    profile().save(path)
    plain = inner = json.loads(path.read_text())
    for part in re.findall(r"[a-z]+|\d", place):
        inner = inner[int(part) if part.isdigit() else part]
    inner["governor"] = "performance"
    path.write_text(json.dumps(plain))
    with pytest.raises(InputError, match=re.escape(str(path))) as caught:
        load_profile(path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{place}.governor: unknown key (known: ".removeprefix("."))
    assert known in problem


def test_a_missing_file_and_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_profile(tmp_path / "device.json")
    with pytest.raises(InputError, match="cannot be written"):
        profile().save(tmp_path / "nowhere" / "device.json")


def test_another_protocol_is_an_error_that_names_every_difference():
    wanted = MeasuringProtocol(backend="onnx", precision="int8", threads=4, beam_size=1, vocabulary_size=99)
    with pytest.raises(InputError) as caught:
        profile().problems_with(wanted, MACHINE)
    text = str(caught.value)
    for expected in ("backend: measured for torch, wanted for onnx", "int8", "threads", "beam_size", "99"):
        assert expected in text
    assert "source_length" not in text


def test_a_profile_of_the_whole_vocabulary_is_none_of_a_shortlist(tmp_path):
    profile().save(tmp_path / "device.json")
    with pytest.raises(InputError) as caught:
        load_profile(tmp_path / "device.json").problems_with(MeasuringProtocol(shortlist=500), MACHINE)
    assert "shortlist: measured for 0, wanted for 500" in caught.value.problems


def test_another_machine_or_version_is_a_warning_that_names_it():
    assert profile().problems_with(MeasuringProtocol(), MACHINE) == ()
    other = Machine("Analytical Engine", {"automoe": "1", "torch": "3"})
    warnings = profile().problems_with(MeasuringProtocol(), other)
    assert len(warnings) == 2
    assert "Abacus 3, not Analytical Engine" in warnings[0]
    assert "torch 2, not 3" in warnings[1]


def test_weights_of_a_layer_sum_to_one_whatever_the_sizes():
    inventory = Inventory(terms())
    rng = random.Random(1)
    for _ in range(50):
        count = rng.randint(2, 4)
        sizes = tuple(rng.choice([0, rng.randint(8, 16)]) for _ in range(count))
        a = replace(architecture(), encoder=(EncoderLayer(2, sizes), EncoderLayer(2, (0,))))
        uses = [u for u in inventory.uses(a) if u.term.part == "experts" and u.term.stack == "encoder"]
        assert sum(use.weight for use in uses) == pytest.approx(1)
        assert sum(use.weight * use.term.ffn_size for use in uses) == pytest.approx(sum(sizes) / count)
