"""Where a runner came from: created, registered with a token, imported; what its page says, and to do next."""

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from portal.domain.imports import import_formats, import_preview, runner_import
from portal.domain.imports.import_preview import Defaults
from portal.domain.registration import registration_tokens, runner_registration
from portal.domain.registration.registration import Configured
from portal.domain.registration.runner_registration import Registering
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Runner
from portal.requests import portal_url
from tests.cast import Cast, send, sign_in
from tests.domain.imports.test_runner_import import CREATED, OLD
from tests.web.conftest import Place
from tests.web.reading import read, words

RUNNERS = "/groups/acme/-/runners"


@pytest.fixture
def alice(cast: Cast, client: FlaskClient) -> FlaskClient:
    return sign_in(client, "alice")


def imported(session: Session, cast: Cast, token: str) -> Runner:
    dana = cast.as_(cast.dana)
    written = import_formats.read(f'[{{"token": "{token}", "scope": "acme"}}]', source="list.json", field="pasted")
    found = import_preview.preview(session, dana, written, Defaults(run_untagged=True))
    report = runner_import.carry_out(session, dana, [each.entry for each in found.planned])
    session.commit()
    return report.made[0].runner


def registered(session: Session, cast: Cast, configured: Configured) -> Runner:
    row = registration_tokens.make_token(session, cast.as_(cast.dana), cast.acme, configured)
    clear = configured.vault.open(row.ciphertext or b"") or ""
    made = runner_registration.register(session, configured, Registering(clear, RunnerSettings(run_untagged=True)))
    session.commit()
    return made.runner


def row(client: FlaskClient) -> str:
    page = read(client, RUNNERS)
    return words(page[page.index("<tbody>") : page.index("</tbody>")])


def test_a_runner_imported_with_a_token_of_a_person_says_who_imported_it(
    alice: FlaskClient, session: Session, cast: Cast
) -> None:
    runner = imported(session, cast, CREATED)
    assert "imported by Dana Kay" in row(alice)
    says = words(read(alice, f"{RUNNERS}/{runner.id}"))
    assert "Imported just now by Dana Kay" in says
    assert "created by" not in row(alice)


def test_a_runner_imported_with_an_older_token_was_registered_nowhere_here(
    alice: FlaskClient, session: Session, cast: Cast
) -> None:
    runner = imported(session, cast, OLD)
    assert "· imported" in row(alice)
    says = words(read(alice, f"{RUNNERS}/{runner.id}"))
    assert "Imported just now ; the trail says by whom" in says
    assert "Dana Kay imported the runner" in says
    assert "registered by token" not in row(alice)
    assert "with a registration token" not in says


def test_a_registered_runner_still_says_so(
    alice: FlaskClient, session: Session, cast: Cast, configured: Configured
) -> None:
    runner = registered(session, cast, configured)
    assert "registered by token" in row(alice)
    assert "Created just now with a registration token" in words(read(alice, f"{RUNNERS}/{runner.id}"))


@pytest.mark.parametrize("token", [OLD, CREATED])
def test_an_imported_runner_that_nobody_uses_yet_says_what_to_change(
    alice: FlaskClient, session: Session, cast: Cast, token: str
) -> None:
    runner = imported(session, cast, token)
    with alice.application.test_request_context():
        address = portal_url()
    says = words(read(alice, f"{RUNNERS}/{runner.id}"))
    assert f"Its machines hold its token already: change url in their config.toml to {address} ." in says
    assert "A reset of the token would cut them off." in says
    assert "stood on the page" not in says


def test_a_registered_runner_that_does_not_poll_yet_says_to_start_it(
    alice: FlaskClient, session: Session, cast: Cast, configured: Configured
) -> None:
    runner = registered(session, cast, configured)
    says = words(read(alice, f"{RUNNERS}/{runner.id}"))
    assert "No machine uses this runner yet. The machine that registered it holds its token" in says
    assert "gitlab-runner run or as a service" in says
    assert "stood on the page" not in says


def test_a_created_runner_names_the_page_that_showed_its_token_last(acme: Place) -> None:
    path = f"{acme.url}/{acme.runner().runner.id}"
    assert "the commands stood on the page after creating." in words(read(acme.client, path))
    send(acme.client, f"{path}/reset-token", expect=200)
    assert "the commands stood on the page after the reset." in words(read(acme.client, path))


def test_the_page_says_which_versions_print_the_short_token(place: Place) -> None:
    says = words(read(place.client, f"{place.url}/{place.runner().runner.id}"))
    kind = place.scope.runner_type.value
    assert "gitlab-runner 18.1 and newer prints these nine characters in its logs; older ones print" in says
    assert f"older ones print t{kind}_ and the first six." in says


@pytest.mark.parametrize("token", [OLD, CREATED])
def test_nothing_is_claimed_of_what_older_versions_print_of_other_tokens(
    alice: FlaskClient, session: Session, cast: Cast, token: str
) -> None:
    says = words(read(alice, f"{RUNNERS}/{imported(session, cast, token).id}"))
    assert "gitlab-runner 18.1 and newer prints these nine characters in its logs. The token" in says
