"""The store of artifacts that this process uses, and an artifact as an answer: streamed, whole or in part."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote

from flask import Response, current_app, request
from werkzeug.wsgi import FileWrapper

from portal.domain.jobs.artifact_store import ArtifactStore
from portal.models import JobArtifact

PIECE = 256 * 1024  # bytes that are sent at once
TYPES = {"zip": "application/zip", "zipzstd": "application/zip", "gzip": "application/gzip"}


def artifact_store() -> ArtifactStore:
    """Where artifacts lie."""
    found: ArtifactStore = current_app.extensions["artifact_store"]
    return found


def answer(artifact: JobArtifact) -> Response:
    """The file, to be saved: a browser shows nothing of it, since whoever wrote the job decided what is in it.

    A part of it is sent when the request asks for one, so that a download that broke off can go on. Raises NotFound
    when the file is lost, and StoreUnreachable.
    """
    file = artifact_store().open(artifact.key, artifact.size)
    response = Response(
        FileWrapper(file, PIECE),
        mimetype=TYPES.get(artifact.file_format, "application/octet-stream"),
        direct_passthrough=True,
    )
    response.content_length = artifact.size
    response.headers.set("Content-Disposition", "attachment", **_names(artifact.filename))
    response.headers["Cache-Control"] = "no-store"
    response.set_etag(artifact.sha256.hex())
    response.make_conditional(request, accept_ranges=True, complete_length=artifact.size)
    return response


def _names(filename: str) -> dict[str, str]:
    """The name as headers can hold it: in ASCII, and beside that whole where it is not (RFC 6266)."""
    if filename.isascii():
        return {"filename": filename}
    plain = unicodedata.normalize("NFKD", filename).encode("ascii", "ignore").decode()
    return {"filename": plain, "filename*": f"UTF-8''{quote(filename, safe='')}"}
