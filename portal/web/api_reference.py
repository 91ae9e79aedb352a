"""The REST API to read and to try: its description as pages, and as a viewer that asks it."""

from __future__ import annotations

from functools import cache
from typing import Any

from flask import Blueprint, current_app, render_template

from portal.domain.errors import NOTHING_HERE, NotFound
from portal.web import guards, static_files
from portal.web.api_document import Reference

PARTS = ("vendor/swagger-ui.css", "vendor/swagger-ui-bundle.js")
blueprint = Blueprint("api_reference", __name__, url_prefix="/-/api")
blueprint.before_request(guards.signed_in)


@blueprint.get("")
def show() -> str:
    """Every operation and every shape in a line that leads to its page; what the refusals say."""
    description = current_app.extensions["api_description"]
    return render_template("api_reference/show.html", **_read(description), server=description.server)


@blueprint.get("/<path:room>")
def one_room(room: str) -> str:
    """The operations of one room with their parameters, scopes and answers: to read, to search and to print."""
    read = _read(current_app.extensions["api_description"])
    found = next((each for each in read["rooms"] if each.anchor == room), None)
    if found is None:
        raise NotFound(NOTHING_HERE)
    return render_template("api_reference/room.html", **read, room=found)


@blueprint.get("/shapes")
def shapes() -> str:
    """What is answered, attribute by attribute."""
    return render_template("api_reference/shapes.html", **_read(current_app.extensions["api_description"]))


@blueprint.get("/try")
def viewer() -> str:
    """The same in a viewer that sends requests, with the session or with a token that is typed."""
    return render_template("api_reference/viewer.html", kilobytes=static_files.kilobytes(*PARTS))


@cache
def _read(description: object) -> dict[str, Any]:
    """What the pages show; the same for the life of the process."""
    reference = Reference(description.document)  # type: ignore[attr-defined]
    return {"rooms": reference.rooms(), "shapes": reference.shapes(), "statuses": reference.statuses()}
