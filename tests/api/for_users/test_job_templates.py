"""`/projects/:id/job_templates`: named jobs of a project, kept, changed, run again and dropped by scripts."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.domain.jobs import job_definitions
from portal.models import Job, JobDefinition, JobTemplate, Role
from tests.api.for_users.conftest import ScriptOf
from tests.cast import JOB_VAULT, Cast
from tests.domain.queries import asked

TEMPLATES = "/projects/acme%2Fweb/job_templates"
WHOLE: dict[str, Any] = {
    "name": "nightly",
    "script": ["make"],
    "tag_list": ["linux"],
    "variables": [{"key": "TOKEN", "value": "open sesame", "masked": True}, {"key": "LEVEL", "value": "debug"}],
    "artifacts": {"paths": ["out/"]},
    "repository": {"url": "https://me:secret@git.example.com/web.git"},
}


def test_a_template_is_kept_and_read_again_without_its_secrets(script_of: ScriptOf, cast: Cast) -> None:
    script = script_of(cast.erin)
    made = script.post(TEMPLATES, **WHOLE)
    assert made == script.get(f"{TEMPLATES}/{made['id']}")
    assert (made["name"], made["script"], made["tag_list"], made["ref"]) == ("nightly", ["make"], ["linux"], "main")
    assert (made["artifacts"]["paths"], made["created_by"]["username"]) == (["out/"], "erin")
    values = {each["key"]: each["value"] for each in made["variables"]}
    assert values == {"TOKEN": None, "LEVEL": "debug"}
    assert made["repository"] == {"url": "https://…@git.example.com/web.git", "commit": ""}
    (listed,) = script.get(TEMPLATES)
    assert listed == {name: value for name, value in made.items() if name not in ("variables", "repository")}


def test_who_only_reads_hears_no_value_of_a_variable(script_of: ScriptOf, cast: Cast) -> None:
    rita = cast.person("rita")
    cast.member(rita, cast.acme, Role.REPORTER)
    cast.session.commit()
    made = script_of(cast.erin).post(TEMPLATES, **WHOLE)
    shown = script_of(rita, "read_api").get(f"{TEMPLATES}/{made['id']}")
    assert [each["value"] for each in shown["variables"]] == [None, None]


def test_a_template_is_changed_in_part_and_what_was_read_can_be_sent_back(
    script_of: ScriptOf, cast: Cast, session: Session
) -> None:
    script = script_of(cast.erin)
    made = script.post(TEMPLATES, **WHOLE)
    path = f"{TEMPLATES}/{made['id']}"
    assert script.put(path, script="make all\nmake test", timeout=900)["script"] == ["make all", "make test"]
    back = script.get(path)
    assert script.put(path, **{name: value for name, value in back.items() if name != "id"}) == back
    kept = session.scalars(select(JobTemplate)).one()
    asked_for = job_definitions.opened(kept.definition, JOB_VAULT)
    assert [each.value for each in asked_for.variables] == ["open sesame", "debug"]
    assert asked_for.repository == job_definitions.Repository("https://me:secret@git.example.com/web.git")
    assert script.put(path, repository=None, variables={})["repository"] is None
    assert script.put(path, expect=400, name=" ")["message"]["name"]
    assert script.put(path, expect=400, tags=["x" * 300])["message"]["tag_list"]


def test_a_template_is_run_again_and_again(script_of: ScriptOf, cast: Cast, session: Session) -> None:
    script = script_of(cast.erin)
    made = script.post(TEMPLATES, **WHOLE)
    path = f"{TEMPLATES}/{made['id']}/run"
    job = script.post(path)
    assert (job["name"], job["status"], job["tag_list"]) == ("nightly", "pending", ["linux"])
    answers = [script.ask("POST", path, headers={"Idempotency-Key": "tonight"}) for _ in range(2)]
    assert [each.status_code for each in answers] == [201, 200]
    assert answers[0].get_json()["id"] == answers[1].get_json()["id"] != job["id"]
    assert len(session.scalars(select(Job)).all()) == 2


def test_a_template_that_is_dropped_is_gone_and_its_jobs_stay(script_of: ScriptOf, cast: Cast) -> None:
    script = script_of(cast.erin)
    made = script.post(TEMPLATES, **WHOLE)
    path = f"{TEMPLATES}/{made['id']}"
    job = script.post(f"{path}/run")
    script.delete(path)
    assert script.get(path, expect=404) == {"message": "404 Job Template Not Found"}
    assert script.get(f"/projects/acme%2Fweb/jobs/{job['id']}")["name"] == "nightly"


def test_a_template_of_a_protected_ref_is_for_those_who_may_run_it(script_of: ScriptOf, cast: Cast) -> None:
    made = script_of(cast.bob).post(TEMPLATES, **WHOLE, protected=True)
    path = f"{TEMPLATES}/{made['id']}"
    script = script_of(cast.erin)
    assert [each["value"] for each in script.get(path)["variables"]] == [None, None]
    assert script.put(path, expect=403, image="alpine")
    assert script.post(f"{path}/run", expect=403)
    assert script.delete(path, expect=403)
    assert script.post(TEMPLATES, expect=403, **{**WHOLE, "name": "other"}, protected=True)


@pytest.mark.parametrize(
    ("method", "after"), [("GET", ""), ("POST", ""), ("GET", "/1"), ("PUT", "/1"), ("POST", "/1/run")]
)
def test_a_stranger_finds_no_templates(script_of: ScriptOf, cast: Cast, method: str, after: str) -> None:
    answer = script_of(cast.charlie).ask(method, TEMPLATES + after, **({} if method == "GET" else WHOLE))
    assert (answer.status_code, answer.get_json()) == (404, {"message": "404 Project Not Found"})


def test_what_cannot_be_decrypted_any_more_is_told_as_missing(
    script_of: ScriptOf, cast: Cast, session: Session
) -> None:
    script = script_of(cast.erin)
    made = script.post(TEMPLATES, **WHOLE)
    session.execute(update(JobDefinition).values(ciphertext=b"closed with a lost key"))
    session.commit()
    shown = script.get(f"{TEMPLATES}/{made['id']}")
    assert (shown["variables"], shown["repository"], shown["script"]) == (None, None, ["make"])
    assert "encryption key" in script.post(f"{TEMPLATES}/{made['id']}/run", expect=400)["message"]["template"][0]


def test_many_templates_take_as_many_statements_as_one(script_of: ScriptOf, cast: Cast, session: Session) -> None:
    script = script_of(cast.erin)

    def statements() -> int:
        session.expire_all()
        with asked(session) as found:
            script.get(TEMPLATES)
        return len(found)

    script.post(TEMPLATES, **WHOLE)
    statements()
    few = statements()
    for number in range(4):
        script.post(TEMPLATES, **{**WHOLE, "name": f"nightly {number}"})
    answer = script.ask("GET", TEMPLATES, per_page=2, page=2)
    assert ([each["name"] for each in answer.get_json()], answer.headers["X-Total"]) == (
        ["nightly 1", "nightly 2"],
        "5",
    )
    assert statements() == few
