"""The clean-up pages: what would go before anything is saved, the switch, the protect list, deletion, reports."""

import re
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.runners import runner_cleanup
from portal.domain.runners.runner_cleanup import Criteria
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE, Scope
from portal.models import AuditEvent, RegistrationType, Role, Runner
from portal.web import runner_cleanup as pages
from tests.cast import SYSTEM, Cast, csrf_of, hidden, sign_in
from tests.domain.clock import let_pass
from tests.web.conftest import Place, place_of
from tests.web.reading import fill, links, part, read, row_titles, verify, words

ACME = "/groups/acme/-/cleanup"
MONTH = timedelta(days=30)


@pytest.fixture(params=["instance", "group"])
def place(request: pytest.FixtureRequest, cast: Cast, client: FlaskClient) -> Place:
    """The instance with Dana, acme with Alice; projects have no clean-up."""
    return place_of(request.param, cast, client)


def home(place: Place) -> str:
    return place.url.replace("/runners", "/cleanup")


def silent_runner(cast: Cast, scope: Scope | None = None, name: str = "Old fleet") -> Runner:
    """A runner that was created and nothing else, a month ago."""
    issued = cast.runner(scope, RunnerSettings(name, run_untagged=True))
    issued.runner.created_at = issued.record.created_at = now() - MONTH
    cast.session.commit()
    return issued.runner


def preview(client: FlaskClient, address: str, days: int = 30, **more: str) -> str:
    query = "&".join(f"{name}={value}" for name, value in {"days": str(days), **more}.items())
    return read(client, f"{address}?{query}")


def would_go(page: str) -> list[str]:
    """The runners of a preview, in its order."""
    found = part(page, "preview-head")
    return row_titles(found[: found.index('id="protected-head"')])


def kept(page: str) -> list[str]:
    return row_titles(part(page, "protected-head"))


def count(session: Session, model: type = Runner) -> int:
    session.expire_all()
    return session.scalar(select(func.count()).select_from(model)) or 0


# Preview and switch


def test_it_is_off_says_what_it_covers_and_how_to_begin(place: Place) -> None:
    page = words(read(place.client, home(place)))
    assert "The clean-up is off" in page
    covers = {
        "instance": "It covers every runner of this portal: the instance’s own, and those of all groups and",
        "group": "It covers the runners of acme and of every group and project below it, not those it inherits",
    }[place.kind]
    assert covers in page
    for empty in ("No runner is protected.", "Nothing was cleaned up here yet."):
        assert empty in page


def test_a_preview_names_exactly_what_would_go_and_changes_nothing(place: Place, session: Session) -> None:
    silent_runner(place.cast, place.scope)
    place.runner()
    before = count(session), count(session, AuditEvent)
    page = preview(place.client, home(place))
    assert would_go(page) == ["Old fleet"]
    assert "1 runner would go after 30 days" in words(page)
    assert "The clean-up is off" in words(page)
    assert "No runner is stale by these values." in words(preview(place.client, home(place), 31))
    assert (count(session), count(session, AuditEvent)) == before


def test_a_group_previews_what_is_below_it_and_nothing_else(acme: Place) -> None:
    for scope, name in ((acme.cast.web, "Web"), (acme.cast.platform, "Platform"), (acme.cast.other, "Other")):
        silent_runner(acme.cast, scope, name)
    silent_runner(acme.cast, INSTANCE, "Shared")
    assert sorted(would_go(preview(acme.client, ACME))) == ["Platform", "Web"]


def test_only_those_registered_by_token_when_that_is_chosen(acme: Place) -> None:
    silent_runner(acme.cast, name="Made")
    silent_runner(acme.cast, name="Registered").registration_type = RegistrationType.REGISTRATION_TOKEN
    acme.cast.session.commit()
    page = preview(acme.client, ACME, legacy_only="y")
    assert would_go(page) == ["Registered"]
    assert 'name="legacy_only" type="checkbox" value="y" checked' in page


def test_from_the_preview_it_is_turned_on_changed_and_turned_off(place: Place, session: Session) -> None:
    address, client = home(place), place.client
    assert "Turn on: 30 days" in preview(client, address)
    fill(client, address, form_at=f"{address}?days=30", days="30")
    page = words(read(client, address))
    assert "Saved: stale runners go after 30 days." in page
    assert "The clean-up is on Once an hour, runners that are stale for 30 days are deleted." in page
    assert "The first run is within ten minutes." in page
    assert "These values are saved." in words(preview(client, address))
    assert "Save: 60 days" in preview(client, address, 60)
    fill(client, address, form_at=f"{address}?days=60", days="60", legacy_only="y")
    assert "runners that were registered with a registration token that are stale for 60 days" in words(
        read(client, address)
    )
    fill(client, address, form_at=f"{address}?days=60", days="60", legacy_only="y")
    assert "Nothing was different." in words(read(client, address))
    fill(client, f"{address}/turn-off", form_at=address)
    assert "The clean-up is off. Stale runners stay." in words(read(client, address))
    trail = words(read(client, place.trail))
    for act in ("turned on", "changed", "turned off"):
        assert trail.count(f"{act} the clean-up of stale runners of") == 1
    assert "silent for: 30 days → 60 days" in trail
    assert "only runners that a registration token made: no → yes" in trail


@pytest.mark.parametrize("days", ["6", "0", "", "soon", "3651", "9" * 30, "-7", "7.5"])
def test_days_that_make_no_sense_are_refused_beside_the_field_and_stay(place: Place, days: str) -> None:
    address = home(place)
    pages_ = [
        place.client.get(address, query_string={"days": days, "legacy_only": "y"}),
        place.client.post(
            address,
            data={"csrf_token": csrf_of(preview(place.client, address)), "days": days, "legacy_only": "y"},
        ),
    ]
    for answer in pages_:
        page = answer.get_data(as_text=True)
        assert answer.status_code == 422
        assert "Write a" in words(part(page, "days-help")[:300])
        assert f'name="days" type="text" value="{days}"' in page
        assert 'name="legacy_only" type="checkbox" value="y" checked' in page
    assert "The clean-up is off" in words(read(place.client, address))


def test_a_group_says_what_deletes_its_runners_from_above(acme: Place) -> None:
    for scope, days in ((INSTANCE, 365), (acme.scope, 90)):
        runner_cleanup.change(acme.cast.session, SYSTEM, scope, Criteria(days))
    acme.cast.session.commit()
    page = words(read(acme.client, "/groups/acme/platform/-/cleanup"))
    assert "The clean-up is off" in page
    assert "the instance deletes runners that are stale for 365 days" in page
    assert "acme deletes runners that are stale for 90 days" in page


def test_a_long_list_is_cut_and_says_how_many_more(acme: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "SHOWN", 2)
    for name in "abcd":
        silent_runner(acme.cast, name=name)
    page = preview(acme.client, ACME)
    assert would_go(page) == ["a", "b"]
    assert "4 runners would go" in words(page)
    assert "and 2 more" in words(page)
    assert "and 2 more" in words(read(acme.client, f"{ACME}/delete-now?days=30"))


# The protect list


def test_a_runner_is_protected_from_its_row_and_the_preview_comes_back(place: Place) -> None:
    runner = silent_runner(place.cast, place.scope)
    address = home(place)
    answer = fill(
        place.client, f"{address}/protected?days=30&legacy_only=", form_at=f"{address}?days=30", runner=str(runner.id)
    )
    page = read(place.client, answer.headers["Location"])
    assert "days=30" in answer.headers["Location"]
    assert f"Old fleet (#{runner.id}) is protected: no clean-up deletes it." in words(page)
    assert (kept(page), "No runner is stale" in words(page)) == (["Old fleet"], True)


@pytest.mark.parametrize("typed", ["{}", "#{}", " {} "])
def test_a_runner_is_protected_by_its_number_and_taken_off_again(place: Place, typed: str) -> None:
    runner, address = silent_runner(place.cast, place.cast.web), home(place)
    fill(place.client, f"{address}/protected", form_at=address, runner=typed.format(runner.id))
    assert kept(read(place.client, address)) == ["Old fleet"]
    fill(place.client, f"{address}/protected", form_at=address, runner=typed.format(runner.id))
    assert "is protected already." in words(read(place.client, address))
    fill(place.client, f"{address}/protected/{runner.id}/remove", form_at=address)
    page = read(place.client, address)
    assert "is not protected any more." in words(page)
    assert kept(page) == []
    assert would_go(preview(place.client, address)) == ["Old fleet"]
    trail = words(read(place.client, place.trail))
    assert "put on the protect list the runner Old fleet" in trail
    assert "took off the protect list the runner Old fleet" in trail


def test_a_number_that_is_none_here_is_refused_beside_the_field(acme: Place) -> None:
    other = silent_runner(acme.cast, acme.cast.other)
    for typed, sentence in (
        ("", "Write the runner's number"),
        ("build-1", "Write the runner's number"),
        ("9" * 19, "Write the runner's number"),
        ("999", "There is no runner #999 here."),
        (str(other.id), f"There is no runner #{other.id} here."),
    ):
        page = fill(acme.client, f"{ACME}/protected", form_at=ACME, expect=422, runner=typed).get_data(as_text=True)
        assert sentence in words(part(page, "runner-help")[:400])
        assert f'name="runner" type="text" value="{typed}"' in page
    fill(acme.client, f"{ACME}/protected/{other.id}/remove", form_at=ACME, expect=422)


# Delete now


def test_deletion_at_once_has_a_page_that_names_them_and_asks(place: Place, session: Session) -> None:
    runner = silent_runner(place.cast, place.scope)
    young = place.runner().runner.id
    address = home(place)
    link = next(link for link in links(preview(place.client, address)) if "delete-now" in link)
    page = read(place.client, link)
    assert "Delete 1 stale runner now?" in words(page)
    assert f"Old fleet (#{runner.id}) of {place.scope.title}, never polled" in words(page)
    assert count(session) == 2
    sent = {name: hidden(page, name) for name in ("csrf_token", "days", "seen_at")}
    answer = place.client.post(f"{address}/delete-now", data=sent)
    assert answer.status_code == 302
    page = words(read(place.client, address))
    assert "1 stale runner is deleted and can be restored for 7 days. Undo" in page
    author = {"instance": "Dana Kay", "group": "Alice Lam"}[place.kind]
    assert re.search(rf"1 runner deleted by {author} just now · stale for 30 days Old fleet \(#\d+\)", page)
    assert session.scalars(select(Runner.id)).all() == [young]
    trail = words(read(place.client, place.trail))
    assert f"{author} deleted the runner Old fleet" in trail
    assert f"by the clean-up of: {place.scope.title}" in trail
    assert f"{author} deleted stale runners of {place.scope.title}" in trail


def test_what_was_heard_of_or_became_stale_while_the_page_stood_open_stays(acme: Place, session: Session) -> None:
    for name in ("Goes", "Calls"):
        silent_runner(acme.cast, name=name)
    issued = acme.runner()
    page = read(acme.client, f"{ACME}/delete-now?days=30")
    issued.runner.created_at = issued.record.created_at = now() - MONTH
    calls = acme.cast.session.scalars(select(Runner).where(Runner.description == "Calls")).one()
    calls.contacted_at = now()
    acme.cast.session.commit()
    sent = {name: hidden(page, name) for name in ("csrf_token", "days", "seen_at")}
    acme.client.post(f"{ACME}/delete-now", data=sent)
    session.expire_all()
    assert set(session.scalars(select(Runner.description))) == {"Calls", "Linux build fleet"}
    acme.client.post(f"{ACME}/delete-now", data={**sent, "days": "3650"})
    assert "Nothing was deleted: none of those runners is stale any more." in words(read(acme.client, ACME))


def test_a_machine_that_verifies_in_between_keeps_its_runner(acme: Place, session: Session) -> None:
    issued = acme.runner()
    let_pass(acme.cast.session, MONTH)
    acme.cast.session.commit()
    page = read(acme.client, f"{ACME}/delete-now?days=30")
    assert "Linux build fleet" in page
    assert verify(acme.client, issued.token) == 200
    sent = {name: hidden(page, name) for name in ("csrf_token", "days", "seen_at")}
    acme.client.post(f"{ACME}/delete-now", data=sent)
    assert count(session) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"days": "6"},
        {"days": ""},
        {"seen_at": ""},
        {"seen_at": "yesterday"},
        {"seen_at": "2026-01-01"},
        {"seen_at": "0001-01-01T00:00:00+00:00"},
        {"seen_at": "0001-01-01T00:00:00+14:00"},
    ],
)
def test_a_form_that_is_not_complete_deletes_nothing(acme: Place, session: Session, changes: dict[str, str]) -> None:
    silent_runner(acme.cast)
    page = read(acme.client, f"{ACME}/delete-now?days=30")
    sent = {name: hidden(page, name) for name in ("csrf_token", "days", "seen_at")}
    assert acme.client.post(f"{ACME}/delete-now", data={**sent, **changes}).status_code == 400
    assert count(session) == 1


def test_with_nothing_stale_there_is_nothing_to_send(acme: Place) -> None:
    acme.runner()
    page = read(acme.client, f"{ACME}/delete-now")
    assert "There is nothing to delete." in words(page)
    assert 'name="seen_at"' not in page
    assert "delete-now" not in preview(acme.client, ACME)


def test_more_than_a_batch_goes_in_several_sendings(acme: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_cleanup, "BATCH", 2)
    for name in "abc":
        silent_runner(acme.cast, name=name)
    assert "Delete 2 stale runners now" in words(preview(acme.client, ACME))
    page = words(read(acme.client, f"{ACME}/delete-now?days=30"))
    assert "At most 2 are deleted at a time, the longest silent first; come back for the others." in page


# Reports


def test_the_page_reads_the_last_ten_reports_of_its_own_scope(place: Place, session: Session) -> None:
    for number in range(11):
        silent_runner(place.cast, place.scope, f"Fleet {number:02}")
        runner_cleanup.delete_stale(place.cast.session, SYSTEM, place.scope, Criteria(7), now())
        place.cast.session.commit()
    page = words(read(place.client, home(place)))
    assert page.count("1 runner deleted by tests") == 10
    assert "Fleet 10" in page
    assert "Fleet 00" not in page
    below = words(read(place.client, "/groups/acme/platform/-/cleanup"))
    assert "Nothing was cleaned up here yet." in below


def test_it_says_when_it_ran_last(acme: Place) -> None:
    runner_cleanup.change(acme.cast.session, SYSTEM, acme.scope, Criteria(7))
    runner_cleanup.note_run(acme.cast.session, acme.scope.id, now() - timedelta(minutes=20))
    acme.cast.session.commit()
    assert "Last run 20 minutes ago" in words(read(acme.client, ACME))


# Who may


@pytest.mark.parametrize(
    ("who", "address", "look", "act"),
    [
        ("alice", ACME, 200, 302),
        ("alice", "/groups/acme/platform/-/cleanup", 200, 302),
        ("gwen", ACME, 200, 403),
        ("erin", ACME, 403, 403),
        ("bob", ACME, 404, 404),
        ("charlie", ACME, 404, 404),
        ("alice", "/admin/cleanup", 404, 404),
        ("dana", ACME, 200, 302),
        ("dana", "/admin/cleanup", 200, 302),
    ],
)
def test_maintainers_look_owners_and_administrators_act(
    cast: Cast, client: FlaskClient, session: Session, who: str, address: str, look: int, act: int
) -> None:
    cast.member(cast.person("gwen"), cast.acme, Role.MAINTAINER)
    runner = silent_runner(cast, cast.platform)
    sign_in(client, who)
    csrf = csrf_of(read(client, "/-/account/password"))
    page = read(client, f"{address}?days=30", expect=look)
    assert (look == 200) == ("Old fleet" in page)
    assert (act == 302) == ("Turn on: 30 days" in page)
    assert (act == 302) == ("/delete-now" in page)
    if look == 200 and act != 302:
        assert "Owners of this group can change this." in words(page)
        assert "/cleanup/protected" not in page
    sent = {"csrf_token": csrf, "days": "30", "runner": str(runner.id), "seen_at": now().isoformat()}
    assert client.get(f"{address}/delete-now?days=30").status_code == (200 if act == 302 else act)
    for path in ("", "/turn-off", "/protected", f"/protected/{runner.id}/remove", "/delete-now"):
        assert client.post(f"{address}{path}", data=sent).status_code == act, path
    assert count(session) == (0 if act == 302 else 1)


def test_a_project_has_no_clean_up_page(cast: Cast, client: FlaskClient) -> None:
    read(sign_in(client, "dana"), "/acme/web/-/cleanup", expect=404)


# Words


def test_past_clean_ups_name_their_runners_without_a_click(acme: Place) -> None:
    ids = [silent_runner(acme.cast, name=name).id for name in "abcde"]
    runner_cleanup.delete_stale(acme.cast.session, SYSTEM, acme.scope, Criteria(7), now())
    acme.cast.session.commit()
    report = part(read(acme.client, ACME), "reports-head")
    shown, folded = report.split("<details>")
    for name, number in zip("abc", ids, strict=False):
        assert f"{name} (#{number})" in shown
    assert "and 2 more" in words(folded)
    for name, number in zip("de", ids[3:], strict=True):
        assert f"<li>{name} (#{number})</li>" in folded


def test_turning_it_on_says_what_goes_and_how_soon(place: Place) -> None:
    for name in "ab":
        silent_runner(place.cast, place.scope, name)
    page = words(preview(place.client, home(place)))
    assert "Turn on: 30 days, and delete 2 runners" in page
    assert "Turned on, the clean-up deletes these runners within ten minutes, and from then on every hour" in page
    assert "and delete" not in words(preview(place.client, home(place), 31))
    fill(place.client, home(place), form_at=f"{home(place)}?days=60", days="60")
    page = words(preview(place.client, home(place)))
    assert "Save: 30 days, and delete 2 runners" in page
    assert "Saved, the clean-up deletes these runners within ten minutes" in page
    assert "These values are saved." in words(preview(place.client, home(place), 60))


def test_after_a_run_within_the_hour_the_next_one_is_later(acme: Place) -> None:
    silent_runner(acme.cast)
    runner_cleanup.change(acme.cast.session, SYSTEM, acme.scope, Criteria(7))
    runner_cleanup.note_run(acme.cast.session, acme.scope.id, now() - timedelta(minutes=20))
    acme.cast.session.commit()
    assert "These values are saved. The runner above goes within about an hour." in words(
        preview(acme.client, ACME, 7)
    )
    runner_cleanup.note_run(acme.cast.session, acme.scope.id, now() - timedelta(hours=1))
    acme.cast.session.commit()
    assert "The runner above goes within ten minutes." in words(preview(acme.client, ACME, 7))


def test_a_list_above_is_spoken_of_only_where_there_is_one(acme: Place) -> None:
    silent_runner(acme.cast)
    assert "It stands on the runner’s page." in words(read(acme.client, ACME))
    assert "in the list above as #17" not in words(read(acme.client, ACME))
    assert "in the list above as #17" in words(preview(acme.client, ACME))


def test_one_runner_is_spoken_of_as_one(acme: Place) -> None:
    silent_runner(acme.cast, name="a")
    page = words(read(acme.client, f"{ACME}/delete-now?days=30"))
    assert "This runner goes with its tokens and can be restored for 7 days." in page
    assert "None of its machines was heard of" in page
    assert "No machine stands in its list any more." in page
    assert "If it is heard of or protected before you press the button, it stays." in page
    assert "Keep it" in page
    silent_runner(acme.cast, name="b")
    page = words(read(acme.client, f"{ACME}/delete-now?days=30"))
    assert "These runners go with their tokens and can be restored for 7 days." in page
    assert "None of their machines was heard of" in page
    assert "A runner that is heard of or protected before you press the button stays." in page
