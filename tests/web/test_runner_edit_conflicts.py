"""Two people change one runner: nobody undoes what they have not seen."""

import pytest
from flask.testing import FlaskClient

from portal.domain.runners import runner_settings
from portal.models import Runner
from tests.cast import Cast, csrf_of, hidden, sign_in


@pytest.fixture
def at(client: FlaskClient, cast: Cast) -> str:
    """The address of a runner that Alice, who is signed in, looks after."""
    sign_in(client, "alice")
    return f"/groups/acme/-/runners/{cast.runner().runner.id}"


@pytest.fixture
def overtaken(client: FlaskClient, at: str) -> dict[str, str]:
    """What an edit form sends that was opened before somebody paused the runner."""
    page = client.get(f"{at}/edit").get_data(as_text=True)
    token = csrf_of(page)
    client.post(f"{at}/pause", data={"csrf_token": token})
    return {
        "csrf_token": token,
        "seen_version": hidden(page, "seen_version"),
        "tags": "docker",
        "description": "Mine",
    }


def test_a_pause_survives_an_edit_form_that_was_opened_before_it(
    client: FlaskClient, cast: Cast, at: str, overtaken: dict[str, str]
) -> None:
    refused = client.post(f"{at}/edit", data=overtaken)
    assert refused.status_code == 409
    html = refused.get_data(as_text=True)
    assert "Somebody else changed this runner" in html
    assert 'value="Mine"' in html
    kept = runner_settings.settings_of(cast.session.get_one(Runner, int(at.rpartition("/")[2])))
    assert kept.paused
    assert kept.description != "Mine"


def test_sending_again_after_the_warning_saves(client: FlaskClient, at: str, overtaken: dict[str, str]) -> None:
    warned = client.post(f"{at}/edit", data=overtaken).get_data(as_text=True)
    again = client.post(f"{at}/edit", data={**overtaken, "seen_version": hidden(warned, "seen_version")})
    assert again.status_code == 302
