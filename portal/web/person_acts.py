"""What an administrator does with a person: each a page of its own that says what will happen."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from portal.database import db, now
from portal.domain.enrolment import enrolment_key_lists
from portal.domain.errors import Invalid, Stale
from portal.domain.people import (
    access_token_lists,
    people,
    person_deletion,
    person_facts,
    second_factor,
    user_sessions,
)
from portal.domain.people.person_deletion import AT_ONCE, Runners
from portal.models import User
from portal.requests import session_limits
from portal.web import guards, refused_acts
from portal.web.forms import AdministratorForm, DeletePersonForm, EmptyForm, PortalForm, SeenVersionForm
from portal.web.secret_pages import unstored

Page = str | BaseResponse | tuple[str, int]


def block(user_id: int) -> Page:
    """What stops and what goes on, and the button."""
    person, form = people.get(db.session(), user_id), EmptyForm()
    if request.method == "GET":
        return _page("block", person, form)
    try:
        ended = people.block(db.session(), guards.actor(), person)
    except Invalid as invalid:
        return _refused("block", person, form, invalid)
    db.session.commit()
    return _back(person, f"{person.name} is blocked{_and_sessions(ended)}.")


def unblock(user_id: int) -> Page:
    """Let a blocked person in again."""
    person = people.get(db.session(), user_id)
    if request.method == "GET":
        return _page("unblock", person, EmptyForm())
    people.unblock(db.session(), guards.actor(), person)
    db.session.commit()
    return _back(person, f"{person.name} can sign in again.")


def administrator(user_id: int) -> Page:
    """Make somebody an administrator, or take that away."""
    person, form = people.get(db.session(), user_id), AdministratorForm()
    if request.method == "GET":
        return _page("administrator", person, form)
    wanted = form.wanted.data == "yes"
    try:
        people.set_administrator(db.session(), guards.actor(), person, wanted)
    except Invalid as invalid:
        return _refused("administrator", person, form, invalid)
    db.session.commit()
    if not wanted and person.id == guards.user_session().user_id:
        flash("You are an administrator no more.")
        return redirect(url_for("start.show"))
    return _back(person, f"{person.name} is {'an administrator now' if wanted else 'no administrator any more'}.")


def end_sessions(user_id: int) -> Page:
    """Sign somebody out everywhere; they may sign in again."""
    person = people.get(db.session(), user_id)
    if request.method == "GET":
        return _page("end_sessions", person, EmptyForm())
    own = person.id == guards.user_session().user_id
    ended = people.end_sessions(db.session(), guards.actor(), person)
    db.session.commit()
    if own:
        return redirect(url_for("sessions.sign_in"))
    return _back(person, f"{_some(ended, 'session')} of {person.name} ended.")


def reset_password(user_id: int) -> Page:
    """A new password, shown once."""
    person, form = people.get(db.session(), user_id), SeenVersionForm()
    if request.method == "GET":
        form.seen_version.data = people.password_version(person)
        return _page("reset_password", person, form)
    try:
        password = people.new_password(db.session(), guards.actor(), person, seen=form.seen_version.data)
    except Stale as stale:
        form.seen_version.data = people.password_version(person)
        form.form_errors = [str(stale)]
        return _page("reset_password", person, form), 409
    db.session.commit()
    return shown_once(person, password, title=f"{person.name} has a new password")


def remove_second_factor(user_id: int) -> Page:
    """Take away the second factor of somebody who has lost app and recovery codes."""
    person = people.get(db.session(), user_id)
    if request.method == "GET":
        return _page("remove_second_factor", person, EmptyForm())
    own = person.id == guards.user_session().user_id
    second_factor.remove(db.session(), guards.actor(), person)
    db.session.commit()
    if own:
        return redirect(url_for("sessions.sign_in"))
    return _back(person, f"{person.name} has no second factor any more, and can set one up again.")


def delete(user_id: int) -> Page:
    """What goes with the account, what becomes of the runners they created, and the button."""
    person, form = people.get(db.session(), user_id), DeletePersonForm()
    if request.method == "GET":
        return _page("delete", person, form)
    if (form.typed.data or "").strip() != person.username:
        form.typed.errors = [f"Type {person.username} exactly, so that nobody is deleted by mistake."]
        return _page("delete", person, form), 422
    name = person.name
    try:
        created = {each.value: each for each in Runners}.get(form.created.data or "", Runners.KEEP)
        person_deletion.delete_person(
            db.session(), guards.actor(), person, created=created, leave_groups=bool(form.leave_groups.data)
        )
    except Invalid as invalid:
        return _refused("delete", person, form, invalid)
    db.session.commit()
    flash(f"{name} is deleted. The trail keeps what they did.")
    return redirect(url_for("people.index"))


def shown_once(person: User, password: str, *, title: str) -> Response:
    """The answer with somebody's new password; nothing stores it."""
    page = {"person": person, "password": password, "title": title, "scope": guards.scope()}
    return unstored(render_template("people/password.html", **page))


def _page(act: str, person: User, form: PortalForm) -> str:
    """The page of an act, with all that such a page tells of the person."""
    session = db.session()
    facts: dict[str, Any] = {
        "sessions": len(user_sessions.of_person(session, person, session_limits())),
        "runners": person_facts.count_runners(session, person),
        "access_tokens": access_token_lists.count_good(session, person, now()),
        "enrolment_keys": len(enrolment_key_lists.of_person(session, person)),
        "needed": people.is_needed(session, person),
        "myself": person.id == guards.user_session().user_id,
        "second_factor": person_facts.has_second_factor(session, person),
    }
    if act == "delete":
        facts |= {
            "roles": person_facts.roles(session, person),
            "owned": person_facts.last_owner_of(session, person),
            "identities": person_facts.identities(session, person),
            "at_once": AT_ONCE,
        }
    return render_template(f"people/{act}.html", scope=guards.scope(), person=person, form=form, **facts)


def _refused(act: str, person: User, form: PortalForm, invalid: Invalid) -> tuple[str, int]:
    form.refuse(invalid)
    page = _page(act, person, form)
    db.session.rollback()
    refused_acts.note(invalid)
    return page, 422


def _back(person: User, said: str) -> BaseResponse:
    flash(said)
    return redirect(url_for("people.show", user_id=person.id))


def _and_sessions(ended: int) -> str:
    return f"; {_some(ended, 'session')} ended" if ended else ""


def _some(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def mount(blueprint: Blueprint) -> None:
    """Give the people's blueprint all acts."""
    acts = (block, unblock, administrator, end_sessions, reset_password, remove_second_factor, delete)
    for act in acts:
        address = f"/<int:user_id>/{act.__name__.replace('_', '-')}"
        blueprint.add_url_rule(address, act.__name__, act, methods=["GET", "POST"])
