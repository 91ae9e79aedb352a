"""People, for administrators: who has an account, new accounts, new passwords shown once."""

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.models import User
from tests.cast import PASSWORD, Cast, sign_in
from tests.web.reading import fill, links, part, read, words

FRANK = {"username": "frank", "name": "Frank Hill", "email": "frank@acme.example"}


def password_on(answer: Any) -> str:
    found = re.search(r'<code id="password">([^<]+)</code>', answer.get_data(as_text=True))
    assert found, "the page shows no password"
    return found[1]


def usernames(cast: Cast) -> set[str]:
    return set(cast.session.scalars(select(User.username)))


@pytest.fixture
def dana(cast: Cast, client: FlaskClient) -> FlaskClient:
    return sign_in(client, "dana")


def test_the_list_says_who_has_an_account_and_who_administers(dana: FlaskClient) -> None:
    page = read(dana, "/admin/people")
    names = re.findall(r'<span class="name">([^<]+)</span>', page)
    assert names == ["Alice Lam", "Bob Ray", "Charlie Fox", "Dana Kay", "Erin Day"]
    says = words(page)
    assert "Dana Kay dana administrator dana@acme.example" in says
    assert "Alice Lam alice alice@acme.example" in says
    assert "5 people" in says


def test_somebody_is_found_by_any_part_of_name_user_name_or_address(dana: FlaskClient) -> None:
    for search in ("FOX", "charl", "charlie@acme"):
        page = read(dana, f"/admin/people?search={search}")
        assert re.findall(r'<span class="name">([^<]+)</span>', page) == ["Charlie Fox"]
        assert f'value="{search}"' in page


@pytest.mark.parametrize("search", ["zebra", "%25", "_"])
def test_a_search_that_finds_nobody_says_so(dana: FlaskClient, search: str) -> None:
    says = words(read(dana, f"/admin/people?search={search}"))
    assert "Nobody fits" in says
    assert "Drop the search" in says


def test_a_new_person_gets_a_password_that_is_shown_once(dana: FlaskClient) -> None:
    answer = fill(dana, "/admin/people/new", expect=200, **FRANK)
    password = password_on(answer)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Frank Hill can sign in" in words(answer.get_data(as_text=True))
    for page in ("/admin/people", "/admin/people/new", "/admin/trail", "/"):
        assert password not in read(dana, page)


def test_the_new_person_chooses_a_password_of_their_own_first(dana: FlaskClient) -> None:
    password = password_on(fill(dana, "/admin/people/new", expect=200, **FRANK))
    frank = sign_in(dana.application.test_client(), "frank", password)
    assert frank.get("/").headers["Location"] == "/-/account/password"
    fill(frank, "/-/account/password", old=password, new="a longer secret", again="a longer secret")
    assert "You are in no group yet." in words(read(frank, "/"))
    assert "Instance" not in words(read(frank, "/"))


def test_a_new_administrator_may_do_what_administrators_do(dana: FlaskClient) -> None:
    password = password_on(fill(dana, "/admin/people/new", expect=200, admin="y", **FRANK))
    frank = sign_in(dana.application.test_client(), "frank", password)
    fill(frank, "/-/account/password", old=password, new="a longer secret", again="a longer secret")
    read(frank, "/admin/people")


@pytest.mark.parametrize(
    ("fields", "field", "sentence"),
    [
        ({"username": ""}, "username", "Choose a user name."),
        ({"username": "two words"}, "username", "Use letters, digits"),
        ({"username": "admin"}, "username", "'admin' is reserved."),
        ({"username": "ALICE"}, "username", "Somebody else has the user name already."),
        ({"name": " "}, "name", "Say what to call them."),
        ({"name": "x" * 256}, "name", "It is too long: at most 255 characters."),
        ({"email": "frank"}, "email", "This is no e-mail address:"),
        ({"email": "Alice@Acme.example"}, "email", "Somebody else has the address already."),
    ],
)
def test_a_wrong_value_is_named_and_what_was_typed_stays(
    dana: FlaskClient, cast: Cast, fields: dict[str, str], field: str, sentence: str
) -> None:
    typed = {**FRANK, **fields}
    page = fill(dana, "/admin/people/new", expect=422, admin="y", **typed).get_data(as_text=True)
    assert sentence in words(part(page, f"{field}-help")[:600])
    assert f'<a href="#{field}">' in page
    for name in FRANK.keys() - {field}:
        assert f'value="{typed[name]}"' in page
    assert re.search(r'<input id="admin"[^>]* checked', page)
    assert len(usernames(cast)) == 5


def test_the_same_form_sent_again_makes_no_second_account_and_shows_no_password(dana: FlaskClient) -> None:
    password = password_on(fill(dana, "/admin/people/new", expect=200, **FRANK))
    again = fill(dana, "/admin/people/new", expect=422, **FRANK).get_data(as_text=True)
    assert password not in again
    assert 'id="password"' not in again


def test_a_reset_password_ends_the_old_one_and_all_sessions(dana: FlaskClient, cast: Cast) -> None:
    alice = sign_in(dana.application.test_client(), "alice")
    answer = fill(dana, f"/admin/people/{cast.alice.id}/reset-password", expect=200)
    assert answer.headers["Cache-Control"] == "no-store"
    password = password_on(answer)
    assert alice.get("/").headers["Location"].startswith("/-/sign-in")
    fill(alice, "/-/sign-in", expect=422, login="alice", password=PASSWORD)
    sign_in(alice, "alice", password)
    assert alice.get("/").headers["Location"] == "/-/account/password"


def test_looking_at_the_reset_page_changes_nothing(dana: FlaskClient, cast: Cast) -> None:
    says = words(read(dana, f"/admin/people/{cast.alice.id}/reset-password"))
    assert "Reset the password of Alice Lam?" in says
    read(sign_in(dana.application.test_client(), "alice"), "/groups/acme")


def test_nobody_is_reset_who_is_not_there(dana: FlaskClient) -> None:
    for number in ("0", "99999999", "99999999999999999999"):
        read(dana, f"/admin/people/{number}/reset-password", expect=404)


def test_only_administrators_see_people(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    pages = ["/admin/people", "/admin/people/new", f"/admin/people/{cast.bob.id}/reset-password"]
    for page in pages:
        read(client, page, expect=404)
        assert page not in links(read(client, "/"))
    for page in pages[1:]:
        fill(client, page, form_at="/", expect=404, **FRANK)
    assert len(usernames(cast)) == 5
    sign_in(client.application.test_client(), "bob")


def test_the_trail_of_the_instance_tells_who_made_whom(dana: FlaskClient, cast: Cast) -> None:
    fill(dana, "/admin/people/new", expect=200, admin="y", **FRANK)
    fill(dana, f"/admin/people/{cast.bob.id}/reset-password", expect=200)
    says = words(read(dana, "/admin/trail"))
    assert "Dana Kay created the person Frank Hill admin: yes username: frank" in says
    assert "Dana Kay reset the password of Bob Ray" in says
