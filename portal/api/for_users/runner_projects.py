"""`/projects/:id/runners`: assigning a project's runner to further projects (reference/rest.md section 2.5)."""

from __future__ import annotations

from portal.api import credentials
from portal.api.errors import as_sentence
from portal.api.for_users import places, runner_shapes, runners
from portal.api.for_users.door import looking_for, operation
from portal.api.for_users.parameters import Id, Parameters
from portal.api.for_users.runner_shapes import RunnerShape
from portal.database import db, now
from portal.domain.errors import BadRequest, Invalid, NotAllowed
from portal.domain.jobs import job_lists
from portal.domain.permissions import Action
from portal.domain.runners import runner_projects
from portal.domain.scopes import of_runner
from portal.models import RunnerType

ROOM = "Runners"


class Assignment(Parameters):
    """A runner, and a project by its id or full path."""

    project: str
    runner_id: Id


@operation("POST", "/projects/<path:project>/runners", room=ROOM, status=201, refuses=(400, 404))
def assign(given: Assignment) -> RunnerShape:
    """Let a project's runner take the jobs of one more project."""
    project, runner = places.project(given.project), runners.readable(given.runner_id)
    if runner.runner_type == RunnerType.GROUP:
        raise NotAllowed(
            "Runner is a group runner: it serves the projects of its group already, and no others.",
            action=Action.WRITE_RUNNERS.value,
            where=of_runner(runner),
        )
    runner = runners.writable(given.runner_id)
    try:
        with looking_for("Runner"):
            runner_projects.assign(db.session(), credentials.actor(), runner, project)
    except Invalid as invalid:
        raise BadRequest(as_sentence(invalid)) from None
    busy = runner.id in job_lists.busy(db.session(), [runner])
    answer = RunnerShape(**runner_shapes.in_list(runner, now(), busy=busy))
    db.session.commit()
    return answer


@operation("DELETE", "/projects/<path:project>/runners/<int:runner_id>", room=ROOM, refuses=(400, 404))
def unassign(given: Assignment) -> None:
    """Take a runner away from a project that it was assigned to."""
    project, runner = places.project(given.project), runners.readable(given.runner_id)
    with looking_for("Runner"):
        runner_projects.unassign(db.session(), credentials.actor(), runner, project)
    db.session.commit()
