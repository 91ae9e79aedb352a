"""The pages of one act on many runners: choosing on the list, what will happen, progress, report."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from portal.domain import scopes
from portal.domain.bulk import bulk_acts
from portal.domain.bulk.bulk_changes import Act, Wanted
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import AuditEvent, BulkAct, Role, Runner
from portal.web import bulk_acts as pages
from tests.cast import TAGGED, Cast, csrf_of, sign_in
from tests.web.conftest import Place
from tests.web.reading import links, read, words


def choose(client: FlaskClient, url: str, /, *, expect: int = 303, query: str = "", **fields: Any) -> Any:
    """Send the form below the list; `runner` are the numbers of ticked boxes."""
    page = read(client, url + query)
    answer = client.post(f"{url}/bulk{query}", data={"csrf_token": csrf_of(page), **fields})
    assert answer.status_code == expect, words(answer.get_data(as_text=True))
    return answer


def start(client: FlaskClient, address: str) -> Any:
    answer = client.post(f"{address}/start", data={"csrf_token": csrf_of(read(client, address))})
    assert (answer.status_code, answer.headers["Location"]) == (303, address)
    return answer


def drafted(acme: Place, wanted: Wanted, *runners: Runner) -> str:
    """The address of Alice's draft."""
    actor = acme.cast.as_(acme.cast.alice)
    act = bulk_acts.draft(acme.cast.session, actor, acme.scope, wanted, {runner.id for runner in runners})
    acme.cast.session.commit()
    return f"/-/bulk/{act.id}"


# What is refused


def test_an_act_on_nothing_comes_back_with_the_list_and_what_was_typed(acme: Place) -> None:
    runner = acme.runner().runner
    page = choose(acme.client, acme.url, act="tags", add="gpu, arm", expect=422).get_data(as_text=True)
    assert "Choose at least one runner." in words(page)
    assert 'value="gpu, arm"' in page
    page = choose(acme.client, acme.url, act="tags", runner=runner.id, expect=422).get_data(as_text=True)
    assert "Write a tag to add, or one to remove." in words(page)
    assert re.search(rf'value="{runner.id}" id="choose-{runner.id}" hx-preserve checked', page)
    assert f'data-address="{acme.url}"' in page
    page = choose(acme.client, acme.url, act="explode", runner=runner.id, expect=422).get_data(as_text=True)
    assert "Choose from the list." in words(page)


@pytest.mark.parametrize("who", ["erin", "charlie", "bob"])
def test_who_may_not_see_the_list_chooses_nothing(app: Flask, cast: Cast, session: Session, who: str) -> None:
    runner = cast.runner().runner
    client = sign_in(app.test_client(), who)
    csrf = csrf_of(read(client, "/"))
    answer = client.post(
        "/groups/acme/-/runners/bulk", data={"csrf_token": csrf, "act": "pause", "runner": runner.id}
    )
    assert answer.status_code in (403, 404)
    assert session.scalar(select(func.count(BulkAct.id))) == 0


def test_an_act_is_nobody_elses(app: Flask, acme: Place) -> None:
    address = drafted(acme, Wanted(Act.PAUSE), acme.runner().runner)
    acme.cast.member(acme.cast.charlie, acme.scope, Role.OWNER)
    acme.cast.session.commit()
    other = sign_in(app.test_client(), "charlie")
    csrf = csrf_of(read(other, "/"))
    for path in (address, f"{address}/refused"):
        assert other.get(path).status_code == 404
    for path in (f"{address}/start", f"{address}/stop"):
        assert other.post(path, data={"csrf_token": csrf}).status_code == 404
    administrator = sign_in(app.test_client(), "dana")
    csrf = csrf_of(read(administrator, address))
    answer = administrator.post(f"{address}/start", data={"csrf_token": csrf})
    assert (answer.status_code, "only Alice Lam can start" in answer.get_data(as_text=True)) == (403, True)


def test_the_boxes_are_not_there_for_who_may_change_none_of_the_runners(app: Flask, cast: Cast) -> None:
    cast.runner()
    cast.member(cast.charlie, cast.acme, Role.MAINTAINER)
    client = sign_in(app.test_client(), "charlie")
    assert 'name="runner"' not in read(client, "/groups/acme/-/runners")
    cast.runner(cast.web)
    assert 'name="runner"' in read(client, "/groups/acme/-/runners")


def test_the_preview_says_who_is_refused_and_why_and_offers_no_button_for_nothing(
    cast: Cast, client: FlaskClient
) -> None:
    shared = cast.runner(scopes.INSTANCE, RunnerSettings("Shared", run_untagged=True)).runner
    sign_in(client, "bob")
    address = choose(client, "/acme/web/-/runners", act="pause", runner=shared.id).headers["Location"]
    page = read(client, address)
    assert "Nothing would change" in words(page)
    assert "1: This runner belongs to the instance: those who look after its runners may do that." in words(page)
    assert f"{address}/start" in page
    assert "<button" not in page[page.index(f"{address}/start") :]


# What works


def test_chosen_runners_are_looked_at_and_then_changed(place: Place) -> None:
    first, second, left = (place.runner(RunnerSettings(name, tags=("docker",))).runner for name in "ABC")
    address = choose(place.client, place.url, act="tags", add="gpu", remove="docker", runner=[first.id, second.id])
    page = read(place.client, address := address.headers["Location"])
    assert "2 of 2 runners will be changed" in words(page)
    assert words(page).count("docker → gpu") == 2
    assert "Change the tags of 2 runners" in words(page)
    place.cast.session.expire_all()
    assert first.tag_list == ["docker"]
    start(place.client, address)
    page = words(read(place.client, address))
    assert "2 runners were changed" in page
    assert "2 changed, 0 were so already, 0 refused" in page
    place.cast.session.expire_all()
    assert [first.tag_list, second.tag_list, left.tag_list] == [["gpu"], ["gpu"], ["docker"]]


def test_all_that_match_the_filter_are_meant_not_only_those_on_the_page(acme: Place, session: Session) -> None:
    for number in range(25):
        acme.runner(RunnerSettings(f"Build {number}", tags=("docker",)))
    acme.runner(RunnerSettings("Other", tags=("other",)))
    page = read(acme.client, f"{acme.url}?tag=docker")
    assert "All 20 on this page" in words(page)
    assert "All 25 that match these filters" in words(page)
    answer = choose(acme.client, acme.url, query="?tag=docker", act="access", access="protected", all="filter")
    start(acme.client, answer.headers["Location"])
    assert session.scalar(select(func.count()).where(Runner.access_level == 1)) == 25


def test_the_box_of_the_page_means_the_rows_that_were_shown(acme: Place, session: Session) -> None:
    for _ in range(21):
        acme.runner()
    shown = re.findall(r'name="shown" value="(\d+)"', read(acme.client, acme.url))
    assert len(shown) == 20
    answer = choose(acme.client, acme.url, act="pause", page="all", shown=shown)
    start(acme.client, answer.headers["Location"])
    assert session.scalar(select(func.count()).where(~Runner.active)) == 20


def test_partial_success_is_told_and_the_refused_are_downloaded(acme: Place) -> None:
    fine = acme.runner(RunnerSettings("Fine", tags=("docker", "linux"))).runner
    bare = acme.runner(RunnerSettings("=1+1", tags=("docker",))).runner
    already = acme.runner(RunnerSettings("Already", tags=("linux",))).runner
    address = drafted(acme, Wanted(Act.TAGS, remove=("docker",)), fine, bare, already)
    start(acme.client, address)
    page = read(acme.client, address)
    assert "1 runner was changed" in words(page)
    assert "1 changed, 1 was so already, 1 refused" in words(page)
    assert f"{address}/refused" in links(page)
    answer = acme.client.get(f"{address}/refused")
    assert answer.mimetype == "text/csv"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="refused-runners-{address[8:]}.csv"'
    head, line = answer.get_data(as_text=True).splitlines()
    assert head == "runner,name,reason"
    assert line.startswith(f"{bare.id},'=1+1,")


def test_a_deletion_names_the_machines_and_can_be_undone_as_one(acme: Place, session: Session) -> None:
    made = [acme.runner().runner for _ in range(3)]
    address = drafted(acme, Wanted(Act.DELETE), *made)
    page = words(read(acme.client, address))
    assert "3 of 3 runners will be deleted" in page
    assert "can be undone for 7 days" in page
    start(acme.client, address)
    page = read(acme.client, address)
    assert "3 runners were deleted" in words(page)
    undo = next(link for link in links(page) if link.endswith("/restore"))
    answer = acme.client.post(undo, data={"csrf_token": csrf_of(read(acme.client, undo))})
    assert answer.status_code in (302, 303)
    assert session.scalar(select(func.count(Runner.id))) == 3
    assert undo not in links(read(acme.client, address))  # there is nothing to undo any more


def test_sending_the_button_twice_does_it_once(acme: Place, session: Session) -> None:
    address = drafted(acme, Wanted(Act.PAUSE), acme.runner().runner)
    csrf = csrf_of(read(acme.client, address))
    for _ in range(2):
        assert acme.client.post(f"{address}/start", data={"csrf_token": csrf}).status_code == 303
    paused = select(func.count()).where(AuditEvent.action == "runner_paused")
    assert session.scalar(paused) == 1


def test_progress_is_shown_until_the_report_and_a_stop_is_told(
    acme: Place, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [acme.runner().runner for _ in range(5)]
    address = drafted(acme, Wanted(Act.PAUSE), *made)
    number = int(address.rpartition("/")[2])
    monkeypatch.setattr(pages, "_work", lambda _: None)
    start(acme.client, address)
    bulk_acts.take_batch(session, number, size=2)
    session.commit()
    page = read(acme.client, address)
    assert re.search(r'<progress [^>]*max="5" value="2"', page)
    assert "2 of 5 have had their turn: 2 paused, 0 so already, 0 refused." in words(page)
    assert 'aria-live="polite">40 % are done.' in page
    assert "HX-Refresh" not in acme.client.get(address, headers={"HX-Request": "true"}).headers
    acme.client.post(f"{address}/stop", data={"csrf_token": csrf_of(page)})
    answer = acme.client.get(address, headers={"HX-Request": "true"})
    assert answer.headers["HX-Refresh"] == "true"
    assert "It was stopped; 3 did not have their turn and are as before." in words(answer.get_data(as_text=True))
    csrf = csrf_of(read(acme.client, "/"))
    page = acme.client.post(f"{address}/stop", data={"csrf_token": csrf}, follow_redirects=True)
    assert "There was nothing to stop any more." in words(page.get_data(as_text=True))


def test_more_than_a_page_can_show_is_counted(acme: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from portal.domain.bulk import bulk_preview

    monkeypatch.setattr(bulk_preview, "SHOWN", 2)
    address = drafted(acme, Wanted(Act.PAUSE), *(acme.runner(TAGGED).runner for _ in range(5)))
    page = words(read(acme.client, address))
    assert "5 of 5 runners will be paused" in page
    assert "and 3 more" in page


# Finding it again


def test_an_act_that_one_has_left_stands_above_the_list_and_on_a_page(
    acme: Place, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "There are no bulk acts." in words(read(acme.client, "/-/bulk"))
    assert "ulk acts of the last day" not in words(read(acme.client, acme.url))
    made = [acme.runner().runner for _ in range(3)]
    address = drafted(acme, Wanted(Act.PAUSE), *made)
    assert f'{address}"' not in read(acme.client, "/-/bulk")  # nobody has started it
    monkeypatch.setattr(pages, "_work", lambda _: None)
    start(acme.client, address)
    bulk_acts.take_batch(session, int(address.rpartition("/")[2]), size=2)
    session.commit()
    page = read(acme.client, acme.url)
    assert "A bulk act is under way: 2 of 3 runners" in words(page)
    assert address in links(page)
    assert "Under way: 2 of 3" in words(read(acme.client, "/-/bulk"))
    bulk_acts.take_batch(session, int(address.rpartition("/")[2]))
    session.commit()
    page = read(acme.client, acme.url)
    assert "Bulk acts of the last day: 3 runners paused · all" in words(page)
    assert {address, "/-/bulk"} <= set(links(page))
    page = read(acme.client, "/-/bulk")
    assert "Pause 3 runners" in words(page)
    assert address in links(page)


def test_others_do_not_see_the_act_and_an_administrator_sees_it_while_it_is_under_way(
    app: Flask, acme: Place, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = drafted(acme, Wanted(Act.PAUSE), acme.runner().runner)
    monkeypatch.setattr(pages, "_work", lambda _: None)
    start(acme.client, address)
    acme.cast.member(acme.cast.charlie, acme.scope, Role.OWNER)
    acme.cast.session.commit()
    other, administrator = (sign_in(app.test_client(), who) for who in ("charlie", "dana"))
    for path in (acme.url, "/-/bulk", acme.trail):
        assert address not in links(read(other, path))
        assert address in links(read(administrator, path))
    assert "0 of 1 runner by Alice Lam" in words(read(administrator, acme.url))
    bulk_acts.take_batch(session, int(address.rpartition("/")[2]))
    session.commit()
    assert address not in links(read(administrator, acme.url))
    assert address in links(read(administrator, "/-/bulk"))


def test_the_trail_leads_to_the_act_as_long_as_its_report_is_there(acme: Place, session: Session) -> None:
    address = drafted(acme, Wanted(Act.PAUSE), acme.runner().runner)
    start(acme.client, address)
    assert links(read(acme.client, acme.trail)).count(address) == 2  # its beginning and its end
    session.execute(delete(BulkAct))
    session.commit()
    page = read(acme.client, acme.trail)
    assert address not in links(page)
    assert f"number: {address.rpartition('/')[2]}" in words(page)


@pytest.mark.parametrize("after", ["1", "x", "-1", "9" * 30, "٣"])
def test_a_place_in_the_list_that_is_none_is_a_page_still(acme: Place, after: str) -> None:
    read(acme.client, f"/-/bulk?after={after}")
