"""The cast of the tests, and the few words with which a test sets its stage."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import actors, scopes
from portal.domain.actors import Actor
from portal.domain.enrolment import enrolment_keys
from portal.domain.enrolment.enrolment_keys import IssuedEnrolmentKey, NewEnrolmentKey
from portal.domain.groups import groups, memberships
from portal.domain.groups.groups import Naming
from portal.domain.jobs import job_checks, jobs
from portal.domain.jobs.job_definitions import NewJob
from portal.domain.people import access_tokens, accounts
from portal.domain.people.access_tokens import NewAccessToken
from portal.domain.runners import runners
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.domain.scopes import Scope
from portal.domain.vault import JOB_SECRETS, Vault
from portal.models import Group, Job, Project, Role, Runner, RunnerManager, User
from tests import databases

PASSWORD = "correct horse battery"
SYSTEM = actors.system("tests")
JOB_VAULT = Vault([databases.ENCRYPTION_KEY], JOB_SECRETS)
TAGGED = RunnerSettings(description="Linux build fleet", tags=("docker", "linux"))


class Cast:
    """Alice owns the group acme, Bob maintains the project acme/web, Charlie is a stranger, Dana administers.

    Erin is a developer in acme. `other` is a group that only Dana sees.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.alice, self.bob = self.person("alice", "Alice Lam"), self.person("bob", "Bob Ray")
        self.charlie, self.erin = self.person("charlie", "Charlie Fox"), self.person("erin", "Erin Day")
        self.dana = self.person("dana", "Dana Kay", admin=True)
        self.acme = self.group("acme")
        self.platform = self.group("platform", inside=self.acme)
        self.web = self.project("web", self.acme)
        self.other = self.group("other")
        self.member(self.alice, self.acme, Role.OWNER)
        self.member(self.bob, self.web, Role.MAINTAINER)
        self.member(self.erin, self.acme, Role.DEVELOPER)
        session.commit()

    def person(self, username: str, name: str = "", *, admin: bool = False) -> User:
        return accounts.create_person(
            self.session,
            SYSTEM,
            username=username,
            name=name or username.capitalize(),
            email=f"{username}@acme.example",
            password=PASSWORD,
            admin=admin,
            must_change_password=False,
        )

    def group(self, path: str, *, inside: Scope = scopes.INSTANCE) -> Scope:
        group: Group = groups.create_group(self.session, SYSTEM, inside, Naming(path.capitalize(), path))
        return scopes.of_group(group)

    def project(self, path: str, inside: Scope) -> Scope:
        project: Project = groups.create_project(self.session, SYSTEM, inside, Naming(path.capitalize(), path))
        return scopes.of_project(project)

    def member(self, user: User, scope: Scope, role: Role) -> None:
        memberships.add(self.session, SYSTEM, scope, user.username, role)

    def runner(self, scope: Scope | None = None, settings: RunnerSettings = TAGGED) -> IssuedRunner:
        """A committed runner with its token, made by Dana; in acme unless told otherwise."""
        issued = runners.create_runner(self.session, self.as_(self.dana), scope or self.acme, settings)
        self.session.commit()
        return issued

    def access_token(self, user: User, *scopes: str, days: int = 30) -> str:
        """A committed access token of the person's, in clear; it opens everything unless told otherwise."""
        wanted = NewAccessToken("a test's", scopes or ("api",), now().date() + timedelta(days=days))
        issued = access_tokens.create(self.session, self.as_(user), user, wanted, longest=timedelta(days=365))
        self.session.commit()
        return issued.token

    def enrolment_key(
        self,
        user: User,
        scope: Scope | None = None,
        template: RunnerSettings = TAGGED,
        *,
        most: int = 10,
        days: int = 30,
        networks: tuple[str, ...] = (),
    ) -> IssuedEnrolmentKey:
        """A committed enrolment key that the person made; in acme unless told otherwise."""
        wanted = NewEnrolmentKey("a test's", most, now().date() + timedelta(days=days), template, networks)
        issued = enrolment_keys.create_key(
            self.session, self.as_(user), scope or self.acme, wanted, longest=timedelta(days=365)
        )
        self.session.commit()
        return issued

    def job(self, scope: Scope | None = None, **asked: Any) -> Job:
        """A committed job that Dana submitted, which waits; in acme/web, and without tags, unless told otherwise."""
        new = NewJob(**{"name": "build", "script": ("make",), **asked})
        found = jobs.submit(self.session, self.as_(self.dana), scope or self.web, new, JOB_VAULT)
        self.session.commit()
        return found

    def check(self, runner: Runner, manager: RunnerManager | None = None) -> Job:
        """A committed check of the runner, which waits."""
        found = job_checks.check(self.session, self.as_(self.dana), runner, JOB_VAULT, manager)
        self.session.commit()
        return found

    @staticmethod
    def as_(user: User) -> Actor:
        return actors.person(user, address="192.0.2.7", request_id="request-of-a-test")


def sign_in(client: FlaskClient, username: str, password: str = PASSWORD) -> FlaskClient:
    """Sign in through the page, as a person does."""
    send(client, "/-/sign-in", login=username, password=password, expect=302)
    return client


def csrf_of(html: str) -> str:
    """The CSRF token that a page's form holds."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', html)
    assert found, "the page has no form"
    return found[1]


def hidden(html: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', html)
    assert found, f"the page has no hidden field {name}"
    return found[1]


def send(
    client: FlaskClient, path: str, *, form_at: str | None = None, expect: int | None = None, **fields: Any
) -> Any:
    """Open the page that holds the form, fill it in, send it to `path`. Hidden fields are taken along."""
    page = client.get(form_at or path).get_data(as_text=True)
    kept = dict(
        re.findall(r'<input type="hidden" name="(csrf_token|request_key|seen_token_id)" value="([^"]*)"', page)
    )
    answer = client.post(path, data={**kept, **fields})
    if expect is not None:
        assert answer.status_code == expect, f"{answer.status_code}: {answer.get_data(as_text=True)[:2000]}"
    return answer
