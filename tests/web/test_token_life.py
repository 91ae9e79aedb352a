"""The life of tokens on the runner's own pages: when they expire, which are due, ending one early."""

import re
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.database import now
from portal.domain.groups import scope_settings
from portal.domain.registration import registration_tokens, runner_registration
from portal.domain.registration.registration import Configured
from portal.domain.registration.runner_registration import Registering
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.models import Role, Runner, RunnerToken
from tests.cast import Cast, csrf_of, send, sign_in
from tests.domain.clock import let_pass
from tests.web.conftest import Place
from tests.web.reading import fill, links, part, poll, read, row_titles, token_of, words

DAY = 86_400
LIFE = timedelta(days=30)


def settle(place: Place, seconds: int = 30 * DAY) -> None:
    """New tokens of the place's runners live that long."""
    row = scope_settings.own_for_update(place.cast.session, place.scope)
    row.runner_token_expiration_interval = seconds
    place.cast.session.commit()


def later(place: Place, time: timedelta) -> None:
    place.cast.session.expire_all()
    let_pass(place.cast.session, time)
    place.cast.session.commit()
    place.client.application.extensions["known_runners"].forget_all()


def newest(place: Place) -> RunnerToken:
    place.cast.session.expire_all()
    return place.cast.session.scalars(select(RunnerToken).order_by(RunnerToken.id.desc()).limit(1)).one()


def runner_page(place: Place, issued: IssuedRunner) -> str:
    return read(place.client, f"{place.url}/{issued.runner.id}")


def warning(page: str) -> str:
    """What stands in the note about tokens that are due."""
    return words(page[page.index('id="runner-due"') : page.index('aria-labelledby="machines-head"')])


def machine_resets(client: FlaskClient, token: str) -> str:
    answer = client.post("/api/v4/runners/reset_authentication_token", json={"token": token})
    assert answer.status_code == 201
    return answer.get_json()["token"]


# Every door the same


def test_the_form_the_registration_and_a_machines_reset_give_the_same_expiry(
    place: Place, configured: Configured
) -> None:
    settle(place)
    session, dana = place.cast.session, place.cast.as_(place.cast.dana)
    made = newest(place) if token_of(place.create()) else None
    row = registration_tokens.make_token(session, dana, place.scope, configured)
    clear = configured.vault.open(row.ciphertext or b"") or ""
    registered = runner_registration.register(session, configured, Registering(clear, RunnerSettings(tags=("old",))))
    session.commit()
    machine_resets(place.client, registered.token)
    reset = newest(place)
    session.refresh(registered.record)
    assert made is not None
    for token in (made, registered.record, reset):
        assert token.expires_at is not None
        assert abs(token.expires_at - token.created_at - LIFE) < timedelta(seconds=1)


# The forms


def test_the_form_says_what_the_scope_allows_and_who_decided(place: Place) -> None:
    assert "Empty means that they do not expire." in words(read(place.client, f"{place.url}/new"))
    settle(place)
    says = words(part(read(place.client, f"{place.url}/new"), "token_expiration_interval-help"))
    why = f"because {place.scope.title} says so"
    assert f"Empty means 30 days, {why}; a longer life is kept but does not count." in says


def test_a_shorter_life_and_a_memory_of_its_own_are_kept_and_shown(place: Place) -> None:
    settle(place)
    page = place.create(token_expiration_interval="12h", machines_forgotten_after="1h").get_data(as_text=True)
    assert "This token expires in 12 hours ;" in words(page)
    runner = place.cast.session.scalars(select(Runner)).one()
    assert (runner.token_expiration_interval, runner.machines_forgotten_after) == (43_200, 3600)
    page = read(place.client, f"{place.url}/{runner.id}")
    assert "Token life New tokens live 12 hours" in words(page)
    assert "Silent machines Forgotten after 1 hour" in words(page)
    edit = read(place.client, f"{place.url}/{runner.id}/edit")
    assert re.search(r'id="token_expiration_interval"[^>]* value="12h"', edit)
    assert re.search(r'id="machines_forgotten_after"[^>]* value="1h"', edit)


def test_a_longer_life_is_accepted_and_said_not_to_count(place: Place) -> None:
    settle(place)
    runner = place.runner().runner
    send(
        place.client,
        f"{place.url}/{runner.id}/edit",
        tags="docker",
        description="",
        token_expiration_interval="60d",
        expect=302,
    )
    says = words(read(place.client, f"{place.url}/{runner.id}"))
    why = f"because {place.scope.title} says so"
    assert f"Its tokens live 30 days, {why}; the longer 60 days of the runner do not count." in says
    assert f"Token life New tokens live 30 days, {why} Its own 60 days are longer" in says
    assert "token expiration interval: 60 days" in says


def test_a_runner_nobody_limits_has_tokens_that_do_not_expire(acme: Place) -> None:
    says = words(runner_page(acme, acme.runner()))
    assert "Token life New tokens do not expire" in says
    assert "Silent machines Forgotten after 7 days" in says
    assert "not used yet · does not expire" in says


# When a token expires


def test_the_pages_that_show_a_token_say_when_it_expires(place: Place) -> None:
    endless = place.create().get_data(as_text=True)
    assert "This token expires" not in words(endless)
    settle(place)
    created = place.create().get_data(as_text=True)
    assert "This token expires in 30 days ; a running gitlab-runner 15.3 or newer renews it" in words(created)
    path = f"{place.url}/{newest(place).runner_id}/reset-token"
    said = f"The new one lives 30 days, because {place.scope.title} says so;"
    assert said in words(read(place.client, path))
    assert "This token expires in 30 days" in words(send(place.client, path).get_data(as_text=True))


def test_the_runners_page_says_it_in_words_and_exactly_on_hover(place: Place) -> None:
    settle(place)
    issued = place.runner()
    expires = issued.record.expires_at
    assert expires is not None
    page = part(runner_page(place, issued), "runner-tokens")
    assert "not used yet · expires in 30 days" in words(page)
    assert f'title="{expires:%Y-%m-%d %H:%M:%S} UTC"' in page
    assert "expires" not in warning(runner_page(place, issued))


def test_a_machine_that_renewed_its_token_is_no_reason_to_warn(acme: Place) -> None:
    settle(acme)
    issued = acme.runner()
    poll(acme.client, issued.token)
    later(acme, LIFE * 0.75)
    assert "nothing has renewed it" in warning(runner_page(acme, issued))
    poll(acme.client, machine_resets(acme.client, issued.token))
    assert "nothing has renewed it" not in warning(runner_page(acme, issued))


def test_a_due_token_is_warned_of_with_the_machines_that_use_it(place: Place) -> None:
    settle(place)
    issued = place.runner()
    for name in ("s_first", "s_second"):
        poll(place.client, issued.token, name)
    later(place, LIFE * 0.75 - timedelta(minutes=1))
    assert "expires" not in warning(runner_page(place, issued))
    later(place, timedelta(minutes=1))
    said = warning(runner_page(place, issued))
    assert re.search(rf"The token {issued.record.short} expires in 7 days , and nothing has renewed it ?\.", said)
    assert re.search(
        r"2 machines use it and are refused from then on: s_(first , s_second|second , s_first) ?\.", said
    )
    assert "start machines that are away, upgrade older ones, or reset the token." in said
    assert "due , expires in 7 days" in words(part(runner_page(place, issued), "runner-tokens"))


def test_an_expired_token_is_warned_of_and_the_door_says_so(place: Place) -> None:
    settle(place)
    issued = place.runner()
    poll(place.client, issued.token, "s_first")
    later(place, LIFE + timedelta(hours=3))
    assert poll(place.client, issued.token, "s_first") == 403
    page = runner_page(place, issued)
    said = warning(page)
    assert re.search(rf"The token {issued.record.short} expired 3 hours ago ?\.", said)
    assert re.search(r"1 machine uses it and is refused: s_first ?\.", said)
    assert "Reset the token and put the new one into its config.toml ." in said
    assert "expired 3 hours ago , refused since" in words(page[page.index("<tbody>") :])


def test_of_many_expired_tokens_ten_are_named_and_the_others_counted(acme: Place) -> None:
    issued, moment = acme.runner(), now()
    dates = {"created_at": moment - LIFE, "expires_at": moment - timedelta(hours=1)}
    acme.cast.session.add_all(
        RunnerToken(runner_id=issued.runner.id, digest=bytes([n]) * 32, short=f"t{n}", origin=2, **dates)
        for n in range(13)
    )
    issued.record.ends_at = moment - LIFE
    acme.cast.session.commit()
    says = warning(runner_page(acme, issued))
    assert says.count("No machine uses it.") == 10
    assert "3 more tokens of this runner are due or have expired." in says


def test_the_warning_is_refreshed_with_the_machines(acme: Place) -> None:
    settle(acme)
    issued = acme.runner()
    poll(acme.client, issued.token)
    address = f"{acme.url}/{issued.runner.id}/machines"
    later(acme, LIFE * 0.75)
    refreshed = read(acme.client, address)
    assert re.search(r'id="runner-due" hx-swap-oob="true">.*nothing has renewed it', refreshed, re.S)
    assert "/end" in refreshed


def test_who_only_inherits_a_runner_learns_nothing_of_its_tokens(cast: Cast, client: FlaskClient) -> None:
    place = Place("group", "/groups/acme/-/runners", "", cast.acme, sign_in(client, "bob"), cast)
    settle(place)
    issued = place.runner()
    poll(client, issued.token)
    later(place, LIFE)
    page = read(client, f"/acme/web/-/runners/{issued.runner.id}")
    assert issued.record.short not in page[page.index('id="runner-due"') :]
    assert "expired" not in words(page)


def test_the_page_says_how_many_silent_machines_were_forgotten(acme: Place) -> None:
    issued = acme.runner()
    assert "forgotten after 7 days of silence" not in words(runner_page(acme, issued))
    runner = acme.cast.session.get_one(Runner, issued.runner.id)
    runner.machines_forgotten, runner.machines_forgotten_at = 12, now() - timedelta(hours=3)
    acme.cast.session.commit()
    says = words(runner_page(acme, issued))
    assert "No machine uses this runner any more." in says
    assert "12 machines were forgotten after 7 days of silence, the last 3 hours ago" in says


# Which end is told


def test_a_token_with_two_ends_shows_the_earlier_one(acme: Place) -> None:
    settle(acme)
    issued = acme.runner()
    session = acme.cast.session
    for expires, ends, told in (
        (1, 23, "expires in 1 hour"),
        (23, 1, "ends in 1 hour"),
        (None, 5, "ends in 5 hours"),
    ):
        token = session.get_one(RunnerToken, issued.record.id)
        token.created_at = now()
        token.expires_at = None if expires is None else now() + timedelta(hours=expires)
        token.ends_at = now() + timedelta(hours=ends)
        session.commit()
        line = words(part(runner_page(acme, issued), "runner-tokens").partition("</li>")[0])
        assert line.count(" in ") == 1
        assert f"not used yet · {told}" in line


def test_a_new_life_is_told_as_that_of_new_tokens(acme: Place) -> None:
    issued = acme.runner()
    settle(acme, 7200)
    says = words(runner_page(acme, issued))
    assert "does not expire" in says
    assert "New tokens live 2 hours, because acme says so" in says


# Machines that cannot renew


def polls_as(place: Place, issued: IssuedRunner, info: dict[str, str], system_id: str = "s_1") -> str:
    """What the runner's page says in the row of a machine that tells this of itself."""
    body = {"token": issued.token, "system_id": system_id, "info": info}
    assert place.client.post("/api/v4/jobs/request", json=body).status_code == 204
    page = runner_page(place, issued)
    return words(page[page.index("<tbody>") : page.index("</tbody>")])


def test_a_machine_that_cannot_renew_its_expiring_token_is_named(place: Place) -> None:
    settle(place)
    row = polls_as(place, place.runner(), {"version": "13.12.0"})
    assert "s_1 gitlab-runner 13.12.0 cannot renew its token; it stops in 30 days Online" in row


@pytest.mark.parametrize("info", [{}, {"version": "development version"}])
def test_a_client_of_which_nothing_is_known_may_not_renew_it(acme: Place, info: dict[str, str]) -> None:
    settle(acme)
    assert "if it cannot renew its token by itself, it stops in 30 days" in polls_as(acme, acme.runner(), info)


def test_nobody_is_warned_of_a_machine_that_renews_or_has_nothing_to_renew(acme: Place) -> None:
    assert "renew" not in polls_as(acme, acme.runner(), {"version": "13.12.0"})
    settle(acme)
    assert "renew" not in polls_as(acme, acme.runner(), {"version": "15.3.0"})


# Ending a token early


def end_page(place: Place, issued: IssuedRunner) -> str:
    return f"{place.url}/{issued.runner.id}/tokens/{issued.record.id}/end"


def test_a_token_is_ended_early_and_the_others_live_on(place: Place) -> None:
    issued = place.runner()
    poll(place.client, issued.token, "s_left_behind")
    renewed = machine_resets(place.client, issued.token)
    poll(place.client, renewed, "s_renewed")
    path = end_page(place, issued)
    assert path in links(runner_page(place, issued))
    says = words(read(place.client, path))
    assert "1 machine uses exactly this token." in says
    assert "s_left_behind at 127.0.0.1, last contact just now" in says
    assert "s_renewed" not in says
    assert "End token and disconnect 1 machine" in says
    assert poll(place.client, issued.token, "s_left_behind") == 204  # looking ends nothing
    answer = fill(place.client, path)
    assert answer.headers["Location"] == f"{place.url}/{issued.runner.id}"
    says = words(runner_page(place, issued))
    assert f"The token {issued.record.short} has ended." in says
    assert "ended just now , refused since" in says
    assert poll(place.client, issued.token, "s_left_behind") == 403
    assert poll(place.client, renewed, "s_renewed") == 204
    assert "ended a token of the runner Linux build fleet" in says


def test_ending_the_only_token_says_that_nothing_is_left(acme: Place) -> None:
    issued = acme.runner()
    says = words(read(acme.client, end_page(acme, issued)))
    assert "It is the only token of Linux build fleet" in says
    assert "No machine uses exactly this token, so nothing stops working." in says
    fill(acme.client, end_page(acme, issued))
    assert "None: every token of this runner has ended." in words(runner_page(acme, issued))


def status_line(page: str) -> str:
    return words("<" + part(page, "runner-status").partition("</div>")[0])


def machine_status(page: str) -> str:
    body = page[page.index("<tbody>") :]
    return words(re.findall(r"<td>(.*?)</td>", body, re.S)[0])


def test_a_runner_without_a_living_token_says_that_its_machines_are_refused(place: Place) -> None:
    issued = place.runner()
    for name in ("s_1", "s_2"):
        poll(place.client, issued.token, name)
    assert "refused" not in words(runner_page(place, issued))
    fill(place.client, end_page(place, issued))
    page = runner_page(place, issued)
    says = words(part(page, "runner-refused"))
    assert "Every token of this runner has ended; its 2 machines are refused." in says
    assert "Reset the token and put the new one into their config.toml ." in says
    assert status_line(page).startswith("Refused counts as online · last contact")
    assert machine_status(page) == "Refused counts as online"
    assert words(re.findall(r'<td class="status">(.*?)</td>', read(place.client, place.url), re.S)[0]) == (
        "Refused counts as online"
    )
    refreshed = read(place.client, f"{place.url}/{issued.runner.id}/machines")
    assert re.search(r'id="runner-refused" hx-swap-oob="true">.*its 2 machines are refused', refreshed, re.S)


def test_a_reset_that_no_machine_follows_leaves_its_machines_refused(acme: Place) -> None:
    issued = acme.runner()
    poll(acme.client, issued.token)
    new = token_of(send(acme.client, f"{acme.url}/{issued.runner.id}/reset-token"))
    page = runner_page(acme, issued)
    says = words(part(page, "runner-refused"))
    assert "No machine of this runner has a token that still works; its machine is refused." in says
    assert "Put the newest one into its config.toml" in says
    assert status_line(page).startswith("Refused counts as online")
    poll(acme.client, new)
    page = runner_page(acme, issued)
    assert "refused" not in words(page)
    assert status_line(page).startswith("Online")


def test_an_unused_runner_without_a_token_is_told_without_machines(acme: Place) -> None:
    issued = acme.runner()
    fill(acme.client, end_page(acme, issued))
    page = runner_page(acme, issued)
    assert "Every token of this runner has ended. Reset the token for a new one." in words(page)
    assert "Every token of it has ended. Reset the token for a new one: the commands are shown with it." in words(
        page
    )
    assert status_line(page).startswith("No live token counts as never contacted")


def test_an_expired_token_is_warned_of_once(acme: Place) -> None:
    settle(acme)
    issued = acme.runner()
    poll(acme.client, issued.token)
    later(acme, LIFE)
    page = runner_page(acme, issued)
    assert "expired" in warning(page)
    assert "Every token of this runner" not in words(page)
    assert status_line(page).startswith("Refused")


def test_who_only_inherits_a_runner_does_not_learn_that_its_token_has_ended(cast: Cast, client: FlaskClient) -> None:
    place = Place("group", "/groups/acme/-/runners", "", cast.acme, sign_in(client, "alice"), cast)
    issued = place.runner()
    poll(client, issued.token)
    fill(client, end_page(place, issued))
    client.post("/-/sign-out", data={"csrf_token": csrf_of(read(client, "/"))})
    sign_in(client, "bob")
    for page in (read(client, f"/acme/web/-/runners/{issued.runner.id}"), read(client, "/acme/web/-/runners")):
        assert "Refused" not in words(page)
        assert "Online" in words(page)


def test_a_token_that_has_ended_already_leads_back_with_a_word(acme: Place) -> None:
    issued = acme.runner()
    path = end_page(acme, issued)
    fill(acme.client, path)
    answer = acme.client.get(path)
    assert (answer.status_code, answer.headers["Location"]) == (303, f"{acme.url}/{issued.runner.id}")
    assert "This token has ended already." in words(runner_page(acme, issued))
    fill(acme.client, path, form_at=acme.url, expect=303)
    assert "This token has ended already." in words(runner_page(acme, issued))


def test_a_token_is_ended_at_its_own_runner_only(acme: Place) -> None:
    issued, other = acme.runner(), acme.runner()
    path = f"{acme.url}/{issued.runner.id}/tokens/{other.record.id}/end"
    read(acme.client, path, expect=404)
    fill(acme.client, path, form_at=acme.url, expect=404)
    assert poll(acme.client, other.token) == 204


@pytest.mark.parametrize(("who", "status"), [("bob", 404), ("charlie", 404), ("erin", 403)])
def test_who_may_not_change_the_runner_ends_no_token(cast: Cast, client: FlaskClient, who: str, status: int) -> None:
    issued = cast.runner()
    sign_in(client, who)
    path = f"/groups/acme/-/runners/{issued.runner.id}/tokens/{issued.record.id}/end"
    read(client, path, expect=status)
    fill(client, path, form_at="/", expect=status)
    assert poll(client, issued.token) == 204


def test_a_reader_sees_the_tokens_and_no_way_to_end_one(cast: Cast, client: FlaskClient) -> None:
    cast.member(cast.charlie, cast.acme, Role.MAINTAINER)
    issued = cast.runner()
    page = read(sign_in(client, "charlie"), f"/groups/acme/-/runners/{issued.runner.id}")
    assert issued.record.short in part(page, "runner-tokens")
    assert not [address for address in links(page) if address.endswith("/end")]


# The list


def test_the_list_says_how_many_are_due_and_leads_to_them(place: Place) -> None:
    place.runner(RunnerSettings("Endless", run_untagged=True))
    assert "or has expired" not in words(read(place.client, place.url))
    settle(place)
    late = place.runner(RunnerSettings("Late", run_untagged=True))
    poll(place.client, late.token)
    later(place, LIFE * 0.75)
    page = read(place.client, place.url)
    assert "1 runner has a token that is due or has expired. Show it" in words(page)
    assert f"{place.url}?token=due" in links(page)
    narrowed = read(place.client, f"{place.url}?token=due")
    assert row_titles(narrowed) == ["Late"]
    assert "Show it" not in words(narrowed)


def test_a_filter_on_token_life_is_kept_by_the_other_links(acme: Place) -> None:
    acme.runner()
    page = read(acme.client, f"{acme.url}?token=due&registration=person")
    assert f"{acme.url}?token=due&registration=person&status=online" in links(page)


def test_a_machine_row_says_which_token_it_uses_and_until_when(acme: Place) -> None:
    settle(acme)
    issued = acme.runner()
    poll(acme.client, issued.token)
    page = runner_page(acme, issued)
    row = words(page[page.index("<tbody>") : page.index("</tbody>")])
    assert f"Token {issued.record.short} expires in 30 days" in row
    session = acme.cast.session
    token = session.get_one(RunnerToken, issued.record.id)
    token.ends_at = now() + timedelta(hours=5, minutes=1)
    session.commit()
    page = runner_page(acme, issued)
    assert f"Token {issued.record.short} old, ends in 5 hours" in words(page[page.index("<tbody>") :])
