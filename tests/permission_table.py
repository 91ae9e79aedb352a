"""The table of who may do what with runners and registration tokens, and everybody of it on a stage.

Each cell says what the actor may do in that scope, with its runners and its registration token:

    C  create a runner                    R  read a runner's page
    U  change, pause, reset its token, check whether it works     D  delete it
    T  see and reset the registration token    S  turn registration tokens off and on, see whom that touches
    L  settle how long tokens live        K  clean up stale runners, protect some (not in a project)
    A  what administrators keep: who may create runners and how many, import, whose token is this
    r  read it, but only as something inherited, on the pages of a scope of their own

Everything that a cell does not say is refused. The rules: reference/rest.md section 3, design/product.md.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from portal.domain.actors import Actor, person
from portal.domain.scopes import INSTANCE, Scope
from portal.models import Role, Runner, User
from tests.cast import Cast

MATRIX = """
    actor                  instance    group acme    project acme/web
    administrator          CRUDTSLKA   CRUDTSLKA     CRUDTSLA
    group owner            r           CRUDTSLK      CRUDTSL
    group maintainer       r           R             CRUDTSL
    project owner          r           r             CRUDTSL
    project maintainer     r           r             CRUDTSL
    developer              -           -             -
    reporter               -           -             -
    guest                  -           -             -
    stranger               -           -             -
"""
ROWS = [line[4:] for line in MATRIX.splitlines() if line.strip()][1:]
CELLS = {row[:23].strip(): row[23:].split() for row in ROWS}
SEES = {  # which scopes an actor sees at all: the others answer 404
    "administrator": ("instance", "group", "project"),
    "project owner": ("project",),
    "project maintainer": ("project",),
    "stranger": (),
}
KINDS = ("instance", "group", "project")


def cell(actor: str, kind: str) -> str:
    return CELLS[actor][KINDS.index(kind)]


@dataclass
class Stage:
    """Everybody of the matrix, and a runner with a check that waits in every scope."""

    people: dict[str, User]
    scopes: dict[str, Scope]
    runners: dict[str, int]
    tokens: dict[str, int]
    checks: dict[str, int]
    session: Session

    def actor(self, name: str) -> Actor:
        return person(self.people[name])

    def runner(self, kind: str) -> Runner:
        return self.session.get_one(Runner, self.runners[kind])

    @staticmethod
    def base(kind: str) -> str:
        return {"instance": "/admin", "group": "/groups/acme/-", "project": "/acme/web/-"}[kind]


def set_stage(session: Session, cast: Cast) -> Stage:
    """Everybody with their role, and a committed runner in every scope."""
    roles = {
        "group owner": (cast.acme, Role.OWNER),
        "group maintainer": (cast.acme, Role.MAINTAINER),
        "project owner": (cast.web, Role.OWNER),
        "project maintainer": (cast.web, Role.MAINTAINER),
        "developer": (cast.acme, Role.DEVELOPER),
        "reporter": (cast.acme, Role.REPORTER),
        "guest": (cast.acme, Role.GUEST),
    }
    people = {"administrator": cast.dana, "stranger": cast.charlie}
    for name, (scope, role) in roles.items():
        people[name] = cast.person(name.replace(" ", "-"))
        cast.member(people[name], scope, role)
    scopes = {"instance": INSTANCE, "group": cast.acme, "project": cast.web}
    issued = {kind: cast.runner(scope) for kind, scope in scopes.items()}
    made = {kind: each.runner.id for kind, each in issued.items()}
    tokens = {kind: each.record.id for kind, each in issued.items()}
    checks = {kind: cast.check(each.runner).id for kind, each in issued.items()}
    session.commit()
    return Stage(people, scopes, made, tokens, checks, session)


ACTORS = list(CELLS)


def refused(name: str, kind: str) -> tuple[int, ...]:
    """How somebody is refused: 404 for who may not see the scope, 403 for who may."""
    return (403,) if kind in SEES.get(name, ("group", "project")) else (404,)
