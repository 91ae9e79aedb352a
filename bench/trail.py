"""Pages of the trail with all their filters, its exports and its check, with 10,000,000 events behind them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from urllib.parse import urlencode

from flask import Flask
from sqlalchemy import func, literal_column, select
from sqlalchemy.orm import Session

from bench import large_demo, page_walks
from bench.figures import Figure
from bench.page_walks import Asked
from bench.rounds import in_turn, medians
from bench.runs import Run
from portal.database import db
from portal.domain.trail import audit_chain
from portal.models import AuditEvent, Group, Project, Runner, User

MOST_QUERIES = 30
EXPORT_MS = 150  # until the first line is there
VERIFY_US = 40  # an event; a trail of 10,000,000 is checked in under seven minutes
CHECKED = 100_000  # events, at most, that are checked here


@dataclass(frozen=True, slots=True)
class Told:
    """Whom and what the pages are about."""

    admin: str
    group: Group  # at the top, with the most events
    deep: Group  # five levels down
    project: Project
    runner: Runner
    person: User
    quiet: User
    newest: datetime
    oldest: datetime

    def day(self, share: float) -> str:
        """A day of the trail; 0 is its first and 1 its last."""
        return str((self.oldest + (self.newest - self.oldest) * share).date())


def told(session: Session) -> Told:
    """Look for them."""
    theirs = select(AuditEvent).where(AuditEvent.action == "runner_updated")
    some = theirs.order_by(AuditEvent.created_at.desc()).limit(5000).subquery()

    def most(column: str) -> int:
        value = some.c[column]
        query = select(value).where(value.is_not(None)).group_by(value).order_by(func.count().desc())
        return int(session.scalars(query.limit(1)).one())

    first = some.c.group_ids[literal_column("1")]
    by_events = select(first).where(first.is_not(None)).group_by(first).order_by(func.count().desc())
    people = select(some.c.actor_id).where(some.c.actor_kind == "user").group_by(some.c.actor_id)
    of_runner = select(some.c.target_id).where(some.c.target_kind == "runner").order_by(some.c.id).limit(1)
    deepest = func.cardinality(Group.traversal_ids)
    return Told(
        admin=session.scalars(select(User.username).where(User.admin).order_by(User.id).limit(1)).one(),
        group=session.get_one(Group, session.scalars(by_events.limit(1)).one()),
        deep=session.scalars(select(Group).order_by(deepest.desc(), Group.id.desc()).limit(1)).one(),
        project=session.get_one(Project, most("project_id")),
        runner=session.get_one(Runner, session.scalars(of_runner).one()),
        person=session.get_one(User, session.scalars(people.order_by(func.count().desc()).limit(1)).one()),
        quiet=session.scalars(select(User).where(~User.admin).order_by(User.id.desc()).limit(1)).one(),
        newest=session.scalars(select(func.max(AuditEvent.created_at))).one() or datetime.max,
        oldest=session.scalars(
            select(AuditEvent.created_at).where(AuditEvent.action == "job_submitted").order_by(AuditEvent.id).limit(1)
        ).one(),
    )


def pages(session: Session) -> Iterator[Asked]:
    """Every page of the trail, with every filter and with those that fit badly together."""
    facts = told(session)
    places = {
        "instance": ("/admin/trail", None),
        "group": (
            f"/groups/{facts.group.full_path}/-/trail",
            AuditEvent.group_ids[literal_column("1")] == facts.group.id,
        ),
        "deep group": (f"/groups/{facts.deep.full_path}/-/trail", AuditEvent.group_ids.contains([facts.deep.id])),
        "project": (f"/{facts.project.full_path}/-/trail", AuditEvent.project_id == facts.project.id),
        "person": (f"/admin/people/{facts.person.id}/trail", AuditEvent.actor_id == facts.person.id),
    }
    for name, (address, condition) in places.items():
        for filtered, values in _filters(facts).items():
            if name != "project" or "path" not in values:
                yield Asked(f"{name}, {filtered}", _with(address, values), facts.admin)
        for share in (0.3, 0.9):
            before = facts.oldest + (facts.newest - facts.oldest) * (1 - share)
            older = select(AuditEvent.id).where(AuditEvent.created_at < before)
            if condition is not None and name != "deep group":
                older = older.where(condition)
            number = session.scalar(older.order_by(AuditEvent.created_at.desc()).limit(1))
            first = f"{name}, no filter"
            deep = {"before": str(number)}
            yield Asked(f"{name}, {share:.0%} down", _with(address, deep), facts.admin, deep_of=first)
            busy = {**deep, "action": "runner_updated"}
            yield Asked(
                f"{name}, an action {share:.0%} down",
                _with(address, busy),
                facts.admin,
                deep_of=f"{name}, a common action",
            )
    yield from _others(facts)


def _others(facts: Told) -> Iterator[Asked]:
    runner = f"/admin/runners/{facts.runner.id}"
    yield Asked("runner's trail", f"{runner}/trail", facts.admin)
    yield Asked("runner's trail, an action", _with(f"{runner}/trail", {"action": "runner_paused"}), facts.admin)
    yield Asked("runner's page", runner, facts.admin)
    yield Asked("quiet person's trail", f"/admin/people/{facts.quiet.id}/trail", facts.admin)
    yield Asked("person's page", f"/admin/people/{facts.person.id}", facts.admin)


def _with(address: str, values: dict[str, str]) -> str:
    return f"{address}?{urlencode(values)}" if values else address


def _filters(facts: Told) -> dict[str, dict[str, str]]:
    """The filters of a page, by what a figure's note calls them."""
    then, until = facts.day(0.4), facts.day(0.41)
    common, rare = "job_submitted", "group_created"
    return {
        "no filter": {},
        "a common action": {"action": "runner_updated"},
        "a rare action": {"action": rare},
        "an action that never was": {"action": "encryption_renewed"},
        "scripts": {"kind": "access_token"},
        "visitors": {"kind": "visitor"},
        "a kind that never was": {"kind": "enrolment_key"},
        "a busy person": {"who": facts.person.name},
        "a quiet person": {"who": facts.quiet.username},
        "a first name": {"who": facts.person.name.split()[0]},
        "the clean-up": {"who": "clean-up"},
        "nobody": {"who": "nobody by this name"},
        "a group": {"path": facts.group.full_path},
        "a deep group": {"path": facts.deep.full_path},
        "a project": {"path": facts.project.full_path},
        "a group that is gone": {"path": "gone/away"},
        "one request": {"request": f"{77:020x}"},
        "a day long ago": {"since": then, "until": then},
        "up to a day": {"until": then},
        "since a day": {"since": then},
        "a rare action on a day": {"since": then, "until": until, "action": rare},
        "a person's common action": {"who": facts.person.name, "action": common},
        "a person's rare action": {"who": facts.person.name, "action": rare},
        "what never goes together": {"kind": "system", "action": "runner_updated"},
        "a group's clean-up": {"path": facts.group.full_path, "kind": "system", "action": "machines_forgotten"},
        "a deep group's people on days": {"path": facts.deep.full_path, "kind": "user", "until": until},
    }


def figures(run: Run) -> Iterator[Figure]:
    """Walk through the pages, begin the exports, check a part of the chain."""
    url = large_demo.database(run)
    app = page_walks.app_on(url, str(run.folder / "trail"))
    seen = page_walks.walk(app, pages, rounds=5 if run.full else 3)
    run.say(page_walks.table(seen))
    yield from page_walks.figures(seen, named="trail", most_queries=MOST_QUERIES)
    yield from _exports(run, app)
    gc.collect()  # what began a file and did not end it lets its connection go
    with app.app_context():
        db.engine.dispose()
    with run.session(url) as session:
        begun = perf_counter()
        count = _checked(session)
        each = (perf_counter() - begun) * 1e6 / count
    yield Figure("trail_verify_us_per_event", round(each, 1), VERIFY_US, "lower", unit="µs", note=f"{count:,} events")


def _checked(session: Session) -> int:
    """Check the beginning of the chain. Returns how many events that were."""
    count = 0
    with closing(audit_chain.links(session)) as links:
        for _, wrong in links:
            if wrong is not None:
                raise AssertionError(wrong)
            count += 1
            if count == CHECKED:
                break
    return count


def _exports(run: Run, app: Flask) -> Iterator[Figure]:
    """How long it takes until the first lines of a file are there."""
    with app.app_context():
        facts = told(db.session())
        wanted = {
            "instance as CSV": "/admin/trail/export?format=csv",
            "instance, a rare action": "/admin/trail/export?action=group_created",
            "instance, a busy person": f"/admin/trail/export?{urlencode({'who': facts.person.name})}",
            "group as CSV": f"/groups/{facts.group.full_path}/-/trail/export?format=csv",
            "project": f"/{facts.project.full_path}/-/trail/export",
            "a day": f"/admin/trail/export?since={facts.day(0.4)}&until={facts.day(0.4)}",
        }
        admin = page_walks.person(app, facts.admin)
        db.session.commit()

    def begun(path: str) -> float:
        start = perf_counter()
        response = admin.client.get(path, buffered=False)
        lines = response.iter_encoded()
        for _ in range(3):
            next(lines, b"")
        took = (perf_counter() - start) * 1000
        response.close()
        return took

    sides = {name: lambda path=path: begun(path) for name, path in wanted.items()}
    took = medians(in_turn(3, sides))
    for name, ms in took.items():
        run.say(f"  export, {name}: first lines after {ms:.1f} ms")
    name, worst = max(took.items(), key=lambda each: each[1])
    yield Figure("trail_export_first_lines_worst_ms", round(worst, 1), EXPORT_MS, "lower", unit="ms", note=name)
