"""Looking up a pasted token in the browser: what the answer says and does not hold; ending the token from there."""

import logging

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from portal.domain import tokens
from portal.domain.groups import groups
from portal.domain.registration import registration_tokens, runner_registration
from portal.domain.registration.runner_registration import Registering
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.models import GroupSettings
from tests.cast import Cast, sign_in
from tests.domain.test_audit import every_row
from tests.web.reading import fill, links, part, poll, read, verify, words

ADDRESS = "/admin/token-lookup"


@pytest.fixture
def dana(cast: Cast, client: FlaskClient) -> FlaskClient:
    return sign_in(client, "dana")


def looked_up(client: FlaskClient, pasted: str) -> str:
    answer = fill(client, ADDRESS, expect=200, pasted=pasted)
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.get_data(as_text=True)


def registration_token(client: FlaskClient, session: Session, cast: Cast) -> str:
    configured = client.application.extensions["registration"]
    made = registration_tokens.make_token(session, cast.as_(cast.dana), cast.acme, configured)
    session.commit()
    assert made.ciphertext
    return configured.vault.open(made.ciphertext)


def register(client: FlaskClient, session: Session, token: str, address: str) -> int:
    wanted = Registering(token, RunnerSettings(description="Old way", run_untagged=True), address=address)
    issued = runner_registration.register(session, client.application.extensions["registration"], wanted)
    session.commit()
    return issued.runner.id


def test_an_access_token_is_told_with_whose_it_is_and_where_it_is_revoked(
    dana: FlaskClient, session: Session, cast: Cast, caplog: pytest.LogCaptureFixture
) -> None:
    clear = cast.access_token(cast.alice, "read_api")
    with caplog.at_level(logging.DEBUG):
        page = looked_up(dana, clear)
    assert "This is an access token of Alice Lam" in words(page)
    revoke = next(each for each in links(page) if each.endswith("/revoke"))
    assert "Alice" in words(read(dana, revoke))
    assert clear not in page
    assert clear not in caplog.text
    assert not [row for row in every_row(session) if clear in row]
    fill(dana, revoke)
    ended = looked_up(dana, clear)
    assert "It opens nothing any more" in words(ended)
    assert not any(each.endswith("/revoke") for each in links(ended))


def test_an_enrolment_key_is_told_with_where_it_creates_runners(dana: FlaskClient, cast: Cast) -> None:
    clear = cast.enrolment_key(cast.bob, cast.web).token
    page = looked_up(dana, clear)
    assert "This is the enrolment key a test's" in words(page)
    assert "Creates runners in the project acme/web" in words(page)
    assert "by Bob Ray" in words(page)
    assert clear not in page
    fill(dana, next(each for each in links(page) if each.endswith("/revoke")), expect=303)
    assert "It creates nothing any more" in words(looked_up(dana, clear))


def test_an_access_token_of_elsewhere_and_a_mistyped_one_are_told_apart(dana: FlaskClient) -> None:
    elsewhere = tokens.make_for_person()
    assert "Its checksum fits, so it was not mistyped" in words(looked_up(dana, elsewhere))
    assert "its checksum does not fit" in words(looked_up(dana, elsewhere[:-1]))


def test_a_key_of_a_deleted_group_leads_to_where_that_is_restored(
    dana: FlaskClient, session: Session, cast: Cast
) -> None:
    clear = cast.enrolment_key(cast.bob, cast.web).token
    groups.delete(session, cast.as_(cast.dana), cast.web)
    session.commit()
    page = looked_up(dana, clear)
    assert "the key creates nothing meanwhile" in words(page)
    assert any("/restore" in each for each in links(page))


def test_a_runners_token_is_told_with_everything_about_it(dana: FlaskClient, cast: Cast) -> None:
    issued = cast.runner(cast.web)
    verify(dana, issued.token, "s_first")
    poll(dana, issued.token, "s_second")
    minted = dana.post("/api/v4/runners/reset_authentication_token", json={"token": issued.token}).get_json()["token"]
    page = looked_up(dana, f'  token = "{issued.token}"')
    says = words(page)
    assert "This is a token of Linux build fleet" in says
    assert "Belongs to the project acme/web" in says
    assert "Replaced a machine got a newer token for it; it ends in 1 day" in says
    assert f"In the logs {issued.record.short}" in says
    assert "How it came to be made with the runner, just now" in says
    assert "First used just now" in says
    assert f"Other live tokens {tokens.shorten(minted)} made when a machine reset its token by itself" in says
    for machine in ("s_first", "s_second"):
        assert f"{machine} Address 127.0.0.1 Version 18.9.0 Last contact just now" in says
    path = f"/acme/web/-/runners/{issued.runner.id}"
    assert {path, f"{path}/reset-token", f"{ADDRESS}/{issued.record.id}/end"} <= set(links(page))


def test_an_ended_and_an_expired_token_are_told_as_such(dana: FlaskClient, cast: Cast, session: Session) -> None:
    issued = cast.runner()
    dana.post(f"{ADDRESS}/{issued.record.id}/end", data={"csrf_token": csrf(dana)})
    says = words(looked_up(dana, issued.token))
    assert "Ended on 20" in says
    assert "No machine can use it any more. The runner has no live token: reset it to get a new one." in says
    assert "End just this token" not in says
    expired = cast.runner()
    expired.record.expires_at = expired.record.created_at
    session.commit()
    assert "Expired on 20" in words(looked_up(dana, expired.token))


def csrf(client: FlaskClient) -> str:
    return read(client, ADDRESS).split('name="csrf_token" value="')[1].split('"')[0]


def test_a_registration_token_is_told_with_its_last_registrations(
    dana: FlaskClient, cast: Cast, session: Session
) -> None:
    token = registration_token(dana, session, cast)
    runner_id = register(dana, session, token, "192.0.2.33")
    page = looked_up(dana, f"--registration-token {token}")
    says = words(page)
    assert "This is the registration token of acme" in says
    assert "Works whoever has it can register runners in acme" in says
    assert "Registered with it 1 runner that still exists" in says
    assert "Old way From 192.0.2.33 Registered just now" in says
    assert f"/groups/acme/-/runners/{runner_id}" in links(page)
    assert "/groups/acme/-/registration/reset" in links(page)
    assert token not in page


def test_a_registration_token_is_revoked_by_resetting_it_from_there(
    dana: FlaskClient, cast: Cast, session: Session
) -> None:
    token = registration_token(dana, session, cast)
    reset = next(each for each in links(looked_up(dana, token)) if each.endswith("/registration/reset"))
    form = read(dana, reset)
    seen = form.split('name="seen_token_id" value="')[1].split('"')[0]
    fill(dana, reset, expect=303, seen_token_id=seen)
    says = words(looked_up(dana, token))
    assert "This is an old registration token of acme" in says
    assert "Ended on 20" in says
    assert "Nobody can register with it any more." in says


def test_a_registration_token_that_is_turned_off_says_who_did_it(
    dana: FlaskClient, cast: Cast, session: Session
) -> None:
    token = registration_token(dana, session, cast)
    session.add(GroupSettings(group_id=cast.acme.id, allow_runner_registration_token=False))
    session.commit()
    page = looked_up(dana, token)
    assert "Turned off An owner turned registration tokens off for the group acme." in words(page)
    assert "there is nothing to revoke" in words(page)


def test_nobodys_token_is_told_as_mistyped_or_unknown(dana: FlaskClient, cast: Cast) -> None:
    token = cast.runner().token
    wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
    assert "This token was mistyped." in words(looked_up(dana, wrong))
    assert "This token is unknown here." in words(looked_up(dana, "glrt-somebody-elses-token"))
    assert "This registration token is unknown here." in words(looked_up(dana, "GR1348941aaaaaaaaaaaaaaaaaaaa"))


def test_an_empty_form_is_told_beside_its_field(dana: FlaskClient) -> None:
    page = fill(dana, ADDRESS, expect=422, pasted="  ").get_data(as_text=True)
    assert "Paste a token." in words(part(page, "pasted"))


def test_what_was_pasted_stands_in_no_answer_log_row_or_cookie(
    dana: FlaskClient, cast: Cast, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    known, old = cast.runner(INSTANCE), registration_token(dana, session, cast)
    mistyped = known.token[:-1] + ("0" if known.token[-1] != "0" else "1")
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("portal").debug("this test does see the log")
        pasted = [known.token, old, mistyped, "glrt-somebody-elses-token", f'token = "{known.token}']
        pages = [looked_up(dana, each) for each in pasted]
    assert "this test does see the log" in caplog.text
    cookie = dana.get_cookie("__Host-portal_session")
    assert cookie
    where = [caplog.text, cookie.value, *pages, *every_row(session)]
    for secret in (known.token[17:35], old[18:], "somebody-elses-token"):
        assert not [text for text in where if secret in text]


def test_nothing_of_a_pasted_token_is_taken_from_an_address(dana: FlaskClient, cast: Cast) -> None:
    page = read(dana, f"{ADDRESS}?pasted={cast.runner().token}")
    assert 'id="found"' not in page
    assert "glrt-" not in page


def test_nobody_but_administrators_finds_the_page(cast: Cast, client: FlaskClient) -> None:
    issued = cast.runner()
    sign_in(client, "alice")
    for path in (ADDRESS, f"{ADDRESS}/{issued.record.id}/end"):
        read(client, path, expect=404)


# Ending it from there


def test_ending_says_what_stops_working_and_ends_just_this_token(dana: FlaskClient, cast: Cast) -> None:
    issued = cast.runner()
    poll(dana, issued.token, "s_old")
    minted = dana.post("/api/v4/runners/reset_authentication_token", json={"token": issued.token}).get_json()["token"]
    poll(dana, minted, "s_new")
    path = f"{ADDRESS}/{issued.record.id}/end"
    says = words(read(dana, path))
    assert "1 machine uses exactly this token. It is refused at the next poll" in says
    assert "The runner’s other 1 live token goes on working." in says
    assert "End token and disconnect 1 machine" in says
    assert "s_old Address" in says
    assert "s_new" not in says
    answer = fill(dana, path, expect=303)
    assert answer.headers["Location"] == f"/groups/acme/-/runners/{issued.runner.id}"
    assert (poll(dana, issued.token, "s_old"), poll(dana, minted, "s_new")) == (403, 204)
    runner_page = words(read(dana, answer.headers["Location"]))
    assert f"The token {issued.record.short} has ended." in runner_page
    assert "Dana Kay ended a token of the runner Linux build fleet" in runner_page


def test_ending_the_only_token_says_that_a_reset_is_needed(dana: FlaskClient, cast: Cast) -> None:
    issued = cast.runner()
    page = read(dana, f"{ADDRESS}/{issued.record.id}/end")
    assert "It is the runner’s only live token." in words(page)
    assert "nothing stops working" in words(page)
    assert f"/groups/acme/-/runners/{issued.runner.id}/reset-token" in links(page)


def test_a_token_that_somebody_else_has_ended_is_told_so(dana: FlaskClient, cast: Cast) -> None:
    path = f"{ADDRESS}/{cast.runner().record.id}/end"
    form = {"csrf_token": csrf(dana)}
    assert dana.post(path, data=form).status_code == 303
    again = dana.post(path, data=form)
    assert again.status_code == 409
    assert "This token has ended already." in words(again.get_data(as_text=True))
    assert "Nothing is left to end." in words(read(dana, path))
    read(dana, f"{ADDRESS}/999999/end", expect=404)


# The beginning of a token


def test_a_short_form_from_a_log_leads_to_its_runner(dana: FlaskClient, cast: Cast, session: Session) -> None:
    issued = cast.runner(cast.web)
    for pasted in (issued.record.short, issued.token[5:14]):
        page = looked_up(dana, pasted)
        says = words(page)
        assert "This is only the beginning of a token." in says
        assert "unknown" not in says
        assert f"Linux build fleet #{issued.runner.id} Where project acme/web" in says
        assert f"In the logs {issued.record.short} Last used never" in says
        assert f"/acme/web/-/runners/{issued.runner.id}" in links(page)
    issued.record.ends_at = issued.record.created_at
    session.commit()
    assert "this token is over" in words(looked_up(dana, issued.record.short))


def test_a_token_that_was_cut_off_is_told_and_not_shown(dana: FlaskClient, cast: Cast) -> None:
    issued = cast.runner()
    page = looked_up(dana, f'token = "{issued.token[:30]}')
    assert "This is only the beginning of a token, or its end was mistyped." in words(page)
    assert issued.token[17:30] not in page
    says = words(looked_up(dana, "zzzzzzzzz"))
    assert "No runner here has a token that begins so." in says
