"""Answers that hold a secret, or what leads to one: no cache keeps them."""

from __future__ import annotations

from flask import Response, make_response


def unstored(page: str, status: int = 200) -> Response:
    """The page as an answer that neither the browser nor anything on the way stores."""
    response = make_response(page, status)
    response.headers["Cache-Control"] = "no-store"
    return response
