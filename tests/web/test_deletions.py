"""The pages of what was deleted: restoring, deleting for good, and that nothing of it shows anywhere else."""

import re
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.deletions import deletions
from portal.domain.groups import groups
from portal.domain.imports import import_entries
from portal.domain.runners import runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.models import WITH_DELETED, AuditEvent, Deletion, Runner, RunnerManager
from tests.cast import SYSTEM, Cast, csrf_of, send, sign_in
from tests.web.conftest import Place

LIST = "/-/deleted"


def text_of(answer: object) -> str:
    return re.sub(r"\s+", " ", answer.get_data(as_text=True))  # type: ignore[attr-defined]


def delete(place: Place) -> tuple[int, int]:
    """A runner with one machine is deleted on its page. Returns its number and that of the act."""
    runner = place.runner().runner
    place.cast.session.add(RunnerManager(runner_id=runner.id, system_xid="s_1"))
    place.cast.session.commit()
    number = runner.id
    send(place.client, f"{place.url}/{number}/delete", expect=302)
    deletion = place.cast.session.scalars(select(Deletion).order_by(Deletion.id.desc()).limit(1)).one()
    return number, deletion.id


def test_a_deletion_says_that_it_can_be_undone_and_how(place: Place) -> None:
    number = place.runner().runner.id
    page = text_of(place.client.get(f"{place.url}/{number}/delete"))
    assert "can be restored with its tokens for 7 days" in page
    assert "cannot be undone" not in page
    send(place.client, f"{place.url}/{number}/delete", expect=302)
    page = text_of(place.client.get(place.url))
    assert re.search(r'is deleted and can be restored for 7 days. <a href="/-/deleted/\d+/restore">Undo</a>', page)
    assert "1 deleted runner can be restored" in page


def test_a_name_in_the_sentence_is_no_markup(place: Place) -> None:
    number = place.runner(RunnerSettings(description="<b>bold</b>", tags=("x",))).runner.id
    send(place.client, f"{place.url}/{number}/delete", expect=302)
    assert "&lt;b&gt;bold&lt;/b&gt; is deleted" in text_of(place.client.get(place.url))


def test_undoing_brings_the_runner_back_on_its_page(place: Place) -> None:
    number, act = delete(place)
    page = text_of(place.client.get(f"{LIST}/{act}/restore"))
    assert "Restart gitlab-runner there to connect at once" in page
    answer = send(place.client, f"{LIST}/{act}/restore", expect=303)
    assert answer.location == f"{place.url}/{number}"
    page = text_of(place.client.get(answer.location))
    assert "is restored. Its machines may connect again." in page
    assert "s_1" in page


def test_the_address_in_a_machines_log_leads_to_the_restore_page(place: Place) -> None:
    number, act = delete(place)
    assert place.client.get(f"/-/runners/{number}").location == f"{LIST}/{act}/restore"


def test_who_may_not_restore_finds_nothing(acme: Place, app: Flask) -> None:
    number, act = delete(acme)
    for name in ("charlie", "erin", "bob"):
        client = sign_in(app.test_client(), name)
        assert "There is nothing to restore." in text_of(client.get(LIST))
        assert 'href="/-/deleted"' not in text_of(client.get("/"))
        for address in (f"{LIST}/{act}/restore", f"{LIST}/{act}/delete", f"/-/runners/{number}"):
            assert client.get(address).status_code == 404
        token = csrf_of(text_of(client.get("/")))
        for address in (f"{LIST}/{act}/restore", f"{LIST}/{act}/delete"):
            assert client.post(address, data={"csrf_token": token}).status_code == 404
            newest = select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)
            event = acme.cast.session.scalars(newest).one()
            assert (event.actor_name.lower().split()[0], event.scope_path) == (name, "acme")


def test_the_start_page_leads_to_the_list_when_there_is_something(acme: Place) -> None:
    assert 'href="/-/deleted"' not in text_of(acme.client.get("/"))
    delete(acme)
    assert 'href="/-/deleted"' in text_of(acme.client.get("/"))


def test_the_list_says_what_by_whom_and_how_long_still(acme: Place) -> None:
    delete(acme)
    send(acme.client, "/acme/web/-/delete", typed="acme/web", expect=302)
    page = text_of(acme.client.get(LIST))
    assert page.index("acme/web") < page.index("Linux build fleet")
    assert "by Alice Lam" in page
    assert "in 7 days" in page
    assert "1 machine" in page
    assert "acme/web" not in text_of(acme.client.get(f"{LIST}?search=linux"))
    assert "Drop the search" in text_of(acme.client.get(f"{LIST}?search=zebra"))


def test_deleting_for_good_needs_the_name_and_is_the_end(acme: Place, session: Session) -> None:
    number, act = delete(acme)
    assert "exactly" in text_of(send(acme.client, f"{LIST}/{act}/delete", typed="something", expect=422))
    send(acme.client, f"{LIST}/{act}/delete", typed="Linux build fleet", expect=303)
    assert acme.client.get(f"{LIST}/{act}/restore").status_code == 404
    assert session.get(Runner, number, execution_options=WITH_DELETED) is None


def test_a_group_whose_path_is_taken_asks_for_another_one(acme: Place, cast: Cast) -> None:
    send(acme.client, "/groups/acme/-/delete", typed="acme", expect=302)
    act = cast.session.scalars(select(Deletion.id)).one()
    cast.group("acme")
    cast.session.commit()
    page = text_of(acme.client.get(f"{LIST}/{act}/restore"))
    assert "Somebody has the path acme by now" in page
    token = {"csrf_token": csrf_of(page)}
    refused = acme.client.post(f"{LIST}/{act}/restore", data={**token, "path": "acme"})
    assert refused.status_code == 422
    assert "There is a group or project at acme already." in text_of(refused)
    answer = acme.client.post(f"{LIST}/{act}/restore", data={**token, "path": "acme-2"})
    assert (answer.status_code, answer.location) == (303, "/groups/acme-2")
    assert acme.client.get("/acme-2/web").status_code == 200


def test_a_project_deleted_before_its_group_names_what_to_restore_first(acme: Place, cast: Cast) -> None:
    for address, path in (("/acme/web/-/delete", "acme/web"), ("/groups/acme/-/delete", "acme")):
        send(acme.client, address, typed=path, expect=302)
    project, group = cast.session.scalars(select(Deletion.id).order_by(Deletion.id)).all()
    page = text_of(acme.client.get(f"{LIST}/{project}/restore"))
    assert "was deleted too (acme). Restore that first." in page
    assert f'href="/-/deleted/{group}/restore"' in page
    refused = acme.client.post(f"{LIST}/{project}/restore", data={"csrf_token": csrf_of(page)})
    assert (refused.status_code, "Restore that first." in text_of(refused)) == (409, True)


def test_runners_of_one_act_can_be_restored_one_by_one(acme: Place, cast: Cast) -> None:
    deletion = deletions.begin(cast.session, SYSTEM, "runners", "two runners")
    first, second = (acme.runner(RunnerSettings(description=f"box {n}", tags=("x",))).runner for n in (1, 2))
    for runner in (first, second):
        runners.delete_runner(cast.session, SYSTEM, runner, deletion=deletion)
    cast.session.commit()
    page = text_of(acme.client.get(f"{LIST}/{deletion.id}/restore"))
    assert "Restore all 2 runners" in page
    one = f"{LIST}/{deletion.id}/runners/{second.id}/restore"
    assert one in page
    assert acme.client.get(f"/-/runners/{second.id}").location == one
    send(acme.client, one, expect=303)
    assert "box 2 is restored." in text_of(acme.client.get(LIST))
    left = text_of(acme.client.get(f"{LIST}/{deletion.id}/restore"))
    assert "box 1" in left
    assert "box 2" not in left


@pytest.fixture
def hidden(cast: Cast, session: Session) -> list[str]:
    """A runner, a project with a runner and a group with a project and a runner were deleted: their names."""
    secret = cast.group("vanished-group", inside=cast.acme)
    project = cast.project("vanished-project", cast.acme)
    inner = cast.project("vanished-inner", secret)
    for scope in (INSTANCE, cast.acme, cast.web, secret, project, inner):
        words = RunnerSettings(description=f"vanished runner {scope.title}", tags=("vanished-tag",))
        runner = cast.runner(scope, words).runner
        session.add(RunnerManager(runner_id=runner.id, system_xid=f"vanished_{runner.id}", ip_address="203.0.113.77"))
    session.flush()
    for runner in session.scalars(select(Runner).where(Runner.group_id == cast.acme.id)):
        runners.delete_runner(session, cast.as_(cast.dana), runner)
    for scope in (INSTANCE, cast.web):
        of_it = Runner.project_id == scope.id if scope.project else Runner.runner_type == 1
        for runner in session.scalars(select(Runner).where(of_it)):
            runners.delete_runner(session, cast.as_(cast.dana), runner)
    groups.delete(session, cast.as_(cast.dana), project)
    groups.delete(session, cast.as_(cast.dana), secret)
    session.commit()
    return ["vanished", "203.0.113.77", "deleted-"]


def places_of(cast: Cast) -> dict[str, object]:
    return {
        "group_path": "acme",
        "project_path": "acme/web",
        "user_id": cast.alice.id,
        "project_id": cast.web.id,
    }


def pages(app: Flask) -> list[str]:
    """Every page about places and people that exist, but for the trail and the list of what is deleted."""
    told = ("deletions.", "static")
    return [
        rule.endpoint
        for rule in app.url_map.iter_rules()
        if "GET" in (rule.methods or ())
        and not rule.endpoint.startswith(told)
        and "trail" not in rule.endpoint
        and rule.arguments <= {"group_path", "project_path", "user_id", "project_id"}
    ]


SEARCHES = ({}, {"search": "vanished"}, {"inherited": "true"}, {"days": "7"}, {"tag": "vanished-tag"})


def test_no_page_shows_a_trace_of_what_is_deleted(
    app: Flask, client: FlaskClient, cast: Cast, hidden: list[str]
) -> None:
    sign_in(client, "dana")
    seen = 0
    for endpoint in pages(app):
        rule = next(rule for rule in app.url_map.iter_rules() if rule.endpoint == endpoint)
        for search in SEARCHES:
            values = {name: places_of(cast)[name] for name in rule.arguments}
            address = app.url_map.bind("portal.example.com").build(endpoint, {**values, **search})
            answer = client.get(address)
            text = answer.get_data(as_text=True).replace(search.get("search", "\0"), "")
            text = re.sub(r'vanished-tag|search=[^"&]*', "", text) if search else text
            assert [name for name in hidden if name in text] == [], address
            seen += answer.status_code == 200
    assert seen > 100


def test_what_is_deleted_has_no_page_of_its_own(
    client: FlaskClient, cast: Cast, session: Session, hidden: list[str]
) -> None:
    sign_in(client, "dana")
    numbers = session.scalars(select(Runner.id), execution_options=WITH_DELETED).all()
    assert len(numbers) == 6
    for number in numbers:
        for room in ("/admin/runners", "/groups/acme/-/runners", "/acme/web/-/runners"):
            for page in ("", "/edit", "/delete", "/reset-token", "/machines"):
                assert client.get(f"{room}/{number}{page}").status_code == 404
    for address in ("/groups/acme/vanished-group", "/acme/vanished-project", "/acme/vanished-group/vanished-inner"):
        assert client.get(address).status_code == 404


def test_the_look_up_of_a_deleted_runners_token_leads_to_restoring_it(client: FlaskClient, cast: Cast) -> None:
    issued = cast.runner(cast.web)
    number = issued.runner.id
    runners.delete_runner(cast.session, cast.as_(cast.dana), issued.runner)
    groups.delete(cast.session, cast.as_(cast.dana), cast.web)
    cast.session.commit()
    sign_in(client, "dana")
    page = text_of(send(client, "/admin/token-lookup", pasted=issued.token, expect=200))
    assert "The runner was deleted" in page
    assert f'href="/-/runners/{number}"' in page
    assert "~deleted" not in page
    assert issued.token not in page
    beginning = text_of(send(client, "/admin/token-lookup", pasted=issued.record.short[:6], expect=200))
    assert "No runner here has a token that begins so" in beginning


def test_an_import_of_a_deleted_runners_token_says_to_restore_it(client: FlaskClient, cast: Cast) -> None:
    issued = cast.runner()
    runners.delete_runner(cast.session, cast.as_(cast.dana), issued.runner)
    cast.session.commit()
    known = import_entries.what_is_here(cast.session, [issued.record.digest])
    refused = known.refusal("runner 1", issued.record.short, issued.record.digest, None)
    assert refused is not None
    assert "can be restored. Restore it instead." in refused.reason


def test_the_command_purges_what_is_due(app: Flask, cast: Cast) -> None:
    deletion = runners.delete_runner(cast.session, SYSTEM, cast.runner().runner)
    cast.session.commit()
    run = app.test_cli_runner().invoke
    assert "Nothing is due" in run(args=["deleted", "purge"]).output
    deletion.created_at -= timedelta(days=7)
    cast.session.commit()
    assert "What was due is deleted for good." in run(args=["deleted", "purge"]).output
    assert cast.session.scalars(select(Runner.id), execution_options=WITH_DELETED).all() == []
