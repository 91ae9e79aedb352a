"""Two people change one runner: nobody undoes what they have not seen."""

from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from portal.domain import runners
from tests.cast import Cast, csrf_of, hidden, sign_in


def test_a_pause_survives_an_edit_form_that_was_opened_before_it(
    client: FlaskClient, cast: Cast, session: Session
) -> None:
    runner_id = cast.runner().runner.id
    at = f"/groups/acme/-/runners/{runner_id}"
    sign_in(client, "alice")
    page = client.get(f"{at}/edit").get_data(as_text=True)
    client.post(f"{at}/pause", data={"csrf_token": csrf_of(page)})
    sent = {"csrf_token": csrf_of(page), "seen_version": hidden(page, "seen_version"), "tags": "docker"}
    refused = client.post(f"{at}/edit", data={**sent, "description": "Renamed meanwhile"})
    assert refused.status_code == 409
    html = refused.get_data(as_text=True)
    assert "Somebody else changed this runner" in html
    assert "Renamed meanwhile" in html
    kept = runners.settings_of(cast.session.get_one(type(cast.runner().runner), runner_id))
    assert kept.paused
    assert kept.description != "Renamed meanwhile"


def test_sending_again_after_the_warning_saves(client: FlaskClient, cast: Cast) -> None:
    runner_id = cast.runner().runner.id
    at = f"/groups/acme/-/runners/{runner_id}"
    sign_in(client, "alice")
    page = client.get(f"{at}/edit").get_data(as_text=True)
    client.post(f"{at}/pause", data={"csrf_token": csrf_of(page)})
    sent = {"csrf_token": csrf_of(page), "seen_version": hidden(page, "seen_version"), "tags": "docker"}
    warned = client.post(f"{at}/edit", data=sent).get_data(as_text=True)
    again = client.post(f"{at}/edit", data={**sent, "seen_version": hidden(warned, "seen_version")})
    assert again.status_code == 302
