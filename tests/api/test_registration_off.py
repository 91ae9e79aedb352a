"""Where registration tokens are off: 410 that says who, where and what instead; old machines are told to upgrade."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from portal.domain.registration.registration import Configured
from portal.domain.scopes import INSTANCE, Scope
from portal.models import LEGACY
from tests.api.machines import Answer, Machine, through, until
from tests.api.processes import Process
from tests.api.registering import GONE, NOBODYS, Office, by_form, registered
from tests.cast import Cast
from tests.domain.queries import asked

URL = "https://portal.example.com"
INSTEAD = "Create a runner in the browser and register with its glrt- token (gitlab-runner 15.10 or newer)"
BY_AN_ADMINISTRATOR = "An administrator turned registration tokens off for the whole portal."
TOO_OLD = "upgrade its gitlab-runner to 15.10 or newer"


def scope_called(cast: Cast, name: str) -> Scope:
    return {"": INSTANCE, "acme": cast.acme, "acme/platform": cast.platform, "acme/web": cast.web}[name]


# Registrations


@pytest.mark.parametrize(
    ("scope", "off", "sentence", "place"),
    [
        ("acme/web", "acme/web", "for the project acme/web.", "/acme/web/-/runners/new"),
        ("acme/web", "acme", "for the group acme.", "/acme/web/-/runners/new"),
        ("acme/web", "", BY_AN_ADMINISTRATOR, "/"),
        ("acme/platform", "acme/platform", "for the group acme/platform.", "/groups/acme/platform/-/runners/new"),
        ("acme/platform", "acme", "for the group acme.", "/groups/acme/platform/-/runners/new"),
        ("acme/platform", "", BY_AN_ADMINISTRATOR, "/"),
        ("acme", "acme", "for the group acme.", "/groups/acme/-/runners/new"),
        ("", "", BY_AN_ADMINISTRATOR, "/"),
    ],
)
def test_a_registration_is_gone_and_the_message_says_who_where_and_what_instead(
    cast: Cast, office: Office, client: FlaskClient, scope: str, off: str, sentence: str, place: str
) -> None:
    box = Machine(through(client), office.token(scope_called(cast, scope)))
    office.turn_off(scope_called(cast, off), cast.as_(cast.alice if off else cast.dana))
    answer = box.register(description="box1", tag_list="a,b")
    assert answer.status == 410
    if off:
        sentence = f"Alice Lam turned registration tokens off {sentence}"
    assert answer.message == f"{GONE}{sentence} {INSTEAD}: {URL}{place}"
    assert office.runners() == []


def test_the_highest_of_several_that_are_off_is_named(
    box: Machine, office: Office, cast: Cast, client: FlaskClient
) -> None:
    machine = Machine(through(client), office.token(cast.web))
    office.turn_off(cast.web, cast.as_(cast.bob))
    office.turn_off(cast.acme, cast.as_(cast.alice))
    assert "Alice Lam turned registration tokens off for the group acme." in machine.register().message


def test_who_turned_it_off_and_left_is_an_owner(box: Machine, office: Office, cast: Cast) -> None:
    office.turn_off(cast.acme)
    assert box.register().message.startswith(f"{GONE}An owner turned registration tokens off for the group acme.")


def test_other_scopes_go_on(box: Machine, office: Office, cast: Cast, client: FlaskClient) -> None:
    others = [Machine(through(client), office.token(scope)) for scope in (INSTANCE, cast.other, cast.platform)]
    office.turn_off(cast.platform)
    assert box.register().status == 201
    assert [machine.register().status for machine in others] == [201, 201, 410]


def test_a_form_is_gone_too(box: Machine, office: Office, cast: Cast, client: FlaskClient) -> None:
    office.turn_off(cast.acme)
    assert by_form(client, box.token, [("tag_list", "a"), ("tag_list", "b")]).status == 410


def test_a_registration_is_gone_whatever_it_wants(box: Machine, office: Office, cast: Cast) -> None:
    office.turn_off(cast.acme)
    assert box.register(maximum_timeout=1).status == 410


@pytest.mark.parametrize(
    "wrong",
    [
        {"access_level": "x"},
        {"paused": True, "active": True},
        {"info": "x"},
        {"maximum_timeout": "abc"},
        {"tag_list": [1]},
    ],
    ids=str,
)
def test_while_the_instance_is_off_nothing_else_can_be_wrong(
    box: Machine, office: Office, wrong: dict[str, object]
) -> None:
    assert box.register(**wrong).status == 400
    office.turn_off(INSTANCE)
    assert box.register(**wrong).status == 410


def test_a_group_that_is_off_hides_no_unknown_token(box: Machine, office: Office, cast: Cast) -> None:
    ended = box.token
    office.reset(cast.acme)
    office.turn_off(cast.acme)
    for token in (ended, "GR1348941abcdefghijklmnopqrst"):
        answer = box.register(token=token)
        assert (answer.status, answer.message[: len(NOBODYS)]) == (403, NOBODYS)


def test_turned_on_again_it_registers(box: Machine, office: Office, cast: Cast) -> None:
    office.turn_off(cast.acme)
    assert box.register().status == 410
    office.turn_on(cast.acme)
    assert box.register().status == 201


def test_the_configuration_turns_it_off_everywhere_and_is_named(
    app: Flask, box: Machine, office: Office, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.extensions, "registration", replace(configured, enforced=True))
    answer = box.register()
    assert answer.status == 410
    assert answer.message == (
        f"{GONE}The portal's configuration (PORTAL_ENFORCE_CREATE_RUNNER_WORKFLOW) turned registration tokens off "
        f"for the whole portal. {INSTEAD}: {URL}/"
    )
    assert office.runners() == []


def without_request_id(answer: Answer) -> tuple[int, bytes, list[tuple[str, str]]]:
    headers = sorted((name, value) for name, value in answer.headers.items() if name != "X-Request-Id")
    return answer.status, answer.body, headers


@pytest.mark.parametrize("how", ["switch", "configuration"])
def test_an_instance_that_is_off_tells_of_no_token_whether_it_is_one(
    app: Flask,
    box: Machine,
    office: Office,
    cast: Cast,
    session: Session,
    configured: Configured,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    ended = box.token
    known = [office.reset(cast.acme), office.token(cast.web), office.token(INSTANCE)]
    glrt = cast.runner().token
    office.turn_off(cast.web)
    if how == "switch":
        office.turn_off(INSTANCE)
    else:
        monkeypatch.setitem(app.extensions, "registration", replace(configured, enforced=True))
    unknown = ["GR1348941abcdefghijklmnopqrst", "x", "x" * 100_000, "with\0null", "glrt-nobody-has-this-token"]
    with asked(session) as statements:
        answers = [box.register(token=token) for token in [*known, ended, glrt, *unknown]]
    assert {answer.status for answer in answers} == {410}
    assert len({str(without_request_id(answer)) for answer in answers}) == 1
    assert [statement for statement in statements if "ci_registration_tokens" in statement] == []
    assert any("application_settings" in statement for statement in statements) == (how == "switch")


def test_a_token_that_is_missing_is_asked_for_although_the_instance_is_off(box: Machine, office: Office) -> None:
    office.turn_off(INSTANCE)
    assert box.register(token="").message == "400 Bad Request - token is missing"


# Machines that send no system ID


@pytest.fixture(params=["registered", "created"])
def old(request: pytest.FixtureRequest, box: Machine, cast: Cast) -> Machine:
    """A machine without system ID of a runner of acme, made either way."""
    if request.param == "created":
        return Machine(box.way, cast.runner().token, None)
    return registered(box)


@pytest.mark.parametrize("off", ["acme", ""])
@pytest.mark.parametrize("said", [None, "", LEGACY])
def test_a_machine_without_system_id_is_gone_and_told_to_upgrade(
    old: Machine, office: Office, cast: Cast, off: str, said: str | None
) -> None:
    assert old.poll(system_id=said).status == 204
    office.turn_off(scope_called(cast, off), cast.as_(cast.alice if off else cast.dana))
    who = "Alice Lam turned registration tokens off for the group acme." if off else BY_AN_ADMINISTRATOR
    for answer in (old.poll(system_id=said), old.verify(system_id=said)):
        assert answer.status == 410
        assert answer.message.startswith(f"410 Gone - {who} Machines there must send a system ID")
        assert TOO_OLD in answer.message


def test_a_machine_with_system_id_goes_on(old: Machine, office: Office, cast: Cast) -> None:
    old.system_id = "r_machine00001"
    office.turn_off(cast.acme)
    office.turn_off(INSTANCE)
    assert old.verify().status == 200
    assert old.poll().status == 204
    assert old.poll().status == 204


def test_a_machine_without_system_id_is_gone_where_the_configuration_decides(
    app: Flask, old: Machine, configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.extensions, "registration", replace(configured, enforced=True))
    answer = old.poll()
    assert answer.status == 410
    assert "PORTAL_ENFORCE_CREATE_RUNNER_WORKFLOW" in answer.message
    assert TOO_OLD in answer.message


def test_a_machine_without_system_id_is_gone_where_only_the_project_is_off(
    client: FlaskClient, office: Office, cast: Cast
) -> None:
    here = registered(Machine(through(client), office.token(cast.web)))
    elsewhere = registered(Machine(through(client), office.token(cast.acme)))
    office.turn_off(cast.web, cast.as_(cast.bob))
    assert [here.poll().status, elsewhere.poll().status] == [410, 204]
    assert "Bob Ray turned registration tokens off for the project acme/web." in here.poll().message


def test_turned_on_again_the_old_machine_works(old: Machine, office: Office, cast: Cast) -> None:
    office.turn_off(cast.acme)
    assert old.poll().status == 410
    office.turn_on(cast.acme)
    assert old.poll().status == 204
    assert old.verify().status == 200


def test_an_unknown_token_without_system_id_is_forbidden_all_the_same(office: Office, stranger: Machine) -> None:
    office.turn_off(INSTANCE)
    assert stranger.poll(system_id=None).status == 403
    assert stranger.verify(system_id=None).status == 403


def test_an_old_machine_can_still_leave(box: Machine, office: Office, cast: Cast) -> None:
    machine = registered(box)
    office.turn_off(cast.acme)
    assert machine.unregister_the_old_way().status == 204
    assert office.runners() == []


# What it costs, in a process that hears of changes


@pytest.fixture
def process(own_database: str) -> Iterator[Process]:
    with Process(own_database) as process:
        yield process


def test_an_old_machine_s_poll_costs_no_query_whether_it_is_taken_or_refused(process: Process) -> None:
    with process.session() as session:
        cast = Cast(session)
        office = Office(process.app.extensions["registration"], session)
        with process.app.app_context():
            machine = registered(process.machine(office.token(cast.acme)))

        def costs_nothing(status: int) -> bool:
            with process.statements() as statements:
                statuses = {machine.poll().status for _ in range(5)}
            return statuses == {status} and statements == []

        until(lambda: costs_nothing(204), why="it is remembered that it may poll")
        office.turn_off(cast.acme)
        until(lambda: costs_nothing(410), why="it is remembered that it may not")
        office.turn_on(cast.acme)
        until(lambda: costs_nothing(204), why="it may again")
