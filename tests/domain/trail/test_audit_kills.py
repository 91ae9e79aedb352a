"""What happens to a change and its event when the server is killed between them, or the event cannot be written."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.orm import Session

from portal.domain.registration import registration_tokens
from portal.domain.registration.registration import Configured
from portal.domain.scopes import INSTANCE
from portal.domain.trail import audit_chain
from portal.domain.vault import Vault
from portal.models import AuditEvent, AuditLink, Runner
from tests.api.machines import until
from tests.api.processes import Process
from tests.cast import SYSTEM, Cast, send, sign_in
from tests.databases import ENCRYPTION_KEY
from tests.portals import RunningPortal

THE_CHAINS_LOCK = "SELECT pg_advisory_lock(31641693411434500)"
NO_EVENTS = "LOCK TABLE audit_events IN SHARE MODE"


@contextmanager
def held(database: str, statement: str) -> Iterator[None]:
    """Hold a lock that stops a change on its way."""
    engine = create_engine(database)
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
            yield
    finally:
        engine.dispose()


def waiting(session: Session) -> bool:
    session.rollback()
    return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


def register(url: str, token: str) -> None:
    body = json.dumps({"token": token, "description": "Killed", "run_untagged": True}).encode()
    request = urllib.request.Request(f"{url}/api/v4/runners", body, {"Content-Type": "application/json"})
    with contextlib.suppress(OSError):  # nobody is left to answer
        urllib.request.urlopen(request, timeout=60)


@pytest.mark.parametrize(
    ("lock", "both"), [(NO_EVENTS, False), (THE_CHAINS_LOCK, True)], ids=["before the commit", "within the commit"]
)
def test_a_server_killed_between_change_and_answer_leaves_both_or_neither(
    own_database: str, running_portal: RunningPortal, process: Process, lock: str, both: bool
) -> None:
    with process.session() as session:
        configured = Configured(enforced=False, vault=Vault([ENCRYPTION_KEY]))
        row = registration_tokens.make_token(session, SYSTEM, INSTANCE, configured)
        token = configured.vault.open(row.ciphertext or b"") or ""
        session.commit()
    asking = threading.Thread(target=register, args=(running_portal.url, token))
    with process.session() as session:
        with held(own_database, lock):
            asking.start()
            until(lambda: waiting(session))
            running_portal.kill()
        asking.join(timeout=60)
        others = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ~ 'audit|COMMIT' "
            "AND pid <> pg_backend_pid() AND state <> 'idle'"
        )
        until(lambda: (session.rollback(), session.scalar(others))[1] == 0)
        made = session.scalar(select(func.count()).select_from(Runner))
        told = session.scalar(
            select(func.count())
            .select_from(AuditLink)
            .join(AuditEvent)
            .where(AuditEvent.action == "runner_registered")
        )
        assert (made, told) == ((1, 1) if both else (0, 0))
        assert audit_chain.verify(session).broken is None


BROKEN = (
    "CREATE OR REPLACE FUNCTION audit_event_text(e audit_events) RETURNS text LANGUAGE sql AS 'SELECT (1 / 0)::text'"
)


def test_a_change_whose_event_cannot_be_written_does_not_happen_and_says_so(process: Process) -> None:
    with process.session() as session:
        Cast(session)
        session.commit()
        events = session.scalar(select(func.count()).select_from(AuditEvent))
    client = sign_in(process.app.test_client(), "alice")
    with process.engine.begin() as connection:
        whole = connection.scalar(text("SELECT pg_get_functiondef('audit_event_text'::regproc)"))
        connection.execute(text(BROKEN))
    form = {"description": "Never", "tags": "docker"}
    answer = send(client, "/groups/acme/-/runners/new", expect=500, **form)
    assert "nothing was changed" in answer.get_data(as_text=True)
    assert "glrt-" not in answer.get_data(as_text=True)
    with process.session() as session:
        assert session.scalar(select(func.count()).select_from(Runner)) == 0
        assert session.scalar(select(func.count()).select_from(AuditEvent)) == (events or 0) + 1  # the sign-in
        session.execute(text(str(whole)))
        session.commit()
    send(client, "/groups/acme/-/runners/new", expect=200, **form)
    with process.session() as session:
        assert session.scalar(select(func.count()).select_from(Runner)) == 1
        assert audit_chain.verify(session).broken is None
