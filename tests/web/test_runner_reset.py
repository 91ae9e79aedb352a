"""Resetting a runner's token in the browser: the old ones end, the new one is shown once."""

from flask.testing import FlaskClient

from tests.cast import csrf_of, hidden, send, sign_in
from tests.web.conftest import Place
from tests.web.reading import poll, read, token_of, words


def form_of(client: FlaskClient, path: str) -> dict[str, str]:
    page = read(client, path)
    return {"csrf_token": csrf_of(page), **{name: hidden(page, name) for name in ("request_key", "seen_token_id")}}


def reset(place: Place, runner_id: int) -> str:
    return token_of(send(place.client, f"{place.url}/{runner_id}/reset-token"))


def machine_resets(client: FlaskClient, token: str) -> str:
    answer = client.post("/api/v4/runners/reset_authentication_token", json={"token": token})
    assert answer.status_code == 201
    return answer.get_json()["token"]


def test_a_reset_shows_a_new_token_once_and_the_old_one_ends_at_once(place: Place) -> None:
    issued = place.runner()
    assert poll(place.client, issued.token) == 204
    answer = send(place.client, f"{place.url}/{issued.runner.id}/reset-token")
    new = token_of(answer)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Linux build fleet has a new token" in words(answer.get_data(as_text=True))
    assert poll(place.client, issued.token) == 403
    assert poll(place.client, new) == 204


def test_a_reset_ends_every_token_that_the_machines_got_by_themselves(acme: Place) -> None:
    issued = acme.runner()
    second = machine_resets(acme.client, issued.token)
    third = machine_resets(acme.client, second)
    assert [poll(acme.client, each) for each in (issued.token, second, third)] == [204, 204, 204]
    new = reset(acme, issued.runner.id)
    assert [poll(acme.client, each) for each in (issued.token, second, third)] == [403, 403, 403]
    assert poll(acme.client, new) == 204


def test_the_page_says_how_many_machines_stop_working(place: Place) -> None:
    issued = place.runner()
    path = f"{place.url}/{issued.runner.id}/reset-token"
    assert "No machine uses it yet, so nothing stops working." in words(read(place.client, path))
    for system_id in ("s_first", "s_second"):
        poll(place.client, issued.token, system_id)
    says = words(read(place.client, path))
    assert "2 machines use it." in says
    assert "Reset token and disconnect 2 machines" in says


def test_looking_at_the_page_resets_nothing(acme: Place) -> None:
    issued = acme.runner()
    read(acme.client, f"{acme.url}/{issued.runner.id}/reset-token")
    assert poll(acme.client, issued.token) == 204


def test_the_same_form_sent_again_shows_nothing_and_resets_nothing(place: Place) -> None:
    path = f"{place.url}/{place.runner().runner.id}"
    fields = form_of(place.client, f"{path}/reset-token")
    token = token_of(place.client.post(f"{path}/reset-token", data=fields))
    again = place.client.post(f"{path}/reset-token", data=fields)
    assert (again.status_code, again.headers["Location"]) == (303, path)
    assert token not in again.get_data(as_text=True)
    landed = read(place.client, path)
    assert token not in landed
    assert "cannot be shown again" in words(landed)
    assert poll(place.client, token) == 204


def test_who_decided_on_an_older_page_gets_no_token_and_ends_none(place: Place) -> None:
    path = f"{place.url}/{place.runner().runner.id}/reset-token"
    dana = sign_in(place.client.application.test_client(), "dana")
    stale = form_of(dana, path)
    token = token_of(place.client.post(path, data=form_of(place.client, path)))
    answer = dana.post(path, data=stale)
    page = answer.get_data(as_text=True)
    assert answer.status_code == 409
    assert "Somebody else reset this token a moment ago." in words(page)
    assert "glrt-" not in page
    assert poll(place.client, token) == 204


def test_the_page_that_refused_can_be_sent_once_more(acme: Place) -> None:
    path = f"{acme.url}/{acme.runner().runner.id}/reset-token"
    stale = form_of(acme.client, path)
    first = token_of(acme.client.post(path, data=form_of(acme.client, path)))
    refused = acme.client.post(path, data=stale).get_data(as_text=True)
    fresh = {name: hidden(refused, name) for name in ("request_key", "seen_token_id")}
    second = token_of(acme.client.post(path, data={"csrf_token": csrf_of(refused), **fresh}))
    assert (poll(acme.client, first), poll(acme.client, second)) == (403, 204)


def test_a_machines_own_reset_does_not_make_an_open_page_stale(acme: Place) -> None:
    issued = acme.runner()
    path = f"{acme.url}/{issued.runner.id}/reset-token"
    fields = form_of(acme.client, path)
    machine_resets(acme.client, issued.token)
    token_of(acme.client.post(path, data=fields))


def test_the_runners_page_and_trail_show_the_short_forms_only(place: Place) -> None:
    issued = place.runner()
    poll(place.client, issued.token)
    new = reset(place, issued.runner.id)
    page = read(place.client, f"{place.url}/{issued.runner.id}")
    says = words(page)
    assert f"token: {issued.record.short} → {new[8:17]}" in says
    assert "reset by a person just now · not used yet" in says
    assert new not in page
    assert f"{issued.record.short} created with the runner" not in says


def test_a_form_without_what_was_seen_is_refused_or_resets_the_newest(acme: Place) -> None:
    issued = acme.runner()
    path = f"{acme.url}/{issued.runner.id}/reset-token"
    fields = form_of(acme.client, path)
    answer = acme.client.post(path, data=fields | {"request_key": "no key"})
    assert answer.status_code in (400, 422)
    assert poll(acme.client, issued.token) == 204
