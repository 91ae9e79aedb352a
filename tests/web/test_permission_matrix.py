"""Who may do what with runners and registration tokens: the whole table, through the pages and the domain.

The table stands in tests/permission_table.py; tests/api/test_permission_matrix.py sends it through REST and GraphQL.
"""

from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from portal.domain.actors import Actor
from portal.domain.bulk import bulk_acts
from portal.domain.bulk.bulk_changes import Act, Wanted
from portal.domain.deletions import restores
from portal.domain.errors import NotAllowed, NotFound
from portal.domain.groups import groups, scope_settings
from portal.domain.jobs import job_checks
from portal.domain.permissions import Action, may, require
from portal.domain.registration import registration_switch, registration_tokens
from portal.domain.registration.registration import Configured
from portal.domain.runners import (
    runner_cleanup,
    runner_lists,
    runner_projects,
    runner_rules,
    runner_settings,
    runner_tokens,
    runners,
)
from portal.domain.scopes import INSTANCE
from portal.models import Role, Runner
from tests.cast import JOB_VAULT, SYSTEM, TAGGED, Cast, csrf_of, sign_in
from tests.permission_table import ACTORS, CELLS, KINDS, Stage, cell, refused, set_stage


@pytest.fixture
def stage(session: Session, cast: Cast) -> Stage:
    return set_stage(session, cast)


def test_the_table_is_read_as_it_is_written() -> None:
    assert len(CELLS) == 9
    assert all(len(cells) == len(KINDS) for cells in CELLS.values())
    assert cell("group owner", "group") == "CRUDTSLK"
    assert cell("group maintainer", "instance") == "r"


everybody = pytest.mark.parametrize("name", ACTORS)
everywhere = pytest.mark.parametrize("kind", KINDS)

# The door of pages

GETS = {
    "C": "/runners/new",
    "R": "/runners/{id}",
    "W": "/runners/{id}/pending",
    "U": "/runners/{id}/edit",
    "D": "/runners/{id}/delete",
    "T": "/registration/reset",
    "S": "/registration/turn-off",
    "E": "/runners/{id}/tokens/{token}/end",
    "F": "/registration/affected",
    "J": "/runners/{id}/jobs",
    "H": "/runners/{id}/checks/{check}",
}
SAME = {"E": "U", "F": "S", "W": "R", "J": "R", "H": "R"}  # pages whose letter is another's
FOR_ADMINISTRATORS = ("/admin/import", "/admin/token-lookup")
POSTS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "C": [("/runners/new", {"tags": "docker", "request_key": "11111111-1111-4111-8111-111111111111"})],
    "U": [
        ("/runners/{id}/check", {"request_key": "33333333-3333-4333-8333-333333333333"}),
        ("/runners/{id}/checks/{check}/cancel", {}),
        ("/runners/{id}/pause", {}),
        ("/runners/{id}/edit", {"tags": "other"}),
        ("/runners/{id}/reset-token", {"request_key": "22222222-2222-4222-8222-222222222222"}),
    ],
    "D": [("/runners/{id}/delete", {})],
    "L": [("/runner-settings/token-life", {"life-own": "30d"})],
    "K": [("/cleanup/protected", {"runner": "{id}"}), ("/cleanup", {"days": "30"}), ("/cleanup/turn-off", {})],
    "A": [
        ("/runner-settings/creation", {"who-groups": "y", "who-projects": "y", "who-enabled": "y"}),
        ("/runner-settings/limits", {"most-groups": "1000", "most-projects": "1000"}),
    ],
    "T": [("/registration/token", {}), ("/registration/reset", {})],
    "S": [("/registration/turn-off", {}), ("/registration/turn-on", {})],
}


def expected(name: str, kind: str, letter: str) -> tuple[int, ...]:
    letter = SAME.get(letter, letter)
    return (200, 302, 303) if letter in cell(name, kind) else refused(name, kind)


@everybody
@everywhere
def test_pages_open_for_those_in_the_table_only(app: Flask, stage: Stage, name: str, kind: str) -> None:
    client = sign_in(app.test_client(), stage.people[name].username)
    for letter, path in GETS.items():
        address = stage.base(kind) + path.format(
            id=stage.runners[kind], token=stage.tokens[kind], check=stage.checks[kind]
        )
        assert client.get(address).status_code in expected(name, kind, letter), (letter, address)


@everybody
def test_what_administrators_keep_opens_for_them_only(app: Flask, stage: Stage, name: str) -> None:
    client = sign_in(app.test_client(), stage.people[name].username)
    for address in FOR_ADMINISTRATORS:
        assert client.get(address).status_code in expected(name, "instance", "A"), address


@everybody
@everywhere
def test_forms_are_taken_from_those_in_the_table_only(app: Flask, stage: Stage, name: str, kind: str) -> None:
    client = sign_in(app.test_client(), stage.people[name].username)
    csrf = csrf_of(client.get("/").get_data(as_text=True))
    for letter in "CUTSLKAD":  # the runner is deleted last
        if kind == "project" and letter in "KA":
            continue  # a project has no such pages
        for path, fields in POSTS[letter]:
            address = stage.base(kind) + path.format(id=stage.runners[kind], check=stage.checks[kind])
            filled = {field: value.format(id=stage.runners[kind]) for field, value in fields.items()}
            answer = client.post(address, data={"csrf_token": csrf, **filled})
            assert answer.status_code in expected(name, kind, letter), (letter, address, answer.status_code)


@everywhere
def test_a_visitor_is_asked_to_sign_in_and_can_send_nothing(app: Flask, stage: Stage, kind: str) -> None:
    client = app.test_client()
    for path in GETS.values():
        place = {"id": stage.runners[kind], "token": stage.tokens[kind], "check": stage.checks[kind]}
        answer = client.get(stage.base(kind) + path.format(**place))
        assert answer.headers["Location"].startswith("/-/sign-in")
    forms = [each for letter in POSTS if kind != "project" or letter not in "KA" for each in POSTS[letter]]
    for path, fields in forms:
        address = path.format(id=stage.runners[kind], check=stage.checks[kind])
        answer = client.post(stage.base(kind) + address, data=fields)
        assert answer.status_code == 400  # it has no form of ours to send


def test_what_is_inherited_is_read_in_a_scope_of_ones_own_and_not_changed_there(app: Flask, stage: Stage) -> None:
    homes = {"group owner": "group", "group maintainer": "group", "project owner": "project"}
    for name, home in {**homes, "project maintainer": "project"}.items():
        client = sign_in(app.test_client(), stage.people[name].username)
        for kind in KINDS:
            if cell(name, kind) != "r":
                continue
            page = f"{stage.base(home)}/runners/{stage.runners[kind]}"
            assert client.get(page).status_code == 200, (name, kind)
            for act in ("edit", "reset-token", "delete"):
                assert client.get(f"{page}/{act}").status_code == 403, (name, kind, act)


# The door of acts on many, of further projects and of undoing: each letter counts there as it does one by one

CHOOSE = ("administrator", "group owner", "group maintainer", "project owner", "project maintainer")
DELETE_SCOPES = {"administrator": KINDS[1:], "group owner": KINDS[1:], "project owner": ("project",)}
TAKEN = (200, 302, 303)


def post(client: FlaskClient, address: str, **fields: str) -> int:
    csrf = csrf_of(client.get("/").get_data(as_text=True))
    return client.post(address, data={"csrf_token": csrf, **fields}).status_code


@everybody
@everywhere
def test_an_act_on_many_does_no_more_than_the_table_lets_one_do(
    app: Flask, stage: Stage, name: str, kind: str
) -> None:
    client = sign_in(app.test_client(), stage.people[name].username)
    may_choose = name in CHOOSE and (cell(name, kind) != "r")
    answer = client.post(
        f"{stage.base(kind)}/runners/bulk",
        data={
            "csrf_token": csrf_of(client.get("/").get_data(as_text=True)),
            "act": "pause",
            "runner": stage.runners[kind],
        },
    )
    assert answer.status_code in (TAKEN if may_choose else refused(name, kind))
    if may_choose:
        assert post(client, f"{answer.headers['Location']}/start") == 303
    stage.session.expire_all()
    assert stage.runner(kind).paused is ("U" in cell(name, kind))


@everybody
def test_an_act_of_somebody_else_is_nobodys_but_the_administrators(app: Flask, stage: Stage, name: str) -> None:
    owner = actors_of(stage, "group owner", "project owner")[name == "group owner"]
    act = bulk_acts.draft(
        stage.session, owner, stage.scopes["project"], Wanted(Act.PAUSE), {stage.runners["project"]}
    )
    stage.session.commit()
    client = sign_in(app.test_client(), stage.people[name].username)
    mine = name == ("project owner" if name == "group owner" else "group owner")
    sees = mine or name == "administrator"
    for page in ("", "/refused"):
        assert client.get(f"/-/bulk/{act.id}{page}").status_code == (200 if sees else 404)
    assert post(client, f"/-/bulk/{act.id}/stop") == (303 if sees else 404)
    assert post(client, f"/-/bulk/{act.id}/start") == (303 if mine else 403 if sees else 404)
    bulk_acts.start(stage.session, owner, act.id)
    stage.session.commit()
    listed = client.get("/-/bulk").get_data(as_text=True)
    assert (f'/-/bulk/{act.id}"' in listed) is sees


def actors_of(stage: Stage, *names: str) -> list[Actor]:
    return [stage.actor(each) for each in names]


@everybody
def test_a_runner_is_assigned_and_taken_away_by_those_who_change_it(
    app: Flask, stage: Stage, cast: Cast, name: str
) -> None:
    api = cast.project("api", cast.acme)
    for each in ("project owner", "project maintainer"):
        cast.member(stage.people[each], api, Role.MAINTAINER)
    stage.session.commit()
    client = sign_in(app.test_client(), stage.people[name].username)
    page = f"{stage.base('project')}/runners/{stage.runners['project']}/projects"
    expect = expected(name, "project", "U")
    assert client.get(page).status_code in expect
    assert post(client, page, project_id=str(api.id)) in expect
    if 404 in expect or 403 in expect:
        runner_projects.assign(stage.session, SYSTEM, stage.runner("project"), api)
        stage.session.commit()
    assert post(client, f"{page}/{api.id}/unassign") in expect


@everybody
@everywhere
@pytest.mark.parametrize("what", ["runner", "scope"])
def test_who_could_delete_it_restores_it_or_deletes_it_for_good_and_others_find_nothing(
    app: Flask, stage: Stage, name: str, kind: str, what: str
) -> None:
    if what == "scope" and kind == "instance":
        return
    able = "D" in cell(name, kind) if what == "runner" else kind in DELETE_SCOPES.get(name, ())
    client, expect = sign_in(app.test_client(), stage.people[name].username), TAKEN if able else (404,)
    for act in ("restore", "delete"):
        if what == "runner":
            deletion, title = runners.delete_runner(stage.session, SYSTEM, stage.runner(kind)), TAGGED.description
        else:
            title = stage.scopes[kind].full_path
            deletion = groups.delete(stage.session, SYSTEM, stage.scopes[kind])
        page = f"/-/deleted/{deletion.id}/{act}"
        stage.session.commit()
        assert client.get(page).status_code in expect
        assert post(client, page, typed=title) in expect
        if not able:
            restores.restore(stage.session, SYSTEM, deletion.id, timedelta(days=7))
            stage.session.commit()


# The door of the domain, which every other door calls

Deed = Callable[[Stage, Actor, str, Configured], object]
ACTS: dict[str, list[Deed]] = {
    "C": [lambda s, who, kind, _: runners.create_runner(s.session, who, s.scopes[kind], TAGGED)],
    "R": [lambda s, who, kind, _: require(s.session, who, Action.READ_RUNNERS, s.scopes[kind])],
    "U": [
        lambda s, who, kind, _: job_checks.check(s.session, who, s.runner(kind), JOB_VAULT),
        lambda s, who, kind, _: runners.set_paused(s.session, who, s.runner(kind), True),
        lambda s, who, kind, _: runners.update_runner(
            s.session, who, s.runner(kind), runner_settings.RunnerSettings(tags=("x",))
        ),
        lambda s, who, kind, _: runner_tokens.reset_token(s.session, who, s.runner(kind), seen_token_id=None),
    ],
    "T": [
        lambda s, who, kind, conf: registration_tokens.make_token(s.session, who, s.scopes[kind], conf),
        lambda s, who, kind, conf: registration_tokens.reset_token(s.session, who, s.scopes[kind], conf),
    ],
    "S": [
        lambda s, who, kind, conf: registration_switch.switch(
            s.session, who, s.scopes[kind], allow=False, configured=conf
        ),
        lambda s, who, kind, conf: registration_switch.switch(
            s.session, who, s.scopes[kind], allow=True, configured=conf
        ),
    ],
    "L": [
        lambda s, who, kind, _: runner_rules.change_token_lives(
            s.session, who, s.scopes[kind], runner_rules.TokenLives(own=86_400)
        ),
    ],
    "K": [
        lambda s, who, kind, _: runner_cleanup.change(s.session, who, s.scopes[kind], runner_cleanup.Criteria(30)),
        lambda s, who, kind, _: runner_cleanup.set_protected(s.session, who, s.scopes[kind], s.runners[kind], True),
    ],
    "D": [lambda s, who, kind, _: runners.delete_runner(s.session, who, s.runner(kind))],
}


@everybody
@everywhere
def test_the_domain_obeys_those_in_the_table_only(stage: Stage, configured: Configured, name: str, kind: str) -> None:
    for letter, acts in ACTS.items():
        for act in acts if kind != "project" or letter != "K" else ():
            if letter in cell(name, kind):
                act(stage, stage.actor(name), kind, configured)
            else:
                sees = may(stage.session, stage.actor(name), Action.SEE, stage.scopes[kind])
                with pytest.raises(NotAllowed if sees else NotFound):
                    act(stage, stage.actor(name), kind, configured)


@everybody
def test_a_list_shows_the_runners_that_the_table_lets_one_read(stage: Stage, name: str) -> None:
    for home in ("group", "project"):
        if not may(stage.session, stage.actor(name), Action.READ_RUNNERS, stage.scopes[home]):
            continue
        for kind in KINDS:
            found = runner_lists.find(stage.session, stage.scopes[home], stage.runners[kind])
            below = home == "group" and kind == "project"
            assert (found is not None) is (bool(set(cell(name, kind)) & set("rR")) or below)


# The door of machines: whoever has the registration token is the actor


@everywhere
def test_the_registration_token_creates_in_its_scope_and_opens_nothing_else(
    client: FlaskClient, stage: Stage, configured: Configured, kind: str
) -> None:
    row = registration_tokens.make_token(stage.session, stage.actor("administrator"), stage.scopes[kind], configured)
    token = configured.vault.open(row.ciphertext or b"") or ""
    stage.session.commit()
    answer = client.post("/api/v4/runners", json={"token": token, "run_untagged": True})
    assert answer.status_code == 201
    made = stage.session.get_one(Runner, answer.json["id"])
    assert (made.type.name.lower(), made.creator_id) == (kind, None)
    for method, path in (
        ("POST", "runners/verify"),
        ("POST", "jobs/request"),
        ("DELETE", "runners"),
        ("DELETE", "runners/managers"),
    ):
        body = {"token": token, "system_id": "s_1"}
        assert client.open(f"/api/v4/{path}", method=method, json=body).status_code == 403


@pytest.mark.parametrize("letter", list("CT"))
@pytest.mark.parametrize("kind", ["group", "project"])
def test_where_administrators_let_nobody_create_runners_only_they_do(
    stage: Stage, configured: Configured, kind: str, letter: str
) -> None:
    scope_settings.own_for_update(stage.session, INSTANCE).valid_runner_registrars = []  # type: ignore[union-attr]
    stage.session.flush()
    for name in ACTORS:
        if letter not in cell(name, kind):
            continue
        for act in ACTS[letter]:
            if name == "administrator" and letter == "C":
                act(stage, stage.actor(name), kind, configured)
            else:  # the token serves nobody there: whoever registers with it is no administrator
                with pytest.raises(NotAllowed, match="let nobody else create runners"):
                    act(stage, stage.actor(name), kind, configured)
