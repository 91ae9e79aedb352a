"""People, for administrators: who has an account, new accounts, and everything about one person."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from portal.database import db, now
from portal.domain.enrolment import enrolment_key_lists
from portal.domain.errors import Invalid, Stale
from portal.domain.people import (
    access_token_lists,
    accounts,
    devices,
    people,
    people_lists,
    person_facts,
    user_sessions,
)
from portal.domain.people.access_token_lists import State, TokenQuery
from portal.domain.people.people_lists import PeopleFilter, Standing
from portal.domain.permissions import Action
from portal.domain.scopes import ScopeKind
from portal.domain.trail import trail
from portal.models import User
from portal.requests import session_limits
from portal.web import guards, person_acts, scoped
from portal.web.forms import EditPersonForm, PersonForm

blueprint = Blueprint("people", __name__, url_prefix="/admin/people")
scoped.guard(blueprint, ScopeKind.INSTANCE, Action.WRITE_PEOPLE)
blueprint.before_request(guards.confirmed)

FILTERS = ("search", "standing", "administrators", "second_factor")
SHOWN_EVENTS = 10
SHOWN = 100  # roles, sessions and identities on one person's page


@blueprint.get("")
def index() -> str:
    session, wanted, args = db.session(), _filter_from_address(), request.args
    after, before = args.get("after", "")[:255], args.get("before", "")[:255]
    return render_template(
        "people/index.html",
        scope=guards.scope(),
        wanted=wanted,
        page=people_lists.page(session, wanted, after=after, before=before),
        counts=people_lists.counts(session, wanted),
        standings=Standing,
        kept={name: value for name, value in args.items() if name in FILTERS and value},
    )


def _filter_from_address() -> PeopleFilter:
    """The filter in the address; values that mean nothing count as not set."""
    args = request.args
    standings = {each.value: each for each in Standing}
    return PeopleFilter(
        words=args.get("search", "").strip()[:255],
        standing=standings.get(args.get("standing", "")),
        administrators=args.get("administrators") == "true",
        without_second_factor=args.get("second_factor") == "none",
    )


@blueprint.route("/new", methods=["GET", "POST"])
def new() -> str | tuple[str, int] | Response:
    """A new person, with a password that is shown once. The form, sent again, leads to the person it made."""
    form = PersonForm()
    if request.method == "GET":
        return render_template("people/new.html", form=form, scope=guards.scope())
    password = accounts.generated_password()
    typed = {name: form[name].data or "" for name in ("username", "name", "email")}
    try:
        person = people.create(
            db.session(),
            guards.actor(),
            username=typed["username"],
            name=typed["name"],
            email=typed["email"],
            admin=bool(form.admin.data),
            password=password,
        )
    except Invalid as invalid:
        form.refuse(invalid)
        return render_template("people/new.html", form=form, scope=guards.scope(), made=_made_before(typed)), 422
    db.session.commit()
    return person_acts.shown_once(person, password, title=f"{person.name} can sign in")


def _made_before(typed: dict[str, str]) -> User | None:
    """The person whom exactly these words have made already."""
    found = accounts.find(db.session(), typed["username"])
    words = {name: value.strip() for name, value in typed.items()}
    return found if found and words == {name: getattr(found, name) for name in words} else None


@blueprint.get("/<int:user_id>")
def show(user_id: int) -> str:
    """One person: facts, roles, sessions, what happened, and what can be done."""
    session = db.session()
    person = people.get(session, user_id)
    roles = person_facts.roles(session, person)
    sessions = user_sessions.of_person(session, person, session_limits())
    events = person_facts.events(session, person, SHOWN_EVENTS)
    moment, good = now(), TokenQuery(user_id=person.id, live=True)
    tokens = access_token_lists.page(session, good, moment, limit=SHOWN)
    return render_template(
        "people/show.html",
        scope=guards.scope(),
        person=person,
        standing=Standing.of(person),
        second_factor=person_facts.has_second_factor(session, person),
        identities=person_facts.identities(session, person)[:SHOWN],
        roles=roles[:SHOWN],
        roles_total=len(roles),
        runners=person_facts.count_runners(session, person),
        sessions=[(each, devices.described(each.user_agent)) for each in sessions[:SHOWN]],
        sessions_total=len(sessions),
        access_tokens=[(each, State.of(each, moment)) for each in tokens],
        access_tokens_total=access_token_lists.count(session, good, moment),
        enrolment_keys=enrolment_key_lists.made_by(session, person, limit=SHOWN),
        enrolment_keys_total=enrolment_key_lists.count_made_by(session, person),
        events=events,
        linked=trail.standing(session, events),
    )


@blueprint.route("/<int:user_id>/edit", methods=["GET", "POST"])
def edit(user_id: int) -> BaseResponse | str | tuple[str, int]:
    """Name, user name and address."""
    person = people.get(db.session(), user_id)
    form = EditPersonForm(obj=person)
    page: dict[str, Any] = {"form": form, "person": person, "scope": guards.scope()}
    if request.method == "GET":
        form.seen_version.data = people.version(person)
        return render_template("people/edit.html", **page)
    typed = {name: form[name].data or "" for name in ("username", "name", "email")}
    try:
        changed = people.edit(db.session(), guards.actor(), person, **typed, seen=form.seen_version.data)
    except Invalid as invalid:
        form.refuse(invalid)
        return render_template("people/edit.html", **page), 422
    except Stale as stale:
        form.seen_version.data = people.version(person)
        return render_template("people/edit.html", **page, refusal=str(stale)), 409
    db.session.commit()
    flash("Saved." if changed else "Nothing was changed.")
    return redirect(url_for("people.show", user_id=person.id))


person_acts.mount(blueprint)
