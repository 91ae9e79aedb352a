"""Machines without a system ID where registration tokens are off: the door refuses them, the pages say so."""

import re

from flask.testing import FlaskClient

from portal.domain.registration import registration_switch
from portal.domain.registration.registration import Configured
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import Scope
from tests.cast import Cast, sign_in
from tests.web.conftest import Place
from tests.web.reading import part, poll, read, words

UPGRADE = "Upgrade its gitlab-runner to 15.10 or newer"


def turn_off(cast: Cast, scope: Scope, configured: Configured) -> None:
    dana = cast.as_(cast.dana)
    registration_switch.switch(cast.session, dana, scope, allow=False, configured=configured)
    cast.session.commit()


def rows(page: str) -> list[str]:
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    return [words(row) for row in re.findall(r"<tr>.*?</tr>", body, re.S)]


def test_a_machine_refused_for_want_of_a_system_id_is_told_on_its_row_and_on_top(
    place: Place, configured: Configured
) -> None:
    issued = place.runner()
    assert poll(place.client, issued.token, "") == 204
    poll(place.client, issued.token, "s_named")
    path = f"{place.url}/{issued.runner.id}"
    assert "refused" not in words(read(place.client, path))
    turn_off(place.cast, place.scope, configured)
    place.client.application.extensions["known_runners"].forget_all()
    assert poll(place.client, issued.token, "") == 410
    page = read(place.client, path)
    why = (
        f"An administrator turned registration tokens off for the {place.kind} {place.scope.full_path}."
        if place.kind != "instance"
        else "An administrator turned registration tokens off for the whole portal."
    )
    (row,) = (each for each in rows(page) if each.startswith("<legacy>"))
    assert f"refused: {why} {UPGRADE} Refused counts as online" in row
    assert "sends no system ID" not in row
    note = words(part(page, "runner-refused"))
    assert f"Machines of this runner are refused. {why} <legacy> with gitlab-runner 18.9.0 at 127.0.0.1 sends" in note
    (named,) = (each for each in rows(page) if each.startswith("s_named"))
    assert named.startswith("s_named Online")
    refreshed = read(place.client, f"{path}/machines")
    assert re.search(r'id="runner-refused" hx-swap-oob="true">.*turned registration tokens off', refreshed, re.S)
    assert UPGRADE in words(refreshed)


def test_the_list_marks_the_runner_of_a_refused_machine(acme: Place, configured: Configured) -> None:
    alone, mixed, fine = (acme.runner(RunnerSettings(name, run_untagged=True)) for name in ("Alone", "Mixed", "Fine"))
    for issued, system_ids in ((alone, [""]), (mixed, ["", "s_1"]), (fine, ["s_1"])):
        for system_id in system_ids:
            poll(acme.client, issued.token, system_id)
    assert "refused" not in words(read(acme.client, acme.url))
    turn_off(acme.cast, acme.scope, configured)
    found = rows(read(acme.client, acme.url))
    assert [row.partition(" group ")[0] for row in found] == [
        "Online Idle Fine",
        "Online Idle 1 machine refused Mixed",
        "1 machine refused counts as online Alone",
    ]


def test_a_runner_with_only_such_a_machine_is_not_called_online_on_its_page(
    acme: Place, configured: Configured
) -> None:
    issued = acme.runner()
    poll(acme.client, issued.token, "")
    turn_off(acme.cast, acme.scope, configured)
    says = words("<" + part(read(acme.client, f"{acme.url}/{issued.runner.id}"), "runner-status"))
    assert says.startswith("Refused counts as online · last contact")


def test_who_inherits_the_runner_learns_why_but_not_where_from(
    cast: Cast, client: FlaskClient, configured: Configured
) -> None:
    issued = cast.runner()
    poll(client, issued.token, "")
    turn_off(cast, cast.acme, configured)
    says = words(read(sign_in(client, "bob"), f"/acme/web/-/runners/{issued.runner.id}"))
    assert "Machines of this runner are refused. An administrator turned registration tokens off" in says
    assert "127.0.0.1" not in says
