"""The fields of a runner and of its machines."""

from datetime import timedelta
from typing import Any

import pytest

from portal.database import now
from portal.domain.runners import runner_projects
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.models import CreationState, Executor, Runner, RunnerManager
from tests.api.graphql.conftest import AskerOf
from tests.api.graphql.queries import Asker, gid
from tests.cast import TAGGED, Cast

ONE = "query($id: CiRunnerID!) { runner(id: $id) { %s } }"
MACHINE_FIELDS = "ipAddress version revision platformName architectureName executorName"


def of_runner(asker: Asker, runner: Runner, wanted: str) -> Any:
    return asker.data(ONE % wanted, id=gid("Ci::Runner", runner.id))["runner"]


def machine(cast: Cast, runner: Runner, system_id: str, **facts: Any) -> RunnerManager:
    """A machine that asked for jobs a moment ago."""
    contacted = {"contacted_at": now(), "creation_state": CreationState.FINISHED}
    made = RunnerManager(runner_id=runner.id, system_xid=system_id, **{**contacted, **facts})
    cast.session.add(made)
    cast.session.commit()
    return made


def test_the_settings_are_there(cast: Cast, asker_of: AskerOf) -> None:
    settings = RunnerSettings(
        description="Linux fleet",
        tags=("b", "a"),
        protected=True,
        locked=True,
        maximum_timeout=900,
        run_untagged=True,
    )
    runner = cast.runner(cast.web, settings).runner
    wanted = """id runnerType description accessLevel locked paused active runUntagged tagList maximumTimeout status
        contactedAt creationMethod creationState jobExecutionStatus jobCount jobs { count nodes { id } }"""
    assert of_runner(asker_of(cast.alice, "read_api"), runner, wanted) == {
        "id": f"gid://gitlab/Ci::Runner/{runner.id}",
        "runnerType": "PROJECT_TYPE",
        "description": "Linux fleet",
        "accessLevel": "REF_PROTECTED",
        "locked": True,
        "paused": False,
        "active": True,
        "runUntagged": True,
        "tagList": ["b", "a"],
        "maximumTimeout": 900,
        "status": "NEVER_CONTACTED",
        "contactedAt": None,
        "creationMethod": "AUTHENTICATED_USER",
        "creationState": "STARTED",
        "jobExecutionStatus": "IDLE",
        "jobCount": 0,
        "jobs": {"count": 0, "nodes": []},
    }


def test_its_short_token_and_its_creator_are_told_and_its_token_is_not(cast: Cast, asker_of: AskerOf) -> None:
    issued = cast.runner(cast.acme)
    found = of_runner(
        asker_of(cast.alice),
        issued.runner,
        """shortSha ephemeralAuthenticationToken createdAt
        createdBy { id username name state webUrl webPath avatarUrl }""",
    )
    assert found["shortSha"] == issued.record.short[:8]
    assert found["shortSha"] in issued.token
    assert found["ephemeralAuthenticationToken"] is None
    assert found["createdAt"].endswith("Z")
    assert found["createdBy"] == {
        "id": gid("User", cast.dana.id),
        "username": "dana",
        "name": "Dana Kay",
        "state": "active",
        "webUrl": f"https://portal.example.com/admin/people/{cast.dana.id}",
        "webPath": f"/admin/people/{cast.dana.id}",
        "avatarUrl": None,
    }


def test_what_is_for_those_who_may_change_it_is_null_for_others(cast: Cast, asker_of: AskerOf) -> None:
    note = "a <b>\nsecond"
    runner = cast.runner(None, RunnerSettings(maintenance_note=note, run_untagged=True)).runner
    wanted = "maintenanceNote maintenanceNoteHtml"
    assert of_runner(asker_of(cast.alice), runner, wanted) == {
        "maintenanceNote": note,
        "maintenanceNoteHtml": "<p>a &lt;b&gt;<br>second</p>",
    }
    assert of_runner(asker_of(cast.bob), runner, wanted) == {"maintenanceNote": None, "maintenanceNoteHtml": None}


def test_when_its_token_expires_is_for_those_who_may_change_it(cast: Cast, asker_of: AskerOf) -> None:
    runner = cast.runner(None, RunnerSettings(run_untagged=True, token_expiration_interval=7200)).runner
    expires = of_runner(asker_of(cast.alice), runner, "tokenExpiresAt")["tokenExpiresAt"]
    assert expires > now().isoformat()
    assert of_runner(asker_of(cast.bob), runner, "tokenExpiresAt") == {"tokenExpiresAt": None}


def test_administrators_get_addresses_among_all_runners(cast: Cast, asker_of: AskerOf) -> None:
    runner = cast.runner(cast.acme).runner
    wanted = "adminUrl editAdminUrl registerAdminUrl ephemeralRegisterUrl"
    at = f"https://portal.example.com/admin/runners/{runner.id}"
    assert of_runner(asker_of(cast.dana), runner, wanted) == {
        "adminUrl": at,
        "editAdminUrl": f"{at}/edit",
        "registerAdminUrl": at,
        "ephemeralRegisterUrl": f"https://portal.example.com/groups/acme/-/runners/{runner.id}",
    }
    assert set(of_runner(asker_of(cast.alice), runner, wanted).values()) == {None}


def test_a_runner_that_a_machine_uses_is_not_to_be_registered_any_more(cast: Cast, asker_of: AskerOf) -> None:
    runner = cast.runner(cast.acme).runner
    runner.creation_state, runner.contacted_at = CreationState.FINISHED, now()
    cast.session.commit()
    wanted = "registerAdminUrl ephemeralRegisterUrl"
    assert set(of_runner(asker_of(cast.dana), runner, wanted).values()) == {None}


def test_its_group_its_projects_and_its_owner(cast: Cast, asker_of: AskerOf) -> None:
    wanted = """groups { count nodes { id name path fullPath webUrl } } projectCount
        projects { count nodes { id name fullPath nameWithNamespace webUrl group { fullPath } } }
        ownerProject { fullPath }"""
    of_group = of_runner(asker_of(cast.alice), cast.runner(cast.platform).runner, wanted)
    assert of_group == {
        "groups": {
            "count": 1,
            "nodes": [
                {
                    "id": gid("Group", cast.platform.id),
                    "name": "Platform",
                    "path": "platform",
                    "fullPath": "acme/platform",
                    "webUrl": "https://portal.example.com/groups/acme/platform",
                }
            ],
        },
        "projectCount": None,
        "projects": None,
        "ownerProject": None,
    }
    of_project = of_runner(asker_of(cast.alice), cast.runner(cast.web).runner, wanted)
    assert of_project == {
        "groups": None,
        "projectCount": 1,
        "projects": {
            "count": 1,
            "nodes": [
                {
                    "id": gid("Project", cast.web.id),
                    "name": "Web",
                    "fullPath": "acme/web",
                    "nameWithNamespace": "Acme / Web",
                    "webUrl": "https://portal.example.com/acme/web",
                    "group": {"fullPath": "acme"},
                }
            ],
        },
        "ownerProject": {"fullPath": "acme/web"},
    }


def test_projects_are_searched_sorted_and_paged_and_hidden_ones_are_only_counted(
    cast: Cast, asker_of: AskerOf
) -> None:
    runner = cast.runner(cast.web, RunnerSettings(run_untagged=True)).runner
    for project in (cast.project("api", cast.acme), cast.project("secret", cast.other)):
        runner_projects.assign(cast.session, cast.as_(cast.dana), runner, project)
    cast.session.commit()
    alice, bob = asker_of(cast.alice), asker_of(cast.bob)

    def paths(asker: Asker, arguments: str) -> list[str]:
        found = of_runner(asker, runner, f"projectCount projects{arguments} {{ nodes {{ fullPath }} }}")
        assert found["projectCount"] == 3
        return [each["fullPath"] for each in found["projects"]["nodes"]]

    assert paths(alice, "") == ["acme/web", "acme/api"]
    assert paths(bob, "") == ["acme/web"]
    assert paths(asker_of(cast.dana), "(membership: true)") == []
    assert paths(alice, "(membership: true)") == ["acme/web", "acme/api"]
    assert paths(alice, '(sort: "name_asc")') == ["acme/api", "acme/web"]
    assert paths(alice, '(search: "AP")') == ["acme/api"]
    assert paths(alice, '(search: "acme")') == []
    assert paths(alice, '(search: "acme", searchNamespaces: true, last: 1)') == ["acme/api"]
    assert paths(alice, '(topics: ["a"])') == []
    assert "sort" in alice.errors(ONE % 'projects(sort: "stars") { count }', id=gid("Ci::Runner", runner.id))[0]


@pytest.mark.parametrize(
    ("who", "permissions"),
    [
        ("dana", (True, True, True)),
        ("alice", (True, True, True)),
        ("bob", (True, True, True)),
    ],
)
def test_what_one_may_do_with_a_projects_runner(
    cast: Cast, asker_of: AskerOf, who: str, permissions: tuple[bool, bool, bool]
) -> None:
    assert allowed(asker_of(getattr(cast, who)), cast.runner(cast.web).runner) == (True, *permissions)


def allowed(asker: Asker, runner: Runner) -> tuple[bool, ...]:
    found = of_runner(asker, runner, "userPermissions { readRunner updateRunner deleteRunner assignRunner }")
    return tuple(found["userPermissions"].values())


def test_what_one_may_do_with_runners_of_others(cast: Cast, asker_of: AskerOf) -> None:
    of_group, of_instance = cast.runner(cast.acme).runner, runner_of_the_instance(cast)
    assert allowed(asker_of(cast.bob), of_group) == (True, False, False, False)
    assert allowed(asker_of(cast.alice), of_group) == (True, True, True, False)
    assert allowed(asker_of(cast.charlie), of_instance) == (True, False, False, False)
    assert allowed(asker_of(cast.dana), of_instance) == (True, True, True, False)


def runner_of_the_instance(cast: Cast) -> Runner:
    return cast.runner(INSTANCE).runner


def test_a_locked_runner_and_one_of_several_projects_say_so(cast: Cast, asker_of: AskerOf) -> None:
    locked = cast.runner(cast.web, RunnerSettings(run_untagged=True, locked=True)).runner
    assert allowed(asker_of(cast.bob), locked) == (True, True, True, False)
    shared = cast.runner(cast.web).runner
    runner_projects.assign(cast.session, cast.as_(cast.dana), shared, cast.project("api", cast.acme))
    cast.session.commit()
    assert allowed(asker_of(cast.bob), shared) == (True, True, False, True)
    assert allowed(asker_of(cast.dana), shared) == (True, True, True, True)


def test_machines_are_told_with_all_their_facts(cast: Cast, asker_of: AskerOf) -> None:
    runner = cast.runner(cast.acme).runner
    made = machine(
        cast,
        runner,
        "s_1",
        version="17.5.0",
        revision="abc",
        platform="linux",
        architecture="amd64",
        ip_address="192.0.2.9",
        executor_type=Executor.DOCKER_MACHINE,
    )
    wanted = f"""managers {{ count nodes {{ id systemId status contactedAt createdAt jobExecutionStatus
        {MACHINE_FIELDS} runner {{ id }} }} edges {{ cursor node {{ id }} }} }}"""
    managers = of_runner(asker_of(cast.alice), runner, wanted)["managers"]
    assert managers["count"] == 1
    node = managers["nodes"][0]
    assert node.pop("contactedAt")
    assert node.pop("createdAt")
    assert node == {
        "id": gid("Ci::RunnerManager", made.id),
        "systemId": "s_1",
        "status": "ONLINE",
        "jobExecutionStatus": "IDLE",
        "ipAddress": "192.0.2.9",
        "version": "17.5.0",
        "revision": "abc",
        "platformName": "linux",
        "architectureName": "amd64",
        "executorName": "docker+machine",
        "runner": {"id": gid("Ci::Runner", runner.id)},
    }


def test_addresses_of_machines_are_for_who_may_see_the_runners_of_the_owner(cast: Cast, asker_of: AskerOf) -> None:
    of_instance, of_group = cast.runner(INSTANCE, TAGGED).runner, cast.runner(cast.acme, TAGGED).runner
    for each in (of_instance, of_group):
        machine(cast, each, "s_1", version="17.5.0", ip_address="192.0.2.9")
    askers = {name: asker_of(getattr(cast, name)) for name in ("dana", "alice", "bob", "charlie")}
    for runner, readers, trusted in (
        (of_instance, "dana alice bob charlie", "dana"),
        (of_group, "dana alice bob", "dana alice"),
    ):
        for name in readers.split():
            address = "192.0.2.9" if name in trusted.split() else None
            told = of_runner(askers[name], runner, "ipAddress version managers { nodes { systemId ipAddress } }")
            assert told == {
                "ipAddress": address,
                "version": "17.5.0",
                "managers": {"nodes": [{"systemId": "s_1", "ipAddress": address}]},
            }


def test_the_machine_fields_of_a_runner_are_the_distinct_values_of_its_machines(
    cast: Cast, asker_of: AskerOf
) -> None:
    runner = cast.runner(cast.acme).runner
    runner.version, runner.platform = "11.0.0", "windows"
    linux = {"platform": "linux", "executor_type": Executor.SHELL, "ip_address": "192.0.2.1"}
    machine(cast, runner, "s_1", version="17.5.0", architecture="arm64", **linux)
    machine(cast, runner, "s_2", version="16.0.0", architecture="amd64", **linux)
    machine(cast, runner, "s_3", version="17.5.0", executor_type=Executor.DOCKER, ip_address="192.0.2.2")
    assert of_runner(asker_of(cast.alice), runner, MACHINE_FIELDS) == {
        "ipAddress": "192.0.2.1,192.0.2.2",
        "version": "16.0.0,17.5.0",
        "revision": None,
        "platformName": "linux",
        "architectureName": "amd64,arm64",
        "executorName": "docker,shell",
    }


def test_a_runner_without_machines_has_the_machine_fields_of_its_own(cast: Cast, asker_of: AskerOf) -> None:
    runner = cast.runner(cast.acme).runner
    runner.version, runner.executor_type, runner.ip_address = "11.0.0", Executor.SHELL, "192.0.2.3"
    cast.session.commit()
    assert of_runner(asker_of(cast.alice), runner, MACHINE_FIELDS) == {
        "ipAddress": "192.0.2.3",
        "version": "11.0.0",
        "revision": None,
        "platformName": None,
        "architectureName": None,
        "executorName": "shell",
    }


def test_the_machine_fields_are_marked_as_deprecated(visitor: Asker) -> None:
    fields = visitor.data('{ __type(name: "CiRunner") { fields(includeDeprecated: true) { name isDeprecated } } }')
    old = {each["name"] for each in fields["__type"]["fields"] if each["isDeprecated"]}
    assert old == {*MACHINE_FIELDS.split(), "active"}


def test_machines_are_filtered_and_paged(cast: Cast, asker_of: AskerOf) -> None:
    runner, alice = cast.runner(cast.acme).runner, asker_of(cast.alice)
    machine(cast, runner, "s_online")
    machine(cast, runner, "s_offline", contacted_at=now() - timedelta(hours=3))
    machine(cast, runner, "s_stale", contacted_at=now() - timedelta(days=8), created_at=now() - timedelta(days=9))
    machine(cast, runner, "s_new", contacted_at=None, creation_state=CreationState.STARTED)

    def ids(arguments: str) -> tuple[list[str], dict[str, Any], int]:
        wanted = f"""managers{arguments} {{ count nodes {{ systemId }}
            pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }}"""
        found = of_runner(alice, runner, wanted)["managers"]
        return [each["systemId"] for each in found["nodes"]], found["pageInfo"], found["count"]

    assert ids("")[0] == ["s_new", "s_stale", "s_offline", "s_online"]
    assert ids("(status: ONLINE)")[0] == ["s_online"]
    assert ids("(status: STALE)")[0] == ["s_stale"]
    assert ids("(status: OFFLINE)")[0] == ["s_stale", "s_offline"]
    assert ids("(status: NEVER_CONTACTED)")[0] == ["s_new"]
    assert ids('(systemId: "s_new")')[0] == ["s_new"]
    first, page, count = ids("(first: 2)")
    assert (first, page["hasNextPage"], page["hasPreviousPage"], count) == (["s_new", "s_stale"], True, False, 4)
    rest, page, _ = ids(f'(first: 2, after: "{page["endCursor"]}")')
    assert (rest, page["hasNextPage"], page["hasPreviousPage"]) == (["s_offline", "s_online"], False, True)
    back, page, _ = ids(f'(last: 1, before: "{page["startCursor"]}")')
    assert (back, page["hasNextPage"], page["hasPreviousPage"]) == (["s_stale"], True, True)


def test_a_runner_that_is_none_of_ones_own_is_null_like_one_that_is_not_there(
    cast: Cast, asker_of: AskerOf, visitor: Asker
) -> None:
    runner = cast.runner(cast.acme).runner
    for asker in (asker_of(cast.charlie), asker_of(cast.erin), visitor):
        assert of_runner(asker, runner, "id") is None
    assert asker_of(cast.dana).data(ONE % "id", id=gid("Ci::Runner", 999_999)) == {"runner": None}


def test_only_what_may_be_seen_of_a_runner_of_above_is_told(cast: Cast, asker_of: AskerOf) -> None:
    """Bob maintains a project that can use the group's runner: he reads it, and does not see the group."""
    runner = cast.runner(cast.acme, TAGGED).runner
    found = of_runner(asker_of(cast.bob), runner, "id groups { count nodes { fullPath } }")
    assert found["groups"] == {"count": 0, "nodes": []}
