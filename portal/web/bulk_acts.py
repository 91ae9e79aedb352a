"""The pages of one act on many runners: what will happen, how far it is, and what became of it."""

from __future__ import annotations

import time

from flask import Blueprint, Response, current_app, flash, make_response, redirect, render_template, request, url_for
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from werkzeug.wrappers import Response as BaseResponse

from portal.database import db
from portal.domain import csv_lines
from portal.domain.bulk import bulk_acts, bulk_lists, bulk_preview
from portal.domain.deletions import deletion_lists
from portal.domain.errors import NotFound
from portal.models import BulkAct
from portal.requests import settings
from portal.web import guards
from portal.web.forms import EmptyForm
from portal.web.times import duration

WAIT_SHORTLY = text("SET LOCAL lock_timeout = '300ms'")  # a runner that somebody holds does not hold the answer
WAIT_A_MOMENT = text("SET LOCAL lock_timeout = '5s'")  # for the batch that is being done
AT_ONCE = 0.8  # seconds that the answer to the button may work itself; the rest is done beside the requests
SHOWN_REFUSALS = 200

blueprint = Blueprint("bulk_acts", __name__, url_prefix="/-/bulk")
blueprint.before_request(guards.signed_in)


@blueprint.get("")
def index() -> Response:
    """One's own acts of the last thirty days, the newest first; everybody's for an administrator."""
    text = request.args.get("after", "")
    after = int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None
    page = bulk_lists.page(db.session(), guards.actor(), after=after)
    scopes = {act.id: bulk_acts.scope_of(act) for act in page.acts}
    days = bulk_acts.REPORTS_KEPT.days
    answer = make_response(render_template("bulk_acts/index.html", page=page, scopes=scopes, days=days, after=after))
    answer.headers["Cache-Control"] = "no-store"  # it is another page a second later
    return answer


@blueprint.get("/<int:act_id>")
def show(act_id: int) -> Response:
    """What a draft would do, how far a started act is, or the report of one that is over."""
    act = bulk_acts.find(db.session(), guards.actor(), act_id)
    if act.started_at is None:
        return _page(act, "preview", found=bulk_preview.preview(db.session(), act), kept=_kept())
    if act.finished_at is None:
        return _page(act, "progress", percent=100 * act.done // max(act.total, 1))
    answer = _page(act, "report", refused=act.refused[:SHOWN_REFUSALS], undo=_undo(act))
    if "HX-Request" in request.headers:  # the page that watched the progress becomes the report
        answer.headers["HX-Refresh"] = "true"
    return answer


def _undo(act: BulkAct) -> int | None:
    """The deletion that the reader can undo still; None when it was undone, or is over."""
    try:
        kept = settings().deleted_kept
        return deletion_lists.find(db.session(), guards.actor(), act.deletion_id or 0, kept).deletion.id
    except NotFound:
        return None


def _kept() -> str:
    return duration(int(settings().deleted_kept.total_seconds()))


def _page(act: BulkAct, state: str, **more: object) -> Response:
    answer = make_response(
        render_template(
            f"bulk_acts/{state}.html",
            act=act,
            scope=bulk_acts.scope_of(act),
            wanted=bulk_acts.wanted_by(act),
            form=EmptyForm(),
            **more,
        )
    )
    answer.headers["Cache-Control"] = "no-store"  # it is another page a second later
    return answer


@blueprint.post("/<int:act_id>/start")
def start(act_id: int) -> BaseResponse:
    """Begin, and do what can be done at once; sending this again does nothing again."""
    bulk_acts.start(db.session(), guards.actor(), act_id)
    db.session.commit()
    _work(act_id)
    return redirect(url_for("bulk_acts.show", act_id=act_id), 303)


def _work(act_id: int) -> None:
    """Take batches for a moment. What fails here is started all the same, and is gone on with beside the requests."""
    until = time.monotonic() + AT_ONCE
    try:
        while time.monotonic() < until:
            db.session.execute(WAIT_SHORTLY)
            if not bulk_acts.take_batch(db.session(), act_id):
                break
            db.session.commit()
    except SQLAlchemyError as failure:
        current_app.logger.warning("a batch of the bulk act %d is tried again: %s", act_id, type(failure).__name__)
    db.session.rollback()


@blueprint.post("/<int:act_id>/stop")
def stop(act_id: int) -> BaseResponse:
    """Do no further runner."""
    db.session.execute(WAIT_A_MOMENT)
    try:
        stopped = bulk_acts.stop(db.session(), guards.actor(), act_id)
        db.session.commit()
    except OperationalError:
        db.session.rollback()
        flash("It is not stopped yet: one of the runners is held by somebody else. Try again.", "warning")
    else:
        if not stopped:
            flash("There was nothing to stop any more.")
    return redirect(url_for("bulk_acts.show", act_id=act_id), 303)


@blueprint.get("/<int:act_id>/refused")
def refused(act_id: int) -> Response:
    """The runners that were refused, with the reasons, as CSV."""
    act = bulk_acts.find(db.session(), guards.actor(), act_id)
    lines = [csv_lines.line(each) for each in [("runner", "name", "reason"), *act.refused]]
    answer = Response("".join(lines), content_type="text/csv; charset=utf-8")
    answer.headers["Content-Disposition"] = f'attachment; filename="refused-runners-{act.id}.csv"'
    return answer
