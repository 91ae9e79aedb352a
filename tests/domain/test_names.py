"""What groups, projects and people may be called."""

import pytest
from flask import Flask

from portal.domain.names import (
    RESERVED_AT_THE_TOP,
    RESERVED_BELOW,
    name_problems,
    path_from,
    path_problems,
    username_problems,
)


@pytest.mark.parametrize("path", ["acme", "Acme", "a", "_a", "0", "a.b", "a-b_c.d", "x" * 255, "a--b", "runners"])
def test_a_path_of_letters_digits_and_a_few_signs_is_fine(path: str) -> None:
    assert path_problems(path, at_the_top=True) == []
    assert path_problems(path, at_the_top=False) == []


@pytest.mark.parametrize(
    "path",
    [
        "-a",
        ".a",
        "a b",
        "a/b",
        "ä",
        "a\n",
        "a\0",
        "x" * 256,
        "a.",
        "a.git",
        "a.atom",
        "a%",
        "a?",
        "..",
        "<b>",
        "a\\b",
    ],
)
def test_a_path_that_could_be_misread_is_refused(path: str) -> None:
    assert path_problems(path, at_the_top=True)
    assert path_problems(path, at_the_top=False)


def test_an_empty_path_and_an_empty_name_ask_for_one() -> None:
    assert path_problems("", at_the_top=True) == ["Choose a path."]
    assert name_problems("") == ["Choose a name."]


@pytest.mark.parametrize("word", ["admin", "API", "groups", "static", "-", "healthz", "v2"])
def test_words_of_the_portal_are_reserved_at_the_top_only(word: str) -> None:
    assert any("reserved" in sentence for sentence in path_problems(word, at_the_top=True))
    if word != "-":
        assert path_problems(word, at_the_top=False) == []


@pytest.mark.parametrize("word", ["-", "new", "EDIT", "tree", "blob", "create_dir"])
def test_words_of_pages_below_are_reserved_below(word: str) -> None:
    assert any("reserved" in sentence for sentence in path_problems(word, at_the_top=False))


def test_every_first_word_of_an_address_of_the_portal_is_reserved_at_the_top(app: Flask) -> None:
    first = {rule.rule.split("/")[1] for rule in app.url_map.iter_rules()}
    assert {word for word in first if word and "<" not in word} <= RESERVED_AT_THE_TOP


def test_reserved_words_are_kept_as_they_are_compared() -> None:
    assert all(word == word.lower() for word in RESERVED_AT_THE_TOP | RESERVED_BELOW)


@pytest.mark.parametrize(
    "name",
    ["Acme", "Åcme & Co"[:4], "Zażółć gęślą", "日本語", "\N{ROCKET} Team", "a.b-c+d (e)", "_x", "x" * 255, "7"],
)
def test_a_name_may_be_in_any_script(name: str) -> None:
    assert name_problems(name) == []


@pytest.mark.parametrize("name", [" a", "-a", "<b>", "a/b", "a\0b", "a\nb", "x" * 256, "a&b", 'a"b', "a\u202eb"])
def test_a_name_with_signs_of_markup_or_control_is_refused(name: str) -> None:
    assert name_problems(name)


def test_a_user_name_is_refused_in_its_own_words() -> None:
    assert username_problems("admin") == ["'admin' is reserved. Choose another user name."]
    assert username_problems("") == ["Choose a user name."]
    assert username_problems("alice@acme")
    assert username_problems("alice.lam") == []


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("Platform Team", "platform-team"),
        ("  C++ & Go!  ", "c-go"),
        ("Zażółć", "za"),
        ("v1.2.", "v1.2"),
        ("日本", ""),
    ],
)
def test_a_path_is_proposed_for_a_name(name: str, path: str) -> None:
    assert path_from(name) == path
    assert not path or path_problems(path, at_the_top=True) == []
