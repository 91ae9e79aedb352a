"""The job settings of a project: the form for maintainers, the facts for others, and what the runner list says."""

from __future__ import annotations

import html

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from portal.domain.jobs import job_rules
from portal.domain.jobs.job_rules import JobRules
from tests.cast import Cast, send, sign_in
from tests.web.reading import fill, links, read, words

SETTINGS = "/acme/web/-/job-settings"
TYPED = {
    "protected_refs": "main\r\nrelease/*\r\n",
    "build_timeout": "2h",
    "shared_runners_enabled": "y",
    "group_runners_enabled": "y",
}


def change(client: FlaskClient, *, expect: int = 303, **fields: str) -> str:
    answer = send(client, f"{SETTINGS}/change", form_at=SETTINGS, expect=expect, **{**TYPED, **fields})
    text: str = answer.get_data(as_text=True)
    return html.unescape(text)


def test_a_maintainer_settles_them(client: FlaskClient, cast: Cast, session: Session) -> None:
    bob = sign_in(client, "bob")
    change(bob)
    assert job_rules.of_project(session, cast.web) == JobRules(("main", "release/*"), 7200)
    page = read(bob, SETTINGS)
    assert "main\nrelease/*</textarea>" in page
    assert 'value="2h"' in page
    change(bob)
    assert "Nothing was different" in words(read(bob, SETTINGS))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"build_timeout": "5m"}, "from 10m to 30d"),
        ({"build_timeout": ""}, "from 10m to 30d"),
        ({"build_timeout": "3600"}, "Add the unit"),
        ({"protected_refs": "my branch"}, "fits no branch or tag"),
    ],
)
def test_what_is_wrong_stands_beside_its_field(
    client: FlaskClient, cast: Cast, session: Session, wrong: dict[str, str], said: str
) -> None:
    page = change(sign_in(client, "bob"), expect=422, **wrong)
    assert said in page
    assert all(text in page for text in wrong.values())
    assert job_rules.of_project(session, cast.web) == JobRules()


def test_a_developer_reads_them_and_may_not_change_them(client: FlaskClient, cast: Cast) -> None:
    erin = sign_in(client, "erin")
    page = read(erin, SETTINGS)
    assert "Maintainers and owners can change this" in words(page)
    fill(erin, f"{SETTINGS}/change", form_at=SETTINGS, expect=403, **TYPED)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (JobRules(shared_runners_enabled=False), "Instance runners take no jobs of this project"),
        (JobRules(group_runners_enabled=False), "Group runners take no jobs of this project"),
        (JobRules((), 3600, False, False), "Instance and group runners take no jobs of this project"),
    ],
)
def test_the_runner_list_says_whose_runners_are_off(
    client: FlaskClient, cast: Cast, rules: JobRules, said: str
) -> None:
    bob = sign_in(client, "bob")
    assert "take no jobs of this project" not in words(read(bob, "/acme/web/-/runners"))
    job_rules.change(cast.session, cast.as_(cast.dana), cast.web, rules)
    cast.session.commit()
    page = read(bob, "/acme/web/-/runners")
    assert said in words(page)
    assert SETTINGS in links(page)
