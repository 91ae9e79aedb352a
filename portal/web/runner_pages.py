"""The runner pages, the same for every scope: list, new, show, edit, pause, delete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from portal.addresses import url_in
from portal.database import db, now
from portal.domain import audit, permissions
from portal.domain.bulk import bulk_acts, bulk_lists
from portal.domain.errors import AlreadyIssued, Invalid, Stale
from portal.domain.jobs import job_lists, job_rules
from portal.domain.machines import refused_machines, runner_managers
from portal.domain.machines.refused_machines import TooOld
from portal.domain.permissions import Action
from portal.domain.runners import (
    runner_access,
    runner_creation,
    runner_lists,
    runner_projects,
    runner_search,
    runner_settings,
    runner_status,
    runner_tokens,
    runners,
    token_life,
)
from portal.domain.runners.runner_lists import SORTS, RunnerFilter
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_status import Status
from portal.domain.scopes import of_runner
from portal.models import RegistrationType, Runner, RunnerType, TokenOrigin
from portal.requests import registration_configured
from portal.web import (
    deletions,
    guards,
    registration_pages,
    runner_check_pages,
    runner_job_pages,
    runner_project_pages,
    runner_token_pages,
    stuck_job_pages,
)
from portal.web.errors import STATUS
from portal.web.forms import BulkForm, EditRunnerForm, EmptyForm, RunnerForm, new_key
from portal.web.runner_token_pages import already_issued, token_page
from portal.web.secret_pages import unstored
from portal.web.times import duration

Page = str | BaseResponse | tuple[str, int]
SHOWN_MANAGERS = 200
SHOWN_EVENTS = 10
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
    "rows",
)
MANY_ROWS = 100  # for who wants to see, or choose, more at once than one page usually has
REGISTRATIONS = {"token": RegistrationType.REGISTRATION_TOKEN, "person": RegistrationType.AUTHENTICATED_USER}


def index() -> Response:
    """The scope's runners, and its registration token for those who may register with it."""
    return _index_page(BulkForm(None))


def bulk() -> BaseResponse:
    """Draft an act on the runners that were chosen, or on all that fit the filter in the address."""
    form = BulkForm()
    try:
        act = bulk_acts.draft(db.session(), guards.actor(), guards.scope(), form.wanted(), _chosen())
    except Invalid as invalid:
        form.refuse(invalid)
        page = _index_page(form)
        page.status_code = STATUS[type(invalid)]
        return page
    db.session.commit()
    return redirect(url_for("bulk_acts.show", act_id=act.id), 303)


def _chosen() -> RunnerFilter | set[int]:
    """The filter when all that fit it are chosen, else the numbers of the boxes; the page's stands for its rows."""
    if "all" in request.form:
        return _filter_from_address()
    numbers = request.form.getlist("shown" if "page" in request.form else "runner")
    return {int(each) for each in numbers if each.isascii() and each.isdecimal() and len(each) <= 18}


def _index_page(bulk_form: BulkForm) -> Response:
    scope, session = guards.scope(), db.session()
    wanted, many = _filter_from_address(), request.args.get("rows") == str(MANY_ROWS)
    card = registration_pages.card(scope)
    shown = runner_lists.page(
        session,
        scope,
        wanted,
        after=request.args.get("after"),
        before=request.args.get("before"),
        size=MANY_ROWS if many else runner_lists.PAGE_SIZE,
    )
    _remember_roles([row.runner for row in shown.rows])
    page = render_template(
        "runners/index.html",
        scope=scope,
        wanted=wanted,
        page=shown,
        too_old=_too_old([row.runner for row in shown.rows]),
        busy=job_lists.busy(session, [row.runner for row in shown.rows]),
        counts=runner_lists.counts(session, scope, wanted),
        tags=runner_lists.tags_in(session, scope),
        creators=runner_lists.creators_in(session, scope),
        due=runner_lists.count_due(session, scope),
        looked_at=runner_lists.LOOKED_AT,
        most_searched=runner_search.MOST_LOOKED_AT,
        registrations=REGISTRATIONS,
        sorts=SORTS,
        kept=_kept(),
        many_rows=MANY_ROWS,
        address=_address(),
        form=EmptyForm(),
        bulk=bulk_form if _may_change_some([row.runner for row in shown.rows]) else None,
        chosen=set(request.form.getlist("runner")),
        most=bulk_acts.MOST,
        recent_acts=bulk_lists.recent_in(session, guards.actor(), scope),
        card=None if many else card,  # with the token on it, so long a page could not be compressed
        job_rules=job_rules.of_project(session, scope) if scope.project is not None else None,
    )
    return unstored(page) if card.text and not many else make_response(page)


def _kept() -> dict[str, list[str]]:
    """The filters in the address as they stand there, for links that keep them; nothing else goes into a link."""
    return {name: values for name, values in request.args.lists() if name in FILTERS}


def _address() -> dict[str, list[str]]:
    """The filters and the place in the list, as they stand in the address."""
    return {name: values for name, values in request.args.lists() if name in (*FILTERS, "after", "before")}


def _remember_roles(shown: Sequence[Runner]) -> None:
    """Look the person's roles up in all places that the page names, with one query."""
    permissions.remember_roles(db.session(), guards.actor(), [guards.scope(), *map(of_runner, shown)])


def _may_change_some(shown: list[Runner]) -> bool:
    """Whether the person may change runners of the scope, or at least one of those on the page."""
    places = [guards.scope(), *map(of_runner, shown)]
    return bool(shown) and any(guards.allowed(Action.WRITE_RUNNERS, place) for place in places)


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
        return already_issued(repeated)
    db.session.commit()
    return token_page(issued, title=f"{issued.runner.title} is ready to connect")


def _new_page(form: RunnerForm) -> str:
    scope = guards.scope()
    life = token_life.of_new_runners(db.session(), scope)
    return render_template("runners/new.html", scope=scope, form=form, life=life)


def show(runner_id: int) -> str:
    """Everything about one runner."""
    runner, session = guards.runner(runner_id), db.session()
    events = list(session.scalars(audit.of_runner(runner).limit(SHOWN_EVENTS)))
    return render_template(
        "runners/show.html",
        scope=guards.scope(),
        runner=runner,
        status=runner_status.of_runner(runner, now()),
        writable=runner_access.may(session, guards.actor(), Action.WRITE_RUNNERS, runner),
        trusted=runner_access.may(session, guards.actor(), Action.READ_RUNNERS, runner),
        life=token_life.of_runner_tokens(session, runner),
        events=events,
        form=EmptyForm(),
        jobs_total=runner_job_pages.count(runner),
        projects=runner_projects.assigned(session, guards.actor(), runner),
        sharable=runner_projects.may_share(session, guards.actor(), runner),
        **_machines(runner),
    )


def machines(runner_id: int) -> str:
    """The part of the page that refreshes itself: the runner's machines and status."""
    runner, session = guards.runner(runner_id), db.session()
    trusted = runner_access.may(session, guards.actor(), Action.READ_RUNNERS, runner)
    status = runner_status.of_runner(runner, now())
    return render_template(
        "runners/_machines.html",
        scope=guards.scope(),
        runner=runner,
        status=status,
        trusted=trusted,
        writable=runner_access.may(session, guards.actor(), Action.WRITE_RUNNERS, runner),
        refreshed=True,
        **_machines(runner),
    )


def _too_old(runners: Sequence[Runner]) -> dict[int, TooOld]:
    return refused_machines.too_old(db.session(), guards.actor(), runners, registration_configured())


def _machines(runner: Runner) -> dict[str, Any]:
    session, moment = db.session(), now()
    found = runner_managers.of_runner_newest_first(session, runner, SHOWN_MANAGERS)
    return {
        "managers": [(manager, runner_status.of_manager(manager, moment)) for manager in found],
        "managers_total": runner_managers.count(session, runner),
        "active": bool(job_lists.busy(session, [runner])),
        "busy_managers": job_lists.busy_managers(session, found),
        "checkable": runner_access.may(session, guards.actor(), Action.CHECK_RUNNERS, runner) and not runner.paused,
        "new_key": new_key,
        "tokens": runner_managers.tokens_in_use(session, found),
        "family": runner_tokens.family(session, runner),
        "family_total": runner_tokens.count_family(session, runner),
        "due_tokens": token_life.due_of_runner(session, runner),
        "is_due": token_life.is_due,
        "too_old": _too_old([runner]).get(runner.id),
        "cut_off": bool(refused_machines.cut_off(session, [runner.id])),
        "renews": refused_machines.renews,
        "imported": bool(runner_lists.imported(session, [runner.id])),
        "origin": TokenOrigin(runner_tokens.last_issued(session, runner).origin).name,
        "forgotten_after": runner.machines_forgotten_after or int(runner_status.STALE_AFTER.total_seconds()),
    }


def edit(runner_id: int) -> Page:
    """Change a runner's settings."""
    runner = guards.own_runner(runner_id)
    form = EditRunnerForm(data=RunnerForm.values_of(runner_settings.settings_of(runner)))
    if request.method == "GET":
        return _edit_page(runner, form)
    try:
        changed = runners.update_runner(
            db.session(), guards.actor(), runner, _settings(form, runner), seen=form.seen_version.data or None
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


def _settings(form: EditRunnerForm, runner: Runner) -> RunnerSettings:
    """The settings in the form, which asks for `locked` where it counts; elsewhere a script's word stays."""
    chosen = form.settings()
    return chosen if runner.type is RunnerType.PROJECT else replace(chosen, locked=runner.locked)


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
    runner = guards.own_runner(runner_id)
    runners.set_paused(db.session(), guards.actor(), runner, paused)
    db.session.commit()
    flash(f"{runner.title} takes no new jobs." if paused else f"{runner.title} takes jobs again.")
    if request.form.get("back") == "list":
        return redirect(url_in(guards.scope(), "runners.index", **_kept()))
    return redirect(url_in(guards.scope(), "runners.show", runner_id=runner.id))


def delete(runner_id: int) -> Page:
    """What will stop working, and the button."""
    runner = guards.own_runner(runner_id)
    if request.method == "GET":
        count = runner_managers.count(db.session(), runner)
        found = runner_managers.of_runner_newest_first(db.session(), runner, 10)
        return render_template(
            "runners/delete.html",
            scope=guards.scope(),
            runner=runner,
            total=count,
            managers=found,
            running=job_lists.running_on(db.session(), runner),
            form=EmptyForm(),
            kept=deletions.kept(),
        )
    title = runner.title
    deletion_id = runners.delete_runner(db.session(), guards.actor(), runner).id
    db.session.commit()
    flash(deletions.deleted(f"{title} is deleted", deletion_id))
    return redirect(url_in(guards.scope(), "runners.index"))


def mount(blueprint: Blueprint) -> None:
    """Give a scope's blueprint all runner pages."""
    both = ["GET", "POST"]
    one = "/<int:runner_id>"
    blueprint.add_url_rule("", "index", index)
    blueprint.add_url_rule("/new", "new", new, methods=both)
    blueprint.add_url_rule("/bulk", "bulk", bulk, methods=["POST"])
    blueprint.add_url_rule(one, "show", show)
    blueprint.add_url_rule(f"{one}/machines", "machines", machines)
    blueprint.add_url_rule(f"{one}/edit", "edit", edit, methods=both)
    blueprint.add_url_rule(f"{one}/pause", "pause", pause, methods=["POST"])
    blueprint.add_url_rule(f"{one}/resume", "resume", resume, methods=["POST"])
    blueprint.add_url_rule(f"{one}/delete", "delete", delete, methods=both)
    runner_token_pages.mount(blueprint)
    runner_project_pages.mount(blueprint)
    stuck_job_pages.mount_on_runners(blueprint)
    runner_check_pages.mount(blueprint)
    runner_job_pages.mount(blueprint)
