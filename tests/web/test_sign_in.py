"""Signing in, out, and what a session survives."""

from flask.testing import FlaskClient

from tests.cast import PASSWORD, Cast, send, sign_in


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
