"""Checked dataclasses: every wrong field is one problem, with its place, however deep it is."""

from dataclasses import FrozenInstanceError, dataclass, field, replace
from datetime import date
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from automoe.errors import InputError, checked, problems_of, validate_plain

AtLeastOne = Annotated[int, Field(ge=1)]


@checked("this wheel is impossible")
@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel.

    Args:
        inches: its size.
    """

    inches: Annotated[float, Field(gt=0)]
    spokes: AtLeastOne = 8
    broken_spokes: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.broken_spokes > self.spokes:
            raise InputError("this wheel is impossible", [f"broken_spokes: at most {self.spokes}"])


@checked("this cart is impossible")
@dataclass(frozen=True, kw_only=True)
class Cart:
    wheels: Annotated[tuple[Wheel, ...], Field(min_length=2)]
    colour: Literal["red", "blue"] = "red"
    name: str = ""
    braked: bool = False
    loads: dict[str, AtLeastOne] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = [
            f"wheels[{index}].inches: larger than the first"
            for index, wheel in enumerate(self.wheels)
            if wheel.inches > self.wheels[0].inches
        ]
        if problems:
            raise InputError("this cart is impossible", problems)


@checked("this train is impossible")
@dataclass(frozen=True)
class Train:
    carts: tuple[Cart, ...]
    length: AtLeastOne = 1


def problems_with(make) -> list[str]:
    with pytest.raises(InputError) as caught:
        make()
    return list(caught.value.problems)


def test_an_error_reads_as_a_list() -> None:
    assert str(InputError("bad", ["a: one", "b: two"])) == "bad\n  - a: one\n  - b: two"
    assert str(InputError("bad")) == "bad"
    assert isinstance(InputError("bad"), ValueError)


def test_a_checked_class_is_still_the_dataclass() -> None:
    wheel = Wheel(20, broken_spokes=2)
    assert wheel == Wheel(inches=20.0, spokes=8, broken_spokes=2)
    assert {wheel: 1}[Wheel(20, 8, 2)] == 1
    assert replace(wheel, spokes=4).spokes == 4
    assert Wheel.__doc__ is not None
    assert "One wheel." in Wheel.__doc__
    with pytest.raises(FrozenInstanceError):
        wheel.spokes = 3


def test_every_wrong_value_of_a_construction_is_listed_by_the_name_of_its_field() -> None:
    with pytest.raises(InputError) as caught:
        Wheel(0, True, "few")
    assert caught.value.summary == "this wheel is impossible"
    assert list(caught.value.problems) == [
        "inches: expected more than 0, got 0",
        "spokes: expected a whole number, got True",
        "broken_spokes: expected a whole number, got 'few'",
    ]


def test_missing_and_unknown_fields_are_listed() -> None:
    assert problems_with(lambda: Wheel(spoke=3)) == [
        "inches: missing",
        "spoke: unknown key (known: inches, spokes, broken_spokes)",
    ]
    with pytest.raises(TypeError, match="Wheel takes 3 values without their names, got 4"):
        Wheel(1, 2, 3, 4)


def test_only_fields_that_a_dataclass_takes_by_place_have_one() -> None:
    @checked("mixed")
    @dataclass(frozen=True)
    class Mixed:
        first: int
        named: int = field(default=2, kw_only=True)
        second: int = 3

    assert Mixed(1, 5) == Mixed(first=1, second=5)
    with pytest.raises(TypeError, match="Mixed takes 2 values without their names, got 3"):
        Mixed(1, 5, 7)
    with pytest.raises(TypeError, match="Cart takes 0 values without their names, got 1"):
        Cart((Wheel(20), Wheel(20)))


def test_rules_across_fields_follow_when_each_field_is_right() -> None:
    assert problems_with(lambda: Wheel(20, 3, 4)) == ["broken_spokes: at most 3"]
    assert problems_with(lambda: replace(Wheel(20), spokes=0, broken_spokes=4)) == [
        "spokes: expected at least 1, got 0"
    ]


PLAIN = {"carts": [{"wheels": [{"inches": 20}, {"inches": 18.5, "spokes": 6}], "colour": "blue"}]}


def test_plain_values_become_the_whole() -> None:
    expected = Train((Cart(wheels=(Wheel(20), Wheel(18.5, 6)), colour="blue"),))
    assert validate_plain(Train, PLAIN, "no train") == expected


def test_every_problem_of_plain_values_has_its_place() -> None:
    plain = {
        "carts": [
            {"wheels": [{"inches": "wide", "spokes": 2.5}, {"inches": 3, "tyre": 1}, 7]},
            {"wheels": [], "colour": "green", "name": 3, "braked": "yes", "loads": {"coal": 0}},
            {"wheels": 4, "loads": [1]},
        ],
        "engine": "steam",
    }
    with pytest.raises(InputError) as caught:
        validate_plain(Train, plain, "no train")
    assert caught.value.summary == "no train"
    assert sorted(caught.value.problems) == sorted(
        [
            "carts[0].wheels[0].inches: expected a number, got 'wide'",
            "carts[0].wheels[0].spokes: expected a whole number, got 2.5",
            "carts[0].wheels[1].tyre: unknown key (known: inches, spokes, broken_spokes)",
            "carts[0].wheels[2]: expected keys and values, got 7",
            "carts[1].wheels: expected at least 2 entries",
            "carts[1].colour: expected 'red' or 'blue', got 'green'",
            "carts[1].name: expected text, got 3",
            "carts[1].braked: expected true or false, got 'yes'",
            "carts[1].loads.coal: expected at least 1, got 0",
            "carts[2].wheels: expected a list, got 4",
            "carts[2].loads: expected keys and values, got [1]",
            "engine: unknown key (known: carts, length)",
        ]
    )


def test_a_list_whose_entries_are_wrong_is_not_called_too_short_as_well() -> None:
    plain = {"wheels": [{"inches": 0}, {"inches": 0}]}
    assert problems_with(lambda: validate_plain(Cart, plain, "no cart")) == [
        "wheels[0].inches: expected more than 0, got 0",
        "wheels[1].inches: expected more than 0, got 0",
    ]


def test_broken_rules_of_sections_are_problems_of_the_whole_and_have_their_places() -> None:
    growing = {"wheels": [{"inches": 1}, {"inches": 2}, {"inches": 3}]}
    plain = {
        "carts": [growing, {"wheels": [{"inches": 1, "spokes": 1, "broken_spokes": 5}]}],
        "length": 0,
    }
    assert problems_with(lambda: validate_plain(Train, plain, "no train")) == [
        "carts[0].wheels[1].inches: larger than the first",
        "carts[0].wheels[2].inches: larger than the first",
        "carts[1].wheels[0].broken_spokes: at most 1",
        "length: expected at least 1, got 0",
    ]


def test_an_error_without_a_list_is_one_problem() -> None:
    @checked("never")
    @dataclass(frozen=True)
    class Refusing:
        size: int = 0

        def __post_init__(self) -> None:
            raise InputError("not today")

    @checked("outer")
    @dataclass(frozen=True)
    class Outer:
        inner: Refusing

    assert problems_with(lambda: validate_plain(Outer, {"inner": {}}, "no")) == ["inner: not today"]


def test_models_of_pydantic_speak_the_same_words() -> None:
    class Shed(BaseModel):
        cart: Cart
        height: float

    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Shed).validate_json('{"cart": {"wheels": [1, 2]}, "height": "low"}')
    assert problems_of(caught.value, Shed)[:2] == [
        "cart.wheels[0]: expected keys and values, got 1",
        "cart.wheels[1]: expected keys and values, got 2",
    ]
    assert problems_with(lambda: validate_plain(Shed, {"height": 1}, "no shed")) == ["cart: missing"]


@pytest.mark.parametrize("plain", [None, [], "text", 3])
def test_what_is_no_mapping_at_all(plain: object) -> None:
    assert problems_with(lambda: validate_plain(Cart, plain, "no")) == [
        f"expected keys and values, got {plain!r}"
    ]


def test_known_keys_are_those_of_the_place() -> None:
    @checked("yard")
    @dataclass(frozen=True)
    class Yard:
        carts: dict[str, tuple[Cart, ...] | None]
        wheel: Wheel | None = None

    plain = {"carts": {"old": [{"wheels": [{"a": 1}, {}], "b": 2}]}, "wheel": {"inches": 1, "c": 3}, "d": 4}
    wheel = "inches, spokes, broken_spokes"
    found = problems_with(lambda: validate_plain(Yard, plain, "no yard"))
    assert [problem for problem in found if "unknown" in problem] == [
        f"carts.old[0].wheels[0].a: unknown key (known: {wheel})",
        "carts.old[0].b: unknown key (known: wheels, colour, name, braked, loads)",
        f"wheel.c: unknown key (known: {wheel})",
        "d: unknown key (known: carts, wheel)",
    ]


def test_what_json_cannot_say_has_its_place() -> None:
    itself: list[object] = [1]
    itself.append(itself)
    plain = {
        "carts": [{"name": date(2024, 1, 2)}, {"wheels": itself, date(2024, 1, 3): 1}],
        "length": {1, 2},
        "engine": b"steam",
    }
    assert problems_with(lambda: validate_plain(Train, plain, "no train")) == [
        "carts[0].name: got the date 2024-01-02; if it is text, write it in quotes",
        "carts[1].wheels[1]: contains itself",
        "carts[1]: expected text as a key, got 2024-01-03 (date)",
        "length: expected text or a number, got {1, 2}",
        "engine: expected text or a number, got b'steam'",
    ]
    assert problems_with(lambda: validate_plain(Train, {"length": 1 << 20_000}, "no train"))
    same = [{"inches": 3}]
    assert validate_plain(Cart, {"wheels": same * 2}, "no cart") == Cart(wheels=(Wheel(3), Wheel(3)))
