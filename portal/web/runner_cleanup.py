"""The clean-up of stale runners: preview, switch, protect list, deletion at once, and what has been deleted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request
from werkzeug.wrappers import Response

from portal.addresses import url_in
from portal.database import db, now
from portal.domain import permissions
from portal.domain.errors import BadRequest, Invalid
from portal.domain.permissions import Action
from portal.domain.runners import runner_cleanup
from portal.domain.runners.runner_cleanup import Criteria
from portal.domain.scopes import ScopeKind, of_runner
from portal.web import deletions, guards, scoped
from portal.web.forms import CleanUpForm, ProtectForm

Page = str | Response | tuple[str, int]
SHOWN = 100
FIRST_YEAR = 2000  # of a list that somebody has seen; no time reckons back from the year 1


def show() -> Page:
    """What is settled, and with values in the address which runners would go by them."""
    if "days" not in request.args:
        return _page()
    form = CleanUpForm(request.args)
    try:
        criteria = form.criteria()
    except Invalid as invalid:
        form.refuse(invalid)
        return _page(form=form), 422
    return _page(form=form, criteria=criteria)


def _page(
    form: CleanUpForm | None = None, criteria: Criteria | None = None, protect: ProtectForm | None = None
) -> str:
    session, scope = db.session(), guards.scope()
    *above, own = runner_cleanup.settled(session, scope)
    found = runner_cleanup.preview(session, scope, criteria, now(), SHOWN) if criteria else None
    kept = runner_cleanup.protected(session, scope, SHOWN)
    named = [*(found.runners if found else ()), *kept.runners]
    permissions.remember_roles(session, guards.actor(), map(of_runner, named))
    return render_template(
        "runner_cleanup/show.html",
        scope=scope,
        own=own,
        soon="within ten minutes" if own.is_due(now()) else "within about an hour",
        above=[each for each in above if each.criteria],
        form=form or CleanUpForm(None, data=CleanUpForm.values_of(own.criteria)),
        protect=protect or ProtectForm(None),
        criteria=criteria,
        found=found,
        protected=kept,
        reports=runner_cleanup.reports(session, scope),
        batch=runner_cleanup.BATCH,
        name_of=runner_cleanup.name_of,
        writable=guards.allowed(Action.CLEAN_UP_RUNNERS),
    )


def change() -> Page:
    """Turn the clean-up on, or save other values."""
    form = CleanUpForm()
    try:
        criteria = form.criteria()
        changed = runner_cleanup.change(db.session(), guards.actor(), guards.scope(), criteria)
    except Invalid as invalid:
        db.session.rollback()
        form.refuse(invalid)
        return _page(form=form), 422
    db.session.commit()
    flash(f"Saved: stale runners go after {criteria.days} days." if changed else "Nothing was different.")
    return _back()


def turn_off() -> Response:
    """Delete no stale runners any more."""
    runner_cleanup.change(db.session(), guards.actor(), guards.scope(), None)
    db.session.commit()
    flash("The clean-up is off. Stale runners stay.")
    return _back()


def delete_now() -> Page:
    """Which runners go at once, and the button; sending it deletes those of them that are stale still."""
    guards.require(Action.CLEAN_UP_RUNNERS)
    session, scope = db.session(), guards.scope()
    if request.method == "GET":
        return _delete_page()
    form = CleanUpForm()
    try:
        gone = runner_cleanup.delete_stale(session, guards.actor(), scope, form.criteria(), _seen_at())
    except Invalid as invalid:
        raise BadRequest(str(invalid)) from None
    db.session.commit()
    if gone:
        what = f"{len(gone)} stale runner{' is' if len(gone) == 1 else 's are'} deleted"
        flash(deletions.deleted(what, gone[0].deletion_id))
    else:
        flash("Nothing was deleted: none of those runners is stale any more.", "warning")
    return _back()


def _delete_page() -> str:
    scope, moment = guards.scope(), now()
    own = runner_cleanup.settled(db.session(), scope)[-1]
    form = CleanUpForm(request.args if "days" in request.args else None, data=CleanUpForm.values_of(own.criteria))
    try:
        criteria = form.criteria()
    except Invalid as invalid:
        raise BadRequest(str(invalid)) from None
    return render_template(
        "runner_cleanup/delete_now.html",
        scope=scope,
        kept=deletions.kept(),
        form=form,
        criteria=criteria,
        found=runner_cleanup.preview(db.session(), scope, criteria, moment, SHOWN),
        seen_at=moment.isoformat(),
        batch=runner_cleanup.BATCH,
        name_of=runner_cleanup.name_of,
    )


def _seen_at() -> datetime:
    """When the list was made on which the person decided: nothing goes that was not stale then."""
    try:
        moment = datetime.fromisoformat(request.form.get("seen_at", ""))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadRequest("This form is not complete. Open the page again.")
    if moment.year < FIRST_YEAR:
        raise BadRequest("The list in this form is too old. Open the page again.")
    return moment


def protect() -> Page:
    """Put a runner on the protect list."""
    form = ProtectForm()
    try:
        runner, changed = runner_cleanup.set_protected(
            db.session(), guards.actor(), guards.scope(), form.number(), kept=True
        )
    except Invalid as invalid:
        db.session.rollback()
        form.refuse(invalid)
        return _page(protect=form), 422
    db.session.commit()
    name = runner_cleanup.name_of(runner)
    flash(f"{name} is protected: no clean-up deletes it." if changed else f"{name} is protected already.")
    return _back()


def unprotect(runner_id: int) -> Page:
    """Take a runner off the protect list."""
    try:
        runner, _ = runner_cleanup.set_protected(db.session(), guards.actor(), guards.scope(), runner_id, kept=False)
    except Invalid as invalid:
        db.session.rollback()
        form = ProtectForm(None)
        form.refuse(invalid)
        return _page(protect=form), 422
    db.session.commit()
    flash(f"{runner_cleanup.name_of(runner)} is not protected any more.")
    return _back()


def _back() -> Response:
    """To the page, with the preview that the person came from."""
    kept: dict[str, Any] = {name: request.args[name] for name in ("days", "legacy_only") if name in request.args}
    return redirect(url_in(guards.scope(), "cleanup.show", **kept))


def _room(kind: ScopeKind) -> Blueprint:
    blueprint = scoped.room(kind, "cleanup", Action.READ_RUNNERS)
    blueprint.add_url_rule("", "show", show)
    blueprint.add_url_rule("", "change", guards.recently(change), methods=["POST"])
    blueprint.add_url_rule("/turn-off", "turn_off", guards.recently(turn_off), methods=["POST"])
    blueprint.add_url_rule("/delete-now", "delete_now", guards.recently(delete_now), methods=["GET", "POST"])
    blueprint.add_url_rule("/protected", "protect", protect, methods=["POST"])
    blueprint.add_url_rule("/protected/<int:runner_id>/remove", "unprotect", unprotect, methods=["POST"])
    return blueprint


blueprints = [_room(ScopeKind.INSTANCE), _room(ScopeKind.GROUP)]
