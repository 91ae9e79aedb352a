"""An enrolment key at the REST API: it creates runners and reads those that it made, and opens nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.api.for_users.operations import OPERATIONS
from portal.api.rate_limits import RateLimits
from portal.database import now
from portal.domain.enrolment import enrolment_keys
from portal.domain.people import people
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.models import AuditEvent, EnrolmentKey, Runner
from tests.api.for_users.conftest import ScriptOf
from tests.api.for_users.scripts import Script
from tests.cast import Cast
from tests.domain.queries import asked

CREATE = "/user/runners"


@pytest.fixture
def key(app: Flask, cast: Cast) -> Script:
    """A script with an enrolment key of Alice's, which makes ten runners in acme."""
    return Script(app.test_client(), cast.enrolment_key(cast.alice).token)


def refusals(session: Session) -> list[AuditEvent]:
    query = select(AuditEvent).where(AuditEvent.action == "enrolment_refused").order_by(AuditEvent.id)
    return list(session.scalars(query))


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Runner)) or 0


@pytest.mark.parametrize("path", [CREATE, "/runners"])
def test_a_request_that_says_nothing_makes_a_runner(key: Script, session: Session, cast: Cast, path: str) -> None:
    made = key.post(path)
    assert made["token"].startswith("glrt-t2_")
    runner = session.get_one(Runner, made["id"])
    assert (runner.group_id, runner.tag_list, runner.run_untagged) == (cast.acme.id, ["docker", "linux"], False)
    assert runner.creator_id == cast.alice.id
    assert runner.enrolled_with is not None


def test_it_may_be_shown_as_a_bearer_token_as_terraform_does(app: Flask, cast: Cast) -> None:
    token = cast.enrolment_key(cast.alice).token
    answer = app.test_client().post("/api/v4" + CREATE, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 201


def test_what_terraform_ansible_and_glab_send_makes_a_runner(key: Script, session: Session, cast: Cast) -> None:
    terraform = {"runner_type": "group_type", "group_id": cast.acme.id, "description": "vm", "paused": True}
    made = session.get_one(Runner, key.post(CREATE, **terraform)["id"])
    assert (made.description, made.active) == ("vm", False)
    key.post(CREATE, tag_list=["linux", "docker"], run_untagged=False, access_level="not_protected", locked=False)
    form = {"runner_type": "group_type", "group_id": str(cast.acme.id), "tag_list": "docker,linux"}
    shown = {"PRIVATE-TOKEN": key.token}
    assert key.client.post("/api/v4" + CREATE, headers=shown, data=form).status_code == 201


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tag_list": ["gpu"]}, "tag_list is settled by the enrolment key: docker, linux."),
        ({"run_untagged": True}, "run_untagged is settled by the enrolment key: false."),
        ({"access_level": "ref_protected"}, "access_level is settled by the enrolment key: not_protected."),
        ({"maximum_timeout": 3600}, "maximum_timeout is settled by the enrolment key: none."),
        (
            {"token_expires_at": "2999-01-01T00:00:00Z"},
            "token_expires_at is settled by the enrolment key: tokens live as long as its scope says. Leave it out.",
        ),
    ],
)
def test_what_contradicts_the_template_is_refused_with_its_value(
    key: Script, session: Session, given: dict[str, object], said: str
) -> None:
    answer = key.post(CREATE, expect=400, **given)
    assert said in answer["message"]
    assert count(session) == 0
    assert [each.changes["because"][1] for each in refusals(session)] == [
        answer["message"].removeprefix("400 Bad request - ").removeprefix("400 Bad Request - ")
    ]


def test_another_scope_is_refused_with_its_own(key: Script, session: Session, cast: Cast) -> None:
    answer = key.post(CREATE, expect=403, runner_type="project_type", project_id=cast.web.id)
    assert f"group_type with group_id {cast.acme.id}" in answer["message"]
    (event,) = refusals(session)
    assert (event.target_kind, event.actor_kind, event.scope_path) == ("enrolment_key", "enrolment_key", "acme")
    assert (event.address, event.changes["request"]) == ("127.0.0.1", [None, "POST /api/v4/user/runners"])


def test_used_up_it_says_so_and_reads_on(app: Flask, cast: Cast) -> None:
    key = Script(app.test_client(), cast.enrolment_key(cast.alice, most=1).token)
    made = key.post(CREATE)
    assert "has created the one runner that it may" in key.post(CREATE, expect=403)["message"]
    assert key.get(f"/runners/{made['id']}")["id"] == made["id"]


def test_the_same_idempotency_key_makes_one_runner_and_uses_one(app: Flask, session: Session, cast: Cast) -> None:
    key = Script(app.test_client(), cast.enrolment_key(cast.alice, most=2).token)
    once = {"headers": {"Idempotency-Key": "enrol-vm-1"}}
    made, again = key.post(CREATE, **once), key.post(CREATE, expect=200, **once)
    assert (again["id"], again["token"]) == (made["id"], None)
    assert session.scalars(select(EnrolmentKey.runners_created)).one() == 1
    key.post(CREATE, expect=422, description="another", **once)
    assert count(session) == 1


def test_two_keys_may_choose_the_same_idempotency_key(app: Flask, session: Session, cast: Cast) -> None:
    for _ in range(2):
        key = Script(app.test_client(), cast.enrolment_key(cast.alice).token)
        key.post(CREATE, headers={"Idempotency-Key": "enrol-vm-1"})
    assert count(session) == 2


def test_it_reads_the_runners_that_it_made_and_no_others(key: Script, cast: Cast) -> None:
    made, other = key.post(CREATE)["id"], cast.runner().runner.id
    told = key.get(f"/runners/{made}")
    assert told["tag_list"] == ["docker", "linux"]
    assert [each["id"] for each in told["groups"]] == [cast.acme.id]
    assert (told["projects"], told["created_by"], told["maintenance_note"]) == ([], None, None)
    assert key.get(f"/runners/{other}", expect=404) == {"message": "404 Runner Not Found"}
    assert key.get("/runners/999999", expect=404) == {"message": "404 Runner Not Found"}


def test_of_a_project_it_tells_its_own_alone(app: Flask, cast: Cast) -> None:
    note = RunnerSettings(tags=("x",), maintenance_note="Ask Bob")
    key = Script(app.test_client(), cast.enrolment_key(cast.bob, cast.web, note).token)
    told = key.get(f"/runners/{key.post(CREATE)['id']}")
    assert [each["id"] for each in told["projects"]] == [cast.web.id]
    assert (told["groups"], told["maintenance_note"]) == ([], None)


OPEN_TO_KEYS = {"user_runners_create", "user_runners_create_in_scope", "runners_show"}


def test_these_operations_and_no_others_are_open_to_keys() -> None:
    assert {name for name, each in OPERATIONS.items() if each.enrolment} == OPEN_TO_KEYS


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - OPEN_TO_KEYS))
def test_every_other_operation_answers_403(app: Flask, key: Script, session: Session, name: str) -> None:
    operation = OPERATIONS[name]
    rule = next((each for each in app.url_map.iter_rules() if each.endpoint == f"user_api.{name}"), None)
    if rule is None:  # another door has its path
        return
    path = app.url_map.bind("portal").build(rule.endpoint, dict.fromkeys(rule.arguments, 1), operation.method)
    answer = key.client.open(path, method=operation.method, headers={"PRIVATE-TOKEN": key.token})
    assert answer.status_code == 403
    assert answer.get_json()["error"] == "insufficient_scope"
    assert len(refusals(session)) == (operation.method != "GET")


def test_a_key_in_an_address_is_not_read(app: Flask, cast: Cast) -> None:
    token = cast.enrolment_key(cast.alice).token
    assert app.test_client().post(f"/api/v4{CREATE}?private_token={token}").status_code == 401


def test_from_another_network_it_is_refused_counted_and_told(app: Flask, session: Session, cast: Cast) -> None:
    app.extensions["rate_limits"] = RateLimits(app.config["PORTAL"])
    issued = cast.enrolment_key(cast.alice, networks=("192.0.2.0/24", "2001:db8::/32"))
    here = app.test_client()
    shown = {"PRIVATE-TOKEN": issued.token}
    for address, status in (("192.0.2.9", 201), ("2001:db8::9", 201), ("::ffff:192.0.2.9", 201), ("192.0.3.9", 403)):
        answer = here.post(f"/api/v4{CREATE}", headers=shown, environ_base={"REMOTE_ADDR": address})
        assert answer.status_code == status, (address, answer.get_json())
    assert "may not be used from 192.0.3.9" in answer.get_json()["message"]
    (event,) = refusals(session)
    assert event.address == "192.0.3.9"
    assert app.extensions["rate_limits"].take("refused", "192.0.3.9").remaining < (
        app.extensions["rate_limits"].take("refused", "198.51.100.1").remaining
    )
    made = session.scalars(select(Runner.id)).first()
    read = here.get(f"/api/v4/runners/{made}", headers=shown, environ_base={"REMOTE_ADDR": "192.0.3.9"})
    assert read.status_code == 403


def test_a_forwarded_address_counts_only_from_a_trusted_proxy(app: Flask, cast: Cast) -> None:
    token = cast.enrolment_key(cast.alice, networks=("192.0.2.0/24",)).token
    forged = {"PRIVATE-TOKEN": token, "X-Forwarded-For": "192.0.2.9"}
    assert app.test_client().post(f"/api/v4{CREATE}", headers=forged).status_code == 403


def test_a_revoked_key_that_is_tried_stands_on_the_trail(key: Script, session: Session, cast: Cast) -> None:
    record = cast.session.scalars(select(EnrolmentKey)).one()
    enrolment_keys.revoke(cast.session, cast.as_(cast.alice), record)
    cast.session.commit()
    answer = key.post(CREATE, expect=401)
    assert answer["error"] == "invalid_token"
    assert "revoked" in answer["error_description"]
    (event,) = refusals(session)
    assert event.target_id == record.id
    assert "revoked" in event.changes["because"][1]
    assert key.token not in str(event.changes)


def test_nobodys_key_stands_nowhere(app: Flask, session: Session, cast: Cast) -> None:
    wrong = cast.enrolment_key(cast.alice).token[:-1] + "!"
    Script(app.test_client(), wrong).post(CREATE, expect=401)
    assert refusals(session) == []


def test_a_flood_of_refusals_does_not_fill_the_trail(key: Script, session: Session) -> None:
    for _ in range(40):
        key.post(CREATE, expect=400, tag_list=["gpu"])
    assert len(refusals(session)) == 30


def test_a_blocked_creators_key_opens_nothing(key: Script, session: Session, cast: Cast) -> None:
    made = key.post(CREATE)["id"]
    people.block(cast.session, cast.as_(cast.dana), cast.alice)
    cast.session.commit()
    for answer in (key.post(CREATE, expect=401), key.get(f"/runners/{made}", expect=401)):
        assert "blocked" in answer["error_description"]
    assert len(refusals(session)) == 1  # no GET writes


def test_an_administrators_key_for_the_instance_is_no_administrator(app: Flask, cast: Cast) -> None:
    key = Script(app.test_client(), cast.enrolment_key(cast.dana, INSTANCE).token)
    assert key.post(CREATE)["token"].startswith("glrt-t1_")
    key.post(CREATE, expect=403, runner_type="group_type", group_id=cast.acme.id)
    key.get("/runners/all", expect=403)


# Keys themselves


def wanted(**more: object) -> dict[str, object]:
    last = (now().date() + timedelta(days=9)).isoformat()
    return {"name": "Rack 7", "most_runners": 2, "expires_at": last, "tag_list": ["docker"], **more}


def test_a_key_is_made_by_script_used_read_and_revoked(app: Flask, script_of: ScriptOf, cast: Cast) -> None:
    alice = script_of(cast.alice)
    made = alice.post("/enrolment_keys", **wanted(group_id=cast.acme.id, networks=["127.0.0.0/8"]))
    assert made["key"].startswith(f"glenrol-{made['short']}")
    assert (made["state"], made["active"], made["group_id"]) == ("good", True, cast.acme.id)
    runner = Script(app.test_client(), made["key"]).post(CREATE)
    told = alice.get(f"/enrolment_keys/{made['id']}")
    assert "key" not in told
    assert (told["runners_created"], told["last_used_address"]) == (1, "127.0.0.1")
    assert (told["networks"], told["run_untagged"]) == (["127.0.0.0/8"], True)
    assert [each["id"] for each in alice.get("/enrolment_keys", group_id=cast.acme.id)] == [made["id"]]
    alice.delete(f"/enrolment_keys/{made['id']}")
    assert alice.get(f"/enrolment_keys/{made['id']}")["state"] == "revoked"
    Script(app.test_client(), made["key"]).post(CREATE, expect=401)
    assert alice.get(f"/runners/{runner['id']}")["id"] == runner["id"]


@pytest.mark.parametrize("who", ["bob", "charlie", "erin", "dana"])
def test_who_may_not_create_runners_there_gets_no_keys(script_of: ScriptOf, cast: Cast, who: str) -> None:
    key, script = cast.enrolment_key(cast.alice).record.id, script_of(getattr(cast, who))
    status = {"erin": 403, "dana": 200}.get(who, 404)
    for number in (key, 999_999):  # whether there is such a key is nobody else's business
        known = who == "dana" and number == key
        script.get(f"/enrolment_keys/{number}", expect=200 if known else 404)
        script.delete(f"/enrolment_keys/{number}", expect=204 if known else 404)
    script.get("/enrolment_keys", expect=status, group_id=cast.acme.id)
    script.get("/enrolment_keys", expect=200 if who == "dana" else 403)
    script.post("/enrolment_keys", expect=201 if who == "dana" else status, **wanted(group_id=cast.acme.id))


def test_what_is_wrong_with_a_new_key_is_told_by_field(script_of: ScriptOf, cast: Cast) -> None:
    alice = script_of(cast.alice)
    answer = alice.post(
        "/enrolment_keys", expect=400, **wanted(group_id=cast.acme.id, most_runners=0, networks=["x"])
    )
    assert set(answer["message"]) == {"most_runners", "networks"}
    both = alice.get("/enrolment_keys", expect=400, group_id=cast.acme.id, project_id=cast.web.id)
    assert both["error"] == "group_id, project_id are mutually exclusive"
    assert "name is missing" in alice.post("/enrolment_keys", expect=400, group_id=cast.acme.id)["error"]


def test_a_token_that_only_creates_runners_makes_no_keys(script_of: ScriptOf, cast: Cast) -> None:
    script_of(cast.alice, "create_runner").post("/enrolment_keys", expect=403, **wanted(group_id=cast.acme.id))


def test_with_below_an_administrator_reads_every_key_and_an_owner_those_of_the_group(
    script_of: ScriptOf, cast: Cast
) -> None:
    keys = {
        "acme": cast.enrolment_key(cast.alice).record.id,
        "web": cast.enrolment_key(cast.bob, cast.web).record.id,
        "other": cast.enrolment_key(cast.dana, cast.other).record.id,
        "instance": cast.enrolment_key(cast.dana, INSTANCE).record.id,
    }
    dana, alice = script_of(cast.dana, "read_api"), script_of(cast.alice, "read_api")
    assert [each["id"] for each in dana.get("/enrolment_keys")] == [keys["instance"]]
    assert {each["id"] for each in dana.get("/enrolment_keys", below="true")} == set(keys.values())
    below_acme = alice.get("/enrolment_keys", group_id=cast.acme.id, below="true")
    assert {each["id"]: (each["group_id"], each["project_id"]) for each in below_acme} == {
        keys["acme"]: (cast.acme.id, None),
        keys["web"]: (None, cast.web.id),
    }
    alice.get("/enrolment_keys", expect=403, below="true")
    script_of(cast.bob, "read_api").get("/enrolment_keys", expect=404, group_id=cast.acme.id, below="true")


def test_a_list_of_many_keys_takes_as_many_statements_as_one_of_few(
    app: Flask, session: Session, cast: Cast, script_of: ScriptOf
) -> None:
    dana, taken = script_of(cast.dana), []
    for number in (2, 30):
        for _ in range(number):
            cast.enrolment_key(cast.dana, cast.web)
        with asked(session) as statements:
            assert dana.get("/enrolment_keys", below="true", per_page=100)
        taken.append(len(statements))
    assert taken[0] == taken[1]
