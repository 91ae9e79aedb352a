"""Registration tokens as the tests hold them, and the old way of registering with one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.actors import Actor
from portal.domain.registration import registration_switch, registration_tokens
from portal.domain.registration.registration import Configured
from portal.domain.scopes import Scope
from portal.models import Runner
from tests.api.machines import Answer, Machine, through
from tests.cast import SYSTEM

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
GONE = "410 Gone - runner registration disallowed: "
NOBODYS = "403 Forbidden - invalid token supplied: "
Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Office:
    """Where the registration tokens are kept; everything it does is committed."""

    configured: Configured
    session: Session

    def token(self, scope: Scope) -> str:
        """The scope's registration token in clear, made when there is none."""
        row = registration_tokens.make_token(self.session, SYSTEM, scope, self.configured)
        self.session.commit()
        clear = self.configured.vault.open(row.ciphertext or b"")
        assert clear is not None
        return clear

    def reset(self, scope: Scope) -> str:
        """A new registration token in clear; the old one has ended."""
        registration_tokens.reset_token(self.session, SYSTEM, scope, self.configured)
        self.session.commit()
        return self.token(scope)

    def turn_off(self, scope: Scope, actor: Actor = SYSTEM) -> None:
        self._switch(scope, actor, allow=False)

    def turn_on(self, scope: Scope) -> None:
        self._switch(scope, SYSTEM, allow=True)

    def _switch(self, scope: Scope, actor: Actor, *, allow: bool) -> None:
        registration_switch.switch(self.session, actor, scope, allow=allow, configured=self.configured)
        self.session.commit()

    def runners(self) -> list[Runner]:
        """All runners there are, the oldest first."""
        self.session.expire_all()
        return list(self.session.scalars(select(Runner).order_by(Runner.id)))


def by_form(client: FlaskClient, token: str, fields: Fields = ()) -> Answer:
    """What curl and other makers' clients send."""
    body = urlencode([("token", token), *fields]).encode()
    return through(client)("POST", "/api/v4/runners", body, FORM)


def registered(box: Machine, system_id: str | None = None, **said: object) -> Machine:
    """The machine after its registration, with the token that it got."""
    answer = box.register(**{"description": "box1", **said})
    assert answer.status == 201, answer
    return Machine(box.way, answer.json["token"], system_id)
