"""A token stands in one answer only: in no later page, cookie, header, redirect, trail or log line."""

import logging
from typing import Any

import pytest
from flask import Flask

from tests.cast import csrf_of, hidden, send, sign_in
from tests.web.conftest import Place
from tests.web.reading import poll, read, token_of, verify


def secret_of(token: str) -> str:
    """The part that is secret: what follows the nine characters that may be shown."""
    return token.partition("_")[2][9:]


def cookie_text(app: Flask, client: Any) -> str:
    """What the session cookie says to whoever reads it; it is signed, not encrypted."""
    cookie = client.get_cookie("__Host-portal_session")
    assert cookie is not None
    return str(app.session_interface.get_signing_serializer(app).loads(cookie.value))  # type: ignore[attr-defined]


def issue(place: Place, how: str) -> tuple[str, int, dict[str, str], str]:
    """(token, runner id, the form that was sent, its address)."""
    first = place.runner()
    address = f"{place.url}/new" if how == "created" else f"{place.url}/{first.runner.id}/reset-token"
    page = read(place.client, address)
    names = ("request_key",) if how == "created" else ("request_key", "seen_token_id")
    form = {"csrf_token": csrf_of(page), "tags": "docker", **{name: hidden(page, name) for name in names}}
    answer = place.client.post(address, data=form)
    token = token_of(answer)
    assert token not in str(answer.headers)
    return token, first.runner.id + (how == "created"), form, address


@pytest.mark.parametrize("how", ["created", "reset"])
def test_no_page_shows_the_token_afterwards(place: Place, how: str) -> None:
    token, runner_id, form, address = issue(place, how)
    verify(place.client, token)
    poll(place.client, token)
    again = place.client.post(address, data=form)
    assert again.status_code == 303
    answers = [again]
    path = f"{place.url}/{runner_id}"
    for page in ("", "/machines", "/connection", "/edit", "/reset-token", "/delete"):
        answers.append(place.client.get(path + page))
    for page in (address, place.url, place.trail, "/", f"{place.url}?search={token}"):
        answers.append(place.client.get(page))
    dana = sign_in(place.client.application.test_client(), "dana")
    for page in (f"/admin/runners/{runner_id}", "/admin/trail", "/admin/runners"):
        answers.append(dana.get(page))
    for answer in answers:
        text = answer.get_data(as_text=True)
        if f"search={token}" not in answer.request.url:
            assert secret_of(token) not in text, answer.request.url
        assert secret_of(token) not in str(answer.headers), answer.request.url


@pytest.mark.parametrize("how", ["created", "reset"])
def test_no_cookie_holds_the_token(place: Place, how: str) -> None:
    token, _, form, address = issue(place, how)
    assert secret_of(token) not in cookie_text(place.client.application, place.client)
    place.client.post(address, data=form)  # its refusal is flashed through the cookie
    flashed = cookie_text(place.client.application, place.client)
    assert "cannot be shown again" in flashed
    assert secret_of(token) not in flashed


@pytest.mark.parametrize("how", ["created", "reset"])
def test_nothing_is_logged_of_the_token(place: Place, how: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("portal").debug("this test does see the log")
        token, runner_id, form, address = issue(place, how)
        place.client.post(address, data=form)
        verify(place.client, token)
        poll(place.client, token)
        read(place.client, f"{place.url}/{runner_id}")
    assert "this test does see the log" in caplog.text
    assert secret_of(token) not in caplog.text


def test_a_failure_on_the_way_logs_no_token(acme: Place, caplog: pytest.LogCaptureFixture) -> None:
    token = token_of(acme.create())
    with caplog.at_level(logging.DEBUG):
        acme.client.post("/api/v4/runners/verify", json={"token": token, "info": ["wrong"]})
        acme.client.post("/api/v4/jobs/request", json={"token": token, "system_id": "x" * 65})
        acme.client.delete("/api/v4/runners/managers", json={"token": token, "system_id": "s_unknown"})
    assert secret_of(token) not in caplog.text


def test_no_page_is_kept_by_browsers_least_of_all_one_that_holds_a_secret(acme: Place) -> None:
    runner_id = acme.runner().runner.id
    for page in (acme.url, f"{acme.url}/{runner_id}", f"{acme.url}/new", f"{acme.url}/{runner_id}/reset-token"):
        assert acme.client.get(page).headers["Cache-Control"] == "no-store"
    answer = send(acme.client, f"{acme.url}/{runner_id}/reset-token")
    assert answer.headers["Cache-Control"] == "no-store"
