"""The floors of the house: imports only go down, and nobody goes round in circles."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.house.trees import PORTAL, imports, modules, name_of

# From the ground up. Modules on one floor may import each other, but `web` and `api` do not know each other.
FLOORS = [
    ["portal.config", "portal.database", "portal.embedded_postgres"],
    ["portal.models"],
    ["portal.domain"],
    [
        "portal.requests",
        "portal.request_logs",
        "portal.addresses",
        "portal.artifact_files",
        "portal.connections",
        "portal.demo",
        "portal.job_log_files",
        "portal.artifact_files",
        "portal.background",
        "portal.housekeeping",
    ],
    [
        "portal.web",
        "portal.api",
        "portal.health",
        "portal.gate",
        "portal.idle_polls",
        "portal.commands",
        "portal.access_token_commands",
        "portal.audit_commands",
    ],
    ["portal"],
    ["portal.serve"],
]
WEB_FRAMEWORK = ("flask", "werkzeug", "wtforms", "jinja2")


def floor(module: str) -> int:
    """The number of the floor on which a module lives."""
    for number, rooms in enumerate(FLOORS):
        if module in rooms or any(module.startswith(f"{room}.") for room in rooms if room != "portal"):
            return number
    raise AssertionError(f"{module} has no floor: give it one in this test")


def of_the_portal(path: Path) -> set[str]:
    return {each for each in imports(path) if each.split(".")[0] == "portal"}


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_only_go_down(path: Path) -> None:
    mine = floor(name_of(path))
    assert {each for each in of_the_portal(path) if floor(each) > mine} == set()


def test_web_and_api_do_not_know_each_other() -> None:
    seen = {each for path in modules("web") for each in of_the_portal(path)}
    assert not [each for each in seen if each.startswith("portal.api")]
    seen = {each for path in modules("api") for each in of_the_portal(path)}
    assert not [each for each in seen if each.startswith("portal.web")]


def test_nobody_imports_in_circles() -> None:
    graph = {name_of(path): of_the_portal(path) - {name_of(path)} for path in modules()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


@pytest.mark.parametrize("path", [*modules("domain"), *modules("models")], ids=name_of)
def test_the_domain_and_the_models_know_no_web_framework(path: Path) -> None:
    assert not [each for each in imports(path) if each.split(".")[0].startswith(WEB_FRAMEWORK)]


HALL = {
    "actors",
    "audit",
    "csv_lines",
    "errors",
    "last_uses",
    "names",
    "permissions",
    "scopes",
    "slices",
    "tokens",
    "vault",
}


def test_the_domain_has_rooms_and_only_what_they_stand_on_is_in_the_hall() -> None:
    in_hall = {path.stem for path in (PORTAL / "domain").glob("*.py")} - {"__init__"}
    assert in_hall == HALL
    for room in (path for path in (PORTAL / "domain").iterdir() if path.is_dir() and path.name != "__pycache__"):
        said = ast.parse((room / "__init__.py").read_text())
        assert ast.get_docstring(said), f"{room.name} does not say what lives there"
        assert len(said.body) == 1, f"{room.name} lets others in by its door: name the module instead"


def test_the_wording_of_this_test_finds_what_it_forbids() -> None:
    assert "flask" in imports(PORTAL / "web" / "guards.py")
    assert "portal.domain.permissions" in of_the_portal(PORTAL / "web" / "guards.py")
    upwards = ["portal.domain.runners.runners", "portal.web.guards", "portal", "portal.serve"]
    assert sorted(upwards, key=floor) == upwards
