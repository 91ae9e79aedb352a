"""A large file in a multipart body, handed on piece by piece as it comes: it never lies in memory whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from portal.domain.errors import BadRequest, TooLarge

PIECE = 256 * 1024  # bytes read at once
FIELDS = 64 * 1024  # bytes of all that is not the file
MOST_PARTS = 32
AROUND = FIELDS * 2  # bytes that a body may have beside the file, boundaries and headers included


@dataclass(slots=True)
class Upload:
    """What came beside the file: its name, and the text fields. `found` says whether there was a file at all."""

    filename: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    found: bool = False


def read(name: str, take: Callable[[bytes], None], *, limit: int) -> Upload:
    """Read the request's form and hand the file called `name` to `take`. Other files are passed over.

    `limit` is of the body, in bytes. Raises BadRequest for a body that is no such form, or that ends before its end:
    the server takes a connection that was cut for the end of a chunked body, and only the last boundary tells.
    Raises TooLarge, and whatever `take` raises, as soon as it is so.
    """
    boundary = request.mimetype_params.get("boundary", "")
    if request.mimetype != "multipart/form-data" or not boundary.isascii() or not 1 <= len(boundary) <= 200:
        raise BadRequest("The file must come as multipart/form-data.")
    request.max_content_length = limit
    upload, current = Upload(), None
    try:
        for event in _events(MultipartDecoder(boundary.encode(), FIELDS + PIECE, max_parts=MOST_PARTS)):
            if isinstance(event, Field | File):
                current = event
                _begin(upload, event, name)
            elif isinstance(event, Data):
                _continue(upload, current, event.data, name, take)
    except RequestEntityTooLarge:
        raise TooLarge("The upload is larger than what this portal takes.") from None
    except ValueError:
        raise BadRequest("The upload ended before its end, or is no form. Send it again.") from None
    if not upload.found:
        raise BadRequest(f"{name} is missing: the upload has no file of this name.")
    return upload


def _events(decoder: MultipartDecoder) -> Iterator[Event]:
    event: Event = NeedData()
    while not isinstance(event, Epilogue):
        if isinstance(event, NeedData):
            decoder.receive_data(request.stream.read(PIECE) or None)
        event = decoder.next_event()
        yield event


def _begin(upload: Upload, event: Field | File, name: str) -> None:
    if isinstance(event, File) and event.name == name:
        if upload.found:
            raise BadRequest(f"{name} is there twice.")
        upload.found, upload.filename = True, event.filename
    elif isinstance(event, Field):
        upload.fields.setdefault(str(event.name), "")


def _continue(
    upload: Upload, event: Field | File | None, data: bytes, name: str, take: Callable[[bytes], None]
) -> None:
    if isinstance(event, File):
        if event.name == name and data:
            take(data)
    elif event is not None:
        upload.fields[str(event.name)] += data.decode(errors="replace")
        if sum(map(len, upload.fields.values())) > FIELDS:
            raise BadRequest("The fields beside the file are too long.")
