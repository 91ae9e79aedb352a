"""`POST /jobs/request`: a runner's poll, which is its heartbeat too."""

from __future__ import annotations

from flask import Response

from portal.api import params
from portal.api.for_runners.door import authenticated, blueprint, hear


@blueprint.post("/jobs/request")
def request_job() -> Response:
    """204 with the runner's queue value: there is nothing to do. A paused runner hears the same."""
    given = params.read()
    known = authenticated(given)
    hear(known, given, polled=True)
    return Response(status=204, headers={"X-GitLab-Last-Update": known.queue_value})
