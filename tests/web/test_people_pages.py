"""People, for administrators: who has an account, new accounts, new passwords shown once."""

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.database import now
from portal.domain.people import people_lists
from portal.domain.trail.refused_acts import Flood
from portal.models import AuditEvent, Role, Runner, SecondFactor, User, UserSession
from tests.cast import PASSWORD, Cast, csrf_of, send, sign_in
from tests.web.reading import fill, links, part, read, row_titles, words

ACTS = (
    "edit",
    "block",
    "unblock",
    "administrator",
    "end-sessions",
    "reset-password",
    "remove-second-factor",
    "delete",
)
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
    assert row_titles(page) == ["Alice Lam", "Bob Ray", "Charlie Fox", "Dana Kay", "Erin Day"]
    says = words(page)
    assert "Dana Kay dana administrator Active dana@acme.example" in says
    assert "Alice Lam alice Never signed in alice@acme.example" in says
    assert "5 people" in says


def test_somebody_is_found_by_any_part_of_name_user_name_or_address(dana: FlaskClient) -> None:
    for search in ("FOX", "charl", "charlie@acme"):
        page = read(dana, f"/admin/people?search={search}")
        assert row_titles(page) == ["Charlie Fox"]
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
    assert "Frank Hill exists already , perhaps because this form was sent twice." in words(again)
    assert any(each.endswith("/reset-password") for each in links(again))


def test_somebody_elses_user_name_does_not_lead_to_their_account(dana: FlaskClient) -> None:
    page = fill(dana, "/admin/people/new", expect=422, **{**FRANK, "username": "alice"}).get_data(as_text=True)
    assert "exists already" not in words(page)


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
    pages = ["/admin/people", "/admin/people/new", *(f"/admin/people/{cast.bob.id}/{act}" for act in ACTS)]
    read(client, f"/admin/people/{cast.bob.id}", expect=404)
    for page in pages:
        read(client, page, expect=404)
        assert page not in links(read(client, "/"))
    for page in pages[1:]:
        fill(client, page, form_at="/", expect=404, **FRANK)
    assert len(usernames(cast)) == 5
    read(sign_in(client.application.test_client(), "bob"), "/acme/web")


def test_the_trail_of_the_instance_tells_who_made_whom(dana: FlaskClient, cast: Cast) -> None:
    fill(dana, "/admin/people/new", expect=200, admin="y", **FRANK)
    fill(dana, f"/admin/people/{cast.bob.id}/reset-password", expect=200)
    says = words(read(dana, "/admin/trail"))
    assert "Dana Kay created the person Frank Hill admin: yes username: frank" in says
    assert "Dana Kay reset the password of Bob Ray" in says


@pytest.mark.parametrize("act", ACTS)
def test_there_is_no_page_for_somebody_who_is_not_there(dana: FlaskClient, act: str) -> None:
    read(dana, f"/admin/people/99999999/{act}", expect=404)
    read(dana, "/admin/people/99999999", expect=404)


# The list


def test_tiles_count_and_filter(dana: FlaskClient, cast: Cast) -> None:
    cast.alice.blocked_at = now()
    cast.session.add(SecondFactor(user_id=cast.bob.id, ciphertext=b"x", last_step=0))
    cast.session.commit()
    page = read(dana, "/admin/people")
    says = words(page)
    assert "1 Administrators 4 Without second factor 3 Never signed in 1 Blocked" in says
    assert row_titles(read(dana, "/admin/people?standing=blocked")) == ["Alice Lam"]
    assert row_titles(read(dana, "/admin/people?administrators=true")) == ["Dana Kay"]
    assert "Bob Ray" not in row_titles(read(dana, "/admin/people?second_factor=none"))
    assert row_titles(read(dana, "/admin/people?standing=never_signed_in&search=bob")) == ["Bob Ray"]
    assert "/admin/people?standing=blocked" in links(page)
    chosen = read(dana, "/admin/people?standing=blocked")
    assert "/admin/people" in links(part(chosen, "people-tiles"))


@pytest.mark.parametrize(
    ("filters", "sentence"),
    [
        ("search=zebra", "Drop the search"),
        ("standing=blocked", "Drop the standing"),
        ("second_factor=none&administrators=true&search=", "Drop “without second factor”"),
    ],
)
def test_an_empty_list_says_which_filter_to_drop(dana: FlaskClient, cast: Cast, filters: str, sentence: str) -> None:
    cast.session.add(SecondFactor(user_id=cast.dana.id, ciphertext=b"x", last_step=0))
    cast.session.commit()
    says = words(read(dana, f"/admin/people?{filters}"))
    assert sentence in says
    assert "show everybody" in says


@pytest.mark.parametrize(
    "nonsense", ["standing=zebra", "administrators=perhaps", "second_factor=x", "after=", "before="]
)
def test_a_filter_that_means_nothing_counts_as_not_set(dana: FlaskClient, nonsense: str) -> None:
    assert len(row_titles(read(dana, f"/admin/people?{nonsense}"))) == 5


def test_links_lead_from_page_to_page_and_keep_the_filter(dana: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_lists.page, "__kwdefaults__", {"after": "", "before": "", "size": 2})
    page = read(dana, "/admin/people?search=acme")
    assert "Previous" not in words(page)
    (onward,) = [each for each in links(page) if "after=" in each]
    assert "search=acme" in onward
    second = read(dana, onward)
    assert row_titles(second) == ["Charlie Fox", "Dana Kay"]
    (back,) = [each for each in links(second) if "before=" in each]
    assert row_titles(read(dana, back)) == ["Alice Lam", "Bob Ray"]


# One person


def test_the_page_of_a_person_tells_facts_roles_sessions_and_what_happened(dana: FlaskClient, cast: Cast) -> None:
    sign_in(dana.application.test_client(), "bob")
    runner = cast.runner(cast.web).runner
    runner.creator_id = cast.bob.id
    cast.session.commit()
    page = read(dana, f"/admin/people/{cast.bob.id}")
    says = words(page)
    for fact in ("User name bob", "bob@acme.example", "With a password", "Second factor No", "1 runner", "Roles · 1"):
        assert fact in says
    assert "Sessions · 1" in says
    assert "/acme/web/-/members" in links(page)
    assert "/admin/runners?creator=bob" in links(page)
    assert f"/admin/people/{cast.bob.id}/trail" in links(page)
    assert "Bob Ray signed in" in says or "signed in Bob Ray" in says


def test_a_name_that_would_be_markup_is_shown_as_text(dana: FlaskClient, cast: Cast) -> None:
    cast.bob.name = "<b>Bob</b>"
    cast.session.commit()
    for path in ("", "/block", "/delete", "/administrator", "/edit"):
        assert "<b>Bob</b>" not in read(dana, f"/admin/people/{cast.bob.id}{path}")


def test_an_edit_is_saved_and_told_on_the_trail(dana: FlaskClient, cast: Cast) -> None:
    place = f"/admin/people/{cast.bob.id}"
    fill(dana, f"{place}/edit", username="robert", name="Robert Ray", email="robert@acme.example")
    page = words(read(dana, place))
    assert "Saved." in page
    assert "name: Bob Ray → Robert Ray" in page
    sign_in(dana.application.test_client(), "robert")


def test_what_is_wrong_with_an_edit_stands_beside_its_field(dana: FlaskClient, cast: Cast) -> None:
    typed = {"username": "alice", "name": "Robert", "email": "nonsense"}
    page = fill(dana, f"/admin/people/{cast.bob.id}/edit", expect=422, **typed).get_data(as_text=True)
    assert "Somebody else has the user name already." in words(part(page, "username-help")[:400])
    assert "This is no e-mail address" in words(part(page, "email-help")[:400])
    assert 'value="Robert"' in page


def test_two_edits_at_once_do_not_undo_each_other(dana: FlaskClient, cast: Cast) -> None:
    address = f"/admin/people/{cast.bob.id}/edit"
    first = read(dana, address)
    seen = re.search(r'name="seen_version" value="([^"]+)"', first)
    assert seen
    fill(dana, address, username="bob", name="Bobby", email="bob@acme.example")
    late = {"username": "bob", "name": "Bert", "email": "bob@acme.example", "seen_version": seen[1]}
    page = fill(dana, address, expect=409, **late).get_data(as_text=True)
    assert "Somebody else changed this person" in words(page)
    assert 'value="Bert"' in page


def test_a_blocked_person_is_out_at_once_and_may_come_back(dana: FlaskClient, cast: Cast) -> None:
    bob, place = sign_in(dana.application.test_client(), "bob"), f"/admin/people/{cast.bob.id}"
    says = words(read(dana, f"{place}/block"))
    for line in (
        "1 session ends, at once",
        "They cannot sign in",
        "no runner",
        "Their roles in groups and projects stay",
    ):
        assert line in says
    fill(dana, f"{place}/block")
    assert "Bob Ray is blocked; 1 session ended." in words(read(dana, place))
    assert bob.get("/acme/web").headers["Location"].startswith("/-/sign-in")
    again = send(dana.application.test_client(), "/-/sign-in", login="bob", password=PASSWORD)
    assert again.status_code != 302
    assert words(read(dana, f"{place}/block")).count("Is blocked already") == 1
    fill(dana, f"{place}/unblock")
    read(sign_in(bob, "bob"), "/acme/web")


def test_an_administrator_is_made_and_unmade_and_a_form_sent_twice_turns_nothing_back(
    dana: FlaskClient, cast: Cast
) -> None:
    place = f"/admin/people/{cast.bob.id}/administrator"
    bob = sign_in(dana.application.test_client(), "bob")
    for _ in range(2):
        fill(dana, place, wanted="yes")
    read(bob, "/admin/people")
    for _ in range(2):
        fill(dana, place, wanted="no")
    read(bob, "/admin/people", expect=404)
    actions = cast.session.scalars(select(AuditEvent.action).where(AuditEvent.target_id == cast.bob.id)).all()
    assert [each for each in actions if each.startswith("administrator")] == [
        "administrator_added",
        "administrator_removed",
    ]


@pytest.mark.parametrize("act", ["block", "administrator", "delete"])
def test_the_last_administrator_is_told_what_to_do_first(dana: FlaskClient, cast: Cast, act: str) -> None:
    place = f"/admin/people/{cast.dana.id}/{act}"
    page = read(dana, place)
    assert "another administrator" in words(page) or "Make somebody else an administrator first" in words(page)
    csrf = csrf_of(read(dana, "/admin/people/new"))
    answer = dana.post(place, data={"csrf_token": csrf, "wanted": "no", "typed": "dana"})
    assert answer.status_code == 422
    read(dana, "/admin/people")


@pytest.mark.parametrize(
    ("act", "another", "reason"),
    [
        ("block", False, "You cannot block yourself."),
        ("delete", True, "You cannot delete your own account."),
        ("administrator", False, "is the last administrator who can sign in"),
    ],
)
def test_an_act_that_no_administrator_may_do_leaves_an_event(
    dana: FlaskClient, cast: Cast, act: str, another: bool, reason: str
) -> None:
    dana.application.extensions["refused_acts"] = Flood(each=30, most=600)
    cast.bob.admin = another
    cast.session.commit()
    place = f"/admin/people/{cast.dana.id}/{act}"
    csrf = csrf_of(read(dana, "/admin/people/new"))
    assert dana.post(place, data={"csrf_token": csrf, "wanted": "no", "typed": "dana"}).status_code == 422
    event = cast.session.scalars(select(AuditEvent).where(AuditEvent.action == "act_refused")).one()
    assert (event.actor_id, event.scope_kind) == (cast.dana.id, "instance")
    assert reason in event.changes["because"][1]
    assert "wanted" not in event.changes
    assert event.changes["request"] == [None, f"POST {place}"]
    told = words(read(dana, "/admin/trail"))
    assert "was refused an act in" in told
    assert f"because: {event.changes['because'][1]}" in told


def test_a_value_that_is_wrong_leaves_none(dana: FlaskClient, cast: Cast) -> None:
    fill(dana, f"/admin/people/{cast.alice.id}/delete", expect=422, typed="alice")  # who owns a group alone
    assert cast.session.scalars(select(AuditEvent).where(AuditEvent.action == "act_refused")).all() == []


def test_an_administrator_who_steps_back_is_led_to_what_is_left(dana: FlaskClient, cast: Cast) -> None:
    fill(dana, f"/admin/people/{cast.bob.id}/administrator", wanted="yes")
    answer = fill(dana, f"/admin/people/{cast.dana.id}/administrator", wanted="no")
    assert answer.headers["Location"] == "/"
    assert "You are an administrator no more." in words(read(dana, "/"))


def test_all_sessions_of_somebody_are_ended(dana: FlaskClient, cast: Cast) -> None:
    bobs = [sign_in(dana.application.test_client(), "bob") for _ in range(2)]
    place = f"/admin/people/{cast.bob.id}/end-sessions"
    assert "End 2 sessions of Bob Ray?" in words(read(dana, place))
    fill(dana, place)
    assert {bob.get("/").status_code for bob in bobs} == {302}
    assert not cast.session.scalars(select(UserSession).where(UserSession.user_id == cast.bob.id)).all()
    assert "is signed in nowhere" in words(read(dana, place))
    sign_in(bobs[0], "bob")


def test_a_reset_sent_twice_makes_one_password(dana: FlaskClient, cast: Cast) -> None:
    place = f"/admin/people/{cast.alice.id}/reset-password"
    seen = re.search(r'name="seen_version" value="([^"]+)"', read(dana, place))
    assert seen
    password = password_on(fill(dana, place, expect=200, seen_version=seen[1]))
    again = fill(dana, place, expect=409, seen_version=seen[1]).get_data(as_text=True)
    assert 'id="password"' not in again
    assert "Nothing was changed this time" in words(again)
    sign_in(dana.application.test_client(), "alice", password)


def test_a_second_factor_is_removed_for_who_has_lost_it(dana: FlaskClient, cast: Cast) -> None:
    place = f"/admin/people/{cast.bob.id}/remove-second-factor"
    assert "Bob Ray has no second factor" in words(read(dana, place))
    cast.session.add(SecondFactor(user_id=cast.bob.id, ciphertext=b"x", last_step=0))
    cast.session.commit()
    assert place in links(read(dana, f"/admin/people/{cast.bob.id}"))
    fill(dana, place)
    assert cast.session.scalar(select(SecondFactor).where(SecondFactor.user_id == cast.bob.id)) is None


# Deleting


def test_the_page_says_what_goes_and_the_user_name_is_typed(dana: FlaskClient, cast: Cast) -> None:
    place = f"/admin/people/{cast.bob.id}/delete"
    says = words(read(dana, place))
    assert "1 role: acme/web (maintainer)" in says
    assert "They created no runner." in says
    page = fill(dana, place, expect=422, typed="Bob").get_data(as_text=True)
    assert "Type bob exactly" in words(part(page, "typed-help")[:300])
    assert "bob" in usernames(cast)
    fill(dana, place, typed="bob")
    assert "bob" not in usernames(cast)
    assert "Bob Ray is deleted." in words(read(dana, "/admin/people"))
    read(dana, f"/admin/people/{cast.bob.id}", expect=404)


@pytest.mark.parametrize(("choice", "left"), [("keep", 1), ("pause", 1), ("delete", 0), ("zebra", 1)])
def test_the_runners_they_created_do_as_was_chosen(dana: FlaskClient, cast: Cast, choice: str, left: int) -> None:
    runner = cast.runner(cast.acme).runner
    runner.creator_id = cast.bob.id
    cast.session.commit()
    place = f"/admin/people/{cast.bob.id}/delete"
    assert "There is 1 runner." in words(read(dana, place))
    fill(dana, place, typed="bob", created=choice)
    cast.session.expire_all()
    found = cast.session.scalars(select(Runner).where(Runner.id == runner.id)).all()
    assert len(found) == left
    assert all(each.active is (choice != "pause") and each.creator_id is None for each in found)
    if left:
        assert "creator's account is gone" in words(read(dana, "/admin/runners")).replace("’", "'")


def test_the_last_owner_of_a_group_is_deleted_only_when_that_is_said(dana: FlaskClient, cast: Cast) -> None:
    place = f"/admin/people/{cast.alice.id}/delete"
    assert "One top-level group has no other owner: acme" in words(read(dana, place))
    page = fill(dana, place, expect=422, typed="alice").get_data(as_text=True)
    assert "Nobody else owns acme." in words(part(page, "leave_groups-help")[:400])
    assert 'value="alice"' in page
    fill(dana, place, typed="alice", leave_groups="y")
    assert "alice" not in usernames(cast)


def test_a_blocked_member_is_marked_on_the_members_page(dana: FlaskClient, cast: Cast) -> None:
    cast.member(cast.charlie, cast.acme, Role.GUEST)
    cast.charlie.blocked_at = now()
    cast.session.commit()
    says = words(read(sign_in(dana.application.test_client(), "alice"), "/groups/acme/-/members"))
    assert "Charlie Fox charlie Blocked" in says
    assert says.count("Blocked") == 1
