"""Namespaces by script: groups as the places of projects."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.orm import Session

from tests.api.for_users.conftest import ScriptOf
from tests.cast import Cast
from tests.domain.queries import asked


def paths(found: list[dict[str, Any]]) -> list[str]:
    return [each["full_path"] for each in found]


def test_everybody_sees_the_namespaces_of_their_groups(script_of: ScriptOf, cast: Cast) -> None:
    dana = script_of(cast.dana, "read_api")
    assert paths(dana.get("/namespaces")) == ["acme", "other", "acme/platform"]
    assert paths(dana.get("/namespaces", search="plat")) == ["acme/platform"]
    assert paths(dana.get("/namespaces", top_level_only=True)) == ["acme", "other"]
    assert paths(dana.get("/namespaces", per_page=1, page=2)) == ["other"]
    assert script_of(cast.charlie).get("/namespaces") == []


def test_a_namespace_is_the_one_of_its_projects(script_of: ScriptOf, cast: Cast) -> None:
    alice = script_of(cast.alice)
    shown = alice.get(f"/namespaces/{cast.acme.id}")
    assert shown == alice.get("/namespaces/acme") == alice.get("/projects/acme%2Fweb")["namespace"]
    assert (shown["kind"], shown["name"], shown["parent_id"]) == ("group", "Acme", None)
    assert alice.get("/namespaces/acme%2Fplatform")["parent_id"] == shown["id"]


def test_a_stranger_finds_no_namespace(script_of: ScriptOf, cast: Cast) -> None:
    for place in ("acme", cast.acme.id, "acme/web", "nowhere", 999_999_999):
        answer = script_of(cast.charlie).get(f"/namespaces/{place}", expect=404)
        assert answer == {"message": "404 Namespace Not Found"}


@pytest.mark.parametrize("number", [1, 50])
def test_a_list_of_namespaces_takes_the_same_number_of_queries(
    script_of: ScriptOf, session: Session, cast: Cast, number: int
) -> None:
    for each in range(number):
        cast.group(f"group-{each}", inside=cast.acme)
    session.commit()
    alice = script_of(cast.alice)
    alice.get("/namespaces")
    with asked(session) as statements:
        alice.get("/namespaces", per_page=100)
    assert len(statements) <= 8
