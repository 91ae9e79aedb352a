"""Style sheets, scripts and pictures: compressed once for the life of the process, and kept by browsers for ever."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from io import BytesIO
from mimetypes import guess_type
from pathlib import Path

from flask import Flask, Response, current_app, request, send_file, url_for
from werkzeug.security import safe_join

SECONDS_KEPT = 31_536_000  # a year, the longest that browsers promise
_COMPRESSED = (".css", ".js", ".svg")


def register(app: Flask) -> None:
    """Have the static files answered from here."""
    app.view_functions["static"] = show
    app.add_template_global(asset)


def show(filename: str) -> Response:
    """The file, compressed for who takes that. For pages other rules hold: docs/decisions/0038."""
    place = safe_join(current_app.static_folder or "", filename) or ""
    if place.endswith(_COMPRESSED) and request.accept_encodings.quality("gzip") > 0 and Path(place).is_file():
        content, kind = BytesIO(_compressed(place)), guess_type(filename)[0]
        answer = send_file(content, kind, etag=f"{_fingerprint(place)}-gzip")
        answer.headers["Content-Encoding"] = "gzip"
    else:
        answer = current_app.send_static_file(filename)
    answer.vary.add("Accept-Encoding")
    # While servers of two versions run, an address of the one may be asked of the other: that answer is not kept.
    if request.args.get("v") == _fingerprint(place):
        answer.headers["Cache-Control"] = f"public, max-age={SECONDS_KEPT}, immutable"
    return answer


def asset(name: str) -> str:
    """The address of a static file, with its content's fingerprint, so that browsers may keep it for ever."""
    return url_for("static", filename=name, v=_fingerprint(_path(name)))


def kilobytes(*names: str) -> int:
    """How much a browser loads that has not got these files yet, in thousands of bytes."""
    return round(sum(len(_compressed(_path(name))) for name in names) / 1000)


def _path(name: str) -> str:
    return str(Path(current_app.static_folder or "") / name)


@cache
def _fingerprint(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


@cache
def _compressed(path: str) -> bytes:
    return gzip.compress(Path(path).read_bytes(), 9, mtime=0)
