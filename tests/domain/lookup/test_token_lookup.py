"""Whose token is this: reading what was pasted, runners' tokens, registration tokens, nobody's; ending one early."""

from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit, tokens
from portal.domain.enrolment import enrolment_keys
from portal.domain.errors import NotAllowed, NotFound, Stale, TokenUnknown
from portal.domain.lookup import token_lookup
from portal.domain.lookup.token_lookup import (
    BeginningOfToken,
    KeyFound,
    NobodysToken,
    PersonsToken,
    RunnersToken,
    ScopesToken,
    TokenState,
)
from portal.domain.people import access_tokens
from portal.domain.registration import registration_tokens, runner_registration
from portal.domain.registration.registration import Configured
from portal.domain.registration.runner_registration import Registering
from portal.domain.runners import runner_tokens
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE, Scope
from portal.models import GroupSettings, RunnerManager
from tests.cast import Cast
from tests.domain.clock import let_pass

DAY = timedelta(days=1)
GRACE = timedelta(hours=24)


@pytest.fixture
def configured(app: Flask) -> Configured:
    found: Configured = app.extensions["registration"]
    return found


def runners_token(session: Session, cast: Cast, pasted: str, configured: Configured) -> RunnersToken:
    found = token_lookup.look_up(session, cast.as_(cast.dana), pasted, configured)
    assert isinstance(found, RunnersToken)
    return found


def scopes_token(session: Session, cast: Cast, pasted: str, configured: Configured) -> ScopesToken:
    found = token_lookup.look_up(session, cast.as_(cast.dana), pasted, configured)
    assert isinstance(found, ScopesToken)
    return found


def registration_token(session: Session, cast: Cast, scope: Scope, configured: Configured) -> str:
    made = registration_tokens.make_token(session, cast.as_(cast.dana), scope, configured)
    assert made.ciphertext
    return configured.vault.open(made.ciphertext)


@pytest.mark.parametrize(
    "pasted",
    [
        "glrt-t1_abc.def",
        "  glrt-t1_abc.def \n",
        '"glrt-t1_abc.def"',
        "'glrt-t1_abc.def',",
        "`glrt-t1_abc.def`",
        'token = "glrt-t1_abc.def"',
        '  token="glrt-t1_abc.def"  # of the fleet',
        "token = 'glrt-t1_abc.def'",
        '"token": "glrt-t1_abc.def",',
        '{"id": 7, "token": "glrt-t1_abc.def"}',
        "runnerToken: glrt-t1_abc.def",
        "CI_SERVER_TOKEN=glrt-t1_abc.def",
        "gitlab-runner register --url https://x --token glrt-t1_abc.def --executor shell",
        "--registration-token glrt-t1_abc.def",
        "sudo gitlab-runner register -r glrt-t1_abc.def -n",
        "gitlab-runner register -n -t 'glrt-t1_abc.def' -u https://x",
        "The new token is glrt-t1_abc.def. Keep it.",
        "Registering runner... token=glrt-t1_abc.def, please",
        "<code>glrt-t1_abc.def</code>",
        "CI_SERVER_URL=https://x CI_SERVER_TOKEN=glrt-t1_abc.def gitlab-runner run",
        '[[runners]]\n  name = "a"\n  token_expires_at = 0001-01-01T00:00:00Z\n  token = "glrt-t1_abc.def"\n',
    ],
)
def test_the_token_is_found_in_whatever_was_copied_with_it(pasted: str) -> None:
    assert token_lookup.bare(pasted) == "glrt-t1_abc.def"


def test_a_live_token_is_told_with_its_runner_scope_and_machines(
    session: Session, cast: Cast, configured: Configured
) -> None:
    issued = cast.runner(cast.web)
    other = runner_tokens.reset_token_by_machine(session, issued.token, grace=GRACE)
    runner_tokens.mark_used(session, issued.runner.id, other.record.id)
    for name, token_id, hours in (("s_1", other.record.id, 5), ("s_2", other.record.id, 1), ("s_3", None, 1)):
        session.add(
            RunnerManager(
                runner_id=issued.runner.id,
                system_xid=name,
                token_id=token_id,
                contacted_at=now() - timedelta(hours=hours),
            )
        )
    session.flush()
    found = runners_token(session, cast, f'token = "{other.token}"', configured)
    assert (found.runner, found.scope, found.token) == (issued.runner, cast.web, other.record)
    assert (found.state, [each.system_xid for each in found.machines]) == (TokenState.LIVE, ["s_2", "s_1"])
    assert found.machines_total == 2
    assert [each.id for each in found.others] == [issued.record.id]


def test_the_state_of_a_token_says_what_has_become_of_it(
    session: Session, cast: Cast, configured: Configured
) -> None:
    issued = cast.runner()
    minted = runner_tokens.reset_token_by_machine(session, issued.token, grace=GRACE)

    def state(token: str) -> TokenState:
        return runners_token(session, cast, token, configured).state

    assert (state(issued.token), state(minted.token)) == (TokenState.REPLACED, TokenState.UNUSED)
    minted.record.ends_at, minted.record.expires_at = None, now() + DAY
    assert state(minted.token) is TokenState.LIVE
    let_pass(session, DAY)
    assert (state(issued.token), state(minted.token)) == (TokenState.ENDED, TokenState.EXPIRED)
    assert not state(issued.token).works


def test_of_an_end_and_the_end_of_a_life_the_first_is_told(session: Session, cast: Cast) -> None:
    token, moment = cast.runner().record, now()
    token.ends_at, token.expires_at = moment - 2 * DAY, moment - DAY
    assert token_lookup.state_of(token, moment) is TokenState.ENDED
    token.ends_at, token.expires_at = moment - DAY, moment - 2 * DAY
    assert token_lookup.state_of(token, moment) is TokenState.EXPIRED


def test_a_registration_token_is_told_with_what_was_registered_with_it(
    session: Session, cast: Cast, configured: Configured
) -> None:
    token = registration_token(session, cast, cast.acme, configured)
    settings = RunnerSettings(description="Old way", run_untagged=True)
    for number in range(3):
        wanted = Registering(token, settings, address=f"192.0.2.{number}")
        runner_registration.register(session, configured, wanted)
    found = scopes_token(session, cast, token, configured)
    assert (found.scope, found.works, found.runners_total) == (cast.acme, True, 3)
    assert [each.ip_address for each in found.runners] == ["192.0.2.2", "192.0.2.1", "192.0.2.0"]
    assert found.token.last_used_at


def test_a_registration_token_that_was_reset_or_turned_off_does_not_work(
    session: Session, cast: Cast, configured: Configured
) -> None:
    old = registration_token(session, cast, cast.acme, configured)
    registration_tokens.reset_token(session, cast.as_(cast.dana), cast.acme, configured)
    new = registration_token(session, cast, cast.acme, configured)
    assert scopes_token(session, cast, old, configured).token.ended_at
    assert (
        scopes_token(session, cast, old, configured).works,
        scopes_token(session, cast, new, configured).works,
    ) == (
        False,
        True,
    )
    session.add(GroupSettings(group_id=cast.acme.id, allow_runner_registration_token=False))
    session.flush()
    found = scopes_token(session, cast, new, configured)
    assert (found.works, found.decision.by) == (False, cast.acme)


@pytest.mark.parametrize(
    ("pasted", "what"),
    [
        ("", NobodysToken(empty=True)),
        (' "" ', NobodysToken(empty=True)),
        ("glrt-somebody-elses-token", NobodysToken()),
        ("x" * 5000, NobodysToken()),
        ("\ud800glrt", NobodysToken()),
        (tokens.make(1)[:-1] + "_", NobodysToken()),
        ("GR1348941aaaaaaaaaaaaaaaaaaaa", NobodysToken(registration=True)),
    ],
)
def test_nobodys_token_is_told_apart(
    session: Session, cast: Cast, configured: Configured, pasted: str, what: NobodysToken
) -> None:
    assert token_lookup.look_up(session, cast.as_(cast.dana), pasted, configured) == what


def test_an_access_token_is_told_with_its_person_and_ended_ones_too(
    session: Session, cast: Cast, configured: Configured
) -> None:
    clear = cast.access_token(cast.alice, "read_api")
    found = token_lookup.look_up(session, cast.as_(cast.dana), f'export TOKEN="{clear}"', configured)
    assert isinstance(found, PersonsToken)
    assert (found.token.user.username, found.works) == ("alice", True)
    access_tokens.revoke(session, cast.as_(cast.alice), found.token)
    found = token_lookup.look_up(session, cast.as_(cast.dana), clear, configured)
    assert isinstance(found, PersonsToken)
    assert not found.works


def test_an_enrolment_key_is_told_with_its_scope_and_what_it_may(
    session: Session, cast: Cast, configured: Configured
) -> None:
    clear = cast.enrolment_key(cast.bob, cast.web).token
    found = token_lookup.look_up(session, cast.as_(cast.dana), f"--header PRIVATE-TOKEN: {clear}", configured)
    assert isinstance(found, KeyFound)
    assert (found.scope.full_path, found.row.state, found.works, found.deletion) == ("acme/web", "good", True, None)
    enrolment_keys.revoke(session, cast.as_(cast.bob), found.row.key)
    found = token_lookup.look_up(session, cast.as_(cast.dana), clear, configured)
    assert isinstance(found, KeyFound)
    assert not found.works


@pytest.mark.parametrize("prefix", [tokens.PERSONAL, tokens.ENROLMENT])
def test_of_a_token_of_people_the_checksum_says_whether_it_was_mistyped(
    session: Session, cast: Cast, configured: Configured, prefix: str
) -> None:
    elsewhere = tokens.make_for_person(prefix)
    dana = cast.as_(cast.dana)
    assert token_lookup.look_up(session, dana, elsewhere, configured) == NobodysToken(of_people=True)
    for wrong in (elsewhere[:-1] + ("0" if elsewhere[-1] != "0" else "1"), elsewhere[:-1], f"{prefix}x"):
        found = token_lookup.look_up(session, dana, wrong, configured)
        assert found == NobodysToken(mistyped=True, of_people=True)


def test_a_mistyped_token_is_told_by_its_checksum(session: Session, cast: Cast, configured: Configured) -> None:
    token = cast.runner().token
    wrong = token[:10] + ("a" if token[10] != "a" else "b") + token[11:]
    assert token_lookup.look_up(session, cast.as_(cast.dana), wrong, configured) == NobodysToken(mistyped=True)


def test_only_administrators_look_tokens_up(session: Session, cast: Cast, configured: Configured) -> None:
    token = cast.runner().token
    for person in (cast.alice, cast.bob, cast.charlie):
        with pytest.raises(NotFound):
            token_lookup.look_up(session, cast.as_(person), token, configured)


def test_a_token_is_found_again_by_its_number(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    assert token_lookup.token_by_id(session, issued.record.id).runner == issued.runner
    with pytest.raises(NotFound):
        token_lookup.token_by_id(session, issued.record.id + 1000)


# Ending one token early


def works(session: Session, token: str) -> bool:
    try:
        runner_tokens.token_row(session, token)
    except TokenUnknown:
        return False
    return True


def test_one_token_ends_at_once_and_the_others_of_its_family_live_on(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    minted = runner_tokens.reset_token_by_machine(session, issued.token, grace=GRACE)
    runner_tokens.end_token(session, cast.as_(cast.alice), issued.runner, issued.record.id)
    assert (works(session, issued.token), works(session, minted.token)) == (False, True)
    event = session.scalars(audit.of_runner(issued.runner).limit(1)).one()
    assert (event.action, event.actor_name) == ("runner_token_ended", "Alice Lam")
    assert event.changes["token"] == [issued.record.short, None]


def test_a_token_that_is_over_cannot_be_ended_again(session: Session, cast: Cast) -> None:
    issued, expired = cast.runner(), cast.runner()
    runner_tokens.end_token(session, cast.as_(cast.alice), issued.runner, issued.record.id)
    expired.record.expires_at = now()
    session.flush()
    for each in (issued, expired):
        with pytest.raises(Stale):
            runner_tokens.end_token(session, cast.as_(cast.alice), each.runner, each.record.id)


def test_a_token_of_another_runner_is_not_ended_by_its_number(session: Session, cast: Cast) -> None:
    mine, others = cast.runner(), cast.runner(INSTANCE)
    with pytest.raises(NotFound):
        runner_tokens.end_token(session, cast.as_(cast.alice), mine.runner, others.record.id)
    assert works(session, others.token)


def test_who_may_not_change_the_runner_ends_none_of_its_tokens(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    with pytest.raises(NotAllowed):
        runner_tokens.end_token(session, cast.as_(cast.erin), issued.runner, issued.record.id)
    with pytest.raises(NotFound):
        runner_tokens.end_token(session, cast.as_(cast.charlie), issued.runner, issued.record.id)
    assert works(session, issued.token)


def test_an_ended_token_is_not_revived_by_a_late_first_use(session: Session, cast: Cast) -> None:
    issued = cast.runner()
    runner_tokens.end_token(session, cast.as_(cast.alice), issued.runner, issued.record.id)
    runner_tokens.mark_used(session, issued.runner.id, issued.record.id)
    session.expire_all()
    assert not works(session, issued.token)


# The beginning of a token


@pytest.mark.parametrize("token", ["glrtr-t2_abc.def", "GR1348941abc_def"])
def test_other_beginnings_are_found_in_a_command_too(token: str) -> None:
    assert token_lookup.bare(f"gitlab-runner register -r {token} --url https://x") == token


def beginning(session: Session, cast: Cast, pasted: str, configured: Configured) -> BeginningOfToken:
    found = token_lookup.look_up(session, cast.as_(cast.dana), pasted, configured)
    assert isinstance(found, BeginningOfToken)
    return found


@pytest.mark.parametrize(
    "cut", [slice(8, 17), slice(5, 14), slice(0, 17), slice(0, 14), slice(0, 30), slice(5, 30), slice(8, 12)]
)
def test_the_beginning_of_a_token_leads_to_its_runner(
    session: Session, cast: Cast, configured: Configured, cut: slice
) -> None:
    """The nine characters that new clients print, those of older ones with their t2_, and what was cut off."""
    issued, _ = cast.runner(), cast.runner()
    found = beginning(session, cast, issued.token[cut], configured)
    assert [(token.id, runner) for token, runner in found.tokens] == [(issued.record.id, issued.runner)]
    assert (found.total, found.whole) == (1, cut.stop == 30)


def test_the_beginning_of_a_registered_runners_token_is_found_with_its_t2_and_without(
    session: Session, cast: Cast, configured: Configured
) -> None:
    token = registration_token(session, cast, cast.acme, configured)
    settings = RunnerSettings(description="Old way", run_untagged=True)
    issued = runner_registration.register(session, configured, Registering(token, settings, address="192.0.2.1"))
    for start in (issued.token[6:15], issued.token[:15], issued.token[:20]):
        found = beginning(session, cast, start, configured)
        assert [runner for _, runner in found.tokens] == [issued.runner]


def test_letters_that_stand_for_others_in_a_search_stand_for_themselves(
    session: Session, cast: Cast, configured: Configured
) -> None:
    issued = cast.runner()
    issued.record.short = "abXdefghi"
    session.flush()
    assert beginning(session, cast, "ab_def", configured) == BeginningOfToken()
    assert beginning(session, cast, "abXdef", configured).total == 1


def test_a_beginning_that_nobody_has_or_that_is_very_short_leads_nowhere(
    session: Session, cast: Cast, configured: Configured
) -> None:
    issued = cast.runner()
    for pasted in ("nobodyhas", "glrt-", "glrt-t2_", issued.token[:11], issued.token[8:11]):
        assert beginning(session, cast, pasted, configured) == BeginningOfToken()


def test_a_search_for_a_beginning_reads_an_index(session: Session, cast: Cast) -> None:
    session.execute(text("SET LOCAL enable_seqscan = off"))
    plan = session.scalars(text(r"EXPLAIN SELECT 1 FROM ci_runner_tokens WHERE short LIKE 'ab\_d%'")).all()
    assert any("ix_ci_runner_tokens_short" in line for line in plan)
