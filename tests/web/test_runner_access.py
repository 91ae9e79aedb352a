"""Who may not: strangers find nothing, readers may not write, projects see what they inherit but not its insides."""

import pytest
from flask.testing import FlaskClient

from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.models import Role, Runner
from tests.cast import Cast, csrf_of, sign_in
from tests.web.reading import INFO, links, poll, read, words

READING = ("", "/{id}", "/{id}/machines")
FORMS = ("/new", "/{id}/edit", "/{id}/reset-token", "/{id}/delete")
BUTTONS = ("/new", "/{id}/edit", "/{id}/pause", "/{id}/resume", "/{id}/reset-token", "/{id}/delete")
NOTED = RunnerSettings("Build fleet", "the key lies under the mat", ("docker",))


def statuses(client: FlaskClient, base: str, pages: tuple[str, ...], runner: Runner) -> set[int]:
    return {client.get(base + page.format(id=runner.id)).status_code for page in pages}


def sent(client: FlaskClient, base: str, runner: Runner) -> set[int]:
    csrf = csrf_of(read(client, "/"))
    data = {"csrf_token": csrf, "tags": "stolen", "request_key": "0" * 32, "seen_token_id": "1"}
    return {client.post(base + page.format(id=runner.id), data=data).status_code for page in BUTTONS}


def unharmed(cast: Cast, runner: Runner) -> bool:
    cast.session.expire_all()
    found = cast.session.get(Runner, runner.id)
    return found is not None and found.tag_list == ["docker"] and not found.paused and count(cast) == 1


def count(cast: Cast) -> int:
    return cast.session.query(Runner).count()


@pytest.mark.parametrize("base", ["/groups/acme/-/runners", "/acme/web/-/runners", "/admin/runners"])
def test_somebody_without_a_session_is_asked_to_sign_in(cast: Cast, client: FlaskClient, base: str) -> None:
    for page in (base, f"{base}/new", f"{base}/1"):
        answer = client.get(page)
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith("/-/sign-in?next=")


@pytest.mark.parametrize(
    ("who", "base", "expected"),
    [
        ("charlie", "/groups/acme/-/runners", 404),
        ("charlie", "/acme/web/-/runners", 404),
        ("charlie", "/admin/runners", 404),
        ("alice", "/admin/runners", 404),
        ("bob", "/groups/acme/-/runners", 404),
        ("erin", "/groups/acme/-/runners", 403),
        ("erin", "/acme/web/-/runners", 403),
    ],
)
def test_who_has_no_part_in_a_scopes_runners_can_open_and_send_nothing(
    cast: Cast, client: FlaskClient, who: str, base: str, expected: int
) -> None:
    scope = {"/groups/acme/-/runners": cast.acme, "/acme/web/-/runners": cast.web}.get(base, INSTANCE)
    runner = cast.runner(scope, NOTED).runner
    sign_in(client, who)
    assert statuses(client, base, (*READING, *FORMS, "/{id}/connection"), runner) == {expected}
    assert sent(client, base, runner) == {expected}
    assert unharmed(cast, runner)


def test_a_refusal_says_who_may(cast: Cast, client: FlaskClient) -> None:
    says = words(read(sign_in(client, "erin"), "/groups/acme/-/runners", expect=403))
    assert "You may not see its runners (acme): maintainers and owners may. Ask one of them for the role." in says


def test_a_group_maintainer_reads_everything_and_changes_nothing(cast: Cast, client: FlaskClient) -> None:
    cast.member(cast.charlie, cast.acme, Role.MAINTAINER)
    issued = cast.runner(cast.acme, NOTED)
    base = "/groups/acme/-/runners"
    sign_in(client, "charlie")
    poll(client, issued.token)
    assert statuses(client, base, READING, issued.runner) == {200}
    assert statuses(client, base, FORMS, issued.runner) == {403}
    assert sent(client, base, issued.runner) == {403}
    assert unharmed(cast, issued.runner)


def test_a_group_maintainer_is_offered_no_button_and_sees_no_maintenance_note(
    cast: Cast, client: FlaskClient
) -> None:
    cast.member(cast.charlie, cast.acme, Role.MAINTAINER)
    issued = cast.runner(cast.acme, NOTED)
    path = f"/groups/acme/-/runners/{issued.runner.id}"
    sign_in(client, "charlie")
    poll(client, issued.token)
    for page in (read(client, "/groups/acme/-/runners"), read(client, path)):
        assert "127.0.0.1" in page
        assert not {
            address for address in links(page) if address.endswith(("/new", "/edit", "/delete", "/reset-token"))
        }
        assert "/pause" not in page
        assert "under the mat" not in page


def test_a_project_maintainer_sees_inherited_runners_but_not_their_insides(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "bob")
    for scope in (cast.acme, INSTANCE):
        issued = cast.runner(scope, NOTED)
        poll(client, issued.token)
        path = f"/acme/web/-/runners/{issued.runner.id}"
        for page in (path, f"{path}/machines", "/acme/web/-/runners"):
            html = read(client, page)
            assert INFO["version"] in html
            assert "127.0.0.1" not in html, page
            assert "under the mat" not in html, page
        assert issued.record.short not in words(read(client, path))
        assert "created the runner" not in words(read(client, path))


def test_a_project_maintainer_cannot_touch_inherited_runners(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "bob")
    base = "/acme/web/-/runners"
    for scope in (cast.acme, INSTANCE):
        runner = cast.runner(scope, NOTED).runner
        assert statuses(client, base, (*FORMS[1:], "/{id}/connection"), runner) == {403}
        assert not {address for address in links(read(client, f"{base}/{runner.id}")) if address.endswith("/edit")}
        assert f"{base}/{runner.id}/pause" not in read(client, base)


def test_a_project_maintainer_changes_nothing_by_sending_forms_either(cast: Cast, client: FlaskClient) -> None:
    runner = cast.runner(INSTANCE, NOTED).runner
    sign_in(client, "bob")
    data = {"csrf_token": csrf_of(read(client, "/")), "tags": "stolen", "request_key": "0" * 32}
    for page in BUTTONS[1:]:
        answer = client.post("/acme/web/-/runners" + page.format(id=runner.id), data=data)
        assert answer.status_code == 403, page
    assert unharmed(cast, runner)


def test_a_refusal_about_an_inherited_runner_names_its_owner(cast: Cast, client: FlaskClient) -> None:
    runner = cast.runner(cast.acme, NOTED).runner
    says = words(read(sign_in(client, "bob"), f"/acme/web/-/runners/{runner.id}/edit", expect=403))
    assert "This runner belongs to acme" in says


def test_a_runner_is_not_found_through_a_scope_that_has_nothing_to_do_with_it(
    cast: Cast, client: FlaskClient
) -> None:
    below = cast.runner(cast.web, NOTED).runner
    elsewhere = cast.runner(cast.other, NOTED).runner
    sign_in(client, "alice")
    read(client, f"/groups/acme/-/runners/{below.id}")
    read(client, f"/groups/acme/platform/-/runners/{below.id}", expect=404)
    read(client, f"/groups/acme/-/runners/{elsewhere.id}", expect=404)
    read(client, "/groups/acme/-/runners/99999999999999999999", expect=404)


def test_a_group_owner_may_change_a_runner_of_a_project_below(cast: Cast, client: FlaskClient) -> None:
    runner = cast.runner(cast.web, NOTED).runner
    sign_in(client, "alice")
    path = f"/groups/acme/-/runners/{runner.id}"
    assert {f"{path}/edit", f"{path}/delete"} <= set(links(read(client, path)))
    assert 'name="locked"' in read(client, f"{path}/edit")


def test_a_role_that_is_taken_away_ends_at_once(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "bob")
    read(client, "/acme/web/-/runners")
    csrf = csrf_of(read(client, "/acme/web/-/members"))
    client.post(f"/acme/web/-/members/{cast.bob.id}/remove", data={"csrf_token": csrf})
    read(client, "/acme/web/-/runners", expect=404)
