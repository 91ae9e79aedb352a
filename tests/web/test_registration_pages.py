"""The registration pages: the token for those who may have it, the switch, and what everybody else is told."""

import csv
import io
import re
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.groups import scope_settings
from portal.domain.registration import registration_tokens
from portal.domain.registration.registration import Configured
from portal.domain.scopes import INSTANCE
from portal.models import LEGACY, RegistrationToken, Role, RunnerManager
from tests.cast import Cast, send, sign_in
from tests.web.conftest import Place
from tests.web.reading import fill, links, read, words

TOKEN = re.compile(r"GR1348941[0-9A-Za-z]{20}")


def pages(place: Place) -> str:
    return place.url.removesuffix("/runners") + "/registration"


def made(place: Place) -> str:
    """Make the token through the page; returns the page that shows it."""
    fill(place.client, f"{pages(place)}/token", form_at=pages(place), expect=303)
    return read(place.client, pages(place))


def shown(page: str) -> str:
    found = TOKEN.search(page)
    assert found, "the page shows no registration token"
    return found[0]


def turn_off(place: Place, expect: int = 303) -> None:
    fill(place.client, f"{pages(place)}/turn-off", expect=expect)


def register(client: FlaskClient, token: str, **more: object):
    body = {"token": token, "description": "old box", "run_untagged": True, **more}
    return client.post("/api/v4/runners", json=body)


def test_the_token_is_made_by_a_button_and_not_by_looking(place: Place, session: Session) -> None:
    assert "There is no registration token here yet" in words(read(place.client, pages(place)))
    assert session.scalar(select(RegistrationToken)) is None
    page = made(place)
    assert page.count("deprecated") >= 1
    assert f"{place.url}/new" in links(page)
    token = session.scalars(select(RegistrationToken)).one()
    assert token.short == shown(page)[9:18]
    assert shown(read(place.client, pages(place))) == shown(page)


def test_the_token_is_masked_until_somebody_reveals_or_copies_it(place: Place) -> None:
    page = made(place)
    assert "GR1348941••••" in page
    inside = page.index("<details", page.index('class="masked"'))
    assert inside < page.index('id="registration-token"') < page.index("</details>", inside)
    assert 'data-copy="registration-token"' in page


def test_a_page_with_the_token_is_kept_in_no_cache(place: Place) -> None:
    made(place)
    for address in (pages(place), place.url):
        assert place.client.get(address).headers["Cache-Control"] == "no-store"


def test_the_list_of_runners_shows_the_token_under_a_plain_notice(place: Place) -> None:
    assert "Registration token" in words(read(place.client, place.url))
    token = shown(made(place))
    page = read(place.client, place.url)
    assert token in page
    assert "deprecated" in words(page)
    assert f"{place.url}/new" in links(page)


def test_the_legacy_commands_register_with_it_and_say_the_options(place: Place) -> None:
    page = made(place)
    for part in (
        "export REGISTRATION_TOKEN=",
        "--tag-list docker,linux",
        "--maximum-timeout",
        "runner-registration-token:",
    ):
        assert part in page
    assert "CI_SERVER_TOKEN" not in page


def test_the_token_on_the_page_registers_a_runner_of_the_scope(place: Place) -> None:
    answer = register(place.client, shown(made(place)))
    assert answer.status_code == 201
    page = read(place.client, f"{place.url}/{answer.json['id']}")
    assert "old box" in page
    assert "with a registration token" in words(page)


def test_a_reset_shows_another_token_and_the_old_one_is_refused(place: Place) -> None:
    old = shown(made(place))
    send(place.client, f"{pages(place)}/reset", expect=303)
    new = shown(read(place.client, pages(place)))
    assert new != old
    assert register(place.client, old).status_code == 403
    assert register(place.client, new).status_code == 201


def test_of_two_who_reset_the_second_is_asked_to_look_again(place: Place) -> None:
    made(place)
    page = read(place.client, f"{pages(place)}/reset")
    seen = re.search(r'name="seen_token_id" value="(\d+)"', page)
    csrf = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert seen
    assert csrf
    send(place.client, f"{pages(place)}/reset", expect=303)
    current = shown(read(place.client, pages(place)))
    again = {"csrf_token": csrf[1], "seen_token_id": seen[1]}
    assert place.client.post(f"{pages(place)}/reset", data=again).status_code == 409
    assert shown(read(place.client, pages(place))) == current


def test_a_token_that_no_key_opens_is_said_to_be_so(
    place: Place, app: Flask, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = shown(made(place))
    lost = replace(configured, vault=type(configured.vault)(["another key that never closed anything"]))
    monkeypatch.setitem(app.extensions, "registration", lost)
    page = words(read(place.client, pages(place)))
    assert "This token cannot be shown" in page
    assert register(place.client, token).status_code == 201
    send(place.client, f"{pages(place)}/reset", expect=303)
    assert shown(read(place.client, pages(place))) != token


def test_turning_off_is_asked_once_and_hides_the_token_and_its_commands(place: Place) -> None:
    token = shown(made(place))
    page = read(place.client, f"{pages(place)}/turn-off")
    assert "What is refused at once" in words(page)
    turn_off(place)
    page = read(place.client, pages(place))
    assert not TOKEN.search(page)
    assert "REGISTRATION_TOKEN" not in page
    assert "Turned off" in words(page)
    assert f"{place.url}/new" in links(page)
    assert not TOKEN.search(read(place.client, place.url))
    answer = register(place.client, token)
    assert answer.status_code == 410
    expected = (
        "https://portal.example.com/" if place.kind == "instance" else f"https://portal.example.com{place.url}/new"
    )
    assert answer.json["message"].endswith(expected)


def test_turning_on_again_is_one_click_and_brings_the_same_token_back(place: Place) -> None:
    token = shown(made(place))
    turn_off(place)
    fill(place.client, f"{pages(place)}/turn-on", form_at=pages(place), expect=303)
    assert shown(read(place.client, pages(place))) == token
    assert register(place.client, token).status_code == 201


def test_while_they_are_off_the_token_can_be_neither_made_nor_reset(place: Place) -> None:
    turn_off(place)
    assert place.client.get(f"{pages(place)}/reset").status_code == 410
    for act in ("token", "reset"):
        answer = fill(place.client, f"{pages(place)}/{act}", form_at=pages(place), expect=410)
        assert "turned registration tokens off" in words(answer.get_data(as_text=True))


def test_the_page_before_turning_off_names_what_it_breaks(place: Place, session: Session) -> None:
    number = register(place.client, shown(made(place))).json["id"]
    session.add(RunnerManager(runner_id=number, system_xid=LEGACY, ip_address="198.51.100.7", version="13.12.0"))
    session.commit()
    page = read(place.client, f"{pages(place)}/turn-off")
    for part in ("1 runner", "198.51.100.7", "13.12.0", "old box", "and refuse 1 machine", "None of the runners"):
        assert part in words(page)


def test_the_list_of_what_it_touches_is_a_csv_file_that_no_spreadsheet_takes_for_formulas(place: Place) -> None:
    token = shown(made(place))
    register(place.client, token, description="=HYPERLINK(evil)")
    answer = place.client.get(f"{pages(place)}/affected")
    assert answer.mimetype == "text/csv"
    assert "attachment" in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.get_data(as_text=True))))
    kinds = [row["kind"] for row in rows if "below" not in row["kind"]]
    assert kinds == ["runner registered by token", "registration in the last 30 days"]
    assert {row["runner"] for row in rows} <= {"'=HYPERLINK(evil)", ""}


@pytest.mark.parametrize("kind", ["group", "project"])
def test_where_nobody_may_create_runners_the_page_says_so_and_shows_no_token(
    app: Flask, cast: Cast, kind: str
) -> None:
    scope_settings.own_for_update(cast.session, INSTANCE).valid_runner_registrars = []
    cast.session.commit()
    for who in ("dana", "alice"):
        client = sign_in(app.test_client(), who)
        base = {"group": "/groups/acme/-", "project": "/acme/web/-"}[kind]
        page = words(read(client, f"{base}/registration"))
        assert "but nobody can register" in page
        assert f"let nobody else create runners in {kind}s" in page
        assert "Make a registration token" not in page
        assert "only." not in page
        fill(client, f"{base}/registration/token", form_at=f"{base}/registration", expect=403)


def test_the_page_names_what_is_off_below(cast: Cast, app: Flask) -> None:
    fill(sign_in(app.test_client(), "bob"), "/acme/web/-/registration/turn-off", expect=303)
    page = words(read(sign_in(app.test_client(), "alice"), "/groups/acme/-/registration"))
    assert "Turned off below: acme/web" in page


def test_where_tokens_expire_the_legacy_commands_warn_of_clients_that_cannot_renew(place: Place) -> None:
    settings = scope_settings.own_for_update(place.cast.session, place.scope)
    settings.runner_token_expiration_interval = 7200
    place.cast.session.commit()
    assert "live 2 hours" in words(made(place))
    assert "15.3 and newer renews its token by itself" in words(made(place))


def test_an_administrator_who_turned_a_group_off_is_not_named_to_others(
    cast: Cast, app: Flask, configured: Configured
) -> None:
    dana, alice = sign_in(app.test_client(), "dana"), sign_in(app.test_client(), "alice")
    row = registration_tokens.make_token(cast.session, cast.as_(cast.dana), cast.acme, configured)
    token = configured.vault.open(row.ciphertext or b"") or ""
    cast.session.commit()
    fill(dana, "/groups/acme/-/registration/turn-off", expect=303)
    assert "An administrator turned them off for group acme" in words(read(alice, "/groups/acme/-/registration"))
    assert "Dana Kay turned them off" in words(read(dana, "/groups/acme/-/registration"))
    assert "Dana" not in register(alice, token).json["message"]


# Who sees what


def test_a_project_below_shows_which_group_decided_and_that_it_is_locked(cast: Cast, app: Flask) -> None:
    alice, bob = sign_in(app.test_client(), "alice"), sign_in(app.test_client(), "bob")
    fill(alice, "/groups/acme/-/registration/turn-off", expect=303)
    page = read(bob, "/acme/web/-/registration")
    assert "Alice Lam turned them off for group acme" in words(page)
    assert 'aria-label="Locked"' in page
    assert "turn-on" not in page
    assert "turn-off" not in page
    assert "This is decided above already" in words(read(bob, "/acme/web/-/registration/turn-off"))
    for act in ("turn-on", "turn-off"):
        fill(bob, f"/acme/web/-/registration/{act}", form_at="/acme/web/-/registration", expect=403)


def test_an_owner_learns_that_an_administrator_decided_but_not_who(cast: Cast, app: Flask) -> None:
    dana, alice = sign_in(app.test_client(), "dana"), sign_in(app.test_client(), "alice")
    fill(dana, "/admin/registration/turn-off", expect=303)
    page = words(read(alice, "/groups/acme/-/registration"))
    assert "An administrator turned them off for the whole portal" in page
    assert "Dana" not in page
    assert "Dana Kay turned them off" in words(read(dana, "/admin/registration"))


def test_the_configuration_locks_the_instance_for_administrators_too(
    cast: Cast, app: Flask, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.extensions, "registration", replace(configured, enforced=True))
    dana = sign_in(app.test_client(), "dana")
    page = read(dana, "/admin/registration")
    assert "PORTAL_ENFORCE_CREATE_RUNNER_WORKFLOW" in page
    assert "turn-on" not in page
    fill(dana, "/admin/registration/turn-on", form_at="/admin/registration", expect=403)


@pytest.mark.parametrize(
    ("who", "address", "said"),
    [
        ("erin", "/groups/acme/-/registration", "The owners of acme can change that"),
        ("erin", "/acme/web/-/registration", "The maintainers and owners of acme/web can change that"),
    ],
)
def test_who_may_not_change_it_sees_the_state_and_who_can(
    cast: Cast, app: Flask, session: Session, configured: Configured, who: str, address: str, said: str
) -> None:
    for scope in (cast.acme, cast.web):
        registration_tokens.make_token(session, cast.as_(cast.dana), scope, configured)
    session.commit()
    page = read(sign_in(app.test_client(), who), address)
    assert "Allowed" in words(page)
    assert said in words(page)
    assert not TOKEN.search(page)
    assert "turn-off" not in page


@pytest.mark.parametrize("act", ["turn-off", "affected", "reset"])
def test_a_developer_is_refused_and_a_stranger_finds_nothing(cast: Cast, app: Flask, act: str) -> None:
    assert sign_in(app.test_client(), "erin").get(f"/groups/acme/-/registration/{act}").status_code == 403
    assert sign_in(app.test_client(), "charlie").get(f"/groups/acme/-/registration/{act}").status_code == 404


def test_the_trail_tells_of_every_step_and_never_the_token(place: Place) -> None:
    token = shown(made(place))
    register(place.client, token)
    send(place.client, f"{pages(place)}/reset", expect=303)
    turn_off(place)
    trail = words(read(place.client, place.trail))
    for part in (
        "made the registration token",
        f"registration token {token[9:18]} registered the runner old box",
        "reset the registration token",
        "turned registration tokens off in",
    ):
        assert part in trail
    assert token not in trail


def test_a_maintainer_of_a_group_sees_its_list_but_no_token(cast: Cast, app: Flask) -> None:
    cast.member(cast.charlie, cast.acme, Role.MAINTAINER)
    cast.session.commit()
    alice = sign_in(app.test_client(), "alice")
    fill(alice, "/groups/acme/-/registration/token", form_at="/groups/acme/-/registration", expect=303)
    charlie = sign_in(app.test_client(), "charlie")
    for address in ("/groups/acme/-/runners", "/groups/acme/-/registration"):
        assert not TOKEN.search(read(charlie, address))
