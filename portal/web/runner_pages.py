"""The runner pages, the same for every scope: list, new, created, show, edit, pause, reset token, delete."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from portal.addresses import url_in
from portal.database import db, now
from portal.domain import (
    audit,
    instructions,
    runner_creation,
    runner_lists,
    runner_managers,
    runner_settings,
    runner_status,
    runner_tokens,
    runners,
    token_life,
)
from portal.domain.errors import AlreadyIssued, Invalid, NotAllowed, NotFound, Stale
from portal.domain.permissions import Action
from portal.domain.runner_lists import SORTS, RunnerFilter
from portal.domain.runner_status import Status
from portal.domain.runner_tokens import IssuedRunner
from portal.domain.scopes import of_runner
from portal.models import RegistrationType, Runner, RunnerToken, RunnerType
from portal.requests import portal_url
from portal.web import guards, registration_pages
from portal.web.errors import STATUS
from portal.web.forms import EditRunnerForm, EmptyForm, ResetForm, RunnerForm
from portal.web.times import duration

Page = str | BaseResponse | tuple[str, int]
SHOWN_MANAGERS = 200
SHOWN_EVENTS = 10
A_WHILE = timedelta(seconds=60)  # after that the created page says what may be wrong
FILTERS = (
    "status",
    "runner_type",
    "paused",
    "tag",
    "creator",
    "token",
    "registration",
    "search",
    "inherited",
    "sort",
)
REGISTRATIONS = {"token": RegistrationType.REGISTRATION_TOKEN, "person": RegistrationType.AUTHENTICATED_USER}
STOP_POLLING = 286  # htmx's word for "do not ask again"


def index() -> Response:
    """The scope's runners, and its registration token for those who may register with it."""
    scope, session = guards.scope(), db.session()
    wanted, card = _filter_from_address(), registration_pages.card(scope)
    page = render_template(
        "runners/index.html",
        scope=scope,
        wanted=wanted,
        page=runner_lists.page(
            session, scope, wanted, after=request.args.get("after"), before=request.args.get("before")
        ),
        counts=runner_lists.counts(session, scope, wanted),
        tags=runner_lists.tags_in(session, scope),
        creators=runner_lists.creators_in(session, scope),
        due=runner_lists.count_due(session, scope),
        registrations=REGISTRATIONS,
        sorts=SORTS,
        kept=_kept(),
        form=EmptyForm(),
        card=card,
    )
    return registration_pages.unstored(page) if card.text else make_response(page)


def _kept() -> dict[str, list[str]]:
    """The filters in the address as they stand there, for links that keep them; nothing else goes into a link."""
    return {name: values for name, values in request.args.lists() if name in FILTERS}


def _filter_from_address() -> RunnerFilter:
    """The filter in the address; values that mean nothing count as not set."""
    args = request.args
    kinds = {f"{kind.name.lower()}_type": kind for kind in RunnerType}
    statuses = {status.value: status for status in Status}
    sort = args.get("sort", "")
    return RunnerFilter(
        status=statuses.get(args.get("status", "")),
        type=kinds.get(args.get("runner_type", "")),
        paused={"true": True, "false": False}.get(args.get("paused", "")),
        tags=tuple(tag for tag in args.getlist("tag") if tag)[:10],
        creator=args.get("creator", "")[:255],
        due=args.get("token") == "due",
        registration=REGISTRATIONS.get(args.get("registration", "")),
        words=args.get("search", "").replace("\0", "")[:255],
        inherited=args.get("inherited") == "true",
        sort=sort if sort in SORTS else SORTS[0],
    )


def new() -> Page:
    """The form for a new runner; sending it answers with the created page."""
    scope, form = guards.scope(), RunnerForm()
    runner_creation.require_may_create(db.session(), guards.actor(), scope)
    if request.method == "GET":
        return _new_page(form)
    try:
        issued = runners.create_runner(db.session(), guards.actor(), scope, form.settings(), request_key=form.key())
    except Invalid as invalid:
        form.refuse(invalid)
        return _new_page(form), STATUS[type(invalid)]
    except AlreadyIssued as repeated:
        return _already_issued(repeated)
    db.session.commit()
    return _token_page(issued, title=f"{issued.runner.title} is ready to connect")


def _new_page(form: RunnerForm) -> str:
    scope = guards.scope()
    life = token_life.of_new_runners(db.session(), scope)
    return render_template("runners/new.html", scope=scope, form=form, life=life)


def _already_issued(repeated: AlreadyIssued) -> BaseResponse:
    db.session.rollback()
    return _back_to(repeated.runner_id, str(repeated))


def _token_page(issued: IssuedRunner, *, title: str) -> Response:
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
    response = make_response(page)
    response.headers["Cache-Control"] = "no-store"
    return response


def show(runner_id: int) -> str:
    """Everything about one runner."""
    runner, session = _runner(runner_id), db.session()
    events = list(session.scalars(audit.of_runner(runner).limit(SHOWN_EVENTS)))
    return render_template(
        "runners/show.html",
        scope=guards.scope(),
        runner=runner,
        status=runner_status.of_runner(runner, now()),
        short=runner_lists.short_tokens(session, [runner.id]).get(runner.id, ""),
        writable=guards.allowed(Action.WRITE_RUNNERS, of_runner(runner)),
        trusted=guards.allowed(Action.READ_RUNNERS, of_runner(runner)),
        life=token_life.of_runner_tokens(session, runner),
        events=events,
        form=EmptyForm(),
        **_machines(runner),
    )


def machines(runner_id: int) -> str:
    """The part of the page that refreshes itself: the runner's machines and status."""
    runner = _runner(runner_id)
    trusted = guards.allowed(Action.READ_RUNNERS, of_runner(runner))
    status = runner_status.of_runner(runner, now())
    return render_template(
        "runners/_machines.html",
        scope=guards.scope(),
        runner=runner,
        status=status,
        trusted=trusted,
        writable=guards.allowed(Action.WRITE_RUNNERS, of_runner(runner)),
        refreshed=True,
        **_machines(runner),
    )


def _machines(runner: Runner) -> dict[str, Any]:
    session, moment = db.session(), now()
    found = runner_managers.of_runner_newest_first(session, runner, SHOWN_MANAGERS)
    return {
        "managers": [(manager, runner_status.of_manager(manager, moment)) for manager in found],
        "managers_total": runner_managers.count(session, runner),
        "tokens": runner_managers.tokens_in_use(session, found),
        "family": runner_tokens.family(session, runner),
        "due_tokens": token_life.due_of_runner(session, runner),
        "is_due": token_life.is_due,
        "forgotten_after": runner.machines_forgotten_after or int(runner_status.STALE_AFTER.total_seconds()),
    }


def connection(runner_id: int) -> Response:
    """The live line of the created page. 204 while nothing has changed, 286 when it is online."""
    runner = _own_runner(runner_id)
    state = _connection(runner)
    if request.args.get("seen") == state["state"]:
        return Response(status=204)
    page = render_template("runners/_connection.html", runner=runner, scope=guards.scope(), connection=state)
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


def edit(runner_id: int) -> Page:
    """Change a runner's settings."""
    runner = _own_runner(runner_id)
    form = EditRunnerForm(data=RunnerForm.values_of(runner_settings.settings_of(runner)))
    if request.method == "GET":
        return _edit_page(runner, form)
    try:
        changed = runners.update_runner(
            db.session(), guards.actor(), runner, form.settings(), seen=form.seen_version.data or None
        )
    except Invalid as invalid:
        form.refuse(invalid)
        return _edit_page(runner, form), 422
    except Stale as stale:
        db.session.rollback()
        form.seen_version.data = ""  # the next sending is on what stands now
        return _edit_page(runner, form, refusal=str(stale)), 409
    remark = _on_token_life(runner)
    db.session.commit()
    flash(f"Saved. {remark}".strip() if changed else "Nothing was different, so nothing changed.")
    return redirect(url_in(guards.scope(), "runners.show", runner_id=runner.id))


def _on_token_life(runner: Runner) -> str:
    """What to know of a life that is longer than the runner's scopes allow; it is kept, and the shorter counts."""
    own, life = runner.token_expiration_interval, token_life.of_runner_tokens(db.session(), runner)
    if own is None or life is None or life.by is None or own <= life.seconds:
        return ""
    return (
        f"Its tokens live {duration(life.seconds)}, because {life.by.title} says so; the longer "
        f"{duration(own)} of the runner do not count."
    )


def _edit_page(runner: Runner, form: EditRunnerForm, refusal: str = "") -> str:
    form.seen_version.data = form.seen_version.data or runners.version_of(runner)
    return render_template(
        "runners/edit.html",
        scope=guards.scope(),
        runner=runner,
        form=form,
        life=token_life.of_new_runners(db.session(), of_runner(runner)),
        refusal=refusal,
    )


def pause(runner_id: int) -> BaseResponse:
    """Give the runner no more jobs."""
    return _set_paused(runner_id, True)


def resume(runner_id: int) -> BaseResponse:
    """Give the runner jobs again."""
    return _set_paused(runner_id, False)


def _set_paused(runner_id: int, paused: bool) -> BaseResponse:
    runner = _own_runner(runner_id)
    runners.set_paused(db.session(), guards.actor(), runner, paused)
    db.session.commit()
    flash(f"{runner.title} takes no new jobs." if paused else f"{runner.title} takes jobs again.")
    if request.form.get("back") == "list":
        return redirect(url_in(guards.scope(), "runners.index", **_kept()))
    return redirect(url_in(guards.scope(), "runners.show", runner_id=runner.id))


def reset_token(runner_id: int) -> Page:
    """What a reset does, and the button; sending it answers with the token page."""
    runner = _own_runner(runner_id)
    form = ResetForm()
    if request.method == "GET":
        return _reset_page(runner, form)
    try:
        issued = runner_tokens.reset_token(
            db.session(), guards.actor(), runner, seen_token_id=form.seen(), request_key=form.key()
        )
    except AlreadyIssued as repeated:
        return _already_issued(repeated)
    except Stale as stale:
        db.session.rollback()
        return _reset_page(runner, ResetForm(formdata=None), refusal=str(stale)), 409
    db.session.commit()
    return _token_page(issued, title=f"{issued.runner.title} has a new token")


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
    runner, session = _own_runner(runner_id), db.session()
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
        others=len(runner_tokens.family(session, runner)) - 1,
    )


def _back_to(runner_id: int, warning: str) -> BaseResponse:
    flash(warning, "warning")
    return redirect(url_in(guards.scope(), "runners.show", runner_id=runner_id), 303)


def delete(runner_id: int) -> Page:
    """What will stop working, and the button."""
    runner = _own_runner(runner_id)
    if request.method == "GET":
        count = runner_managers.count(db.session(), runner)
        found = runner_managers.of_runner_newest_first(db.session(), runner, 10)
        return render_template(
            "runners/delete.html",
            scope=guards.scope(),
            runner=runner,
            total=count,
            managers=found,
            form=EmptyForm(),
        )
    title = runner.title
    runners.delete_runner(db.session(), guards.actor(), runner)
    db.session.commit()
    flash(f"{title} is deleted.")
    return redirect(url_in(guards.scope(), "runners.index"))


def _runner(runner_id: int) -> Runner:
    runner = runner_lists.find(db.session(), guards.scope(), runner_id)
    if runner is None:
        raise NotFound("There is no such runner here. It may have been deleted, or it belongs somewhere else.")
    return runner


def _own_runner(runner_id: int) -> Runner:
    runner = _runner(runner_id)
    owner = of_runner(runner)
    try:
        guards.require(Action.WRITE_RUNNERS, owner)
    except NotFound:  # it is inherited: the person sees the runner, though not the scope that owns it
        raise NotAllowed(
            f"This runner belongs to {owner.title}: those who look after its runners may do that."
        ) from None
    return runner


def mount(blueprint: Blueprint) -> None:
    """Give a scope's blueprint all runner pages."""
    both = ["GET", "POST"]
    one = "/<int:runner_id>"
    blueprint.add_url_rule("", "index", index)
    blueprint.add_url_rule("/new", "new", new, methods=both)
    blueprint.add_url_rule(one, "show", show)
    blueprint.add_url_rule(f"{one}/machines", "machines", machines)
    blueprint.add_url_rule(f"{one}/connection", "connection", connection)
    blueprint.add_url_rule(f"{one}/edit", "edit", edit, methods=both)
    blueprint.add_url_rule(f"{one}/pause", "pause", pause, methods=["POST"])
    blueprint.add_url_rule(f"{one}/resume", "resume", resume, methods=["POST"])
    blueprint.add_url_rule(f"{one}/reset-token", "reset_token", reset_token, methods=both)
    blueprint.add_url_rule(f"{one}/delete", "delete", delete, methods=both)
    blueprint.add_url_rule(f"{one}/tokens/<int:token_id>/end", "end_token", end_token, methods=both)
