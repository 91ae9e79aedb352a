"""Checks of a runner, the same for every scope: start one, watch what happens to it, stop it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse
from wtforms import HiddenField

from portal.addresses import url_in
from portal.database import db, now
from portal.domain.errors import NOTHING_HERE, Invalid, NotFound, Stale
from portal.domain.jobs import check_progress, job_checks, jobs
from portal.domain.permissions import Action
from portal.domain.runners import runner_access
from portal.models import Job, Runner, RunnerManager
from portal.requests import job_vault
from portal.web import guards, job_facts, job_log_pages
from portal.web.forms import KeyedForm, new_key
from portal.web.refreshing import STOP_POLLING
from portal.web.times import duration

ONE = "/<int:runner_id>/checks/<int:check_id>"


class CheckForm(KeyedForm):
    """A button; `machine` is the number of the one that the check is for, empty where it is for any."""

    machine = HiddenField()


def start(runner_id: int) -> BaseResponse:
    """Let the runner run a small script, and go to where that is seen."""
    runner, form = guards.own_runner(runner_id, Action.CHECK_RUNNERS), CheckForm()
    try:
        job = _start(runner, form)
    except Invalid as invalid:
        db.session.rollback()
        flash(str(invalid), "warning")
        return redirect(url_in(guards.scope(), "runners.show", runner_id=runner_id), 303)
    db.session.commit()
    return redirect(address(job), 303)


def _start(runner: Runner, form: CheckForm) -> Job:
    def check() -> Job:
        machine, key = _machine(form), form.key()
        return job_checks.check(db.session(), guards.actor(), runner, job_vault(), machine, request_key=key)

    try:
        return check()
    except Stale:  # the same form is being answered at this moment: its check is there now
        db.session.rollback()
        return check()


def _machine(form: CheckForm) -> RunnerManager | None:
    number = form.machine.data or ""
    if not number:
        return None
    found = db.session.get(RunnerManager, int(number)) if number.isdecimal() and len(number) < 19 else None
    if found is None:
        raise Invalid({"machine": ["This machine is not there any more. Check the runner instead."]})
    return found


def address(job: Job) -> str:
    """The page of a check, in the scope of the present page."""
    return url_in(guards.scope(), "runners.show_check", runner_id=job.checks_runner_id, check_id=job.id)


def find(runner_id: int, check_id: int) -> Job:
    """The check that an address names, for who looks after the runner. Raises NotFound.

    Who sees a runner because it is inherited sees nothing of its checks, as in the lists.
    """
    runner = guards.runner(runner_id)
    if not runner_access.may(db.session(), guards.actor(), Action.READ_RUNNERS, runner):
        raise NotFound(NOTHING_HERE)
    return job_checks.find_check(db.session(), runner, check_id)


def show(runner_id: int, check_id: int) -> str:
    """What happens to the check, and its log, both live."""
    job = find(runner_id, check_id)
    return render_template(
        "runners/check.html", log=job_log_pages.shown(job, address(job)), changed=False, **_live(job)
    )


def progress(runner_id: int, check_id: int) -> Response:
    """The live part of the page; 286 when nothing more will happen."""
    job = find(runner_id, check_id)
    live = _live(job)
    page = render_template("runners/_check.html", changed=request.args.get("seen") != live["seen"], **live)
    return make_response(page, STOP_POLLING if job.state.is_over else 200)


def _live(job: Job) -> dict[str, Any]:
    session, runner = db.session(), job.checks_runner
    assert runner is not None  # noqa: S101
    progress_ = check_progress.of(session, job, runner, now())
    seconds = progress_.seconds or 0
    return {
        "scope": guards.scope(),
        "runner": runner,
        "job": job,
        "facts": job_facts.facts(job, address, guards.scope()),
        "progress": progress_,
        "seen": f"{progress_.step.value}-{progress_.machine or ''}",
        "took": duration(round(seconds)) if seconds >= 1 else "less than a second",
        "meant": check_progress.machine_meant(session, job),
        "checkable": runner_access.may(session, guards.actor(), Action.CHECK_RUNNERS, runner),
        "new_key": new_key,
    }


def cancel(runner_id: int, check_id: int) -> BaseResponse:
    """Stop the check; `force` in the form does not wait for its machine."""
    job = find(runner_id, check_id)
    try:
        jobs.cancel(db.session(), guards.actor(), job, force=request.form.get("force") == "true")
    except Stale as stale:
        db.session.rollback()
        flash(str(stale), "warning")
    else:
        db.session.commit()
    return redirect(url_in(guards.scope(), "runners.show_check", runner_id=runner_id, check_id=check_id), 303)


def mount(blueprint: Blueprint) -> None:
    """Give a scope's blueprint these pages."""
    blueprint.add_url_rule("/<int:runner_id>/check", "check", start, methods=["POST"])
    blueprint.add_url_rule(ONE, "show_check", show)
    blueprint.add_url_rule(f"{ONE}/progress", "check_progress", progress)
    blueprint.add_url_rule(f"{ONE}/cancel", "cancel_check", cancel, methods=["POST"])
    job_log_pages.mount(blueprint, find, ONE)
