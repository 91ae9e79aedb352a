"""What the server processes log: one line for each request and each thing worth telling, as JSON or as text."""

from __future__ import annotations

import logging
import re
import sys
from time import perf_counter
from typing import Any

from flask import Flask, Response, g, request
from pythonjsonlogger.json import JsonFormatter

from portal.requests import client_address

log = logging.getLogger("portal.requests")

# Authentication and registration tokens, whole or cut short, wherever somebody has put them: also right after a
# letter, since the escapes of a line's end and of a slash end in one.
SECRET = re.compile(r"(glrtr?-|glpat-|glenrol-|glcbt-|GR1348941)[0-9A-Za-z_.\-]+")
REDACTED = r"\1[redacted]"
# What could end a line, move the cursor of a terminal, or turn the order of what is written around.
CONTROL = {
    number: f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
    for number in (*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A))
}
WORDS = "{method} {path} {status} in {duration_ms} ms, {actor_kind} {actor_id} from {address}, id {request_id}"
POLLS = "/api/v4/jobs/request"
FIELDS = (
    "request_id",
    "method",
    "route",
    "path",
    "status",
    "duration_ms",
    "actor_kind",
    "actor_id",
    "address",
    "bytes",
)
# Where PostgreSQL goes on to rows and keys that broke a rule, with their values; and where SQLAlchemy goes on again.
VALUES = re.compile(r"\n(?:DETAIL|CONTEXT):  ")
AFTER_VALUES = ("\n[SQL: ", "\n(Background on this error")
LONGEST_PATH = 1000  # characters; what a page can be called by is shorter
QUIET = ("static", "health.alive", "health.ready")  # told at level debug only


def redacted(text: str) -> str:
    """The text without tokens."""
    return SECRET.sub(REDACTED, text)


def on_one_line(text: str) -> str:
    """The text with everything escaped that could end a line or speak to a terminal."""
    return text.translate(CONTROL)


def values_in(text: str) -> str:
    """The part of a database error's text that repeats values from rows; empty where there is none."""
    began = VALUES.search(text)
    if began is None:
        return ""
    ends = (text.rfind(each, began.start()) for each in AFTER_VALUES)
    return text[began.start() : next((end for end in ends if end >= 0), len(text))]


def without_values(text: str) -> str:
    """The text without that part."""
    found = values_in(text)
    return text.replace(found, "") if found else text


class WithoutValues(logging.Formatter):
    """Leaves out what values_in finds, in messages and in exceptions with all that they came from."""

    def format(self, record: logging.LogRecord) -> str:
        told = {"msg": without_values(record.getMessage()), "args": None, "exc_text": None}
        return super().format(logging.makeLogRecord({**record.__dict__, **told}))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # the name is the library's
        told = super().formatException(ei)
        for each in _with_origins(ei[1]):
            if found := values_in(_text_of(each)):
                # In a group of exceptions every line of theirs is indented.
                told = re.sub(r"\n[ |]*".join(map(re.escape, found.split("\n"))), "", told)
        return told


def _with_origins(failure: BaseException | None) -> list[BaseException]:
    """The exception and all that it came from or that it holds, each once."""
    found: list[BaseException] = []
    ahead = [failure]
    while ahead:
        here = ahead.pop()
        if here is not None and not any(here is each for each in found):
            found.append(here)
            ahead += [here.__cause__, here.__context__]
            ahead += here.exceptions if isinstance(here, BaseExceptionGroup) else ()
    return found


def _text_of(failure: BaseException) -> str:
    try:
        return str(failure)
    except Exception:  # the line is written nevertheless
        return ""


class JsonLines(WithoutValues, JsonFormatter):
    """One JSON object a line, in ASCII: an exception with its traceback is one of its texts."""

    def __init__(self) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp="time",
            json_ensure_ascii=True,
        )

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


class TextLines(WithoutValues):
    """Lines for people. A traceback follows its line, each of its own lines marked: none passes for another."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        first = on_one_line(without_values(record.getMessage()))
        plain = logging.makeLogRecord(
            {**record.__dict__, "msg": first, "args": None, "exc_info": None, "exc_text": None}
        )
        lines = [super().format(plain)]
        if record.exc_info:
            lines += ["  | " + on_one_line(line) for line in self.formatException(record.exc_info).split("\n")]
        return redacted("\n".join(lines))


def configure(level: str, form: str) -> None:
    """Send all log lines of this process to the standard error, in this form: json or text."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def register(app: Flask) -> None:
    """Log the app's requests. Call it before others add what they do after a request: the first comes last."""
    app.before_request(_begin)
    app.after_request(_tell)


def _begin() -> None:
    g.request_began = perf_counter()


def _tell(response: Response) -> Response:
    level = _level(response)
    if log.isEnabledFor(level):
        told = _facts(response)
        log.log(level, "%s", WORDS.format(**told), extra=told)
    return response


def tell_poll(request_id: str, status: int, runner_id: int | None, address: str, *, unlogged: int = 0) -> None:
    """Log a poll that was answered without Flask. `unlogged` are those of the same address that were not logged."""
    told = {
        "request_id": request_id,
        "method": "POST",
        "route": POLLS,
        "path": POLLS,
        "status": status,
        "duration_ms": None,
        "actor_kind": "visitor" if runner_id is None else "runner",
        "actor_id": runner_id,
        "address": address,
        "bytes": 0,
    }
    words = WORDS.replace(" in {duration_ms} ms", "") + (", and {unlogged} before it" if unlogged else "")
    level = logging.DEBUG if status == 204 else logging.INFO
    log.log(level, "%s", words.format(**told, unlogged=unlogged), extra=told)


def _level(response: Response) -> int:
    """Idle polls, by far the most requests, and what nobody asked for by hand are told at level debug only."""
    quiet = response.status_code == 204 or (request.endpoint in QUIET and response.status_code < 400)
    return logging.DEBUG if quiet else logging.INFO


def _facts(response: Response) -> dict[str, Any]:
    kind, number = _actor()
    began = g.get("request_began")
    return {
        "request_id": g.get("request_id"),
        "method": on_one_line(request.method),
        "route": request.url_rule.rule if request.url_rule else None,
        "path": redacted(on_one_line(request.path))[:LONGEST_PATH],
        "status": response.status_code,
        "duration_ms": round((perf_counter() - began) * 1000, 1) if began else None,
        "actor_kind": kind,
        "actor_id": number,
        "address": client_address(),
        # Counting what is sent as it is read would read all of it into memory first.
        "bytes": response.content_length if response.is_streamed else response.calculate_content_length(),
    }


def _actor() -> tuple[str, int | None]:
    """Who asked, from what the request has found out: to ask the database here would cost every request."""
    if "actor" in g:
        return g.actor.kind, g.actor.id
    if "signed_in_id" in g:
        return "user", g.signed_in_id
    if "enrolment_key_id" in g:
        return "enrolment_key", g.enrolment_key_id
    return ("runner", g.runner_id) if "runner_id" in g else ("visitor", None)
