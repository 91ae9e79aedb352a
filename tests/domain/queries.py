"""Counting what the database is asked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session


@contextmanager
def sent_to(target: Engine | Connection, counts: Callable[[], bool] = lambda: True) -> Iterator[list[str]]:
    """The statements that are sent there inside the block; `counts` is asked in the thread that sends one."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if counts():
            statements.append(statement)

    event.listen(target, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(target, "before_cursor_execute", note)


@contextmanager
def asked(session: Session) -> Iterator[list[str]]:
    """The statements that this session's connection is sent inside the block."""
    with sent_to(session.connection()) as statements:
        yield statements
