"""Signing in, out, and what a session survives."""

from flask.testing import FlaskClient

from tests.cast import PASSWORD, Cast, csrf_of, send, sign_in
from tests.web.reading import read, words


def test_alice_signs_in_and_sees_her_group(client: FlaskClient, cast: Cast) -> None:
    page = sign_in(client, "alice").get("/").get_data(as_text=True)
    assert "acme" in page
    assert "other" not in page


def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(client: FlaskClient, cast: Cast) -> None:
    wrong = send(client, "/-/sign-in", login="alice", password="not hers at all", expect=422)
    nobody = send(client, "/-/sign-in", login="nobody", password="not hers at all", expect=422)
    sentence = "The user name or the password is wrong."
    assert sentence in wrong.get_data(as_text=True)
    assert sentence in nobody.get_data(as_text=True)


def test_a_page_behind_the_sign_in_comes_back_after_it(client: FlaskClient, cast: Cast) -> None:
    answer = client.get("/groups/acme/-/runners")
    assert answer.status_code == 302
    asked = answer.headers["Location"]
    back = send(client, asked, login="alice", password=PASSWORD, expect=302)
    assert back.headers["Location"] == "/groups/acme/-/runners"


def test_the_way_back_never_leads_to_another_host(client: FlaskClient, cast: Cast) -> None:
    for elsewhere in ("https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"):
        fresh = client.application.test_client()
        answer = send(fresh, f"/-/sign-in?next={elsewhere}", login="alice", password=PASSWORD, expect=302)
        assert answer.headers["Location"] == "/"


def test_somebody_signs_in_with_the_e_mail_address_whatever_its_case(client: FlaskClient, cast: Cast) -> None:
    page = read(sign_in(client, " Alice@ACME.example "), "/")
    assert "Alice Lam" in page


def test_the_refused_form_keeps_the_name_and_not_the_password(client: FlaskClient, cast: Cast) -> None:
    page = send(client, "/-/sign-in", login="alice", password="not hers at all", expect=422).get_data(as_text=True)
    assert 'value="alice"' in page
    assert "not hers at all" not in page


def test_an_endless_password_is_refused_like_any_other(client: FlaskClient, cast: Cast) -> None:
    send(client, "/-/sign-in", login="alice", password="x" * 100_000, expect=422)


def test_signing_out_ends_the_session_for_good(client: FlaskClient, cast: Cast) -> None:
    sign_in(client, "alice")
    send(client, "/-/sign-out", form_at="/", expect=302)
    assert client.get("/").headers["Location"].startswith("/-/sign-in")


def test_a_cookie_that_somebody_changed_signs_nobody_in(client: FlaskClient, cast: Cast) -> None:
    sign_in(client, "alice")
    cookie = client.get_cookie("__Host-portal_session")
    assert cookie is not None
    client.set_cookie("__Host-portal_session", cookie.value[:-3] + "AAA")
    assert client.get("/").status_code == 302


def test_who_is_signed_in_is_not_asked_again(client: FlaskClient, cast: Cast) -> None:
    assert sign_in(client, "alice").get("/-/sign-in").headers["Location"] == "/"


def test_the_way_back_keeps_the_filter_in_the_address(client: FlaskClient, cast: Cast) -> None:
    asked = client.get("/groups/acme/-/runners?status=online&tag=a%26b").headers["Location"]
    back = send(client, asked, login="alice", password=PASSWORD, expect=302)
    assert back.headers["Location"] == "/groups/acme/-/runners?status=online&tag=a%26b"


def test_a_form_sent_after_the_session_ended_leads_back_to_the_start(client: FlaskClient, cast: Cast) -> None:
    csrf = csrf_of(read(client, "/-/sign-in"))
    answer = client.post("/groups/acme/-/delete", data={"csrf_token": csrf, "typed": "acme"})
    assert answer.headers["Location"] == "/-/sign-in"


def test_a_deleted_persons_session_ends(client: FlaskClient, cast: Cast) -> None:
    sign_in(client, "charlie")
    cast.session.delete(cast.charlie)
    cast.session.commit()
    assert client.get("/").headers["Location"].startswith("/-/sign-in")


def test_the_list_of_people_tells_when_somebody_signed_in_last(client: FlaskClient, cast: Cast) -> None:
    sign_in(client, "alice")
    page = words(read(sign_in(client.application.test_client(), "dana"), "/admin/people"))
    assert "alice@acme.example just now just now" in page
    assert "bob@acme.example just now Never" in page
