"""What a script may say of a job, and which jobs of a list it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args

import orjson
from pydantic import BeforeValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from portal.api.for_users.paging import Paged
from portal.api.for_users.parameters import (
    Flag,
    OptionalFlag,
    OptionalNumber,
    OptionalText,
    Parameters,
    Text,
    Words,
    only_one_of,
)
from portal.api.for_users.scope_parameters import Ids, OneProject
from portal.domain.jobs import job_lists
from portal.domain.jobs.job_definitions import WHEN, ArtifactsWanted, JobVariable, NewJob, Repository
from portal.domain.jobs.job_lists import JobFilter
from portal.domain.jobs.job_walks import JobList
from portal.domain.jobs.script_lines import commands
from portal.models import JobStatus

# GitLab's; those that are no JobStatus no job has here.
Statuses = Literal[
    "created",
    "waiting_for_resource",
    "preparing",
    "waiting_for_callback",
    "pending",
    "running",
    "success",
    "failed",
    "canceling",
    "canceled",
    "skipped",
    "manual",
    "scheduled",
]
STATUSES: tuple[str, ...] = get_args(Statuses)
NAMES = {"tags": "tag_list"}  # of fields that the API has another name for


def _wrong(would_do: str) -> PydanticCustomError:
    return PydanticCustomError("shape", "is invalid", {"would_do": would_do})


def _storable(*texts: str) -> None:
    if any("\0" in each for each in texts):
        raise PydanticCustomError("character", "is invalid")


def _lines(value: Any) -> tuple[str, ...]:
    """Lines of a script: a list, a repeated field, or one text of lines."""
    if isinstance(value, str):
        value = commands(value)
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise _wrong("a list of lines, or one text of lines")
    _storable(*value)
    return tuple(value)


def _optional_lines(value: Any) -> tuple[str, ...]:
    return () if value is None else _lines(value)


_VARIABLE = ("key", "value", "masked", "file", "raw")
_VARIABLES = f"a list of objects with {', '.join(_VARIABLE)}, or one object of keys and values"


def _variables(value: Any) -> tuple[JobVariable, ...]:
    """A list of variables, or an object of keys and values."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        value = [{"key": key, "value": each} for key, each in value.items()]
    if not isinstance(value, list | tuple):
        raise _wrong(_VARIABLES)
    return tuple(_variable(each) for each in value)


def _variable(value: Any) -> JobVariable:
    if not isinstance(value, Mapping) or set(value) - set(_VARIABLE) or not isinstance(value.get("key"), str):
        raise _wrong(_VARIABLES)  # an unknown word too: a misspelt `masked` would show a secret
    key, said = value["key"], "" if value.get("value") is None else value["value"]
    if isinstance(said, bool | int | float):
        said = orjson.dumps(said).decode()
    if not isinstance(said, str):
        raise _wrong("the value of a variable is a text, a number, or true or false")
    _storable(key, said)
    flags = {name: value.get(name, False) for name in ("masked", "file", "raw")}
    if not all(isinstance(each, bool) for each in flags.values()):
        raise _wrong("masked, file and raw of a variable are true or false")
    return JobVariable(key, said, **flags)


def _object(value: Any, needed: str, lists: tuple[str, ...], texts: tuple[str, ...], would_do: str) -> dict[str, Any]:
    """The fields of an object that has nothing but these; a field that is null is left out."""
    if not isinstance(value, Mapping) or set(value) - {*lists, *texts}:
        raise _wrong(would_do)
    found = {name: each for name, each in value.items() if each is not None}
    if needed not in found or not all(isinstance(found.get(name, ""), str) for name in texts):
        raise _wrong(would_do)
    _storable(*(found.get(name, "") for name in texts))
    return found | {name: _lines(found[name]) for name in lists if name in found}


def _artifacts(value: Any) -> ArtifactsWanted | None:
    if value is None or value == "":
        return None
    would_do = "an object with paths, and where wanted exclude, name, when, expire_in"
    return ArtifactsWanted(**_object(value, "paths", ("paths", "exclude"), ("name", "when", "expire_in"), would_do))


def _repository(value: Any) -> Repository | None:
    if value is None or value == "":
        return None
    return Repository(**_object(value, "url", (), ("url", "commit"), "an object with url, and where wanted commit"))


def _statuses(value: Any) -> tuple[str, ...]:
    """One status, or some: `scope=running`, `scope[]=pending&scope[]=running`."""
    if value is None or value == "":
        return ()
    found = tuple(value.values()) if isinstance(value, Mapping) else value
    found = (found,) if isinstance(found, str) else found
    if not isinstance(found, list | tuple) or not all(each in STATUSES for each in found):
        raise PydanticCustomError("enum", "is none", {"expected": ", ".join(STATUSES)})
    return tuple(found)


_NULL, _TEXT = {"type": "null"}, {"type": "string"}
_EMPTY = {"type": "string", "maxLength": 0}
_LINES: list[dict[str, Any]] = [{"type": "array", "items": _TEXT}, _TEXT]
_VALUE = {"anyOf": [_TEXT, {"type": "number"}, {"type": "boolean"}, _NULL]}


def _thing(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _nullable(*schemas: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [*schemas, _NULL]}


def _typed(read: Callable[[Any], Any], schema: dict[str, Any]) -> tuple[BeforeValidator, WithJsonSchema]:
    return BeforeValidator(read), WithJsonSchema(schema)


_FLAGS = {name: {"type": "boolean"} for name in ("masked", "file", "raw")}
_ONE_VARIABLE = _thing(["key"], key=_TEXT, value=_VALUE, **_FLAGS)
_ALL_VARIABLES = _nullable(
    {"type": "array", "items": _ONE_VARIABLE}, {"type": "object", "additionalProperties": _VALUE}
)
_MAYBE_LINES, _MAYBE_TEXT = _nullable(*_LINES), _nullable(_TEXT)
_WANTED = _thing(
    ["paths"],
    paths={"anyOf": _LINES},
    exclude=_MAYBE_LINES,
    name=_MAYBE_TEXT,
    when=_nullable({"type": "string", "enum": list(WHEN)}),
    expire_in=_MAYBE_TEXT,
)
_CHECKED_OUT = _thing(["url"], url=_TEXT, commit=_MAYBE_TEXT)
_STATUS = {"type": "string", "enum": list(STATUSES)}

Lines = Annotated[tuple[str, ...], *_typed(_lines, {"anyOf": _LINES})]
OptionalLines = Annotated[tuple[str, ...], *_typed(_optional_lines, _MAYBE_LINES)]
Variables = Annotated[tuple[JobVariable, ...], *_typed(_variables, _ALL_VARIABLES)]
Artifacts = Annotated[ArtifactsWanted | None, *_typed(_artifacts, _nullable(_WANTED, _EMPTY))]
Checkout = Annotated[Repository | None, *_typed(_repository, _nullable(_CHECKED_OUT, _EMPTY))]
SomeStatuses = Annotated[
    tuple[str, ...], *_typed(_statuses, {"anyOf": [{"type": "array", "items": _STATUS}, _STATUS, _EMPTY]})
]


class JobFields(Parameters):
    """What a job runs, and where. `tags` is another word for `tag_list`."""

    name: OptionalText = None
    script: OptionalLines = ()
    after_script: OptionalLines = ()
    image: OptionalText = None
    services: Words = ()
    tag_list: Words = ()
    tags: Words = ()
    ref: OptionalText = None
    protected: OptionalFlag = None
    variables: Variables = ()
    timeout: OptionalNumber = None
    artifacts: Artifacts = None
    repository: Checkout = None
    retry: OptionalNumber = None

    @model_validator(mode="after")
    def _tagged_once(self) -> JobFields:
        only_one_of(self, "tag_list", "tags")
        return self

    def said(self) -> dict[str, Any]:
        """What is given, in the words of NewJob. A name, script or ref that is null is as one that is not there."""
        values = {
            "after_script": self.after_script,
            "image": self.image or "",
            "services": self.services,
            "protected": self.protected,
            "variables": self.variables,
            "timeout": self.timeout,
            "artifacts": self.artifacts,
            "repository": self.repository,
            "retry": self.retry or 0,
        }
        found = {name: value for name, value in values.items() if self.given(name)}
        needed = {"name": self.name, "script": self.script or None, "ref": self.ref}
        found |= {name: value for name, value in needed.items() if value is not None}
        if self.given("tag_list") or self.given("tags"):
            found["tags"] = self.tag_list or self.tags
        return found


class NewJobFields(JobFields):
    """The same of a new one, which needs a name and a script."""

    name: Text
    script: Lines

    def wanted(self) -> NewJob:
        """What is asked for, not yet checked."""
        return NewJob(**{"script": (), **self.said()})


class JobAsked(OneProject, NewJobFields):
    """A new job. `needs` are numbers of jobs of the project whose artifacts are there when this one begins."""

    needs: Ids = ()

    def said(self) -> dict[str, Any]:
        return {**super().said(), "needs": self.needs}


class JobsListed(Paged):
    """How a list of jobs comes: in pages by number, or by cursor with `pagination=keyset`."""

    order_by: Literal["id"] | None = None
    sort: Literal["asc", "desc"] = "desc"
    pagination: Literal["keyset", "legacy"] | None = None
    cursor: OptionalText = None


class ProjectJobsListed(JobsListed, OneProject):
    """Which jobs of a project. `name` or `search` is how the job's name begins, or its number."""

    scope: SomeStatuses = ()
    include_retried: Flag = True
    ref: OptionalText = None
    name: OptionalText = None
    search: OptionalText = None
    tag: OptionalText = None

    @model_validator(mode="after")
    def _seeks_one(self) -> ProjectJobsListed:
        only_one_of(self, "name", "search")
        return self

    def narrowed(self, jobs: JobList) -> JobList:
        """Those of the jobs that fit these conditions."""
        wanted = JobFilter(
            words=self.name or self.search or "",
            ref=self.ref or "",
            tag=self.tag or "",
            with_retried=self.include_retried,
        )
        return with_status(job_lists.narrowed(jobs, wanted), self.scope)


def with_status(jobs: JobList, words: tuple[str, ...]) -> JobList:
    """Those of the jobs that have one of these statuses; all for no word. Of GitLab's further ones there are none."""
    if not words:
        return jobs
    return jobs.with_status([JobStatus(word) for word in words if word in set(JobStatus)])
