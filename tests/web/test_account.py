"""A person's own account: changing the password, and having to."""

import re

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.config import ROOT
from portal.domain.people.sign_in_throttle import PER_PLACE
from portal.models import AuditEvent
from tests.cast import PASSWORD, Cast, csrf_of, sign_in
from tests.web.reading import copy_of, fill, part, read, words

PAGE = "/-/account/password"
NEW = "a longer secret than that"


@pytest.fixture
def hasty(cast: Cast, client: FlaskClient) -> FlaskClient:
    """Alice, signed in with a password that somebody else has chosen."""
    cast.alice.must_change_password = True
    cast.session.commit()
    return sign_in(client, "alice")


def test_a_changed_password_counts_from_now_on(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    fill(client, PAGE, old=PASSWORD, new=NEW, again=NEW)
    assert "Your password is changed." in words(read(client, "/"))
    other = client.application.test_client()
    fill(other, "/-/sign-in", expect=422, login="alice", password=PASSWORD)
    sign_in(other, "alice", NEW)


def test_all_other_sessions_end_and_this_one_goes_on(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    elsewhere = sign_in(client.application.test_client(), "alice")
    bob = sign_in(client.application.test_client(), "bob")
    read(elsewhere, "/groups/acme")
    fill(client, PAGE, old=PASSWORD, new=NEW, again=NEW)
    assert elsewhere.get("/groups/acme").headers["Location"].startswith("/-/sign-in")
    read(client, "/groups/acme")
    read(bob, "/acme/web")


@pytest.mark.parametrize(
    ("fields", "field", "sentence"),
    [
        ({"old": "not mine at all"}, "old", "This is not your present password."),
        ({"new": "short", "again": "short"}, "new", "It is too short: at least 12 characters."),
        ({"new": "x" * 513, "again": "x" * 513}, "new", "It is too long: at most 512 characters."),
        ({"new": PASSWORD, "again": PASSWORD}, "new", "It is the same as the old one."),
        ({"again": "something else"}, "again", "The two do not match."),
    ],
)
def test_a_wrong_value_is_named_and_the_password_stays(
    cast: Cast, client: FlaskClient, fields: dict[str, str], field: str, sentence: str
) -> None:
    typed = {"old": PASSWORD, "new": NEW, "again": NEW, **fields}
    page = fill(sign_in(client, "alice"), PAGE, expect=422, **typed).get_data(as_text=True)
    assert sentence in words(part(page, f"{field}-help")[:600])
    sign_in(client.application.test_client(), "alice", PASSWORD)


def test_a_refused_form_gives_no_password_back(cast: Cast, client: FlaskClient) -> None:
    answer = fill(sign_in(client, "alice"), PAGE, expect=422, old="not mine at all", new=NEW, again=NEW + "x")
    page = answer.get_data(as_text=True)
    assert NEW not in page
    assert "not mine at all" not in page


@pytest.mark.parametrize(
    "page", ["/", "/groups/acme", "/groups/acme/-/runners", "/groups/acme/-/members", "/nowhere"]
)
def test_a_password_somebody_else_has_seen_leads_to_the_password_page_and_nowhere_else(
    hasty: FlaskClient, page: str
) -> None:
    answer = hasty.get(page)
    assert (answer.status_code, answer.headers["Location"]) == (302, PAGE)
    assert "Choose your own password" in words(read(hasty, PAGE))


def test_forms_lead_there_too_and_do_nothing(hasty: FlaskClient, cast: Cast) -> None:
    answer = fill(hasty, "/groups/acme/-/members", form_at=PAGE, login="charlie", role="50")
    assert answer.headers["Location"] == PAGE
    read(sign_in(hasty.application.test_client(), "charlie"), "/groups/acme", expect=404)


def test_with_a_password_of_their_own_everything_opens(hasty: FlaskClient) -> None:
    fill(hasty, PAGE, old=PASSWORD, new=NEW, again=NEW)
    read(hasty, "/groups/acme")


def test_the_same_password_again_does_not_open_anything(hasty: FlaskClient) -> None:
    fill(hasty, PAGE, expect=422, old=PASSWORD, new=PASSWORD, again=PASSWORD)
    assert hasty.get("/groups/acme").headers["Location"] == PAGE


def test_who_must_change_the_password_may_sign_out(hasty: FlaskClient) -> None:
    fill(hasty, "/-/sign-out", form_at=PAGE)
    assert hasty.get(PAGE).headers["Location"].startswith("/-/sign-in")


def test_the_password_page_asks_for_a_sign_in(client: FlaskClient, cast: Cast) -> None:
    assert client.get(PAGE).headers["Location"].startswith("/-/sign-in")


def test_the_trail_tells_of_the_change_and_not_of_the_password(cast: Cast, client: FlaskClient) -> None:
    fill(sign_in(client, "alice"), PAGE, old=PASSWORD, new=NEW, again=NEW)
    page = read(sign_in(client.application.test_client(), "dana"), "/admin/trail")
    assert "Alice Lam changed their password" in words(page)
    assert NEW not in page
    assert PASSWORD not in page


def test_the_present_password_cannot_be_guessed_at_an_open_browser(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    for _ in range(PER_PLACE):
        fill(client, PAGE, expect=422, old="not mine at all", new=NEW, again=NEW)
    answer = fill(client, PAGE, expect=429, old=PASSWORD, new=NEW, again=NEW)
    assert "Too many attempts to sign in. Wait 15 minutes" in words(answer.get_data(as_text=True))
    assert int(answer.headers["Retry-After"]) > 800


def test_a_wrong_present_password_leaves_an_event_and_a_wrong_new_one_none(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    fill(client, PAGE, expect=422, old=PASSWORD, new="short", again="short")
    fill(client, PAGE, expect=422, old="not mine at all", new=NEW, again=NEW)
    query = select(AuditEvent).where(AuditEvent.action == "confirmation_refused")
    event = cast.session.scalars(query).one()
    assert (event.actor_id, event.target_id) == (cast.alice.id, cast.alice.id)
    assert (event.address, event.changes) == ("127.0.0.1", {"reason": [None, "wrong password"]})


def test_a_new_password_that_is_refused_is_no_guess(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    for _ in range(PER_PLACE + 1):
        fill(client, PAGE, expect=422, old=PASSWORD, new="password1234", again="password1234")
    fill(client, PAGE, old=PASSWORD, new=NEW, again=NEW)


@pytest.mark.parametrize(
    ("page", "fields"),
    [
        ("/-/sign-in", {"login": "username", "password": "current-password"}),
        (PAGE, {"old": "current-password", "new": "new-password", "again": "new-password", "username": "username"}),
    ],
)
def test_password_managers_know_the_fields_and_nothing_forbids_to_paste(
    cast: Cast, client: FlaskClient, page: str, fields: dict[str, str]
) -> None:
    if page == PAGE:
        sign_in(client, "alice")
    html = read(client, page)
    inputs = dict(re.findall(r'<input (?=[^>]*name="(\w+)")[^>]*autocomplete="([^"]+)"', html))
    assert inputs == fields
    assert "maxlength" not in html
    assert "paste" not in html.lower()
    assert "paste" not in (ROOT / "static" / "portal.js").read_text()


def test_a_field_that_the_form_does_not_have_changes_nothing(cast: Cast, client: FlaskClient) -> None:
    more = {"admin": "y", "username": "mallory", "email": "mallory@example.com", "user_id": str(cast.dana.id)}
    sign_in(client, "alice")
    csrf = csrf_of(read(client, PAGE))
    answer = client.post(PAGE, data={"csrf_token": csrf, "old": PASSWORD, "new": NEW, "again": NEW, **more})
    assert answer.status_code == 302
    cast.session.expire_all()
    assert (cast.alice.username, cast.alice.admin) == ("alice", False)
    assert cast.alice.email != more["email"]
    assert "Dana" in words(read(sign_in(client.application.test_client(), "dana"), "/"))


def test_a_password_is_checked_exactly_as_it_was_typed(cast: Cast, client: FlaskClient) -> None:
    new = "  Päss wörd " + "x" * 80 + "  "
    fill(sign_in(client, "alice"), PAGE, old=PASSWORD, new=new, again=new)
    for changed in (new.strip(), new.lower(), new[:72], new + "x"):
        other = client.application.test_client()
        fill(other, "/-/sign-in", expect=422, login="alice", password=changed)
    sign_in(client.application.test_client(), "alice", new)


def test_a_copy_of_the_cookie_from_before_the_change_is_worth_nothing(cast: Cast, client: FlaskClient) -> None:
    copied = copy_of(sign_in(client, "alice"))
    assert copied.get("/").status_code == 200
    fill(client, PAGE, old=PASSWORD, new=NEW, again=NEW)
    assert (copied.get("/").status_code, client.get("/").status_code) == (302, 200)
