"""The mutation that resets a registration token."""

from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from portal.database import now
from portal.domain.groups import scope_settings
from portal.domain.registration import registration_tokens
from portal.domain.registration.registration import Configured
from portal.domain.scopes import INSTANCE, Scope
from portal.models import UserSession
from tests.api.graphql.conftest import AskerOf
from tests.api.graphql.queries import DOOR, NOT_AVAILABLE, Asker, gid, mutation_of
from tests.cast import Cast, csrf_of, sign_in

RESET = "runnersRegistrationTokenReset"


def old_token(cast: Cast, scope: Scope, configured: Configured) -> str:
    made = registration_tokens.make_token(cast.session, cast.as_(cast.dana), scope, configured)
    cast.session.commit()
    found = configured.vault.open(made.ciphertext or b"")
    assert found
    return found


def test_the_new_token_is_answered_and_the_old_one_is_over(
    cast: Cast, asker_of: AskerOf, configured: Configured
) -> None:
    cases: list[tuple[Asker, Scope, dict[str, Any]]] = [
        (asker_of(cast.dana), INSTANCE, {"type": "INSTANCE_TYPE"}),
        (asker_of(cast.alice), cast.acme, {"type": "GROUP_TYPE", "id": gid("Group", cast.acme.id)}),
        (asker_of(cast.bob), cast.web, {"type": "PROJECT_TYPE", "id": gid("Project", cast.web.id)}),
    ]
    for asker, scope, given in cases:
        old = old_token(cast, scope, configured)
        payload = asker.change(RESET, "token", **given)
        assert payload["errors"] == []
        assert payload["token"].startswith("GR1348941")
        register = "/api/v4/runners"
        assert asker.client.post(register, json={"token": old}).status_code == 403
        assert asker.client.post(register, json={"token": payload["token"]}).status_code == 201


def test_an_id_goes_with_its_type(cast: Cast, asker_of: AskerOf) -> None:
    dana, group = asker_of(cast.dana), gid("Group", cast.acme.id)
    assert "left out" in dana.refused(RESET, type="INSTANCE_TYPE", id=group)[0]
    assert "missing" in dana.refused(RESET, type="GROUP_TYPE")[0]
    assert "missing" in dana.refused(RESET, type="PROJECT_TYPE")[0]
    assert "not a valid ID for Project" in dana.refused(RESET, type="PROJECT_TYPE", id=group)[0]
    assert "not a valid global ID" in dana.refused(RESET, type="GROUP_TYPE", id="7")[0]


def test_who_may_not_reset_it_hears_nothing(cast: Cast, asker_of: AskerOf, visitor: Asker) -> None:
    group, missing = gid("Group", cast.acme.id), gid("Group", 999_999)
    for asker in (asker_of(cast.bob), asker_of(cast.charlie), visitor):
        for number in (group, missing):
            assert asker.refused(RESET, "token", type="GROUP_TYPE", id=number) == [NOT_AVAILABLE]
        assert asker.refused(RESET, "token", type="INSTANCE_TYPE") == [NOT_AVAILABLE]


def test_that_registration_tokens_are_off_is_told(cast: Cast, asker_of: AskerOf) -> None:
    settings = scope_settings.chain(cast.session, cast.acme).instance
    settings.allow_runner_registration_token = False
    cast.session.add(settings)
    cast.session.commit()
    payload = asker_of(cast.alice).change(RESET, "token", type="GROUP_TYPE", id=gid("Group", cast.acme.id))
    assert payload["token"] is None
    assert "turned registration tokens off" in payload["errors"][0]


@pytest.mark.parametrize(("ago", "asked_again"), [(timedelta(minutes=14), False), (timedelta(minutes=16), True)])
def test_a_browser_that_was_left_open_is_asked_again_as_on_the_page(
    cast: Cast, client: FlaskClient, ago: timedelta, asked_again: bool
) -> None:
    sign_in(client, "alice")
    csrf = csrf_of(client.get("/-/account").get_data(as_text=True))
    cast.session.execute(update(UserSession).values(confirmed_at=now() - ago))
    cast.session.commit()
    given = {"input": {"type": "GROUP_TYPE", "id": gid("Group", cast.acme.id)}}
    body = {"query": mutation_of(RESET, "token"), "variables": given}
    payload = client.post(DOOR, json=body, headers={"X-CSRFToken": csrf}).get_json()["data"][RESET]
    assert (payload["token"] is None) is asked_again
    assert [("/-/confirm" in each) for each in payload["errors"]] == [True] * asked_again


def test_a_browser_that_was_left_open_does_not_tell_which_groups_there_are(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "charlie")
    csrf = csrf_of(client.get("/-/account").get_data(as_text=True))
    cast.session.execute(update(UserSession).values(confirmed_at=now() - timedelta(hours=1)))
    cast.session.commit()
    told = []
    for number in (cast.acme.id, 999_999):
        given = {"input": {"type": "GROUP_TYPE", "id": gid("Group", number)}}
        body = {"query": mutation_of(RESET, "token"), "variables": given}
        told.append(client.post(DOOR, json=body, headers={"X-CSRFToken": csrf}).get_json())
    assert told[0] == told[1]
