"""What was deleted and can be restored: the list, undoing, and deleting for good before the time is over."""

from __future__ import annotations

from datetime import timedelta

from flask import Blueprint, flash, redirect, render_template, request, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response
from wtforms import StringField

from portal.addresses import scope_url, url_in
from portal.database import db
from portal.domain.deletions import deletion_lists, deletion_purge, restores
from portal.domain.deletions.deletion_lists import Entry
from portal.domain.deletions.restores import Restored
from portal.domain.errors import NOTHING_HERE, Invalid, NotFound, Stale
from portal.domain.groups import groups
from portal.domain.scopes import Scope, of_runner
from portal.models import Runner
from portal.requests import settings
from portal.web import guards
from portal.web.errors import STATUS
from portal.web.forms import ConfirmForm, PortalForm
from portal.web.times import duration

Page = str | Response | tuple[str, int]
blueprint = Blueprint("deletions", __name__, url_prefix="/-/deleted")
blueprint.before_request(guards.signed_in)


class RestoreForm(PortalForm):
    path = StringField("Another path")


def kept() -> timedelta:
    """For how long what was deleted can be restored."""
    return settings().deleted_kept


def deleted(what: str, deletion_id: int | None) -> Markup:
    """What is said after the deletion with this id, with the way to undo it."""
    undo = url_for("deletions.restore", deletion_id=deletion_id)
    time = duration(int(kept().total_seconds()))
    return Markup('{} and can be restored for {}. <a href="{}">Undo</a>').format(what, time, undo)


def restorable_in(scope: Scope) -> int:
    """How many deleted runners of the scope and below the signed-in person may restore."""
    return deletion_lists.count_runners(db.session(), guards.actor(), scope, kept())


def anything_restorable() -> bool:
    """Whether there is anything that the signed-in person may restore."""
    return deletion_lists.exists_any(db.session(), guards.actor(), kept())


@blueprint.get("")
def index() -> str:
    """The acts of deleting that the person may undo, the newest first."""
    words = request.args.get("search", "").strip()[:255]
    page = deletion_lists.page(
        db.session(), guards.actor(), kept(), words=words, after=_number("after"), before=_number("before")
    )
    return render_template("deletions/index.html", page=page, words=words, kept=kept())


def _number(name: str) -> int | None:
    text = request.args.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


@blueprint.route("/<int:deletion_id>/restore", methods=["GET", "POST"])
def restore(deletion_id: int) -> Page:
    """What comes back and what does not, and the button."""
    return _restore(deletion_id, None)


@blueprint.route("/<int:deletion_id>/runners/<int:deleted_runner_id>/restore", methods=["GET", "POST"])
def restore_runner(deletion_id: int, deleted_runner_id: int) -> Page:
    """The same for one runner of an act that took several."""
    return _restore(deletion_id, deleted_runner_id)


def _restore(deletion_id: int, runner_id: int | None) -> Page:
    session, actor, form = db.session(), guards.actor(), RestoreForm()
    entry = deletion_lists.find(session, actor, deletion_id, kept())
    if request.method == "GET":
        return _restore_page(entry, form, runner_id)
    path = (form.path.data or "").strip() or None
    try:
        back = restores.restore(session, actor, deletion_id, kept(), path=path, runner_id=runner_id)
    except Invalid as invalid:
        db.session.rollback()
        entry = deletion_lists.find(session, actor, deletion_id, kept())
        form.refuse(invalid)
        return _restore_page(entry, form, runner_id), STATUS[type(invalid)]
    except Stale as stale:
        db.session.rollback()
        entry = deletion_lists.find(session, actor, deletion_id, kept())
        return _restore_page(entry, form, runner_id, refusal=str(stale)), STATUS[Stale]
    said, address = _said(back), _address(back)
    db.session.commit()
    flash(said)
    return redirect(address, 303)


def _restore_page(entry: Entry, form: RestoreForm, runner_id: int | None, refusal: str = "") -> str:
    session, actor = db.session(), guards.actor()
    runners = _runners(entry, runner_id)
    return render_template(
        "deletions/restore.html",
        entry=entry,
        form=form,
        refusal=refusal,
        runners=runners,
        only=runners[0] if runner_id is not None else None,
        first=restores.first_to_undo(session, actor, entry),
        in_the_way={runner.id: restores.in_the_way(deletion_lists.owner_of(runner)) for runner in runners},
        where={runner.id: _where(runner) for runner in runners},
        taken=not entry.of_runners and restores.path_is_taken(session, entry.deletion),
    )


def _runners(entry: Entry, runner_id: int | None) -> list[Runner]:
    runners = deletion_lists.runners_of(db.session(), guards.actor(), entry.deletion, runner_id=runner_id)
    if runner_id is not None and (not entry.of_runners or not runners):
        raise NotFound(NOTHING_HERE)
    return runners


def _where(runner: Runner) -> str:
    """Where the runner was; what is deleted itself is named as it was called."""
    owner = deletion_lists.owner_of(runner)
    if owner is None:
        return "the instance"
    return groups.before_deletion(owner.full_path)


def _said(back: Restored) -> str:
    if back.scope is not None:
        return f"{back.scope.full_path} is restored with everything that was deleted with it."
    one = len(back.runners) == 1
    what = back.runners[0].title if one else f"{len(back.runners)} runners"
    left = f" {back.left} could not be, because what they belong to is deleted still." if back.left else ""
    return f"{what} {'is' if one else 'are'} restored. {'Its' if one else 'Their'} machines may connect again.{left}"


def _address(back: Restored) -> str:
    if back.scope is not None:
        return scope_url(back.scope)
    if len(back.runners) == 1:
        return url_in(of_runner(back.runners[0]), "runners.show", runner_id=back.runners[0].id)
    return url_for("deletions.index")


@blueprint.route("/<int:deletion_id>/delete", methods=["GET", "POST"])
@guards.recently
def delete(deletion_id: int) -> Page:
    """What nobody can restore any more afterwards, and the button."""
    session, actor, form = db.session(), guards.actor(), ConfirmForm()
    entry = deletion_lists.find(session, actor, deletion_id, kept())
    if request.method == "GET":
        return render_template("deletions/delete.html", entry=entry, form=form)
    if (form.typed.data or "").strip() != entry.title.strip():
        form.typed.errors = [f"Type {entry.title} exactly, so that nothing is deleted by mistake."]
        return render_template("deletions/delete.html", entry=entry, form=form), 422
    title = entry.title
    deletion_purge.end(session, actor, deletion_id, kept())
    db.session.commit()
    flash(f"{title} cannot be restored any more.")
    return redirect(url_for("deletions.index"), 303)
