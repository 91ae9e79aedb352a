"""The button "Check this runner" and the page of a check: what it says at each step, and who sees it."""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.deletions import deletions
from portal.domain.runners import runners
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.domain.scopes import INSTANCE
from portal.models import Job, RunnerManager
from tests.api.machines import Machine, through
from tests.cast import SYSTEM, TAGGED, Cast, csrf_of, hidden, sign_in
from tests.web.conftest import Place
from tests.web.reading import fill, read, words


def machine_of(place: Place, issued: IssuedRunner, system_id: str = "s_one") -> Machine:
    return Machine(through(place.client), issued.token, system_id)


def start(place: Place, runner_id: int, **fields: str) -> str:
    """Press the button; the address of the check's page."""
    fields = {"request_key": str(uuid4()), **fields}
    address = f"{place.url}/{runner_id}"
    return str(fill(place.client, f"{address}/check", form_at=address, expect=303, **fields).location)


def manager(session: Session, system_id: str) -> RunnerManager:
    return session.scalars(select(RunnerManager).where(RunnerManager.system_xid == system_id)).one()


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Job)) or 0


def test_a_check_goes_from_the_button_to_it_works(place: Place) -> None:
    issued = place.runner()
    machine = machine_of(place, issued)
    machine.poll()
    assert "Check this runner" in read(place.client, f"{place.url}/{issued.runner.id}")
    page = start(place, issued.runner.id)
    assert "Waiting for a machine to ask for a job… It last called" in words(read(place.client, page))
    given = machine.ask_for_job()
    given.report("running")
    assert "Running on s_one" in words(read(place.client, page))
    given.write(b"hello from the builder\n")
    given.finish(b"hello from the builder\n")
    done = words(read(place.client, page))
    assert "It works: the runner ran the script in less than a second, on s_one" in done
    assert "hello from the builder" in done
    assert "Check again" in done


def test_the_live_part_says_what_is_new_and_then_stops_asking(acme: Place) -> None:
    issued = acme.runner()
    machine = machine_of(acme, issued)
    machine.poll()
    page = start(acme, issued.runner.id)
    seen = hidden(read(acme.client, page), "seen")
    same = acme.client.get(f"{page}/progress", query_string={"seen": seen})
    assert (same.status_code, 'id="check-says"' in same.get_data(as_text=True)) == (200, False)
    machine.ask_for_job().finish()
    new = acme.client.get(f"{page}/progress", query_string={"seen": seen})
    assert new.status_code == 286
    assert "It works:" in words(new.get_data(as_text=True))


def test_who_sends_the_same_form_twice_comes_to_the_same_check(acme: Place, session: Session) -> None:
    runner_id, key = acme.runner().runner.id, str(uuid4())
    first = start(acme, runner_id, request_key=key)
    assert start(acme, runner_id, request_key=key) == first
    assert count(session) == 1


def test_every_button_has_a_key_of_its_own(acme: Place) -> None:
    issued = acme.runner()
    for name in ("s_one", "s_two"):
        machine_of(acme, issued, name).poll()
    page = read(acme.client, f"{acme.url}/{issued.runner.id}")
    keys = re.findall(r'name="request_key" value="([^"]+)"', page)
    assert len(keys) == len(set(keys)) == 3


def test_a_form_without_a_key_starts_nothing(acme: Place, session: Session) -> None:
    runner_id = acme.runner().runner.id
    start(acme, runner_id, request_key="")
    assert "This form is not complete" in words(read(acme.client, f"{acme.url}/{runner_id}"))
    assert count(session) == 0


def test_one_machine_is_checked_alone(acme: Place, session: Session) -> None:
    issued = acme.runner()
    one, two = (machine_of(acme, issued, name) for name in ("s_one", "s_two"))
    one.poll(), two.poll()
    page = start(acme, issued.runner.id, machine=str(manager(session, "s_two").id))
    assert "only the machine s_two may take" in words(read(acme.client, page))
    assert one.poll().status == 204
    two.ask_for_job().finish(state="failed", failure_reason="runner_system_failure")
    failed = read(acme.client, page)
    assert "It failed after less than a second on s_two" in words(failed)
    assert f'name="machine" value="{manager(session, "s_two").id}"' in failed


def test_a_machine_of_another_runner_or_none_is_not_checked(acme: Place, session: Session) -> None:
    runner_id, other = acme.runner().runner.id, acme.runner()
    machine_of(acme, other).poll()
    csrf = csrf_of(read(acme.client, f"{acme.url}/{runner_id}"))
    for number, expect in ((str(manager(session, "s_one").id), 404), ("999999", 303), ("1" * 30, 303), ("x", 303)):
        fields = {"csrf_token": csrf, "request_key": str(uuid4()), "machine": number}
        assert acme.client.post(f"{acme.url}/{runner_id}/check", data=fields).status_code == expect
    assert count(session) == 0


def test_a_runner_without_a_machine_is_told_how_to_start_one(acme: Place) -> None:
    said = words(read(acme.client, start(acme, acme.runner().runner.id)))
    assert "No machine of this runner has asked for jobs yet." in said
    assert "sudo gitlab-runner start" in said


def test_a_silent_machine_is_told_how_to_start_again(acme: Place, session: Session) -> None:
    issued = acme.runner()
    machine_of(acme, issued).poll()
    page = start(acme, issued.runner.id)
    issued.runner.contacted_at = now() - timedelta(minutes=9)
    session.commit()
    said = words(read(acme.client, page))
    assert "This runner does not ask for jobs. It last called 9 minutes ago" in said
    assert "docker start gitlab-runner" in said


def test_a_paused_runner_offers_no_check_and_holds_back_one_that_waits(acme: Place, session: Session) -> None:
    issued = acme.runner()
    page = start(acme, issued.runner.id)
    runners.set_paused(session, SYSTEM, issued.runner, True)
    session.commit()
    assert "Check this runner" not in read(acme.client, f"{acme.url}/{issued.runner.id}")
    start(acme, issued.runner.id)
    assert "This runner is paused, so it takes no jobs." in words(read(acme.client, f"{acme.url}/{issued.runner.id}"))
    assert "Resume the runner" in words(read(acme.client, page))
    assert count(session) == 1


def test_a_check_is_canceled_and_a_second_cancel_says_so(acme: Place) -> None:
    page = start(acme, acme.runner().runner.id)
    fill(acme.client, f"{page}/cancel", form_at=page, expect=303)
    assert "The check was canceled before a machine took it." in words(read(acme.client, page))
    fill(acme.client, f"{page}/cancel", form_at=page, expect=303)
    assert "This job is over already (canceled)." in words(read(acme.client, page))


def test_a_check_that_stops_gently_can_be_canceled_at_once(acme: Place) -> None:
    issued = acme.runner()
    page = start(acme, issued.runner.id)
    machine_of(acme, issued).ask_for_job().report("running")
    fill(acme.client, f"{page}/cancel", form_at=page, expect=303)
    assert "Cancel without waiting for it" in words(read(acme.client, page))
    fill(acme.client, f"{page}/cancel", form_at=page, expect=303, force="true")
    assert "The check was canceled." in words(read(acme.client, page))


def test_a_check_has_a_page_under_its_own_runner_only(acme: Place) -> None:
    runner_id, other = acme.runner().runner.id, acme.runner().runner.id
    check = start(acme, runner_id).rsplit("/", 1)[1]
    for below in ("", "/progress", "/log", "/raw"):
        assert acme.client.get(f"{acme.url}/{runner_id}/checks/{check}{below}").status_code == 200
        assert acme.client.get(f"{acme.url}/{other}/checks/{check}{below}").status_code == 404


@pytest.mark.parametrize(
    ("who", "expect"), [("dana", 200), ("alice", 404), ("bob", 404), ("erin", 404), ("charlie", 404)]
)
def test_a_check_of_an_instance_runner_is_seen_by_administrators_only(
    app: Flask, cast: Cast, who: str, expect: int
) -> None:
    runner = cast.runner(INSTANCE).runner
    check = cast.check(runner)
    client = sign_in(app.test_client(), who)
    bases = {"dana": "/admin", "alice": "/groups/acme/-", "bob": "/acme/web/-"}
    base = f"{bases.get(who, '/admin')}/runners/{runner.id}"
    if who in ("alice", "bob"):
        shown = read(client, base)
        assert "Check this runner" not in shown  # they see the runner, inherited, and may not check it
        csrf = csrf_of(read(client, "/"))
        fields = {"csrf_token": csrf, "request_key": str(uuid4())}
        assert client.post(f"{base}/check", data=fields).status_code == 403
    assert client.get(f"{base}/checks/{check.id}").status_code == expect
    assert client.get(f"/-/jobs/{check.id}").status_code == (302 if expect == 200 else 404)


def test_the_created_page_offers_the_check_once_a_machine_is_online(acme: Place) -> None:
    issued = acme.runner()
    connection = f"{acme.url}/{issued.runner.id}/connection"
    assert "Check this runner" not in read(acme.client, connection)
    machine_of(acme, issued).poll()
    answer = acme.client.get(connection)
    assert (answer.status_code, 'target="_blank"' in answer.get_data(as_text=True)) == (286, True)
    assert "Check this runner" in answer.get_data(as_text=True)


def test_the_short_link_leads_to_the_check_in_the_scope_of_its_runner(place: Place) -> None:
    page = start(place, place.runner().runner.id)
    assert place.client.get(f"/-/jobs/{page.rsplit('/', 1)[1]}").location == page


def test_the_short_link_of_a_deleted_runners_check_leads_nowhere(acme: Place, session: Session) -> None:
    runner = acme.runner().runner
    check = start(acme, runner.id).rsplit("/", 1)[1]
    deletion = deletions.begin(session, SYSTEM, "runners", "one runner")
    runners.delete_runner(session, SYSTEM, runner, deletion=deletion)
    session.commit()
    assert acme.client.get(f"/-/jobs/{check}").status_code == 404


def test_the_trail_says_who_checked_what(acme: Place) -> None:
    start(acme, acme.runner().runner.id)
    assert f"Alice Lam started a check of the runner {TAGGED.description}" in words(read(acme.client, acme.trail))


def test_a_script_in_a_system_id_stays_text(acme: Place) -> None:
    issued = acme.runner()
    machine_of(acme, issued, "<script>alert(1)</script>").poll()
    page = start(acme, issued.runner.id)
    machine_of(acme, issued, "<script>alert(1)</script>").ask_for_job()
    assert "<script>alert" not in read(acme.client, page)


def test_who_is_signed_out_meanwhile_is_asked_to_sign_in(app: Flask, acme: Place, client: FlaskClient) -> None:
    page = start(acme, acme.runner().runner.id)
    assert app.test_client().get(f"{page}/progress").status_code == 302
