"""One runner: what its page says, and editing, pausing, resuming, deleting it."""

import re
from datetime import timedelta

import pytest
from sqlalchemy import select

from portal.database import now
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import Runner, RunnerManager
from tests.cast import send
from tests.web.conftest import Place
from tests.web.reading import SYSTEM_ID, links, poll, read, verify, words

FULL = RunnerSettings(
    description="Build fleet",
    maintenance_note="Rack 7",
    tags=("docker", "linux"),
    run_untagged=True,
    paused=True,
    protected=True,
    locked=True,
    maximum_timeout=5400,
)
EMPTY = {"maintenance_note": "", "maximum_timeout": ""}  # what a browser sends for fields that are empty


def present(place: Place, runner_id: int) -> Runner:
    place.cast.session.expire_all()
    found = place.cast.session.get(Runner, runner_id)
    assert found
    return found


def test_the_page_says_everything_about_the_runner(place: Place) -> None:
    issued = place.runner(FULL)
    says = words(read(place.client, f"{place.url}/{issued.runner.id}"))
    for fact in (
        f"Build fleet {place.kind}",
        "Never contacted",
        "Paused",
        "no machine has asked for jobs yet",
        "docker linux",
        "Takes jobs on protected refs only · with or without tags",
        "At most 1 hour 30 minutes",
        "Maintenance note Rack 7",
        "by Dana Kay",
        f"Number #{issued.runner.id}",
        f"{issued.record.short} created with the runner just now · not used yet",
        "Dana Kay created the runner Build fleet",
        "No machine uses this runner yet.",
        f"Owner {place.scope.full_path or 'The instance'}",
    ):
        assert fact in says
    assert ("Locked Yes, to its project" in says) == (place.kind == "project")


def test_the_page_has_a_row_for_each_machine(place: Place) -> None:
    issued = place.runner()
    verify(place.client, issued.token, "s_only_registered")
    poll(place.client, issued.token)
    page = read(place.client, f"{place.url}/{issued.runner.id}")
    rows = [words(row) for row in re.findall(r"<tr>.*?</tr>", page[page.index("<tbody>") :], re.S)]
    assert len(rows) == 2
    first = f"{SYSTEM_ID} Online Idle Version 18.9.0 (abcdef12) Address 127.0.0.1 Executor docker"
    assert f"{first} Platform linux/arm64" in rows[0]
    assert f"Token {issued.record.short} Last contact just now" in rows[0]
    assert "s_only_registered Never contacted" in rows[1]
    assert "Machines (runner managers) · 2" in words(page)


@pytest.mark.parametrize(
    ("silent_for", "status"),
    [(timedelta(hours=1), "Online"), (timedelta(hours=3), "Offline"), (timedelta(days=8), "Stale")],
)
def test_the_status_follows_from_the_last_contact(acme: Place, silent_for: timedelta, status: str) -> None:
    issued = acme.runner()
    poll(acme.client, issued.token)
    runner = present(acme, issued.runner.id)
    machine = acme.cast.session.scalars(select(RunnerManager)).one()
    runner.created_at = machine.created_at = now() - timedelta(days=9)
    runner.contacted_at = machine.contacted_at = now() - silent_for
    acme.cast.session.commit()
    page = read(acme.client, f"{acme.url}/{runner.id}")
    head = words(page[page.index('id="runner-status"') : page.index("<section")])
    assert status in head
    assert status in words(page[page.index("<tbody>") :])
    assert row_status(acme).removesuffix(" Idle") == status


def row_status(place: Place) -> str:
    page = read(place.client, place.url)
    return words(re.findall(r'<td class="status">(.*?)</td>', page, re.S)[0])


def test_the_machines_part_refreshes_by_itself_with_the_status(place: Place) -> None:
    issued = place.runner()
    address = f"{place.url}/{issued.runner.id}/machines"
    assert f'hx-get="{address}"' in read(place.client, f"{place.url}/{issued.runner.id}")
    assert "No machine uses this runner yet." in words(read(place.client, address))
    poll(place.client, issued.token)
    part = read(place.client, address)
    assert "<html" not in part
    assert re.search(r'id="runner-status"[^>]*hx-swap-oob="true">.*?Online', part, re.S)
    assert SYSTEM_ID in part


def test_a_machine_that_sends_no_system_id_is_told_how_to_be_told_apart(acme: Place) -> None:
    issued = acme.runner()
    poll(acme.client, issued.token, "")
    says = words(read(acme.client, f"{acme.url}/{issued.runner.id}"))
    assert "<legacy>" in says
    assert "upgrade to 15.10 or newer" in says


def test_the_edit_form_holds_the_present_settings(place: Place) -> None:
    runner = place.runner(FULL).runner
    page = read(place.client, f"{place.url}/{runner.id}/edit")
    for value in ('value="docker, linux"', 'value="Build fleet"', ">Rack 7</textarea>", 'value="5400"'):
        assert value in page
    for name in ("run_untagged", "paused", "protected", *(["locked"] if place.kind == "project" else [])):
        assert re.search(rf'<input id="{name}"[^>]* checked', page), name
    assert ('name="locked"' in page) == (place.kind == "project")


def test_editing_changes_the_runner_and_the_trail_tells_what(place: Place) -> None:
    runner = place.runner(FULL).runner
    path = f"{place.url}/{runner.id}"
    answer = send(place.client, f"{path}/edit", tags="macos", description="Mac minis", **EMPTY, expect=302)
    assert answer.headers["Location"] == path
    runner = present(place, runner.id)
    assert (runner.description, runner.tag_list, runner.maintenance_note) == ("Mac minis", ["macos"], "")
    assert (runner.run_untagged, runner.paused, runner.protected, runner.maximum_timeout) == (
        False,
        False,
        False,
        None,
    )
    assert runner.locked == (place.kind != "project")  # the form asks for it where it counts
    says = words(read(place.client, path))
    assert "Saved." in says
    assert "changed the runner Mac minis" in says
    assert "tags: docker, linux → macos" in says
    assert "maximum timeout: 1 hour 30 minutes → nothing" in says


def test_the_list_says_locked_where_it_counts(place: Place) -> None:
    place.runner(FULL)
    assert ("· locked" in words(read(place.client, place.url))) == (place.kind == "project")


def test_saving_without_a_change_says_so_and_leaves_no_trace(acme: Place) -> None:
    runner = acme.runner(RunnerSettings("Build fleet", tags=("docker",))).runner
    send(acme.client, f"{acme.url}/{runner.id}/edit", tags="docker", description="Build fleet", expect=302)
    says = words(read(acme.client, f"{acme.url}/{runner.id}"))
    assert "Nothing was different, so nothing changed." in says
    assert "changed the runner" not in says


def test_a_wrong_value_leaves_the_runner_as_it_was_and_the_form_as_typed(place: Place) -> None:
    runner = place.runner(FULL).runner
    answer = send(place.client, f"{place.url}/{runner.id}/edit", tags="", description="Typed anew", expect=422)
    page = answer.get_data(as_text=True)
    assert 'value="Typed anew"' in page
    assert "Add at least one tag" in page
    assert not re.search(r'<input id="run_untagged"[^>]* checked', page)
    assert present(place, runner.id).description == "Build fleet"


def test_a_paused_runner_is_resumed_and_paused_again(place: Place) -> None:
    runner = place.runner().runner
    path = f"{place.url}/{runner.id}"
    send(place.client, f"{path}/pause", form_at=path, expect=302)
    assert present(place, runner.id).paused
    says = words(read(place.client, path))
    assert "takes no new jobs." in says
    assert re.search(r"paused the runner Linux build fleet (in \S+ )?paused: no → yes", says)
    assert f"{path}/resume" in read(place.client, path)
    send(place.client, f"{path}/resume", form_at=path, expect=302)
    assert not present(place, runner.id).paused
    assert "takes jobs again." in words(read(place.client, path))


def test_pausing_a_paused_runner_leaves_no_second_trace(acme: Place) -> None:
    path = f"{acme.url}/{acme.runner().runner.id}"
    for _ in range(2):
        send(acme.client, f"{path}/pause", form_at=path, expect=302)
    assert words(read(acme.client, path)).count("paused the runner") == 1


def test_the_delete_page_names_the_machines_that_stop_working(place: Place) -> None:
    issued = place.runner()
    for system_id in ("s_first", "s_second"):
        poll(place.client, issued.token, system_id)
    says = words(read(place.client, f"{place.url}/{issued.runner.id}/delete"))
    assert "2 machines stop working." in says
    for system_id in ("s_first", "s_second"):
        assert f"{system_id} at 127.0.0.1, last contact just now" in says
    assert "Delete runner and disconnect 2 machines" in says
    assert "Jobs with these tags will need another runner: docker linux" in says


def test_the_delete_page_of_an_unused_runner_says_that_nothing_stops(acme: Place) -> None:
    says = words(read(acme.client, f"{acme.url}/{acme.runner().runner.id}/delete"))
    assert "No machine uses it, so nothing stops working." in says
    assert "disconnect" not in says


def test_a_long_list_of_machines_is_cut_on_the_delete_page(acme: Place) -> None:
    issued = acme.runner()
    for number in range(12):
        verify(acme.client, issued.token, f"s_{number}")
    says = words(read(acme.client, f"{acme.url}/{issued.runner.id}/delete"))
    assert "12 machines stop working." in says
    assert "and 2 more" in says


def test_looking_at_the_delete_page_deletes_nothing(acme: Place) -> None:
    issued = acme.runner()
    read(acme.client, f"{acme.url}/{issued.runner.id}/delete")
    assert poll(acme.client, issued.token) == 204


def test_a_deleted_runner_is_gone_and_its_machines_are_refused(place: Place) -> None:
    issued = place.runner()
    poll(place.client, issued.token)
    path = f"{place.url}/{issued.runner.id}"
    answer = send(place.client, f"{path}/delete", expect=302)
    assert answer.headers["Location"] == place.url
    says = words(read(place.client, place.url))
    assert "Linux build fleet is deleted and can be restored" in says
    assert poll(place.client, issued.token) == 403
    for page in ("", "/edit", "/reset-token", "/delete", "/machines", "/connection"):
        read(place.client, path + page, expect=404)
    trail = words(read(place.client, place.trail))
    assert "deleted the runner Linux build fleet" in trail
    assert "machines: 1 → 0" in trail


def test_a_runner_without_a_description_is_called_by_its_number(acme: Place) -> None:
    runner = acme.runner(RunnerSettings(run_untagged=True)).runner
    assert f"Runner #{runner.id}" in words(read(acme.client, f"{acme.url}/{runner.id}"))
    assert f"Runner #{runner.id}" in words(read(acme.client, acme.url))


def test_what_people_and_machines_write_is_text_and_never_markup(acme: Place) -> None:
    evil = "<script>alert(1)</script>"
    issued = acme.runner(RunnerSettings(evil, maintenance_note=evil, tags=(evil,)))
    poll(acme.client, issued.token, evil)
    path = f"{acme.url}/{issued.runner.id}"
    for page in (acme.url, path, f"{path}/edit", f"{path}/delete", f"{path}/reset-token", acme.trail):
        assert evil not in read(acme.client, page), page


def test_the_buttons_lead_where_they_say(place: Place) -> None:
    runner = place.runner().runner
    path = f"{place.url}/{runner.id}"
    assert {f"{path}/edit", f"{path}/reset-token", f"{path}/delete"} <= set(links(read(place.client, path)))
