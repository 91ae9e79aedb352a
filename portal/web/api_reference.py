"""The REST API to read and to try: its description as a page, and as a viewer that asks it."""

from __future__ import annotations

from functools import cache
from typing import Any

from flask import Blueprint, current_app, render_template

from portal.web import guards
from portal.web.api_document import Reference

blueprint = Blueprint("api_reference", __name__, url_prefix="/-/api")
blueprint.before_request(guards.signed_in)


@blueprint.get("")
def show() -> str:
    """Every operation with its parameters, scopes and answers: to read, to search and to print."""
    description = current_app.extensions["api_description"]
    return render_template("api_reference/show.html", **_read(description), server=description.server)


@blueprint.get("/try")
def viewer() -> str:
    """The same in a viewer that sends requests, with the session or with a token that is typed."""
    return render_template("api_reference/viewer.html")


@cache
def _read(description: object) -> dict[str, Any]:
    """What the page shows; the same for the life of the process."""
    reference = Reference(description.document)  # type: ignore[attr-defined]
    return {"rooms": reference.rooms(), "shapes": reference.shapes(), "statuses": reference.statuses()}
