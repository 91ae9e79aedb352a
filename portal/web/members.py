"""The members of a group or project: the same pages for both."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from portal.addresses import url_in
from portal.database import db
from portal.domain.errors import Invalid
from portal.domain.groups import memberships
from portal.domain.permissions import Action
from portal.domain.scopes import ScopeKind
from portal.models import User
from portal.web import guards, scoped
from portal.web.forms import ROLES, MemberForm, read_role
from portal.web.numbers import number


def index() -> str:
    """Who has which role here, and where it comes from."""
    return _page(MemberForm())


def add() -> Response | tuple[str, int]:
    """Give somebody a role."""
    form = MemberForm()
    try:
        membership = memberships.add(
            db.session(), guards.actor(), guards.scope(), form.login.data or "", form.chosen_role()
        )
    except Invalid as invalid:
        form.refuse(invalid)
        return _page(form), 422
    db.session.commit()
    flash(f"{membership.user.name} is now {membership.role.name.lower()} here.")
    return _back()


def change(user_id: int) -> Response | tuple[str, int]:
    """Change a role that was given here."""
    try:
        membership = memberships.change_role(
            db.session(), guards.actor(), guards.scope(), user_id, read_role(request.form.get("role"))
        )
    except Invalid as invalid:
        return _refused(invalid)
    db.session.commit()
    flash(f"{membership.user.name} is now {membership.role.name.lower()} here.")
    return _back()


def remove(user_id: int) -> Response | tuple[str, int]:
    """Take a role away, or leave."""
    person = db.session.get(User, user_id)
    try:
        memberships.remove(db.session(), guards.actor(), guards.scope(), user_id)
    except Invalid as invalid:
        return _refused(invalid)
    db.session.commit()
    if user_id == guards.actor().id:
        flash(f"You have left {guards.scope().title}.")
        return redirect(url_for("start.show"))
    flash(f"{person.name if person else 'The person'} has no role of their own here any more.")
    return _back()


def _page(form: MemberForm, refusal: str = "") -> str:
    scope = guards.scope()
    page = memberships.listed(db.session(), scope, after=number("after"), before=number("before"))
    return render_template("members/index.html", scope=scope, page=page, form=form, roles=ROLES, refusal=refusal)


def _refused(invalid: Invalid) -> tuple[str, int]:
    db.session.rollback()
    return _page(MemberForm(formdata=None), str(invalid)), 422


def _back() -> Response:
    return redirect(url_in(guards.scope(), "members.index"))


def _room(kind: ScopeKind) -> Blueprint:
    blueprint = scoped.room(kind, "members", Action.READ_MEMBERS)
    blueprint.add_url_rule("", "index", index)
    blueprint.add_url_rule("", "add", guards.recently(add), methods=["POST"])
    blueprint.add_url_rule("/<int:user_id>/role", "change", guards.recently(change), methods=["POST"])
    blueprint.add_url_rule("/<int:user_id>/remove", "remove", remove, methods=["POST"])
    return blueprint


blueprints = [_room(ScopeKind.GROUP), _room(ScopeKind.PROJECT)]
