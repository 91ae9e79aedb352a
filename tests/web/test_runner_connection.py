"""The live line of the created page: waiting, registered, online, and silence while nothing changes."""

import re
from datetime import timedelta

from sqlalchemy import select, update

from portal.database import now
from portal.models import RunnerToken
from tests.cast import hidden, send
from tests.web.conftest import Place
from tests.web.reading import SYSTEM_ID, poll, token_of, verify, words


def line(place: Place, runner_id: int, expect: int, seen: str = "") -> str:
    answer = place.client.get(f"{place.url}/{runner_id}/connection", query_string={"seen": seen})
    assert answer.status_code == expect
    return answer.get_data(as_text=True)


def make_token_older(place: Place) -> None:
    place.cast.session.execute(update(RunnerToken).values(created_at=now() - timedelta(minutes=2)))
    place.cast.session.commit()


def test_the_created_page_asks_for_the_line_with_what_it_has_seen(place: Place) -> None:
    page = place.create().get_data(as_text=True)
    address = re.search(r'hx-get="([^"]+)" hx-trigger="every 2s" hx-include="#connection input\[name=seen\]"', page)
    assert address
    seen = hidden(page, "seen")
    assert place.client.get(address[1], query_string={"seen": seen}).status_code == 204


def test_it_waits_for_a_machine_at_first(place: Place) -> None:
    runner = place.runner().runner
    part = line(place, runner.id, 200)
    assert "Waiting for a machine to register" in words(part)
    assert "<html" not in part
    assert "The usual causes" not in part


def test_after_a_while_it_names_the_usual_causes(place: Place) -> None:
    runner = place.runner().runner
    seen = hidden(line(place, runner.id, 200), "seen")
    make_token_older(place)
    says = words(line(place, runner.id, 200, seen))
    assert "The usual causes" in says
    assert "The machine cannot reach https://portal.example.com" in says
    assert "curl https://portal.example.com/healthz" in says


def test_it_shows_who_registered_and_that_the_first_poll_is_missing(place: Place) -> None:
    issued = place.runner()
    seen = hidden(line(place, issued.runner.id, 200), "seen")
    verify(place.client, issued.token)
    says = words(line(place, issued.runner.id, 200, seen))
    assert f"Machine registered {SYSTEM_ID} · 18.9.0 · 127.0.0.1" in says
    assert "Waiting for its first poll" in says


def test_a_registered_machine_that_never_polls_gets_causes_of_its_own(acme: Place) -> None:
    issued = acme.runner()
    verify(acme.client, issued.token)
    make_token_older(acme)
    assert "gitlab-runner is registered, but not running" in words(line(acme, issued.runner.id, 200))


def test_it_is_online_with_the_first_poll_and_asks_no_more(place: Place) -> None:
    token = token_of(place.create())
    runner_id = place.cast.session.scalars(select(RunnerToken.runner_id)).one()
    verify(place.client, token)
    poll(place.client, token)
    says = words(line(place, runner_id, 286))
    assert "Online : it asks for jobs" in says
    assert SYSTEM_ID in says


def test_nothing_new_is_204_in_every_step(place: Place) -> None:
    issued = place.runner()
    for step, expect in ((None, 200), (verify, 200), (poll, 286)):
        if step:
            step(place.client, issued.token)
        seen = hidden(line(place, issued.runner.id, expect), "seen")
        assert line(place, issued.runner.id, 204, seen) == ""


def test_a_reset_waits_for_a_machine_with_the_new_token(acme: Place) -> None:
    issued = acme.runner()
    poll(acme.client, issued.token)
    path = f"{acme.url}/{issued.runner.id}/reset-token"
    answer = send(acme.client, path)
    assert "Waiting for a machine to register" in words(answer.get_data(as_text=True))
    poll(acme.client, token_of(answer))
    assert "Online : it asks for jobs" in words(line(acme, issued.runner.id, 286))
