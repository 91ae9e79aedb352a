"""A believable organisation to look at: what `flask --app app demo fill` puts into a portal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

from sqlalchemy import event, func, or_, select, text, tuple_
from sqlalchemy.orm import Session

from portal.database import now
from portal.demo.demo_jobs import DemoJobs
from portal.demo.demo_tables import (
    BLOCKED,
    BULK_ACTS,
    GROUPS,
    KINDS,
    LATER,
    LEFT,
    MEMBERS,
    PEOPLE,
    PROJECTS,
    REFUSED_ACTS,
    REFUSED_SIGN_INS,
    RETIRED,
    ROTATED,
    RUNNERS,
    SHORT_LIVED,
    SIGNED_IN,
    THE_OLD_WAY,
    TURNED_OFF,
    Plan,
)
from portal.domain import actors, audit, permissions, scopes
from portal.domain.actors import Actor
from portal.domain.bulk import bulk_acts
from portal.domain.bulk.bulk_changes import Act, Wanted
from portal.domain.deletions import deletion_purge
from portal.domain.errors import Hidden, Invalid, NotAllowed
from portal.domain.groups import groups, memberships, scope_settings
from portal.domain.groups.groups import Naming
from portal.domain.jobs.artifact_store import ArtifactStore
from portal.domain.machines import runner_managers
from portal.domain.machines.machine_facts import MachineFacts
from portal.domain.machines.runner_managers import Contact
from portal.domain.people import accounts, people, sign_in_throttle
from portal.domain.permissions import Action
from portal.domain.registration import registration_switch, registration_tokens, runner_registration
from portal.domain.registration.registration import Configured
from portal.domain.registration.runner_registration import Registering
from portal.domain.runners import runner_projects, runner_settings, runner_tokens, runners
from portal.domain.runners.runner_lists import RunnerFilter
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.domain.scopes import INSTANCE, Scope
from portal.domain.trail import refused_acts
from portal.domain.vault import Vault
from portal.models import (
    EXECUTORS,
    LEGACY,
    WITH_DELETED,
    AuditEvent,
    BulkAct,
    Group,
    Project,
    Role,
    Route,
    Runner,
    User,
)

ACTOR = actors.system("demo")
_LOCK = 0x706F7274616C04  # advisory lock: two fillings at once tell the story once
_DAY = timedelta(days=1)
_GRACE = timedelta(hours=24)
_EVERYBODY = (*((username, name) for username, name, _ in PEOPLE), LEFT)


@dataclass(frozen=True, slots=True)
class Filled:
    """How much a filling has made."""

    groups: int
    projects: int
    people: int
    runners: int
    machines: int
    jobs: int


def is_there(session: Session) -> bool:
    """Whether this portal holds the demo, whole or what people have left of it."""
    usernames = [username for username, _, _ in PEOPLE]
    ours = (AuditEvent.actor_kind == ACTOR.kind) & (AuditEvent.actor_name == ACTOR.name)
    made = select(AuditEvent.target_id).where(ours, AuditEvent.action == "person_created")
    return bool(session.scalar(select(func.count()).where(User.username.in_(usernames), User.id.in_(made))))


def is_among_others(session: Session) -> bool:
    """Whether this portal holds a group, a project or a runner that the demo did not make, even a deleted one.

    The demo's are known by their paths and descriptions, which nobody else has had since `fill` found them free.
    """
    mine = is_there(session)
    groups = [path for path, *_ in GROUPS] if mine else []
    projects = [path for path, *_ in PROJECTS] if mine else []
    runners = [(plan.scope, plan.description) for plan in (SHORT_LIVED, RETIRED, *RUNNERS)] if mine else []
    route = or_(Route.group_id == Runner.group_id, Route.project_id == Runner.project_id)
    called = tuple_(func.coalesce(Route.path, ""), Runner.description)
    others = (
        select(Group.id).join(Group.route).where(Route.path.not_in(groups)),
        select(Project.id).join(Project.route).where(Route.path.not_in(projects)),
        select(Runner.id).outerjoin(Route, route).where(called.not_in(runners)),
    )
    return any(session.scalar(query.limit(1), execution_options=WITH_DELETED) is not None for query in others)


def fill(
    session: Session, password: str, configured: Configured, job_vault: Vault, store: ArtifactStore | None = None
) -> Filled | None:
    """Tell the whole story in the caller's transaction. None when the demo is there already.

    `job_vault` closes what is secret in jobs; what they leave goes into the store, or nowhere without one.

    Times are relative to the moment of filling. Nothing that exists is changed: raises Invalid when a name
    the demo needs belongs to somebody else, or when the password is too short.
    """
    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    if is_there(session):
        return None
    _refuse_taken(session)
    story = _Story(session, now(), configured)
    jobs = DemoJobs(story, job_vault, store)
    with _dated(session, story):
        story.tell(password, jobs)
        machines = sum(story.machines(plan) for plan in RUNNERS)
        story.date_machines()
        jobs.settle()
    story.date_tokens()
    return Filled(len(GROUPS), len(PROJECTS), len(_EVERYBODY), len(RUNNERS), machines, len(jobs.told))


def _refuse_taken(session: Session) -> None:
    tops = [path for path, *_ in GROUPS if "/" not in path]
    usernames = [username for username, _ in _EVERYBODY]
    mails = [_mail(username) for username in usernames]
    paths = session.scalars(select(Route.path).where(func.lower(Route.path).in_(tops)))
    someone = or_(func.lower(User.username).in_(usernames), func.lower(User.email).in_(mails))
    taken = sorted({*paths, *session.scalars(select(User.username).where(someone))})
    if taken:
        raise Invalid(
            {
                "name": [
                    f"The demo needs names that somebody here has already: {', '.join(taken)}. "
                    "Nothing was changed. Fill an empty portal instead: set PORTAL_DATA_DIR to a new folder, "
                    "or DATABASE_URL to an empty database."
                ]
            }
        )


def _mail(username: str) -> str:
    return f"{username}@{'nordwind' if username in ('nora', 'ole') else 'acme'}.example"


@contextmanager
def _dated(session: Session, story: _Story) -> Iterator[None]:
    """What is stored meanwhile was made at the moment the story has come to."""

    def date(session: Session, *_: Any) -> None:
        for made in session.new:
            for name in ("created_at", "updated_at"):
                if getattr(made, name, story.at) is None:
                    setattr(made, name, story.at)

    event.listen(session, "before_flush", date)
    try:
        yield
    finally:
        session.flush()
        event.remove(session, "before_flush", date)


def _features(version: str) -> dict[str, bool]:
    """What a machine of this version can do; from 16.11 on it can end a job that is being canceled by itself."""
    numbers = version.split(".")[:2]
    new = numbers[0].isdecimal() and (int(numbers[0]), int(numbers[1])) >= (16, 11)
    return {"variables": True, "artifacts": True, "cache": True, **({"cancel_gracefully": True} if new else {})}


class _Story:
    """The filling, in the order in which it would have happened."""

    def __init__(self, session: Session, present: datetime, configured: Configured) -> None:
        self.configured = configured
        self.session, self.present, self.at = session, present, present
        self.administrator = session.scalars(select(User).where(User.admin).order_by(User.id).limit(1)).first()
        self.people: dict[str, User] = {}
        self.scopes: dict[str, Scope] = {"": INSTANCE}
        self.issued: dict[str, IssuedRunner] = {}
        self.rotated: IssuedRunner | None = None
        self.born: list[tuple[Contact, datetime]] = []

    def tell(self, password: str, jobs: DemoJobs) -> None:
        acts: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = [
            *((400.0, self.person, (username, name, password)) for username, name in _EVERYBODY),
            *((row[-1], self.group, row) for row in GROUPS),
            *((row[-1], self.project, row) for row in PROJECTS),
            *((row[-1], self.member, row) for row in MEMBERS),
            *((plan.days, self.runner, (plan,)) for plan in (SHORT_LIVED, RETIRED, *RUNNERS)),
            *((days, self.later, (by, what, name)) for days, by, what, name in LATER),
            *((days, self.turn_off, (by, path)) for days, by, path in TURNED_OFF),
            *((row[0], self.block, row[1:]) for row in BLOCKED),
            *((row[0], self.sign_in, row[1:]) for row in SIGNED_IN),
            *((row[0], self.refuse_sign_in, row[1:]) for row in REFUSED_SIGN_INS),
            *((row[0], self.refuse_act, row[1:]) for row in REFUSED_ACTS),
            *((row[0], self.bulk_act, row[1:]) for row in BULK_ACTS),
            *jobs.acts(),
        ]
        for days, act, told in sorted(acts, key=lambda act: -act[0]):
            self.at = self.present - days * _DAY
            act(*told)
            self.session.flush()

    def actor(self, username: str) -> Actor:
        user = self.people[username] if username else self.administrator
        if user is None:
            return ACTOR
        return actors.person(user, address=f"10.8.0.{10 + user.id % 200}", request_id=self.request_id())

    def request_id(self) -> str:
        return f"demo-{int(self.at.timestamp())}"

    def person(self, username: str, name: str, password: str) -> None:
        self.people[username] = accounts.create_person(
            self.session,
            ACTOR,
            username=username,
            name=name,
            email=_mail(username),
            password=password,
            must_change_password=False,
        )

    def group(self, path: str, name: str, description: str, by: str, _days: float) -> None:
        parent, _, last = path.rpartition("/")
        actor = self.actor(by) if by else ACTOR
        group = groups.create_group(self.session, actor, self.scopes[parent], Naming(name, last, description))
        self.scopes[path] = scopes.of_group(group)

    def project(self, path: str, name: str, description: str, by: str, _days: float) -> None:
        parent, _, last = path.rpartition("/")
        naming = Naming(name, last, description)
        project = groups.create_project(self.session, self.actor(by), self.scopes[parent], naming)
        self.scopes[path] = scopes.of_project(project)

    def member(self, username: str, path: str, role: Role, by: str, _days: float) -> None:
        actor = self.actor(by) if by else ACTOR
        memberships.add(self.session, actor, self.scopes[path], username, role)

    def runner(self, plan: Plan) -> None:
        settings = RunnerSettings(
            description=plan.description,
            maintenance_note=plan.note,
            tags=runner_settings.split_tags(plan.tags),
            run_untagged="untagged" in plan.flags,
            protected="protected" in plan.flags,
            locked="locked" in plan.flags,
            maximum_timeout=plan.timeout,
            token_expiration_interval=plan.life * 86_400 if plan.life else None,
        )
        scope = self.scopes[plan.scope]
        if plan.by == THE_OLD_WAY:
            self.issued[plan.description] = self.registered(plan, scope, settings)
            return
        issued = runners.create_runner(self.session, self.actor(plan.by), scope, settings)
        if plan.life:
            issued.record.expires_at = self.at + plan.life * _DAY
        self.issued[plan.description] = issued

    def registered(self, plan: Plan, scope: Scope, settings: RunnerSettings) -> IssuedRunner:
        """A runner that its machine registered with the scope's registration token."""
        row = registration_tokens.make_token(self.session, ACTOR, scope, self.configured)
        text = self.configured.vault.open(row.ciphertext or b"") or ""
        facts = MachineFacts(version=KINDS[plan.machines.kind].versions[0], platform="linux")
        address = f"{KINDS[plan.machines.kind].network}.10"
        issued = runner_registration.register(
            self.session, self.configured, Registering(text, settings, facts, address)
        )
        row.last_used_at = self.at
        return issued

    def turn_off(self, by: str, path: str) -> None:
        actor, scope = self.actor(by), self.scopes[path]
        registration_switch.switch(self.session, actor, scope, allow=False, configured=self.configured)
        scope_settings.own_for_update(self.session, scope).switched_at = self.at

    def later(self, by: str, what: str, name: str) -> None:
        session, actor, runner = self.session, self.actor(by), self.issued[name].runner
        word, _, value = what.partition(":")
        settings = runner_settings.settings_of(runner)
        if word == "tag":
            runners.update_runner(session, actor, runner, replace(settings, tags=(*settings.tags, value)))
        elif word == "note":
            runners.update_runner(session, actor, runner, replace(settings, maintenance_note=value))
        elif word in ("pause", "resume"):
            runners.set_paused(session, actor, runner, word == "pause")
        elif word == "reset":
            self.issued[name] = runner_tokens.reset_token(session, actor, runner, seen_token_id=None)
        elif word == "rotate":
            grace = _GRACE - (self.present - self.at)
            self.rotated = runner_tokens.reset_token_by_machine(
                session, self.issued[name].token, grace=grace, address="10.20.4.10"
            )
        elif word == "assign":
            runner_projects.assign(session, actor, runner, self.scopes[value])
            return
        elif word in ("delete", "delete for good"):
            self.delete(actor, runner, word)
            return
        runner.updated_at = self.at

    def delete(self, actor: Actor, runner: Runner, how: str) -> None:
        if how == "delete":
            if runner.description == RETIRED.description:
                self.machines(RETIRED, silent=self.present - self.at)  # they go with it
            runners.delete_runner(self.session, actor, runner).created_at = self.at
        else:
            deletion_purge.end(self.session, actor, runner.deletion_id or 0, self.present - self.at + _DAY)

    def block(self, by: str, username: str) -> None:
        person = self.people[username]
        people.block(self.session, self.actor(by), person)
        person.blocked_at = self.at

    def sign_in(self, username: str) -> None:
        """That somebody signed in, without a session: nobody could use it."""
        person = self.people[username]
        person.last_signed_in_at = self.at
        told = {"method": (None, "password"), "second_factor": (None, False)}
        audit.record(self.session, self.actor(username), "signed_in", person, INSTANCE, told)

    def refuse_sign_in(self, username: str, address: str, why: str) -> None:
        visitor = actors.visitor(address=address, request_id=self.request_id())
        sign_in_throttle.refused(self.session, visitor, self.people[username], why)

    def refuse_act(self, username: str, action: Action, path: str, request: str) -> None:
        actor = self.actor(username)
        try:
            permissions.require(self.session, actor, action, self.scopes[path])
        except (NotAllowed, Hidden) as refusal:
            refused_acts.record(self.session, actor, refusal, request)

    def bulk_act(self, by: str, path: str, tag: str) -> None:
        session, actor = self.session, self.actor(by)
        act = bulk_acts.draft(session, actor, self.scopes[path], Wanted(Act.TAGS, add=(tag,)), RunnerFilter())
        bulk_acts.start(session, actor, act.id)
        while bulk_acts.take_batch(session, act.id):
            pass
        self.date_bulk_act(act)

    def date_bulk_act(self, act: BulkAct) -> None:
        """It was done, and its runners were changed, at the moment the story has come to."""
        act.started_at = act.finished_at = self.at
        for runner in self.session.scalars(select(Runner).where(Runner.id.in_(act.runner_ids))):
            runner.updated_at = self.at

    def machines(self, plan: Plan, silent: timedelta = timedelta(0)) -> int:
        """Let the plan's machines register and, most of them, ask for jobs. Returns how many.

        None of them has been heard of for `silent`.
        """
        chance = Random(plan.description)  # noqa: S311  (the same story every time; no secret)
        ages = {  # seconds since the last contact
            "online": (3, 240),
            "offline": (3 * 3600, 6 * 86_400),
            "stale": (8 * 86_400, 50 * 86_400),
            "registered": (600, 5 * 86_400),
        }
        made = self.present - plan.days * _DAY
        number = 0
        for fate, (newest, oldest) in ages.items():
            for _ in range(getattr(plan.machines, fate)):
                age = chance.uniform(max(newest, silent.total_seconds()), min(oldest, plan.days * 86_400 * 0.9))
                last = self.present - timedelta(seconds=age)
                born = last if fate == "registered" else made + (last - made) * chance.uniform(0.1, 0.95)
                contact = self._contact(plan, chance, number)
                contact = contact._replace(at=last, polled=fate != "registered")
                runner_managers.record_contact(self.session, contact)
                self.born.append((contact, born))
                number += 1
        return number

    def _contact(self, plan: Plan, chance: Random, number: int) -> Contact:
        kind, issued = KINDS[plan.machines.kind], self.issued[plan.description]
        if plan.description == ROTATED and number == 0 and self.rotated is not None:
            issued = self.rotated
        version = chance.choice(kind.versions)
        facts = MachineFacts(
            version=version,
            revision=f"{Random(version).getrandbits(32):08x}" if kind.executor else None,  # noqa: S311
            platform=kind.platform or None,
            architecture=kind.architecture or None,
            executor_type=EXECUTORS[kind.executor] if kind.executor else None,
            features=_features(version),
            labels=dict(kind.labels),
        )
        separator = ":" if ":" in kind.network else "."
        address = f"{kind.network}{separator}{10 + number % 240}"
        system_xid = f"s_{chance.getrandbits(48):012x}"
        if kind.executor == "kubernetes":
            system_xid = "r_" + "".join(
                chance.choices("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=12)
            )
        return Contact(
            runner_id=issued.runner.id,
            token_id=issued.record.id,
            system_xid=LEGACY if kind.nameless else system_xid,
            at=self.at,
            address=address,
            polled=False,
            facts=facts,
        )

    def date_machines(self) -> None:
        """A machine is known since its first contact, not since the last one that was recorded here."""
        self.session.execute(
            text(
                "UPDATE ci_runner_machines m SET created_at = b.at"
                " FROM unnest(CAST(:runner_ids AS bigint[]), CAST(:xids AS text[]), CAST(:ats AS timestamptz[]))"
                " AS b(runner_id, xid, at) WHERE m.runner_id = b.runner_id AND m.system_xid = b.xid"
            ),
            {
                "runner_ids": [contact.runner_id for contact, _ in self.born],
                "xids": [contact.system_xid for contact, _ in self.born],
                "ats": [at for _, at in self.born],
            },
        )

    def date_tokens(self) -> None:
        """A token was used from its first machine's first contact to the last one's last, not just now."""
        self.session.execute(
            text(
                "UPDATE ci_runner_tokens t SET first_used_at = greatest(t.created_at, used.since),"
                " last_used_at = used.until FROM ("
                " SELECT token_id, min(created_at) AS since, max(contacted_at) AS until"
                " FROM ci_runner_machines WHERE runner_id = ANY(:ids) GROUP BY token_id"
                ") used WHERE t.id = used.token_id"
            ),
            {"ids": [issued.runner.id for issued in self.issued.values()]},
        )
