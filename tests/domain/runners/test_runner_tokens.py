"""A runner's family of tokens: what a person's reset and a machine's reset do to it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit, tokens
from portal.domain.errors import AlreadyIssued, NotFound, Stale, TokenUnknown, TryLater
from portal.domain.machines import runner_managers
from portal.domain.machines.runner_managers import Contact
from portal.domain.runners import runner_settings, runner_tokens, runners
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.models import LEGACY, RegistrationType, Runner, RunnerManager, RunnerToken
from tests.cast import Cast
from tests.domain.clock import let_pass
from tests.domain.queries import asked

GRACE = timedelta(hours=24)
SECOND = timedelta(seconds=1)


def works(session: Session, token: str) -> bool:
    try:
        runner_tokens.token_row(session, token)
    except TokenUnknown:
        return False
    return True


def use(session: Session, token: str) -> None:
    row = runner_tokens.token_row(session, token)
    runner_tokens.mark_used(session, row.runner_id, row.id)


def rotate(session: Session, token: str) -> str:
    return runner_tokens.reset_token_by_machine(session, token, grace=GRACE).token


def reset(session: Session, cast: Cast, runner: Runner, seen: int | None = None) -> IssuedRunner:
    return runner_tokens.reset_token(session, cast.as_(cast.alice), runner, seen_token_id=seen)


# A person's reset


def test_a_persons_reset_ends_every_older_token_at_once(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    use(session, issued.token)
    used, unused = rotate(session, issued.token), rotate(session, issued.token)
    use(session, used)
    assert all(works(session, token) for token in (issued.token, used, unused))
    fresh = reset(session, cast, issued.runner)
    assert not any(works(session, token) for token in (issued.token, used, unused))
    assert works(session, fresh.token)
    assert [row.id for row in runner_tokens.family(session, issued.runner)] == [fresh.record.id]


def test_a_reset_leaves_the_tokens_of_other_runners_alone(session: Session, cast: Cast) -> None:
    issued, neighbour = cast.runner(), cast.runner()
    reset(session, cast, issued.runner)
    assert works(session, neighbour.token)


def test_a_token_that_was_cut_is_not_revived_by_a_late_first_use(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    reset(session, cast, issued.runner)
    runner_tokens.mark_used(session, issued.runner.id, issued.record.id)
    session.expire_all()
    assert not works(session, issued.token)


def with_clock_at(moment: datetime, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do this as a host does whose clock shows that moment, or whose request began then."""
    with monkeypatch.context() as patched:
        patched.setattr(runner_tokens, "now", lambda: moment)
        act()


@pytest.mark.parametrize(("by", "grace_is_over"), [("reset", False), ("reset", True), ("end", False)])
def test_no_clock_that_is_behind_brings_a_token_back_that_was_cut(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch, by: str, grace_is_over: bool
) -> None:
    issued = cast.runner()
    use(session, issued.token)
    minted = runner_tokens.reset_token_by_machine(session, issued.token, grace=GRACE)
    before = now()
    if grace_is_over:
        session.execute(update(RunnerToken).values(ends_at=now()).where(RunnerToken.id == minted.record.id))
    if by == "reset":
        reset(session, cast, issued.runner)
    else:
        runner_tokens.end_token(session, cast.as_(cast.alice), issued.runner, minted.record.id)
    with_clock_at(
        before - SECOND,
        monkeypatch,
        lambda: runner_tokens.mark_used(session, issued.runner.id, minted.record.id),
    )
    session.expire_all()
    assert (minted.record.cut, minted.record.first_used_at) == (True, None)
    assert minted.record.ends_at is not None
    assert not works(session, minted.token)


def test_a_host_whose_clock_is_behind_neither_takes_nor_renews_a_token_that_was_cut(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued, before = cast.runner(), now()
    reset(session, cast, issued.runner)

    def knock() -> None:
        assert not works(session, issued.token)
        with pytest.raises(TokenUnknown):
            rotate(session, issued.token)

    with_clock_at(before - SECOND, monkeypatch, knock)


def test_a_reset_tells_only_of_tokens_that_had_not_ended_by_themselves(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    rotate(session, issued.token)
    let_pass(session, GRACE + SECOND)
    ended = set(session.scalars(select(RunnerToken.ends_at)))
    fresh = reset(session, cast, issued.runner)
    event = session.scalars(audit.of_runner(issued.runner).limit(1)).one()
    assert event.changes == {"token": ["", fresh.record.short]}
    others = RunnerToken.id != fresh.record.id
    session.expire_all()
    assert set(session.scalars(select(RunnerToken.ends_at).where(others))) == ended
    assert set(session.scalars(select(RunnerToken.cut).where(others))) == {True}


def test_who_resets_or_ends_a_token_of_a_deleted_runner_is_told_so(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    alice, token_id = cast.as_(cast.alice), issued.record.id
    session.refresh(issued.runner)
    session.execute(delete(Runner).execution_options(synchronize_session=False))
    with pytest.raises(NotFound, match="deleted"):
        runner_tokens.reset_token(session, alice, issued.runner, seen_token_id=None)
    with pytest.raises(NotFound, match="deleted"):
        runner_tokens.end_token(session, alice, issued.runner, token_id)


def test_the_family_is_the_live_ones_the_newest_first_and_not_without_end(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    minted = [rotate(session, issued.token) for _ in range(3)]
    for token in minted:
        use(session, token)
    rotate(session, minted[0])
    let_pass(session, GRACE + SECOND)
    session.refresh(issued.runner)
    with asked(session) as statements:
        found = runner_tokens.family(session, issued.runner)
        assert runner_tokens.count_family(session, issued.runner) == 2
    assert [row.digest for row in found] == [tokens.digest(token) for token in minted[:0:-1]]
    assert "LIMIT" in statements[0]
    assert "ends_at >" in statements[0]
    assert [row.id for row in runner_tokens.family(session, issued.runner, limit=1)] == [found[0].id]


def test_who_resets_second_is_told_so_and_ends_nothing(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    seen = issued.record.id
    first = reset(session, cast, issued.runner, seen)
    with pytest.raises(Stale):
        reset(session, cast, issued.runner, seen)
    assert works(session, first.token)
    assert reset(session, cast, issued.runner, first.record.id)


def test_a_machines_reset_meanwhile_does_not_make_a_persons_stale(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    rotate(session, issued.token)
    assert reset(session, cast, issued.runner, issued.record.id)


def test_the_same_reset_form_sent_again_issues_nothing(session: Session, cast: Cast) -> None:
    issued, key = cast.runner(), uuid4()
    alice, runner = cast.as_(cast.alice), issued.runner
    fresh = runner_tokens.reset_token(session, alice, runner, seen_token_id=issued.record.id, request_key=key)
    with pytest.raises(AlreadyIssued) as refused:
        runner_tokens.reset_token(session, alice, runner, seen_token_id=issued.record.id, request_key=key)
    assert refused.value.runner_id == runner.id
    assert works(session, fresh.token)


def test_a_reset_is_told_by_short_tokens_only(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    fresh = reset(session, cast, issued.runner)
    event = session.scalars(audit.of_runner(issued.runner).limit(1)).one()
    assert (event.action, event.changes) == (
        "runner_token_reset",
        {"token": [issued.record.short, fresh.record.short]},
    )


# A machine's reset


def test_the_old_token_lives_for_the_grace_and_then_ends(session: Session, cast: Cast) -> None:
    old = cast.runner().token
    use(session, old)
    rotate(session, old)
    let_pass(session, GRACE - 60 * SECOND)
    assert works(session, old)
    let_pass(session, 61 * SECOND)
    assert not works(session, old)


def test_the_grace_ends_at_its_moment_and_not_a_second_before(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, old = now(), cast.runner().token
    monkeypatch.setattr(runner_tokens, "now", lambda: start)
    use(session, old)
    minted = rotate(session, old)
    monkeypatch.setattr(runner_tokens, "now", lambda: start + GRACE - SECOND)
    assert works(session, old)
    assert works(session, minted)
    monkeypatch.setattr(runner_tokens, "now", lambda: start + GRACE)
    assert not works(session, old)
    assert not works(session, minted)


def test_a_minted_token_used_at_the_last_second_of_the_grace_goes_on(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, old = now(), cast.runner().token
    monkeypatch.setattr(runner_tokens, "now", lambda: start)
    minted, late = rotate(session, old), rotate(session, old)
    monkeypatch.setattr(runner_tokens, "now", lambda: start + GRACE - SECOND)
    use(session, minted)
    row = runner_tokens.token_row(session, late)
    monkeypatch.setattr(runner_tokens, "now", lambda: start + GRACE)
    runner_tokens.mark_used(session, row.runner_id, row.id)  # a heartbeat that was written too late
    session.expire_all()
    assert works(session, minted)
    assert not works(session, late)


def test_a_minted_token_that_nobody_used_ends_with_the_grace(session: Session, cast: Cast) -> None:
    lost = rotate(session, cast.runner().token)
    let_pass(session, GRACE - 60 * SECOND)
    assert works(session, lost)
    let_pass(session, 61 * SECOND)
    assert not works(session, lost)


def test_a_minted_token_that_was_used_goes_on(session: Session, cast: Cast) -> None:
    minted = rotate(session, cast.runner().token)
    use(session, minted)
    let_pass(session, 100 * GRACE)
    assert works(session, minted)


def test_a_second_reset_does_not_lengthen_the_life_of_the_old_token(session: Session, cast: Cast) -> None:
    old = cast.runner().token
    rotate(session, old)
    let_pass(session, GRACE - 60 * SECOND)
    rotate(session, old)
    let_pass(session, 61 * SECOND)
    assert not works(session, old)


def test_using_the_old_token_in_the_grace_does_not_keep_it(session: Session, cast: Cast) -> None:
    old = cast.runner().token
    rotate(session, old)
    use(session, old)
    let_pass(session, GRACE + SECOND)
    assert not works(session, old)


def test_two_machines_that_reset_with_the_same_old_token_both_go_on(session: Session, cast: Cast) -> None:
    old = cast.runner().token
    first, second = rotate(session, old), rotate(session, old)
    assert first != second
    use(session, first)
    use(session, second)
    let_pass(session, 2 * GRACE)
    assert works(session, first)
    assert works(session, second)


def test_a_machines_token_keeps_the_prefix_its_client_knows(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    assert rotate(session, issued.token).startswith("glrt-t2_")
    issued.runner.registration_type = RegistrationType.REGISTRATION_TOKEN
    assert rotate(session, issued.token).startswith("glrtr-t2_")


def test_an_ended_an_unknown_and_a_mistyped_token_cannot_be_reset(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    reset(session, cast, issued.runner)
    for token in (issued.token, "glrt-unknown", issued.token[:-1] + "!", ""):
        with pytest.raises(TokenUnknown):
            rotate(session, token)


def test_a_loop_of_resets_is_told_to_wait_until_a_token_is_used(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    minted = [rotate(session, issued.token) for _ in range(runner_tokens.UNUSED_RESETS)]
    with pytest.raises(TryLater) as refused:
        rotate(session, issued.token)
    assert refused.value.seconds == 60
    use(session, minted[0])
    assert rotate(session, issued.token)


def test_a_large_fleet_may_hold_two_unused_tokens_for_each_machine(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    session.add_all(RunnerManager(runner_id=issued.runner.id, system_xid=f"s_{n}") for n in range(11))
    session.flush()
    for _ in range(22):
        rotate(session, issued.token)
    with pytest.raises(TryLater):
        rotate(session, issued.token)


def test_unused_tokens_of_past_days_do_not_count_against_a_family(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    current = rotate(session, issued.token)
    use(session, current)
    for _ in range(runner_tokens.UNUSED_RESETS):
        rotate(session, issued.token)
    let_pass(session, GRACE + SECOND)
    assert rotate(session, current)


def test_a_token_whose_life_is_over_does_not_work(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    issued.record.expires_at = now() + SECOND * 60
    session.flush()
    assert works(session, issued.token)
    let_pass(session, 61 * SECOND)
    assert not works(session, issued.token)


# A machine's reset of a token that expires and that several machines use


LIFE = timedelta(days=30)


def expiring(session: Session, cast: Cast, *machines: str) -> IssuedRunner:
    """A runner whose tokens live for thirty days, with machines that use its first one."""
    given = runner_settings.RunnerSettings("", "", (), True, token_expiration_interval=int(LIFE.total_seconds()))
    issued = runners.create_runner(session, cast.as_(cast.alice), cast.acme, given)
    for system_xid in machines:
        call(session, issued.token, system_xid)
    return issued


def call(session: Session, token: str, system_xid: str) -> None:
    row = runner_tokens.token_row(session, token)
    runner_managers.record_contact(session, Contact(row.runner_id, row.id, system_xid, now(), "", True, None))
    session.expire_all()


def renew(session: Session, token: str, system_xid: str) -> str:
    """As gitlab-runner does it: a new token, and the next poll with it."""
    fresh = rotate(session, token)
    call(session, fresh, system_xid)
    return fresh


def test_a_shared_token_that_expires_lives_until_then_for_the_machine_whose_turn_comes_later(
    session: Session, cast: Cast
) -> None:
    old = expiring(session, cast, "s_early", "s_late").token
    let_pass(session, 20 * GRACE)
    renew(session, old, "s_early")
    let_pass(session, 10 * GRACE - 60 * SECOND)  # long after the grace, a minute before it expires
    assert works(session, old)
    late = renew(session, old, "s_late")
    assert works(session, late)
    let_pass(session, 61 * SECOND)
    assert not works(session, old)
    assert works(session, late)


def test_the_last_machine_to_leave_a_shared_token_ends_it_with_the_grace(session: Session, cast: Cast) -> None:
    old = expiring(session, cast, "s_early", "s_late").token
    renew(session, old, "s_early")
    let_pass(session, 2 * GRACE)
    renew(session, old, "s_late")
    let_pass(session, GRACE - 60 * SECOND)
    assert works(session, old)
    let_pass(session, 61 * SECOND)
    assert not works(session, old)


def test_an_expiring_token_of_one_machine_ends_with_the_grace(session: Session, cast: Cast) -> None:
    old = expiring(session, cast, "s_only").token
    renew(session, old, "s_only")
    let_pass(session, GRACE - 60 * SECOND)
    assert works(session, old)
    let_pass(session, 61 * SECOND)
    assert not works(session, old)


def test_a_shared_token_never_outlives_what_its_machines_were_told(session: Session, cast: Cast) -> None:
    """The grace may be longer than what is left of its life."""
    old = expiring(session, cast, "s_early", "s_late").token
    let_pass(session, LIFE - GRACE / 2)
    renew(session, old, "s_early")
    let_pass(session, GRACE / 2 - 60 * SECOND)
    assert works(session, old)
    let_pass(session, 61 * SECOND)
    assert not works(session, old)


def test_machines_that_send_no_system_id_are_one_row_and_count_as_several(session: Session, cast: Cast) -> None:
    """Clients 15.3 to 15.7 renew their tokens and send none."""
    old = expiring(session, cast, LEGACY, LEGACY).token
    first, second = renew(session, old, LEGACY), renew(session, old, LEGACY)  # there are others, for all we know
    let_pass(session, LIFE - 60 * SECOND)
    assert all(works(session, token) for token in (old, first, second))
    let_pass(session, 61 * SECOND)
    assert not works(session, old)


turns = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["renew", "answer lost, renew", "poll", "a day passes"])),
    max_size=24,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=turns, legacy=st.booleans())
def test_whenever_machines_renew_an_expiring_token_none_is_left_without_one(
    session: Session, cast: Cast, turns: list[tuple[int, str]], legacy: bool
) -> None:
    with session.begin_nested() as story:
        names = [LEGACY if legacy else f"s_{number}" for number in range(4)]
        held = dict.fromkeys(range(4), expiring(session, cast, *names).token)
        given_up = set()
        for machine, turn in turns:
            if turn == "a day passes":
                let_pass(session, timedelta(days=1, hours=1))
            elif turn == "poll":
                call(session, held[machine], names[machine])
            else:
                if turn.startswith("answer lost"):
                    rotate(session, held[machine])
                given_up.add(held[machine])
                held[machine] = renew(session, held[machine], names[machine])
            assert all(works(session, token) for token in held.values())
        left = given_up - set(held.values())
        let_pass(session, GRACE + SECOND)
        assert legacy or not any(works(session, token) for token in left)
        let_pass(session, LIFE)
        assert not any(works(session, token) for token in given_up | set(held.values()))
        story.rollback()


MACHINES = 4
steps = st.lists(
    st.tuples(
        st.integers(0, MACHINES - 1), st.sampled_from(["reset", "reset, answer lost", "use", "an hour passes"])
    ),
    max_size=20,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_whatever_machines_do_within_the_grace_nobody_who_got_an_answer_is_left_without_a_token(
    session: Session, cast: Cast, steps: list[tuple[int, str]]
) -> None:
    with session.begin_nested() as story:
        first = runners.create_runner(
            session, cast.as_(cast.alice), cast.acme, runner_settings.RunnerSettings("", "", (), True)
        )
        held, given_up = dict.fromkeys(range(MACHINES), first.token), set()
        for machine, step in steps:
            if step == "an hour passes":
                let_pass(session, timedelta(hours=1))
            elif step == "use":
                use(session, held[machine])
            else:
                answer = rotate(session, held[machine])
                given_up.add(held[machine])
                held[machine] = answer if step == "reset" else held[machine]
        assert all(works(session, token) for token in held.values())
        for token in held.values():
            use(session, token)
        let_pass(session, GRACE + SECOND)
        assert {token: works(session, token) for token in held.values()} == {
            token: token not in given_up for token in held.values()
        }
        story.rollback()


def test_the_digest_is_all_that_is_kept_of_a_token(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    row = session.execute(select(RunnerToken.__table__).where(RunnerToken.id == issued.record.id)).one()
    kept = "".join(str(value) for value in row)
    assert issued.token[8 + 9 : -10] not in kept
