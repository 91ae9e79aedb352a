"""The schema, put together once: schema.graphql, and the resolvers bound to its names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ariadne import EnumType, ObjectType, ScalarType, load_schema_from_path, make_executable_schema

from portal.api.for_users.shapes import written
from portal.api.graphql import (
    bulk_mutations,
    global_ids,
    job_fields,
    job_mutations,
    machines,
    paging,
    project_mutations,
    registration_mutations,
    root_fields,
    runner_fields,
    runner_mutations,
    scope_fields,
)
from portal.api.graphql.context import Info
from portal.api.graphql.paging import Connection
from portal.domain.runners.runner_paging import Order
from portal.domain.runners.runner_status import Status
from portal.models import AccessLevel, CreationState, JobStatus, RegistrationType, RunnerType

FILE = Path(__file__).with_name("schema.graphql")
CONNECTIONS = ("CiRunner", "CiRunnerManager", "CiJob", "CiJobArtifact", "Group", "Project")
SORTS = [each for each in Order if each.by != "id"]

enums = [
    EnumType("CiRunnerType", {f"{each.name}_TYPE": each for each in RunnerType}),
    EnumType("CiRunnerStatus", {each.name: each for each in Status}),
    EnumType("CiRunnerAccessLevel", {each.name: each for each in AccessLevel}),
    EnumType("CiRunnerCreationMethod", {each.name: each for each in RegistrationType}),
    EnumType("CiRunnerCreationState", {each.name: each for each in CreationState}),
    EnumType("CiJobStatus", {each.name: each for each in JobStatus}),
    EnumType("CiRunnerSort", {each.name: each for each in SORTS}),
    EnumType("CiRunnerMembershipFilter", {name.upper(): name for name in ("direct", "descendants", "all_available")}),
]


def _connection(name: str) -> ObjectType:
    """A type whose fields are the properties of a Connection, in which a mistake is no silent null."""
    found = ObjectType(f"{name}Connection")

    def count(connection: Connection[Any], _info: Info, limit: int | None = None) -> Any:
        return connection.count if limit is None else paging.counted(connection, limit)

    def edges(connection: Connection[Any], _info: Info) -> Any:
        return connection.edges

    def nodes(connection: Connection[Any], _info: Info) -> Any:
        return connection.nodes

    def page_info(connection: Connection[Any], _info: Info) -> Any:
        return connection.page_info

    for field, resolve in {"count": count, "edges": edges, "nodes": nodes, "pageInfo": page_info}.items():
        found.set_field(field, resolve)
    return found


schema = make_executable_schema(
    load_schema_from_path(str(FILE)),
    root_fields.query,
    runner_mutations.mutation,
    bulk_mutations.mutation,
    project_mutations.mutation,
    registration_mutations.mutation,
    job_mutations.mutation,
    job_fields.job,
    job_fields.permissions,
    job_fields.artifact,
    runner_fields.runner,
    runner_fields.permissions,
    machines.manager,
    scope_fields.group,
    scope_fields.project,
    scope_fields.person,
    ScalarType("Time", serializer=written),
    ScalarType("BigInt", serializer=str),
    *[_connection(name) for name in CONNECTIONS],
    *global_ids.scalars,
    *enums,
    convert_names_case=True,
)
