"""Machines that are refused although their runner looks healthy, and clients that cannot renew their token."""

from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain.machines import refused_machines
from portal.domain.registration import registration_switch
from portal.domain.registration.registration import Configured
from portal.domain.runners import runner_lists, runner_tokens
from portal.domain.runners.runner_lists import RunnerFilter
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.domain.scopes import Scope
from portal.models import LEGACY, RunnerManager, RunnerToken
from tests.cast import SYSTEM, Cast
from tests.domain.queries import asked

HOUR = timedelta(hours=1)


def machine(cast: Cast, issued: IssuedRunner, name: str = LEGACY, token: RunnerToken | None = None) -> RunnerManager:
    """A machine of the runner that used this token last, its first one unless told otherwise."""
    token_id = (token or issued.record).id
    made = RunnerManager(runner_id=issued.runner.id, system_xid=name, contacted_at=now(), token_id=token_id)
    cast.session.add(made)
    cast.session.flush()
    return made


def turn_off(cast: Cast, scope: Scope, configured: Configured) -> None:
    registration_switch.switch(cast.session, SYSTEM, scope, allow=False, configured=configured)
    cast.session.flush()


def cut_off(cast: Cast, *several: IssuedRunner) -> set[int]:
    return refused_machines.cut_off(cast.session, [each.runner.id for each in several])


# Too old for a scope without registration tokens


def test_a_machine_without_system_id_is_too_old_where_registration_tokens_are_off(
    session: Session, cast: Cast, configured: Configured
) -> None:
    dana = cast.as_(cast.dana)
    named, nameless, elsewhere = (cast.runner(scope) for scope in (cast.acme, cast.web, cast.other))
    machine(cast, named, "s_named")
    row = machine(cast, nameless)
    machine(cast, elsewhere)
    several = [named.runner, nameless.runner, elsewhere.runner]
    assert refused_machines.too_old(session, dana, several, configured) == {}
    turn_off(cast, cast.acme, configured)
    found = refused_machines.too_old(session, dana, several, configured)
    assert {key: each.machine for key, each in found.items()} == {nameless.runner.id: row}
    assert "turned registration tokens off for the group acme." in found[nameless.runner.id].because.sentence


def test_a_list_is_judged_with_one_decision_for_each_scope(
    session: Session, cast: Cast, configured: Configured
) -> None:
    turn_off(cast, cast.acme, configured)
    dana, spent = cast.as_(cast.dana), []
    for number in (1, 9):
        for _ in range(number):
            machine(cast, cast.runner(cast.acme))
        several = [row.runner for row in runner_lists.page(session, cast.acme, RunnerFilter()).rows]
        with asked(session) as statements:
            found = refused_machines.too_old(session, dana, several, configured)
        assert len(found) == len(several) >= number
        spent.append(len(statements))
    assert spent[0] == spent[1]


def test_runners_whose_machines_all_name_themselves_need_no_decision(
    session: Session, cast: Cast, configured: Configured
) -> None:
    issued = cast.runner()
    machine(cast, issued, "s_named")
    dana = cast.as_(cast.dana)
    assert issued.runner.id
    with asked(session) as statements:
        assert refused_machines.too_old(session, dana, [issued.runner], configured) == {}
    assert len(statements) == 1
    with asked(session) as statements:
        assert refused_machines.too_old(session, dana, [], configured) == {}
    assert statements == []


# Cut off


def test_a_runner_is_cut_off_when_its_last_token_is_over(session: Session, cast: Cast) -> None:
    ended, expired, fine = cast.runner(), cast.runner(), cast.runner()
    assert cut_off(cast, ended, expired, fine) == set()
    runner_tokens.end_token(session, SYSTEM, ended.runner, ended.record.id)
    expired.record.expires_at = now()
    fine.record.expires_at = fine.record.ends_at = now() + HOUR
    session.flush()
    assert cut_off(cast, ended, expired, fine) == {ended.runner.id, expired.runner.id}
    assert cut_off(cast) == set()


def test_a_reset_cuts_a_runner_off_until_a_machine_uses_the_new_token(session: Session, cast: Cast) -> None:
    issued, unused = cast.runner(), cast.runner()
    first, _ = machine(cast, issued, "s_1"), machine(cast, issued, "s_2")
    for each in (issued, unused):
        new = runner_tokens.reset_token(session, SYSTEM, each.runner, seen_token_id=None)
        if each is issued:
            renewed = new.record
    assert cut_off(cast, issued, unused) == {issued.runner.id}
    first.token_id = renewed.id
    session.flush()
    assert cut_off(cast, issued, unused) == set()


def test_a_machine_of_which_no_token_is_known_is_not_called_refused(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    machine(cast, issued, "s_1").token_id = None
    session.flush()
    assert cut_off(cast, issued) == set()


# Renewing


@pytest.mark.parametrize(
    ("version", "renews"),
    [
        ("15.3.0", True),
        ("15.10.1", True),
        ("v18.9.0", True),
        ("16.0.0~beta.123.gabcdef12", True),
        ("18.1", True),
        ("15.2.1", False),
        ("13.12.0", False),
        ("9.5", False),
        ("0.8.0-dev", False),
        ("development version", None),
        ("15", None),
        ("", None),
        (None, None),
        ("٣٣.٣", None),
        ("9" * 2000 + ".1", None),
    ],
)
def test_a_client_of_15_3_or_newer_renews_its_token(version: str | None, renews: bool | None) -> None:
    assert refused_machines.renews(version) is renews
