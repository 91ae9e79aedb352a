"""Who may read which of many runners: the same as asked of each by itself."""

from __future__ import annotations

from portal.domain import actors
from portal.domain.runners import runner_access, runner_projects
from portal.domain.scopes import INSTANCE
from portal.models import Role
from tests.cast import SYSTEM, TAGGED, Cast
from tests.domain.queries import asked


def test_of_many_runners_the_same_may_be_read_as_one_by_one(cast: Cast) -> None:
    deep = cast.project("deep", cast.platform)
    api = cast.project("api", cast.acme)
    paul, olga, mona = cast.person("paul"), cast.person("olga"), cast.person("mona")
    cast.member(paul, deep, Role.MAINTAINER)
    cast.member(olga, cast.platform, Role.OWNER)
    cast.member(mona, cast.other, Role.MAINTAINER)
    scopes = (INSTANCE, cast.acme, cast.platform, cast.web, deep, api, cast.other)
    runners = [cast.runner(scope, TAGGED).runner for scope in scopes]
    runner_projects.assign(cast.session, SYSTEM, runners[3], deep)
    cast.session.commit()
    everybody = [actors.person(user) for user in (cast.alice, cast.bob, cast.charlie, cast.erin, cast.dana)]
    everybody += [actors.person(user) for user in (paul, olga, mona)]
    told = {}
    for actor in [*everybody, SYSTEM, actors.visitor(address="192.0.2.1", request_id="")]:
        together = runner_access.readable_among(cast.session, actor, runners)
        one_by_one = {each.id for each in runners if runner_access.may_read(cast.session, actor, each)}
        assert together == one_by_one, actor
        told[actor.name] = len(together)
    assert len(set(told.values())) > 4  # the cases differ


def test_asking_of_many_takes_a_handful_of_statements(cast: Cast) -> None:
    runners = [cast.runner(scope).runner for scope in (cast.acme, cast.platform, cast.web) for _ in range(5)]
    bob = actors.person(cast.bob)
    with asked(cast.session) as statements:
        runner_access.readable_among(cast.session, bob, runners)
    assert len([each for each in statements if "ci_runner_projects" in each or "memberships" in each]) <= 3
