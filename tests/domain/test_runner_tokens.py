"""A runner's family of tokens: what a person's reset and a machine's reset do to it."""

from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit, runner_settings, runner_tokens, runners
from portal.domain.errors import AlreadyIssued, Stale, TokenUnknown, TryLater
from portal.domain.runner_tokens import IssuedRunner
from portal.models import RegistrationType, Runner, RunnerManager, RunnerToken
from tests.cast import Cast
from tests.domain.clock import let_pass

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
