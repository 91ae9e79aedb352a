"""`POST /runners`: registering with a registration token, the old way. What it takes, and what it makes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import tokens
from portal.domain.groups import scope_settings
from portal.domain.runners.runner_settings import settings_of
from portal.domain.scopes import INSTANCE, Scope
from portal.models import AuditEvent, RegistrationType, Runner, RunnerToken, TokenOrigin
from tests.api.machines import JSON, Answer, Machine, info_of, through
from tests.api.registering import NOBODYS, Fields, Office, by_form, registered
from tests.cast import Cast

HELLO = {"version": "13.12.0", "revision": "7a6612da", "platform": "linux", "architecture": "arm64"}


def scope_called(cast: Cast, kind: str) -> Scope:
    return {"instance": INSTANCE, "group": cast.platform, "project": cast.web}[kind]


def stored(office: Office, answer: Answer) -> Runner:
    """The runner of the answer, which is the only one there is."""
    assert answer.status == 201, answer
    (runner,) = office.runners()
    assert runner.id == answer.json["id"]
    return runner


# What comes back


@pytest.mark.parametrize(("kind", "number"), [("instance", 1), ("group", 2), ("project", 3)])
def test_the_answer_is_id_token_and_expiry_in_the_scope_of_the_token(
    cast: Cast, office: Office, client: FlaskClient, kind: str, number: int
) -> None:
    scope = scope_called(cast, kind)
    answer = Machine(through(client), office.token(scope)).register(description="box1")
    assert answer.status == 201
    assert set(answer.json) == {"id", "token", "token_expires_at"}
    assert type(answer.json["id"]) is int
    assert answer.json["token_expires_at"] is None
    assert answer.json["token"].startswith(f"glrtr-t{number}_")
    assert not tokens.is_mistyped(answer.json["token"])
    runner = stored(office, answer)
    assert (runner.runner_type, runner.group, runner.project) == (scope.runner_type, scope.group, scope.project)


def test_the_token_has_the_form_whose_checksum_is_looked_at(box: Machine) -> None:
    token = registered(box).token
    assert tokens.is_mistyped(token[:-1] + ("0" if token[-1] != "0" else "1"))
    assert not tokens.is_created_by_person(token)


def test_the_answer_is_kept_by_no_cache_and_says_json(box: Machine) -> None:
    answer = box.register()
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/json"
    assert "Set-Cookie" not in answer.headers


def test_an_expiry_is_a_time_with_its_zone(box: Machine, cast: Cast, session: Session) -> None:
    own = scope_settings.own_for_update(session, cast.acme)
    own.runner_token_expiration_interval = 7200
    session.commit()
    told = datetime.fromisoformat(box.register().json["token_expires_at"])
    assert told.utcoffset() == timedelta(0)
    assert timedelta(minutes=119) < told - now() <= timedelta(hours=2)


def test_the_token_works_at_once(box: Machine) -> None:
    machine = registered(box, "r_machine00001")
    assert machine.verify().status == 200
    assert machine.poll().status == 204


def test_every_registration_makes_a_runner_of_its_own(box: Machine, office: Office) -> None:
    answers = [box.register() for _ in range(3)]
    assert len({answer.json["token"] for answer in answers}) == 3
    assert [runner.id for runner in office.runners()] == [answer.json["id"] for answer in answers]


# What is stored


def test_the_runner_knows_that_a_registration_token_made_it_and_which(box: Machine, office: Office) -> None:
    runner = stored(office, box.register())
    assert runner.registration_type == RegistrationType.REGISTRATION_TOKEN
    assert not runner.created_by_person
    assert runner.creator is None
    assert runner.registered_with is not None
    assert runner.registered_with.short == tokens.shorten(box.token)
    assert runner.registered_with.last_used_at is not None


def test_the_machine_s_facts_stand_on_the_runner_s_own_row(box: Machine, office: Office) -> None:
    runner = stored(office, box.register(info=HELLO))
    assert {name: getattr(runner, name) for name in HELLO} == HELLO
    assert runner.ip_address == "127.0.0.1"
    assert runner.contacted_at is None


def test_the_new_runner_s_token_is_the_only_one_and_is_stored_as_a_digest(
    box: Machine, office: Office, session: Session
) -> None:
    answer = box.register()
    stored(office, answer)
    (row,) = session.scalars(select(RunnerToken))
    assert row.digest == tokens.digest(answer.json["token"])
    assert (row.origin, row.ends_at, row.first_used_at) == (TokenOrigin.REGISTERED, None, None)
    assert answer.json["token"] not in repr(vars(row))


def test_a_registration_leaves_a_trace_without_a_secret(box: Machine, office: Office, session: Session) -> None:
    answer = box.register(description="box1", tag_list="docker")
    runner = stored(office, answer)
    event = session.scalars(select(AuditEvent).where(AuditEvent.action == "runner_registered")).one()
    assert (event.actor_kind, event.actor_name) == (
        "registration_token",
        f"registration token {tokens.shorten(box.token)}",
    )
    assert (event.target_id, event.scope_path, event.address) == (runner.id, "acme", "127.0.0.1")
    assert event.changes["tags"] == [None, ["docker"]]
    assert box.token not in repr(vars(event))
    assert answer.json["token"] not in repr(vars(event))


# The parameters. Each is sent as JSON and as a form.

PARAMETERS: list[tuple[str, dict[str, Any], Fields, dict[str, Any]]] = [
    ("description", {"description": " box 7 "}, [("description", " box 7 ")], {"description": "box 7"}),
    (
        "maintainer_note",
        {"maintainer_note": "rack b7"},
        [("maintainer_note", "rack b7")],
        {"maintenance_note": "rack b7"},
    ),
    (
        "maintenance_note",
        {"maintenance_note": "rack b7"},
        [("maintenance_note", "rack b7")],
        {"maintenance_note": "rack b7"},
    ),
    ("active", {"active": True}, [("active", "true")], {"paused": False}),
    ("not active", {"active": False}, [("active", "false")], {"paused": True}),
    ("paused", {"paused": True}, [("paused", "true")], {"paused": True}),
    ("not paused", {"paused": False}, [("paused", "0")], {"paused": False}),
    ("locked", {"locked": True}, [("locked", "1")], {"locked": True}),
    ("unlocked", {"locked": False}, [("locked", "False")], {"locked": False}),
    (
        "untagged",
        {"run_untagged": True, "tag_list": "a"},
        [("run_untagged", "True"), ("tag_list", "a")],
        {"run_untagged": True},
    ),
    (
        "only tagged",
        {"run_untagged": False, "tag_list": "a"},
        [("run_untagged", "false"), ("tag_list", "a")],
        {"run_untagged": False, "tags": ("a",)},
    ),
    ("protected", {"access_level": "ref_protected"}, [("access_level", "ref_protected")], {"protected": True}),
    ("not protected", {"access_level": "not_protected"}, [("access_level", "not_protected")], {"protected": False}),
    ("timeout", {"maximum_timeout": 600}, [("maximum_timeout", "600")], {"maximum_timeout": 600}),
    ("timeout as text", {"maximum_timeout": "3600"}, [("maximum_timeout", "3600")], {"maximum_timeout": 3600}),
    ("no timeout", {"maximum_timeout": None}, [("maximum_timeout", "")], {"maximum_timeout": None}),
    ("tags as one text", {"tag_list": "b, a,,b"}, [("tag_list", "b, a,,b")], {"tags": ("b", "a")}),
    ("tags as a list", {"tag_list": ["b", "a", "b"]}, [("tag_list", "b"), ("tag_list", "a")], {"tags": ("b", "a")}),
    ("tags in brackets", {"tag_list": ["b", "a"]}, [("tag_list[]", "b"), ("tag_list[]", "a")], {"tags": ("b", "a")}),
    ("one tag in brackets", {"tag_list": ["b"]}, [("tag_list[]", "b")], {"tags": ("b",)}),
    (
        "a list with commas",
        {"tag_list": ["c,b", "a"]},
        [("tag_list", "c,b"), ("tag_list", "a")],
        {"tags": ("c", "b", "a")},
    ),
    ("no tags", {"tag_list": ""}, [("tag_list", "")], {"tags": ()}),
    ("what nobody knows", {"colour": {"a": [1]}, "tag": 7}, [("colour[a][b]", "1"), ("tag", "7")], {}),
]
DEFAULTS: dict[str, Any] = {
    "description": "",
    "maintenance_note": "",
    "tags": (),
    "run_untagged": True,
    "paused": False,
    "protected": False,
    "locked": False,
    "maximum_timeout": None,
}
each_parameter = pytest.mark.parametrize(
    ("said", "fields", "wanted"), [pytest.param(*row[1:], id=row[0]) for row in PARAMETERS]
)


@pytest.fixture
def web(client: FlaskClient, office: Office, cast: Cast) -> Machine:
    """A machine with the registration token of a project, where everything can be said, `locked` too."""
    return Machine(through(client), office.token(cast.web), None)


def chosen(runner: Runner) -> dict[str, Any]:
    settings = settings_of(runner)
    return {name: getattr(settings, name) for name in DEFAULTS}


@each_parameter
def test_each_parameter_is_taken_from_json(
    web: Machine, office: Office, said: dict[str, Any], fields: Fields, wanted: dict[str, Any]
) -> None:
    runner = stored(office, web.register(**said))
    defaults = DEFAULTS if "tag_list" not in said else {**DEFAULTS, "tags": settings_of(runner).tags}
    assert chosen(runner) == {**defaults, **wanted}


@each_parameter
def test_each_parameter_is_taken_from_a_form(
    client: FlaskClient, web: Machine, office: Office, said: dict[str, Any], fields: Fields, wanted: dict[str, Any]
) -> None:
    runner = stored(office, by_form(client, web.token, fields))
    defaults = DEFAULTS if "tag_list" not in said else {**DEFAULTS, "tags": settings_of(runner).tags}
    assert chosen(runner) == {**defaults, **wanted}


def test_a_multipart_form_is_read_too(client: FlaskClient, box: Machine, office: Office) -> None:
    answer = client.post(
        "/api/v4/runners",
        data={"token": box.token, "description": "box7", "tag_list": ["a", "b"]},
        content_type="multipart/form-data",
    )
    assert answer.status_code == 201
    (runner,) = office.runners()
    assert (runner.description, runner.tag_list) == ("box7", ["a", "b"])


def test_info_is_read_from_an_object_and_from_fields(client: FlaskClient, box: Machine, office: Office) -> None:
    box.register(info={**HELLO, "name": "gitlab-runner", "executor": "docker", "something_new": [1]})
    by_form(client, box.token, [(f"info[{name}]", value) for name, value in HELLO.items()])
    first, second = office.runners()
    for runner in (first, second):
        assert {name: getattr(runner, name) for name in HELLO} == HELLO


@pytest.mark.parametrize("version", ["11.11.4", "13.12.0", "15.11.1", "18.6.6", "19.3.0"])
def test_what_each_version_of_the_client_sends_is_taken(box: Machine, office: Office, version: str) -> None:
    number = tuple(int(part) for part in version.split(".")[:2])
    said: dict[str, Any] = {"description": "box1", "tag_list": "a,b", "run_untagged": False, "locked": True}
    said |= {"active": True} if number < (15, 0) else {"paused": False, "maintenance_note": "rack b7"}
    box.headers = {"RUNNER-TOKEN": box.token} if number >= (17, 11) else {}
    info = {name: value for name, value in info_of(version).items() if name not in ("executor", "shell")}
    runner = stored(office, box.register(**said, info=info))
    assert (runner.version, runner.tag_list, runner.active) == (version, ["a", "b"], True)


@pytest.mark.parametrize("header", ["PRIVATE-TOKEN", "RUNNER-TOKEN"])
def test_the_token_in_a_header_does_not_disturb_the_one_in_the_body(box: Machine, header: str) -> None:
    for value in (box.token, "glrt-another-token-altogether", ""):
        box.headers = {header: value}
        assert box.register().status == 201


def test_locked_is_kept_for_a_group_s_runner_too(box: Machine, office: Office) -> None:
    assert stored(office, box.register(locked=True)).locked


# What cannot be taken: the shape is wrong


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"active": True, "paused": True}, "active, paused are mutually exclusive"),
        ({"active": True, "paused": False}, "active, paused are mutually exclusive"),
        (
            {"maintainer_note": "a", "maintenance_note": "a"},
            "maintainer_note, maintenance_note are mutually exclusive",
        ),
        ({"description": 7}, "description must be a text"),
        ({"description": ["box"]}, "description must be a text"),
        ({"description": "a\0b"}, "description must be a text"),
        ({"maintenance_note": {}}, "maintenance_note must be a text"),
        ({"maintainer_note": True}, "maintainer_note must be a text"),
        ({"active": "perhaps"}, "active must be true or false"),
        ({"paused": 2}, "paused must be true or false"),
        ({"paused": []}, "paused must be true or false"),
        ({"locked": "locked"}, "locked must be true or false"),
        ({"run_untagged": {}}, "run_untagged must be true or false"),
        ({"access_level": "admin"}, "access_level does not have a valid value"),
        ({"access_level": 1}, "access_level must be a text"),
        ({"maximum_timeout": "soon"}, "maximum_timeout must be a whole number"),
        ({"maximum_timeout": 600.5}, "maximum_timeout must be a whole number"),
        ({"maximum_timeout": True}, "maximum_timeout must be a whole number"),
        ({"maximum_timeout": 10**30}, "maximum_timeout must be a whole number"),
        ({"tag_list": 7}, "tag_list must be a list of texts, or one text with commas"),
        ({"tag_list": {"a": "b"}}, "tag_list must be a list of texts"),
        ({"tag_list": ["a", 7]}, "tag_list must be a list of texts"),
        ({"tag_list": [["a"]]}, "tag_list must be a list of texts"),
        ({"info": "13.12.0"}, "info must be an object"),
        ({"info": {"version": 13.12}}, "info.version must be a text"),
        ({"info": {"features": [1]}}, "info.features must be an object"),
    ],
)
def test_a_wrong_shape_is_named_and_makes_nothing(
    box: Machine, office: Office, said: dict[str, Any], sentence: str
) -> None:
    answer = box.register(**said)
    assert answer.status == 400
    assert answer.message.startswith("400 Bad Request - ")
    assert sentence in answer.message
    assert office.runners() == []


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ([("active", "true"), ("paused", "true")], "active, paused are mutually exclusive"),
        ([("description", "a"), ("description", "b")], "description must be a text"),
        ([("info", "13.12.0")], "info must be an object"),
        ([("info", "x"), ("info[version]", "13.12.0")], "info must be an object"),
        ([("info[]", "x")], "info must be an object"),
        ([("tag_list[a]", "b")], "tag_list must be a list of texts"),
        ([("maximum_timeout", "6e2")], "maximum_timeout must be a whole number"),
        ([("locked", "true"), ("locked", "false")], "locked must be true or false"),
    ],
)
def test_a_wrong_form_is_named_and_makes_nothing(
    client: FlaskClient, box: Machine, office: Office, fields: Fields, sentence: str
) -> None:
    answer = by_form(client, box.token, fields)
    assert answer.status == 400
    assert sentence in answer.message
    assert office.runners() == []


@pytest.mark.parametrize("token", [None, "", 7, ["GR1348941x"], {"token": "x"}, True])
def test_a_token_that_is_missing_or_no_text_is_asked_for(box: Machine, token: object) -> None:
    answer = box.register(token=token)
    assert answer.status == 400
    assert answer.message in ("400 Bad Request - token is missing", "400 Bad Request - token must be a text")


def test_a_form_without_a_token_is_asked_for_it(client: FlaskClient) -> None:
    assert by_form(client, "", [("description", "box1")]).message == "400 Bad Request - token is missing"


@pytest.mark.parametrize("body", [b"{", b"[]", b'"token"', b"\xff\xfe", b'{"token": "\\ud800"}'])
def test_a_body_that_cannot_be_read_is_said_to_be_one(client: FlaskClient, body: bytes) -> None:
    answer = through(client)("POST", "/api/v4/runners", body, JSON)
    assert answer.status == 400
    assert "The body " in answer.message


# What cannot be taken: GitLab's rules, in GitLab's words and shape


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"run_untagged": False},
            {"tags_list": ["can not be empty when runner is not allowed to pick untagged jobs"]},
        ),
        (
            {"tag_list": [f"tag{number}" for number in range(51)]},
            {"tags_list": ["Too many tags specified. Please limit the number of tags to 50"]},
        ),
        ({"maximum_timeout": 599}, {"maximum_timeout": ["needs to be at least 10 minutes"]}),
        ({"maximum_timeout": 0}, {"maximum_timeout": ["needs to be at least 10 minutes"]}),
        ({"maximum_timeout": -1}, {"maximum_timeout": ["needs to be at least 10 minutes"]}),
        ({"description": "x" * 1025}, {"description": ["is too long (maximum is 1024 characters)"]}),
        ({"maintenance_note": "x" * 1025}, {"maintenance_note": ["is too long (maximum is 1024 characters)"]}),
        ({"maintainer_note": "x" * 1025}, {"maintenance_note": ["is too long (maximum is 1024 characters)"]}),
        (
            {"maximum_timeout": 1, "run_untagged": False},
            {
                "maximum_timeout": ["needs to be at least 10 minutes"],
                "tags_list": ["can not be empty when runner is not allowed to pick untagged jobs"],
            },
        ),
    ],
)
def test_what_gitlab_s_rules_forbid_is_answered_with_its_hash_of_messages(
    box: Machine, office: Office, said: dict[str, Any], message: dict[str, list[str]]
) -> None:
    answer = box.register(**said)
    assert answer.status == 400
    assert answer.json == {"message": message}
    assert office.runners() == []


@pytest.mark.parametrize(
    ("said", "field", "sentence"),
    [
        ({"maximum_timeout": 2**31}, "maximum_timeout", "It is too long"),
        ({"tag_list": ["x" * 256]}, "tags_list", "A tag is too long (at most 255 characters)"),
        ({"tag_list": ["a\0b"]}, "tags_list", "a character that cannot be stored"),
    ],
)
def test_what_only_we_cannot_store_has_the_same_shape(
    box: Machine, office: Office, said: dict[str, Any], field: str, sentence: str
) -> None:
    answer = box.register(**said)
    assert answer.status == 400
    assert sentence in answer.json["message"][field][0]
    assert office.runners() == []


def test_the_longest_and_the_most_that_is_allowed_is_taken(box: Machine, office: Office) -> None:
    said = {"description": "x" * 1024, "maintenance_note": "机" * 1024, "maximum_timeout": 2**31 - 1}
    runner = stored(office, box.register(**said, tag_list=[f"{number:03}".rjust(255, "t") for number in range(50)]))
    assert (len(runner.description), len(runner.maintenance_note), len(runner.tag_list)) == (1024, 1024, 50)


# Tokens that register nothing


@pytest.mark.parametrize(
    "token",
    [
        "GR1348941abcdefghijklmnopqrst",
        "GR1348941",
        "x",
        "x" * 100_000,
        "Ünïcödé-tökén",
        "with\0null",
        tokens.make(2, prefix=tokens.REGISTERED),
    ],
)
def test_an_unknown_token_is_answered_in_gitlab_s_words_with_the_way_out(
    box: Machine, office: Office, token: str
) -> None:
    answer = box.register(token=token)
    assert answer.status == 403
    assert answer.message.startswith(NOBODYS)
    assert "it was mistyped or reset" in answer.message
    assert answer.message.endswith(": https://portal.example.com/")
    assert token == "x" or token not in answer.message
    assert office.runners() == []


def test_an_authentication_token_is_told_that_it_is_one(box: Machine, office: Office, cast: Cast) -> None:
    token = cast.runner().token
    for said in (token, "glrt-nobody-has-this-token"):
        answer = box.register(token=said)
        assert answer.status == 403
        assert answer.message.startswith(NOBODYS)
        assert "This is a runner's authentication token, no registration token" in answer.message
        assert "`--token`" in answer.message
        assert "15.10 or newer" in answer.message
        assert said not in answer.message
    assert len(office.runners()) == 1


def test_a_token_that_was_reset_registers_nothing_and_the_new_one_does(
    box: Machine, office: Office, cast: Cast
) -> None:
    kept = registered(box, "r_machine00001")
    old, box.token = box.token, office.reset(cast.acme)
    assert box.register(token=old).status == 403
    assert "it was mistyped or reset" in box.register(token=old).message
    assert box.register().status == 201
    assert kept.poll().status == 204


# Where nobody may create runners, and how many there may be


def settle(session: Session, scope: Scope, **values: object) -> None:
    own = scope_settings.own_for_update(session, scope)
    for name, value in values.items():
        setattr(own, name, value)
    session.commit()


@pytest.mark.parametrize(("kind", "left"), [("group", ["project"]), ("project", ["group"]), ("group", [])])
def test_a_kind_that_may_not_register_is_refused(
    cast: Cast, office: Office, client: FlaskClient, session: Session, kind: str, left: list[str]
) -> None:
    token = office.token(scope_called(cast, kind))
    settle(session, INSTANCE, valid_runner_registrars=left)
    answer = Machine(through(client), token).register()
    assert answer.status == 403
    assert f"let nobody else create runners in {kind}s" in answer.message
    assert "Ask one of them to create it" in answer.message
    assert office.runners() == []


def test_the_instance_s_token_registers_although_no_kind_may(
    cast: Cast, office: Office, client: FlaskClient, session: Session
) -> None:
    token = office.token(INSTANCE)
    settle(session, INSTANCE, valid_runner_registrars=[])
    assert Machine(through(client), token).register().status == 201


@pytest.mark.parametrize("kind", ["group", "project"])
def test_registration_that_is_disabled_in_a_group_is_disabled_below_it(
    cast: Cast, office: Office, client: FlaskClient, session: Session, kind: str
) -> None:
    token = office.token(scope_called(cast, kind))
    settle(session, cast.acme, runner_registration_enabled=False)
    answer = Machine(through(client), token).register()
    assert answer.status == 403
    assert "let nobody else create runners in acme and below" in answer.message
    assert office.runners() == []


@pytest.mark.parametrize("kind", ["group", "project"])
def test_a_scope_that_is_full_is_answered_in_gitlab_s_words(
    cast: Cast, office: Office, client: FlaskClient, session: Session, kind: str
) -> None:
    machine = Machine(through(client), office.token(scope_called(cast, kind)))
    settle(session, INSTANCE, **{f"ci_registered_{kind}_runners": 2})
    assert [machine.register().status for _ in range(2)] == [201, 201]
    answer = machine.register()
    assert answer.status == 400
    message = f"Maximum number of ci registered {kind} runners (2) exceeded"
    full = answer.json["message"]["base"]
    assert full[0] == message
    assert len(full) == 2  # GitLab says neither whose limit it is nor what to do
    assert "has as many runners as it may have: 2" in full[1]
    assert len(office.runners()) == 2


# What happens to the machine later


def test_an_old_unregistration_deletes_the_runner(box: Machine, office: Office) -> None:
    machine = registered(box)
    machine.poll()
    assert machine.unregister_the_old_way().status == 204
    assert office.runners() == []
    assert machine.poll().status == 403


def test_a_machine_of_it_can_renew_its_token_and_keeps_the_form(box: Machine) -> None:
    machine = registered(box, "r_machine00001")
    machine.token = machine.reset_token().json["token"]
    assert machine.token.startswith("glrtr-t2_")
    assert machine.poll().status == 204


def test_a_token_that_expired_says_so_and_names_the_runner_s_page(
    box: Machine, office: Office, session: Session
) -> None:
    machine = registered(box, "r_machine00001")
    (row,) = session.scalars(select(RunnerToken))
    row.expires_at = now() - timedelta(seconds=1)
    session.commit()
    (runner,) = office.runners()
    for answer in (machine.poll(), machine.verify(), machine.unregister_the_old_way()):
        assert answer.status == 403
        assert answer.message.startswith(f"403 Forbidden - This token expired on {row.expires_at:%Y-%m-%d %H:%M} UTC")
        assert answer.message.endswith(f": https://portal.example.com/-/runners/{runner.id}")
    assert machine.reset_token().status == 429
