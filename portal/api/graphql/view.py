"""/api/graphql: who may ask, and how often; what is asked is carried out, and committed once."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, g, request
from flask_wtf.csrf import CSRFProtect
from sqlalchemy import text

from portal.api import credentials, rate_limits, refused_acts
from portal.api.credentials import READING, READS, WRITING, Credential
from portal.api.graphql import transport
from portal.api.graphql.budget import Budget
from portal.api.graphql.context import Context
from portal.api.graphql.execution import Query
from portal.api.graphql.problems import RequestWrong
from portal.api.idempotency import REPLAYED
from portal.database import db, now
from portal.domain import actors
from portal.domain.errors import CredentialMissing, CredentialRefused, Refusal
from portal.requests import client_address

blueprint = Blueprint("graphql", __name__)
LONGEST_STATEMENT = 10_000  # milliseconds
IN_TIME = text(f"SET LOCAL statement_timeout = {LONGEST_STATEMENT}")


@blueprint.before_request
def public() -> None:
    """Anybody may ask: a visitor is answered too, with what is nobody's. Refused is a credential that is no good."""
    g.refused_as = transport.refused  # refusals are answered in the shape of this door
    rate_limits.count_address()


blueprint.after_request(rate_limits.tell)


@blueprint.route("/api/graphql", methods=["GET", "POST"])
def answer() -> Response:
    """The answers to the queries of this request; a list of queries is answered with a list."""
    credential = _credential()
    asked = transport.read()
    _count(credential, len(asked.queries))
    queries = [Query(each) for each in asked.queries]
    changing = any(each.changes_something for each in queries)
    _admit(credential, changing=changing)
    db.session.execute(IN_TIME)
    budget = Budget()
    refusals: list[Refusal] = []
    answers, replayed = [], False
    for query in queries:
        context = _context(credential, budget)
        answers.append(query.run(context))
        refusals += context.refusals
        replayed = replayed or context.replayed
    response = transport.answer(answers if asked.batch else answers[0])
    if changing:
        db.session.commit()
        _note(refusals)
    if replayed:
        response.headers.update(REPLAYED)
    return response


def _credential() -> Credential | None:
    """What the request shows; None for a visitor. Raises TooMany, CredentialRefused."""
    try:
        return credentials.of_request(session=True)
    except CredentialMissing:
        return None
    except CredentialRefused:
        rate_limits.count_refused()
        raise


def _count(credential: Credential | None, queries: int) -> None:
    """Each query of a batch counts like a request of its own. Raises TooMany."""
    for _ in range(queries - 1):
        rate_limits.count_address()
    for _ in range(queries):
        if credential is None:
            rate_limits.count_refused()
        else:
            rate_limits.count_credential(credential.limited_by)


def _admit(credential: Credential | None, *, changing: bool) -> None:
    """Refuse what the credential does not open, and what a page of somebody else's could have sent.

    Raises ScopeTooSmall, RequestWrong, CSRFError.
    """
    if credential is not None:
        credential.require(WRITING if changing else READING)
    if not changing:
        return
    if request.method in READS:
        raise RequestWrong("A mutation is sent with POST: a GET changes nothing.")
    if credential is not None and credential.session is not None:
        protection: CSRFProtect = current_app.extensions["csrf"]
        protection.protect()


def _context(credential: Credential | None, budget: Budget) -> Context:
    visitor = actors.visitor(address=client_address(), request_id=g.request_id)
    return Context(db.session(), credential.actor if credential else visitor, credential, now(), budget)


def _note(refusals: list[Refusal]) -> None:
    """Put on the trail what was refused; nobody is told less because of it."""
    try:
        for each in refusals:
            refused_acts.note(each)
    except Exception:
        db.session.rollback()
        current_app.logger.exception("a refusal could not be put on the trail")
