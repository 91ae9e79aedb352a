"""Global ids, `gid://gitlab/Ci::Runner/1`: each kind a scalar, whose values in the code are plain numbers."""

from __future__ import annotations

import re

from ariadne import ScalarType

from portal.api.graphql.problems import ArgumentWrong

LARGEST = 2**63 - 1  # what the database can hold
MODELS = {
    "CiRunnerID": "Ci::Runner",
    "CiRunnerManagerID": "Ci::RunnerManager",
    "GroupID": "Group",
    "ProjectID": "Project",
    "UserID": "User",
    "JobID": "Ci::Build",
    "CiBuildID": "Ci::Build",  # what jobCancel takes in GitLab; a client's variable has to name it
    "CiProcessableID": "Ci::Build",  # and jobRetry
    "CiJobArtifactID": "Ci::JobArtifact",
}
_GID = re.compile(r"gid://gitlab/([A-Za-z:]{1,80})/([0-9]{1,19})", re.ASCII)


def write(model: str, number: int) -> str:
    """The global id of the thing of this kind with this number."""
    return f"gid://gitlab/{model}/{number}"


def read(given: object, *models: str) -> tuple[str, int]:
    """The kind and the number in a global id of one of these kinds. Raises ArgumentWrong."""
    found = _GID.fullmatch(given) if isinstance(given, str) else None
    if found is None or int(found[2]) > LARGEST:
        example = " or ".join(write(model, 1) for model in models)
        raise ArgumentWrong(f"{_short(given)} is not a valid global ID. Write it as {example}.")
    if found[1] not in models:
        raise ArgumentWrong(f"{_short(given)} is not a valid ID for {' or '.join(models)}.")
    return found[1], int(found[2])


def _short(given: object) -> str:
    text = str(given)
    return f'"{text if len(text) <= 80 else text[:80] + "…"}"'


def _scalar(name: str, model: str) -> ScalarType:
    return ScalarType(
        name,
        serializer=lambda number: write(model, number),
        value_parser=lambda given: read(given, model)[1],
    )


scalars = [_scalar(name, model) for name, model in MODELS.items()]
