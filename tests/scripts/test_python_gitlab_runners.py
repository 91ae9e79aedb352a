"""python-gitlab goes through every call that it has for runners, unmodified (reference/rest.md section 2)."""

from __future__ import annotations

from datetime import date, timedelta

import gitlab
import pytest
from gitlab.exceptions import (
    GitlabAuthenticationError,
    GitlabCreateError,
    GitlabDeleteError,
    GitlabGetError,
    GitlabHttpError,
    GitlabListError,
    GitlabUpdateError,
    GitlabVerifyError,
)
from gitlab.v4.objects import CurrentUserRunner, CurrentUserRunnerManager

from tests.api.for_users.runner_attributes import DETAILS, IN_LIST, MANAGER
from tests.cast import Cast
from tests.portals import RunningPortal


def create(who: gitlab.Gitlab, **wanted: object) -> CurrentUserRunner:
    """A runner, made the new way."""
    who.auth()
    assert who.user is not None
    return who.user.runners.create(wanted)


def in_acme(who: gitlab.Gitlab, **wanted: object) -> CurrentUserRunner:
    return create(who, runner_type="group_type", group_id=who.groups.get("acme").id, **wanted)


def in_web(who: gitlab.Gitlab, **wanted: object) -> CurrentUserRunner:
    return create(who, runner_type="project_type", project_id=who.projects.get("acme/web").id, **wanted)


def registration_token(who: gitlab.Gitlab, where: str) -> str:
    """The library has no call for it; this is how its users ask."""
    answer = who.http_post(f"{where}/runners/reset_registration_token")
    assert isinstance(answer, dict)
    return str(answer["token"])


def machine(runner: CurrentUserRunner, system_id: str) -> dict[str, object]:
    return {"token": runner.token, "system_id": system_id, "info": {"version": "18.4.0", "platform": "linux"}}


def test_a_runner_is_created_with_everything_that_can_be_said_of_it(dana: gitlab.Gitlab) -> None:
    made = in_acme(
        dana,
        description="Linux fleet",
        tag_list=["linux", "docker"],
        run_untagged=False,
        locked=True,
        paused=True,
        access_level="ref_protected",
        maximum_timeout=3600,
        maintenance_note="ask Dana",
    )
    assert set(made.attributes) == {"id", "token", "token_expires_at"}
    assert made.token.startswith("glrt-")
    assert made.token_expires_at is None
    runner = dana.runners.get(made.id)
    assert set(runner.attributes) == DETAILS
    assert sorted(runner.tag_list) == ["docker", "linux"]
    told = {name: runner.attributes[name] for name in ("run_untagged", "locked", "paused", "active", "status")}
    assert told == {
        "run_untagged": False,
        "locked": True,
        "paused": True,
        "active": False,
        "status": "never_contacted",
    }
    assert (runner.access_level, runner.maximum_timeout, runner.maintenance_note) == (
        "ref_protected",
        3600,
        "ask Dana",
    )
    assert (runner.runner_type, runner.is_shared, runner.online, runner.contacted_at) == (
        "group_type",
        False,
        None,
        None,
    )
    assert [each["full_path"] if "full_path" in each else each["name"] for each in runner.groups] == ["Acme"]
    assert runner.projects == []
    assert runner.created_by["username"] == "dana"


def test_runners_of_all_three_scopes_are_listed_where_they_belong(dana: gitlab.Gitlab, alice: gitlab.Gitlab) -> None:
    shared = create(dana, runner_type="instance_type", description="for all", tag_list=["big"])
    group = in_acme(alice, description="for acme", tag_list=["linux", "docker"])
    project = in_web(alice, description="for web", tag_list=["linux"], paused=True)
    ids = [shared.id, group.id, project.id]

    assert [each.id for each in dana.runners_all.list(get_all=True)] == ids
    assert [each.id for each in dana.runners.all(get_all=True)] == ids
    assert [each.id for each in dana.runners_all.list(type="group_type", get_all=True)] == [group.id]
    assert [each.id for each in dana.runners_all.list(scope="shared", get_all=True)] == [shared.id]
    assert [each.id for each in dana.runners_all.list(scope="specific", get_all=True)] == [group.id, project.id]
    assert [each.id for each in dana.runners.all(scope="paused", get_all=True)] == [project.id]
    assert [each.id for each in dana.runners_all.list(tag_list=["linux", "docker"], get_all=True)] == [group.id]
    assert [each.id for each in dana.runners_all.list(status="never_contacted", paused=False)] == ids[:2]
    assert dana.runners_all.list(status="online", get_all=True) == []

    mine = alice.runners.list(get_all=True)
    assert [each.id for each in mine] == ids[1:]
    assert [set(each.attributes) for each in mine] == [IN_LIST, IN_LIST]
    assert [each.id for each in alice.runners.list(scope="active", get_all=True)] == [group.id]
    assert [each.id for each in alice.runners.list(tag_list="linux", paused=True)] == [project.id]
    acme, web = alice.groups.get("acme"), alice.projects.get("acme/web")
    assert [each.id for each in acme.runners.list(get_all=True)] == ids[:2]
    assert [each.id for each in acme.runners.list(tag_list=["big"])] == [shared.id]
    assert [each.id for each in web.runners.list(get_all=True)] == ids
    assert [each.id for each in web.runners.list(scope="paused")] == [project.id]
    assert [each.id for each in acme.runners.list(type="group_type")] == [group.id]


def test_long_lists_come_in_pages_of_every_kind(dana: gitlab.Gitlab) -> None:
    ids = [in_acme(dana, description=f"number {number}").id for number in range(5)]
    first = dana.runners.list(per_page=2, page=1, iterator=False)
    assert [each.id for each in first] == ids[:2]
    walked = dana.runners.list(per_page=2, iterator=True)
    assert (walked.total, walked.total_pages, walked.per_page, walked.current_page) == (5, 3, 2, 1)
    assert (walked.next_page, walked.prev_page) == (2, None)
    assert [each.id for each in walked] == ids
    assert [each.id for each in dana.runners.list(per_page=2, get_all=True)] == ids
    by_key = dana.runners.list(per_page=2, pagination="keyset", order_by="id", iterator=True)
    assert by_key.total is None
    assert [each.id for each in by_key] == ids
    assert [each.id for each in dana.runners_all.list(per_page=2, iterator=True)] == ids
    assert [each.id for each in dana.groups.get("acme").runners.list(per_page=2, get_all=True)] == ids
    assert [each.id for each in dana.runners.all(per_page=2, iterator=True)] == ids


def test_a_runner_is_changed_and_deleted(alice: gitlab.Gitlab) -> None:
    runner = alice.runners.get(in_web(alice, description="web", tag_list=["linux"], maximum_timeout=3600).id)
    runner.description = "web's own"
    runner.paused = True
    runner.tag_list = ["arm64", "linux"]
    runner.locked = True
    runner.run_untagged = False
    runner.access_level = "ref_protected"
    runner.maximum_timeout = 1200
    runner.maintenance_note = "in the cellar"
    runner.save()
    again = alice.runners.get(runner.id)
    assert again.attributes == runner.attributes  # save() takes over what was answered
    assert (again.description, again.paused, again.active, sorted(again.tag_list)) == (
        "web's own",
        True,
        False,
        ["arm64", "linux"],
    )
    assert (again.locked, again.run_untagged, again.access_level, again.maximum_timeout, again.maintenance_note) == (
        True,
        False,
        "ref_protected",
        1200,
        "in the cellar",
    )
    again.active = True  # the older word
    again.save()
    assert alice.runners.get(runner.id).paused is False
    changed = alice.runners.update(runner.id, {"tag_list": ["windows"], "maximum_timeout": None})
    assert (changed["tag_list"], changed["maximum_timeout"], changed["description"]) == (
        ["windows"],
        None,
        "web's own",
    )
    lazy = alice.runners.get(runner.id, lazy=True)
    assert lazy.jobs.list(get_all=True) == []
    assert lazy.jobs.list(status="running", order_by="id", sort="asc", pagination="keyset", iterator=False) == []
    runner.delete()
    with pytest.raises(GitlabGetError, match="404 Runner Not Found") as refused:
        alice.runners.get(runner.id)
    assert refused.value.response_code == 404
    other = in_web(alice)
    alice.runners.delete(other.id)
    assert alice.runners.list(get_all=True) == []


def test_a_runner_is_registered_the_old_way(dana: gitlab.Gitlab, alice: gitlab.Gitlab) -> None:
    acme, web = alice.groups.get("acme"), alice.projects.get("acme/web")
    tokens = {
        "instance_type": registration_token(dana, ""),
        "group_type": registration_token(alice, f"/groups/{acme.id}"),
        "project_type": registration_token(alice, f"/projects/{web.encoded_id}"),
    }
    for kind, token in tokens.items():
        runner = dana.runners.create(
            {
                "token": token,
                "description": "as ever",
                "tag_list": ["linux"],
                "info": {"name": "gitlab-runner"},
                "active": False,
                "locked": True,
                "run_untagged": False,
                "access_level": "ref_protected",
                "maximum_timeout": 600,
            }
        )
        assert runner.token.startswith("glrtr-")
        shown = dana.runners.get(runner.id)
        assert (shown.runner_type, shown.paused, shown.tag_list, shown.locked) == (kind, True, ["linux"], True)
    with pytest.raises(GitlabCreateError, match="403 Forbidden - ") as refused:
        dana.runners.create({"token": "GR1348941nobody-knows-this"})
    assert refused.value.response_code == 403
    settings = dana.settings.get()
    settings.allow_runner_registration_token = False
    settings.save()
    with pytest.raises(GitlabCreateError, match="runner registration disallowed") as gone:
        dana.runners.create({"token": tokens["group_type"]})
    assert gone.value.response_code == 410
    with pytest.raises(GitlabHttpError, match="403 Forbidden"):
        registration_token(alice, f"/groups/{acme.id}")
    assert in_acme(alice).id  # the new way stays open


def test_tokens_are_verified_and_their_machines_listed(alice: gitlab.Gitlab) -> None:
    made = in_web(alice)
    alice.runners.verify(made.token)
    alice.http_post("/jobs/request", post_data=machine(made, "s_one"))
    machines = alice.http_list(f"/runners/{made.id}/managers", get_all=True)
    assert [each["system_id"] for each in machines] == ["s_one", "<legacy>"]
    assert [set(each) for each in machines] == [MANAGER, MANAGER]
    runner = alice.runners.get(made.id)
    assert (runner.status, runner.online, runner.version, runner.platform) == ("online", True, "18.4.0", "linux")
    with pytest.raises(GitlabVerifyError, match="403 Forbidden") as refused:
        alice.runners.verify("glrt-nobody-knows-this")
    assert refused.value.response_code == 403
    reset = alice.http_post(f"/runners/{made.id}/reset_authentication_token")
    assert isinstance(reset, dict)
    assert set(reset) == {"token", "token_expires_at"}
    alice.runners.verify(reset["token"])
    with pytest.raises(GitlabVerifyError):
        alice.runners.verify(made.token)


def test_a_runner_serves_further_projects(dana: gitlab.Gitlab, alice: gitlab.Gitlab) -> None:
    acme = alice.groups.get("acme")
    shop = dana.projects.create({"name": "Shop", "namespace_id": acme.id})
    runner, group_runner = in_web(alice), in_acme(alice)
    project = alice.projects.get(shop.id)
    answered = project.runners.create({"runner_id": runner.id})
    assert set(answered.attributes) - {"project_id"} == IN_LIST  # the library adds the project
    assert [each["path_with_namespace"] for each in alice.runners.get(runner.id).projects] == [
        "acme/web",
        "acme/shop",
    ]
    assert [each["path_with_namespace"] for each in alice.http_list(f"/runners/{runner.id}/projects")] == [
        "acme/web",
        "acme/shop",
    ]
    assert runner.id in [each.id for each in project.runners.list(type="project_type", get_all=True)]
    with pytest.raises(GitlabCreateError, match="Runner is a group runner"):
        project.runners.create({"runner_id": group_runner.id})
    with pytest.raises(GitlabCreateError, match="400 Bad request - ") as twice:
        project.runners.create({"runner_id": runner.id})
    assert twice.value.response_code == 400
    with pytest.raises(GitlabDeleteError, match="Runner associated with more than one project"):
        alice.runners.delete(runner.id)
    with pytest.raises(GitlabDeleteError, match="You cannot unassign a runner from the owner project"):
        alice.projects.get("acme/web").runners.delete(runner.id)
    project.runners.delete(runner.id)
    project.runners.create({"runner_id": runner.id}).delete()
    assert [each.id for each in project.runners.list(type="project_type", get_all=True)] == []


def test_refusals_reach_its_user_with_their_status(
    running_portal: RunningPortal, dana: gitlab.Gitlab, alice: gitlab.Gitlab
) -> None:
    runner, shared = in_acme(dana), create(dana, runner_type="instance_type")
    with pytest.raises(GitlabAuthenticationError, match="401 Unauthorized") as nobody:
        gitlab.Gitlab(running_portal.url).runners.list(get_all=True)
    assert nobody.value.response_code == 401
    with pytest.raises(GitlabAuthenticationError):
        gitlab.Gitlab(running_portal.url, private_token="glpat-nobody-knows-this").runners.get(runner.id)
    with pytest.raises(GitlabListError, match="403 Forbidden") as forbidden:
        alice.runners_all.list(get_all=True)
    assert forbidden.value.response_code == 403
    with pytest.raises(GitlabListError):
        alice.runners.all(get_all=True)
    with pytest.raises(GitlabListError, match="Scope contains invalid value"):
        alice.runners.list(scope="specific", get_all=True)
    with pytest.raises(GitlabUpdateError) as instance:
        alice.runners.update(shared.id, {"description": "mine"})
    assert instance.value.response_code == 403
    with pytest.raises(GitlabDeleteError):
        alice.runners.delete(shared.id)
    with pytest.raises(GitlabCreateError, match=r"403 Forbidden - .*administrators may"):
        create(alice, runner_type="instance_type")
    with pytest.raises(GitlabCreateError, match="can not be empty when runner is not allowed") as untagged:
        in_acme(alice, run_untagged=False)
    assert untagged.value.response_code == 400
    with pytest.raises(GitlabUpdateError, match="needs to be at least 10 minutes") as short:
        alice.runners.update(runner.id, {"maximum_timeout": 60})
    assert isinstance(short.value.error_message, dict)
    assert short.value.error_message == {"maximum_timeout": ["needs to be at least 10 minutes"]}
    with pytest.raises(GitlabCreateError, match="group_id is missing"):
        create(alice, runner_type="group_type")


def test_a_token_opens_what_its_scopes_say(running_portal: RunningPortal, stage: Cast, alice: gitlab.Gitlab) -> None:
    def with_scope(scope: str) -> gitlab.Gitlab:
        return gitlab.Gitlab(running_portal.url, private_token=stage.access_token(stage.alice, scope))

    creator, keeper, reader = (with_scope(each) for each in ("create_runner", "manage_runner", "read_api"))
    made = CurrentUserRunnerManager(creator).create({"runner_type": "group_type", "group_id": stage.acme.id})
    with pytest.raises(GitlabGetError, match="403"):
        creator.runners.get(made.id)
    kept = keeper.runners.get(made.id)
    kept.description = "kept"
    kept.save()
    with pytest.raises(GitlabListError):
        keeper.runners.list(get_all=True)
    assert [each.description for each in reader.runners.list(get_all=True)] == ["kept"]
    with pytest.raises(GitlabDeleteError):
        reader.runners.delete(made.id)
    kept.delete()
    assert alice.runners.list(get_all=True) == []
    bearer = gitlab.Gitlab(running_portal.url, oauth_token=stage.access_token(stage.alice))
    bearer.auth()
    assert bearer.user is not None
    assert bearer.user.username == "alice"


def test_an_organisation_is_set_up_from_nothing_by_script(running_portal: RunningPortal, dana: gitlab.Gitlab) -> None:
    tools = dana.groups.create({"name": "Tools", "path": "tools"})
    image = dana.projects.create({"name": "Image", "namespace_id": tools.id})
    fred = dana.users.create(
        {"username": "fred", "name": "Fred", "email": "fred@acme.example", "password": "a long way to tipperary"}
    )
    tools.members.create({"user_id": fred.id, "access_level": gitlab.const.AccessLevel.OWNER})
    until = (date.today() + timedelta(days=30)).isoformat()
    token = fred.personal_access_tokens.create({"name": "ci", "scopes": ["api"], "expires_at": until})
    his = gitlab.Gitlab(running_portal.url, private_token=token.token)
    runner = create(his, runner_type="project_type", project_id=image.id, tag_list=["images"])
    his.runners.verify(runner.token)
    assert [each.id for each in his.projects.get("tools/image").runners.list(get_all=True)] == [runner.id]
    dana.personal_access_tokens.delete(token.id)
    with pytest.raises(GitlabAuthenticationError):
        his.runners.list(get_all=True)
