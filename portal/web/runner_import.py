"""Importing runners with the tokens that their machines hold: what to import, a preview, a report."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Blueprint, Response, current_app, render_template, request
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from wtforms import BooleanField, MultipleFileField, StringField, TextAreaField

from portal.database import db
from portal.domain.errors import Invalid, Stale
from portal.domain.imports import import_entries, import_formats, import_preview, runner_import
from portal.domain.imports.import_entries import Entry, Skipped
from portal.domain.imports.import_formats import Written
from portal.domain.imports.import_preview import Defaults, Preview
from portal.domain.permissions import Action
from portal.domain.runners.runner_settings import split_tags
from portal.domain.scopes import ScopeKind
from portal.requests import settings
from portal.web import guards, scoped
from portal.web.forms import EmptyForm, PortalForm
from portal.web.secret_pages import unstored

blueprint = Blueprint("runner_import", __name__, url_prefix="/admin/import")
scoped.guard(blueprint, ScopeKind.INSTANCE, Action.IMPORT_RUNNERS)
blueprint.before_request(guards.confirmed)

SALT = "runner-import"
GOOD_FOR = 3600  # seconds between the preview and its confirmation
REST_OF_THE_FORM = 8192  # bytes beside the plan when the confirmation is sent


class ImportForm(PortalForm):
    pasted = TextAreaField("config.toml or JSON list")
    files = MultipleFileField("Files")
    scope = StringField("Where they belong")
    tags = StringField("Tags")
    run_untagged = BooleanField("Run untagged jobs", default=True)

    def defaults(self) -> Defaults:
        tags = split_tags(self.tags.data or "")
        return Defaults((self.scope.data or "").strip(), tags, bool(self.run_untagged.data))


@blueprint.get("")
@guards.recently
def show() -> str:
    """Where to paste or choose what to import."""
    return _form_page(ImportForm())


@blueprint.post("")
def preview() -> Response:
    """What would be imported. The tokens end here: the page carries their digests, signed; nothing is stored."""
    form = ImportForm()
    try:
        written = _written(form)
        found = import_preview.preview(db.session(), guards.actor(), written, form.defaults())
        plan = _sign(found)
    except Invalid as invalid:
        form.pasted.data = ""  # it holds tokens: it is not sent back
        form.refuse(invalid)
        return unstored(_form_page(form), 422)
    page = render_template(
        "runner_import/preview.html", scope=guards.scope(), found=found, plan=plan, form=EmptyForm()
    )
    return unstored(page)


@blueprint.post("/confirm")
def confirm() -> Response:
    """Make what the preview has shown, as far as that is still so; the report is the answer."""
    entries, left_out = _read_plan(request.form.get("plan", ""))
    report = runner_import.carry_out(db.session(), guards.actor(), entries)
    page = render_template(
        "runner_import/report.html", scope=guards.scope(), report=report, skipped=[*left_out, *report.skipped]
    )
    db.session.commit()
    return unstored(page)


def _form_page(form: ImportForm) -> str:
    return render_template(
        "runner_import/show.html", scope=guards.scope(), form=form, most=settings().max_body,
        entries=import_preview.MOST_ENTRIES,
    )  # fmt: skip


def _written(form: ImportForm) -> list[Written]:
    """Everything that was pasted and uploaded. Raises Invalid when there is nothing, or some cannot be read."""
    found: list[Written] = []
    problems: dict[str, list[str]] = {}
    for field, source, text in _sources(form):
        try:
            found += import_formats.read(text, source=source, field=field)
        except Invalid as invalid:
            for name, sentences in invalid.problems.items():
                problems.setdefault(name, []).extend(sentences)
    if problems:
        raise Invalid(problems)
    if not found:
        raise Invalid({"pasted": ["Paste a config.toml or a JSON list, or choose files."]})
    return found


def _sources(form: ImportForm) -> Sequence[tuple[str, str, str]]:
    """(field, name, text) of what was pasted and of each file."""
    pasted = form.pasted.data or ""
    sources = [("pasted", "What you pasted", pasted)] if pasted.strip() else []
    for upload in request.files.getlist("files"):
        if upload.filename:
            # A byte that is no UTF-8 stands as U+FFFD; in a token it makes the entry one that is skipped.
            sources.append(("files", upload.filename[:100], upload.read().decode("utf-8", "replace")))
    return sources


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(current_app.config["SECRET_KEY"], salt=SALT)


def _sign(found: Preview) -> str:
    """The plan as one signed and compressed text, which only the same person can confirm. Raises Invalid."""
    plan = _serializer().dumps(
        {
            "by": guards.actor().id,
            "entries": [import_entries.to_plain(each.entry) for each in found.planned],
            "skipped": [import_entries.skipped_to_plain(each) for each in found.skipped],
        }
    )
    text = plan.decode() if isinstance(plan, bytes) else plan
    if len(text) > settings().max_body - REST_OF_THE_FORM:
        raise Invalid({"pasted": ["This is too much for one import. Import it in two or more parts."]})
    return text


def _read_plan(text: str) -> tuple[list[Entry], list[Skipped]]:
    """What a signed plan makes and leaves out. Raises Stale for one that is too old, somebody else's or not ours."""
    again = "Nothing was imported. Open the import again and send it once more."
    try:
        plan = _serializer().loads(text, max_age=GOOD_FOR)
    except SignatureExpired:
        raise Stale(f"This preview is more than an hour old. {again}") from None
    except BadSignature:
        raise Stale(f"This preview is not complete. {again}") from None
    if plan["by"] != guards.actor().id:
        raise Stale(f"This preview was made by somebody else. {again}")
    left_out = import_entries.skipped_from_plain(db.session(), plan.get("skipped", ()))
    return [import_entries.from_plain(each) for each in plan["entries"]], left_out
