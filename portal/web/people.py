"""People, for administrators: who has an account, new accounts, new passwords."""

from __future__ import annotations

from flask import Blueprint, Response, render_template, request
from sqlalchemy import func, or_, select

from portal.database import db
from portal.domain import accounts
from portal.domain.errors import Invalid, NotFound
from portal.domain.permissions import Action
from portal.domain.scopes import ScopeKind
from portal.models import User
from portal.web import guards, scoped
from portal.web.forms import EmptyForm, PersonForm
from portal.web.secret_pages import unstored

blueprint = Blueprint("people", __name__, url_prefix="/admin/people")
scoped.guard(blueprint, ScopeKind.INSTANCE, Action.WRITE_PEOPLE)

SHOWN = 200


@blueprint.get("")
def index() -> str:
    words = request.args.get("search", "").strip()
    query = select(User).order_by(func.lower(User.username))
    if words:
        columns = (User.username, User.name, User.email)
        query = query.where(or_(*(func.strpos(func.lower(column), words.lower()) > 0 for column in columns)))
    total = db.session.scalar(select(func.count()).select_from(query.order_by(None).subquery()))
    people = db.session.scalars(query.limit(SHOWN)).all()
    return render_template("people/index.html", people=people, words=words, total=total, scope=guards.scope())


@blueprint.route("/new", methods=["GET", "POST"])
def new() -> str | tuple[str, int] | Response:
    form = PersonForm()
    if request.method == "GET":
        return render_template("people/new.html", form=form, scope=guards.scope())
    password = accounts.generated_password()
    try:
        person = accounts.create_person(
            db.session(),
            guards.actor(),
            username=form.username.data or "",
            name=form.name.data or "",
            email=form.email.data or "",
            admin=bool(form.admin.data),
            password=password,
        )
    except Invalid as invalid:
        form.refuse(invalid)
        return render_template("people/new.html", form=form, scope=guards.scope()), 422
    db.session.commit()
    return _shown_once(person, password, title=f"{person.name} can sign in")


@blueprint.route("/<int:user_id>/reset-password", methods=["GET", "POST"])
def reset_password(user_id: int) -> str | Response:
    person = db.session.get(User, user_id)
    if person is None:
        raise NotFound("There is no such person.")
    if request.method == "GET":
        return render_template("people/reset_password.html", person=person, form=EmptyForm(), scope=guards.scope())
    password = accounts.generated_password()
    accounts.reset_password(db.session(), guards.actor(), person, password)
    db.session.commit()
    return _shown_once(person, password, title=f"{person.name} has a new password")


def _shown_once(person: User, password: str, *, title: str) -> Response:
    page = {"person": person, "password": password, "title": title, "scope": guards.scope()}
    return unstored(render_template("people/password.html", **page))
