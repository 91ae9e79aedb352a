"""How parameters are read: strictly, in GitLab's words, and never with a failure of ours, whatever is sent."""

from contextlib import suppress
from datetime import date
from typing import Any, Literal

import jsonschema
import pytest
from flask import Response
from hypothesis import given
from hypothesis import strategies as some
from pydantic import model_validator

from portal import create_app
from portal.api.for_users import parameters
from portal.api.for_users.paging import Paged
from portal.api.for_users.parameters import (
    LARGEST,
    Day,
    Flag,
    Id,
    Number,
    OptionalFlag,
    OptionalId,
    OptionalNumber,
    OptionalText,
    Parameters,
    Text,
    Words,
    at_least_one_of,
    only_one_of,
)
from portal.api.for_users.scope_parameters import Ids, OptionalAccessLevel
from portal.domain.errors import BadRequest, NotFound, ParametersWrong
from tests.databases import settings

APP = create_app(settings("postgresql://nobody@localhost/nothing"))  # for its requests only; never asked


class Everything(Parameters):
    """One of each kind."""

    text: Text = ""
    optional_text: OptionalText = None
    number: Number = 0
    thing: Id = 1
    optional_thing: OptionalId = None
    optional_number: OptionalNumber = None
    flag: Flag = False
    optional_flag: OptionalFlag = None
    words: Words = ()
    day: Day = date(2030, 1, 1)
    level: Literal["low", "high"] = "low"


class Needed(Parameters):
    """What must be there."""

    runner_type: Literal["group_type", "project_type"]
    name: Text


class Pausing(Parameters):
    """Either, or the other, and one of both."""

    active: Flag = True
    paused: Flag = False

    @model_validator(mode="after")
    def _one(self) -> "Pausing":
        only_one_of(self, "active", "paused")
        at_least_one_of(self, "active", "paused")
        return self


def read(declared: type[Parameters], places: dict[str, Any] | None = None, **request: Any) -> Any:
    with APP.test_request_context("/api/v4/user", **{"method": "POST", **request}):
        return parameters.read(declared, places or {})


def said(declared: type[Parameters], **request: Any) -> str:
    with pytest.raises(BadRequest) as refused:
        read(declared, **request)
    return str(refused.value)


def test_what_is_missing_or_no_choice_is_said_in_gitlabs_words() -> None:
    assert said(Needed, json={}) == "runner_type is missing, name is missing"
    wrong = said(Needed, json={"runner_type": "any", "name": 5})
    assert wrong == "runner_type does not have a valid value: group_type or project_type, name is invalid: a text"


def test_what_excludes_each_other_is_said_in_gitlabs_words() -> None:
    assert said(Pausing, json={"active": True, "paused": True}) == "active, paused are mutually exclusive"
    assert said(Pausing, json={}).endswith("are missing, at least one parameter must be provided")
    assert read(Pausing, json={"paused": True}).paused


WRONG: list[tuple[str, Any]] = [
    *(("text", value) for value in (5, True, ["a"], {"a": 1}, None, "a\0b")),
    *(("number", value) for value in ("", "1.0", "1_0", "+1", " 1", "٣", 1.5, True, None, [1], {}, 2**63, 1e300)),
    *(("thing", value) for value in (0, -1, "0", "-1", 2**63, "9" * 30, "x")),
    *(("optional_number", value) for value in ("x", 1.5, False)),
    *(("flag", value) for value in ("", "perhaps", "tRue", 1, 0, 2, None, [], {})),
    *(("optional_flag", value) for value in ("perhaps", 1, [])),
    *(("words", value) for value in (5, {"a": "b"}, ["a", 5], [["a"]], "a\0", ["\0"], True)),
    *(
        ("day", value)
        for value in ("20300101", "2030-W01-1", "2030-13-01", "2030-1-1", "2030-01-01T00:00", "", 5, None)
    ),
    *(("level", value) for value in ("Low", "", 1, None, ["low"])),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=repr)
def test_a_value_of_the_wrong_kind_is_refused_by_its_name(name: str, value: Any) -> None:
    assert said(Everything, json={name: value}).startswith(f"{name} ")


RIGHT: list[tuple[str, Any, Any]] = [
    ("text", "ä\n", "ä\n"),
    ("optional_text", None, None),
    *(("number", value, 7) for value in (7, 7.0, "7", "007")),
    ("number", str(-LARGEST), -LARGEST),
    ("thing", str(LARGEST), LARGEST),
    *(("optional_thing", value, None) for value in (None, "")),
    *(("optional_number", value, None) for value in (None, "")),
    *(("flag", value, True) for value in (True, "true", "True", "1", "yes", "on")),
    *(("flag", value, False) for value in (False, "false", "False", "0", "no", "off")),
    *(("optional_flag", value, None) for value in (None, "")),
    *(("words", value, ("a", "b")) for value in (["a", "b"], "a,b", "a, b,,a", ["a,b"])),
    ("words", None, ()),
    ("day", "2030-02-28", date(2030, 2, 28)),
]


@pytest.mark.parametrize(("name", "value", "meant"), RIGHT, ids=repr)
def test_a_value_that_is_meant_well_is_taken(name: str, value: Any, meant: Any) -> None:
    assert getattr(read(Everything, json={name: value}), name) == meant


def test_forms_say_the_same_as_json_and_repeat_what_is_a_list() -> None:
    form = {"number": "7", "flag": "true", "words[]": ["a", "b"], "optional_thing": ""}
    sent = read(Everything, data=form)
    assert (sent.number, sent.flag, sent.words, sent.optional_thing) == (7, True, ("a", "b"), None)
    assert said(Everything, data={"text": ["a", "b"]}) == "text is invalid: a text"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"number": "many"}, "number is invalid: a whole number"),
        ({"number": 10**19}, "number does not have a valid value: a whole number of 18 digits at most"),
        ({"thing": "acme"}, "thing is invalid: a whole number"),
        ({"thing": 0}, "thing does not have a valid value: a whole number from 1 up"),
        ({"flag": "perhaps"}, "flag is invalid: true or false"),
        ({"words": [1]}, "words is invalid: a list of texts, or one text with commas"),
        ({"day": "tomorrow"}, "day is invalid: a day, such as 2030-12-31"),
        ({"maximum_timeout": "1h"}, "maximum_timeout is invalid: a whole number of seconds"),
        ({"per_page": 0}, "per_page does not have a valid value: 1 or more"),
        ({"access_level": "developer"}, "access_level is invalid: one of 10 (guest), 20 (reporter), 30 (developer)"),
        ({"user_ids": ["x"]}, "user_ids is invalid: a whole number"),
    ],
)
def test_behind_gitlabs_words_stands_what_would_do(given: dict[str, Any], expected: str) -> None:
    class More(Everything, Paged):
        """Kinds that only some rooms have."""

        maximum_timeout: OptionalNumber = None
        access_level: OptionalAccessLevel = None
        user_ids: Ids = ()

    assert said(More, json=given).startswith(expected)


def test_an_example_of_a_refusal_is_one_that_is_answered() -> None:
    assert parameters.refusal_of(Needed, ()) == "runner_type is missing"
    assert parameters.refusal_of(Needed, ("runner_type",)) == "name is missing"
    assert parameters.refusal_of(Everything, ("text",)) == "optional_text is invalid: a text"
    assert parameters.refusal_of(Parameters, ()) == ""


def unknown(declared: type[Parameters], **request: Any) -> str | None:
    """What the header of the answer names."""
    with APP.test_request_context("/", **{"method": "POST", **request}):
        with suppress(BadRequest):
            parameters.read(declared, {})
        return parameters.tell_unknown(Response()).headers.get("X-Unknown-Parameters")


def test_what_is_unknown_is_named_and_nothing_else() -> None:
    given = {"runner_type": "group_type", "name": "a"}
    assert unknown(Needed, json=given) is None
    assert unknown(Needed, json={**given, "foo": 1, "nme": "b"}) == "foo, nme"
    assert unknown(Needed, json={"nme": "b"}) == "nme"  # also beside a refusal
    assert unknown(Needed, data={**given, "info[version]": "17", "foo[]": "a"}) == "info, foo"
    assert unknown(Needed, query_string={"private_token": "x"}, json=given) == "private_token"


def test_an_odd_name_makes_no_other_header() -> None:
    odd = {"a\r\nSet-Cookie: b": 1, "x" * 5000: 1, "ä,": 1}
    assert unknown(Needed, json=odd) == f"a%0D%0ASet-Cookie%3A%20b, {'x' * 100}, %C3%A4%2C"
    named = unknown(Needed, json={f"n{number}": 1 for number in range(1000)})
    assert (named or "").count(",") == 19


def test_the_path_has_the_last_word_and_the_body_a_later_one_than_the_query() -> None:
    sent = read(
        Everything, {"thing": 3}, query_string={"thing": "4", "text": "query"}, json={"thing": 5, "text": "body"}
    )
    assert (sent.thing, sent.text) == (3, "body")


def test_a_place_at_which_nothing_can_be_is_not_found() -> None:
    for places in ({"thing": 0}, {"thing": 2**63}, {"text": "a\0"}):
        with pytest.raises(NotFound):
            read(Everything, places)


def test_a_get_has_no_body_and_a_secret_in_an_address_is_not_taken() -> None:
    assert read(Everything, method="GET", json={"text": "body"}).text == ""
    with APP.test_request_context("/?private_token=a&access_token=b&text=c"):
        assert parameters._from_query() == {"text": "c"}


def test_what_is_not_known_is_passed_over_and_what_was_given_is_known() -> None:
    sent = read(Everything, json={"some": "thing", "text": "a", "optional_flag": None})
    assert sent.given("text")
    assert sent.given("optional_flag")
    assert not sent.given("number")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"5",
        b"null",
        b'"a"',
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"text": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 5_000,
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    assert said(Everything, data=body, content_type="application/json").startswith("The body")


def test_of_two_keys_the_last_holds_and_no_type_is_as_good_as_json() -> None:
    assert read(Everything, data=b'{"text": "a", "text": "b"}').text == "b"
    assert read(Everything, data=b" ", content_type="application/json").text == ""


_SCHEMA = Everything.model_json_schema()
ANYTHING = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text()
    | some.sampled_from(["7", "-3", "true", "on", "2030-01-01", "low", "", "a,b"]),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(name=some.sampled_from(sorted(Everything.model_fields)), value=ANYTHING)
def test_what_the_schema_allows_is_what_is_taken(name: str, value: Any) -> None:
    """But for U+0000, which no schema says, and numbers too long for JSON."""
    checker = jsonschema.FormatChecker(formats=["date"])
    allowed = jsonschema.Draft202012Validator(_SCHEMA, format_checker=checker).is_valid({name: value})
    if "\\u0000" in repr(value) or "\\x00" in repr(value) or "\n" in repr(value):
        return
    try:
        Everything.model_validate({name: value})
    except ValueError:
        assert not allowed
    else:
        assert allowed


@given(
    body=some.binary(max_size=200),
    kind=some.sampled_from(["application/json", "multipart/form-data; boundary=a", ""]),
)
def test_any_bytes_are_read_or_refused(body: bytes, kind: str) -> None:
    with suppress(BadRequest, ParametersWrong):
        read(Everything, data=body, content_type=kind)
