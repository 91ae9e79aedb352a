"""The pages of a runner's tokens, the same for every scope: shown once and connecting, reset, ended early."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from portal.addresses import url_in
from portal.database import db, now
from portal.domain.errors import AlreadyIssued, NotFound, Stale
from portal.domain.machines import runner_managers
from portal.domain.runners import instructions, runner_status, runner_tokens, token_life
from portal.domain.runners.runner_status import Status
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.models import Runner, RunnerToken
from portal.requests import portal_url
from portal.web import guards
from portal.web.forms import ResetForm, new_key
from portal.web.refreshing import STOP_POLLING
from portal.web.secret_pages import unstored

Page = str | BaseResponse | tuple[str, int]
A_WHILE = timedelta(seconds=60)  # after that the created page says what may be wrong


def already_issued(repeated: AlreadyIssued) -> BaseResponse:
    """To the runner that the same form has made before, with a sentence that says so."""
    db.session.rollback()
    return _back_to(repeated.runner_id, str(repeated))


def token_page(issued: IssuedRunner, *, title: str) -> Response:
    """The only page that ever holds a token: the answer to the POST that made it, stored nowhere."""
    url = portal_url()
    page = render_template(
        "runners/created.html",
        scope=guards.scope(),
        runner=issued.runner,
        token=issued.token,
        expires_at=issued.record.expires_at,
        title=title,
        sections=instructions.sections(url=url, token=issued.token),
        reachable=instructions.reachable_from_elsewhere(url),
        url=url,
        connection=_connection(issued.runner),
    )
    return unstored(page)


def connection(runner_id: int) -> Response:
    """The live line of the created page. 204 while nothing has changed, 286 when it is online."""
    runner = guards.own_runner(runner_id)
    state = _connection(runner)
    if request.args.get("seen") == state["state"]:
        return Response(status=204)
    page = render_template(
        "runners/_connection.html",
        runner=runner,
        scope=guards.scope(),
        connection=state,
        new_key=new_key,
    )
    return make_response(page, STOP_POLLING if state["step"] == "online" else 200)


def _connection(runner: Runner) -> dict[str, Any]:
    """How far the newest machine has come: waiting, registered, online."""
    moment = now()
    token = runner_tokens.last_issued(db.session(), runner)
    manager = runner_managers.newest_with_token(db.session(), runner, token)
    step = "waiting"
    if manager is not None:
        online = runner_status.of_manager(manager, moment) is Status.ONLINE
        step = "online" if online else "registered"
    late = step != "online" and moment - token.created_at > A_WHILE
    state = f"{step}-{'late' if late else 'soon'}-{manager.system_xid if manager else ''}"
    return {"step": step, "late": late, "manager": manager, "state": state, "token": token}


def reset_token(runner_id: int) -> Page:
    """What a reset does, and the button; sending it answers with the token page."""
    runner = guards.own_runner(runner_id)
    form = ResetForm()
    if request.method == "GET":
        return _reset_page(runner, form)
    try:
        issued = runner_tokens.reset_token(
            db.session(), guards.actor(), runner, seen_token_id=form.seen(), request_key=form.key()
        )
    except AlreadyIssued as repeated:
        return already_issued(repeated)
    except Stale as stale:
        db.session.rollback()
        return _reset_page(runner, ResetForm(formdata=None), refusal=str(stale)), 409
    db.session.commit()
    return token_page(issued, title=f"{issued.runner.title} has a new token")


def _reset_page(runner: Runner, form: ResetForm, refusal: str = "") -> str:
    form.seen_token_id.data = str(runner_tokens.last_issued(db.session(), runner).id)
    count = runner_managers.count(db.session(), runner)
    return render_template(
        "runners/reset_token.html",
        scope=guards.scope(),
        runner=runner,
        form=form,
        managers=count,
        life=token_life.of_runner_tokens(db.session(), runner),
        refusal=refusal,
    )


def end_token(runner_id: int, token_id: int) -> Page:
    """Which machines use exactly this token, and the button that ends it before its time."""
    runner, session = guards.own_runner(runner_id), db.session()
    if request.method == "GET":
        return _end_page(runner, token_id)
    try:
        ended = runner_tokens.end_token(session, guards.actor(), runner, token_id)
    except Stale as stale:
        session.rollback()
        return _back_to(runner_id, str(stale))
    db.session.commit()
    flash(f"The token {ended.short} has ended.")
    return redirect(url_in(guards.scope(), "runners.show", runner_id=runner_id))


def _end_page(runner: Runner, token_id: int) -> Page:
    session = db.session()
    token = session.get(RunnerToken, token_id)
    if token is None or token.runner_id != runner.id:
        raise NotFound("This runner has no such token.")
    if not token.is_live(now()):
        return _back_to(runner.id, "This token has ended already. No machine can use it.")
    machines_of_it, total = token_life.machines_with(session, token)
    return render_template(
        "runners/end_token.html",
        scope=guards.scope(),
        runner=runner,
        token=token,
        managers=machines_of_it,
        total=total,
        others=runner_tokens.count_family(session, runner) - 1,
    )


def _back_to(runner_id: int, warning: str) -> BaseResponse:
    flash(warning, "warning")
    return redirect(url_in(guards.scope(), "runners.show", runner_id=runner_id), 303)


def mount(blueprint: Blueprint) -> None:
    """Give a scope's blueprint the pages of its runners' tokens."""
    both = ["GET", "POST"]
    one = "/<int:runner_id>"
    blueprint.add_url_rule(f"{one}/connection", "connection", connection)
    blueprint.add_url_rule(f"{one}/reset-token", "reset_token", guards.recently(reset_token), methods=both)
    blueprint.add_url_rule(f"{one}/tokens/<int:token_id>/end", "end_token", guards.recently(end_token), methods=both)
