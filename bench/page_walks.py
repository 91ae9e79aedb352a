"""Pages and API answers asked for one by one, in this process: how long each takes, and what it asks the database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import median
from time import perf_counter
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from bench.figures import Figure
from portal import create_app
from portal.config import Settings
from portal.database import db, now
from portal.domain import actors
from portal.domain.people import access_tokens, user_sessions
from portal.domain.people.access_tokens import NewAccessToken
from portal.models import User
from tests.domain.queries import sent_to

MEDIAN_MS, WORST_MS, DEEP_RATIO = 50, 150, 1.5
QUICK_MS = 5  # below it, a deep page that takes longer than its first one tells of the machine, not of the list


@dataclass(frozen=True, slots=True)
class Asked:
    """One page or answer, asked for by `who` (a user name; empty for a visitor).

    A path below `/api/` is asked for with an access token, any other one with a session. `query` makes it a GraphQL
    query, `form` a form that is sent; neither may change anything. `deep_of` names the first page of the list that
    this is a deep page of. `status` is what it is answered with.
    """

    name: str
    path: str
    who: str
    query: str = ""
    form: dict[str, str] = field(default_factory=dict)
    deep_of: str = ""
    status: int = 200


@dataclass(frozen=True, slots=True)
class Seen:
    """What a page took: milliseconds at the median, statements, kilobytes; over all rounds."""

    asked: Asked
    ms: float
    queries: int
    kilobytes: float


Pages = Callable[[Session], Iterable[Asked]]


def app_on(url: str, data_dir: str) -> Flask:
    """The portal on this database, without rate limits, and with forms that need no token."""
    settings = Settings.from_environment(
        {
            "DATABASE_URL": url,
            "PORTAL_DATA_DIR": data_dir,
            "SECRET_KEY": "a key for measurements only, of no use to anybody else",
            "PORTAL_ENCRYPTION_KEYS": "another key for measurements only of no use either",
            "PORTAL_RATE_LIMIT_TOKEN": "0",
            "PORTAL_RATE_LIMIT_ADDRESS": "0",
            "PORTAL_RATE_LIMIT_REFUSED": "0",
        }
    )
    app = create_app(settings)
    app.config["WTF_CSRF_ENABLED"] = False
    return app


def walk(app: Flask, pages: Pages, *, rounds: int = 5) -> list[Seen]:
    """Ask for every page once to warm up, then `rounds` times, all of them in turn each time.

    `pages` says which, once it has looked into the database. Raises AssertionError for an answer of another kind.
    """
    with app.app_context():
        asked = list(pages(db.session()))
        people = {each.who: _Person(app, each.who) for each in asked}
        db.session.commit()
    first = [_once(app, people[each.who], each) for each in asked]
    took = [[_once(app, people[each.who], each).ms for each in asked] for _ in range(rounds)]
    times = [median(each) for each in zip(*took, strict=True)]
    return [Seen(each, ms, once.queries, once.kilobytes) for each, once, ms in zip(asked, first, times, strict=True)]


def figures(seen: Sequence[Seen], *, named: str, most_queries: int) -> Iterator[Figure]:
    """Median, worst page, deep pages against first ones, and the most statements; `named` begins their names."""
    worst, most = max(seen, key=lambda each: each.ms), max(seen, key=lambda each: each.queries)
    middle = median(each.ms for each in seen)
    yield Figure(f"{named}_median_ms", round(middle, 1), MEDIAN_MS, "lower", unit="ms", note=f"{len(seen)} pages")
    yield Figure(f"{named}_worst_ms", round(worst.ms, 1), WORST_MS, "lower", unit="ms", note=worst.asked.name)
    if ratios := _deep_ratios(seen):
        ratio, name = max(ratios)
        yield Figure(f"{named}_deep_page_ratio", round(ratio, 2), DEEP_RATIO, "lower", note=name)
    yield Figure(f"{named}_most_queries_on_a_page", most.queries, most_queries, "lower", note=most.asked.name)


def table(seen: Sequence[Seen]) -> str:
    """All pages as text, the slowest first."""
    rows = [f"{'ms':>8} {'queries':>8} {'KB':>7}  page"]
    for each in sorted(seen, key=lambda one: -one.ms):
        who = each.asked.who or "a visitor"
        rows.append(f"{each.ms:>8.1f} {each.queries:>8} {each.kilobytes:>7.1f}  {each.asked.name} ({who})")
    return "\n".join(rows)


def _deep_ratios(seen: Sequence[Seen]) -> list[tuple[float, str]]:
    """How much longer deep pages take than first ones, each with its name."""
    first = {each.asked.name: each.ms for each in seen}
    return [
        (each.ms / max(first[each.asked.deep_of], QUICK_MS), each.asked.name) for each in seen if each.asked.deep_of
    ]


def person(app: Flask, username: str) -> _Person:
    """Somebody who asks: inside of the app's context, before a commit."""
    return _Person(app, username)


class _Person:
    """Somebody with a session and an access token, or a visitor with neither."""

    def __init__(self, app: Flask, username: str) -> None:
        self.client: FlaskClient = app.test_client()
        self.headers: dict[str, str] = {}
        if not username:
            return
        session = db.session()
        user = session.scalars(select(User).where(User.username == username)).one()
        actor = actors.person(user)
        begun, key = user_sessions.begin(session, actor, method="password", user_agent="measurements")
        begun.confirmed_at = now()
        life = timedelta(days=1)
        wanted = NewAccessToken("measurements", ("api",), now().date() + life)
        token = access_tokens.create(session, actor, user, wanted, longest=2 * life).token
        self.headers["Authorization"] = f"Bearer {token}"
        with self.client.session_transaction() as cookie:
            cookie["_user_id"] = key
            cookie["_fresh"] = True

    def ask(self, asked: Asked) -> Any:
        headers = self.headers if asked.path.startswith("/api/") else {}
        if asked.query:
            return self.client.post(asked.path, json={"query": asked.query}, headers=headers)
        if asked.form:
            return self.client.post(asked.path, data=asked.form, headers=headers)
        return self.client.get(asked.path, headers=headers)


def _once(app: Flask, person: _Person, asked: Asked) -> Seen:
    with app.app_context():
        engine = db.engine
    with sent_to(engine) as statements:
        begun = perf_counter()
        answer = person.ask(asked)
        body = answer.data
        took = (perf_counter() - begun) * 1000
    said = f"{asked.name} ({asked.path}) was answered with {answer.status_code}: {body[:300]!r}"
    assert answer.status_code == asked.status, said
    assert not asked.query or b'"errors"' not in body, said
    return Seen(asked, took, len(statements), len(body) / 1024)
