"""`/runners/:id`: one runner, for its people's scripts (reference/rest.md section 2.5)."""

from __future__ import annotations

from portal.api import credentials
from portal.api.for_users import runner_shapes
from portal.api.for_users.door import looking_for, operation
from portal.api.for_users.parameters import Flag, Id, Parameters
from portal.api.for_users.runner_shapes import RunnerDetails
from portal.database import db
from portal.domain import runner_access
from portal.models import Runner, TokenScope

MANAGE = (TokenScope.MANAGE_RUNNER,)
ROOM = "Runners"


class OneRunner(Parameters):
    """One runner."""

    runner_id: Id


class RunnerAsked(OneRunner):
    """One runner, with or without the projects that it is assigned to."""

    include_projects: Flag = True


@operation("GET", "/runners/<int:runner_id>", room=ROOM, opens=MANAGE, refuses=(404,))
def show(given: RunnerAsked) -> RunnerDetails:
    """Everything about one runner."""
    runner = readable(given.runner_id)
    return runner_shapes.details(db.session(), credentials.actor(), runner, projects=given.include_projects)


def readable(runner_id: int) -> Runner:
    """The runner, if who asks may read it. Raises NotFound, which says "404 Runner Not Found"."""
    with looking_for("Runner"):
        return runner_access.readable(db.session(), credentials.actor(), runner_id)
