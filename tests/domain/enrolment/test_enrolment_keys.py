"""Enrolment keys: what can be chosen, who may make and use them, and that N is exactly N."""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import scopes, tokens
from portal.domain.deletions import deletion_purge, restores
from portal.domain.enrolment import enrolment_key_lists, enrolment_keys, enrolment_use
from portal.domain.enrolment.enrolment_key_lists import State
from portal.domain.enrolment.enrolment_keys import IssuedEnrolmentKey, NewEnrolmentKey
from portal.domain.enrolment.enrolment_use import Asked
from portal.domain.errors import (
    AlreadyIssued,
    AlreadyMade,
    BadRequest,
    CredentialRefused,
    EnrolmentKeyOver,
    EnrolmentRefused,
    Hidden,
    Invalid,
    KeyReused,
    LimitReached,
    NotAllowed,
    NotFound,
    Refusal,
)
from portal.domain.groups import groups, memberships
from portal.domain.people import accounts, people, person_deletion
from portal.domain.people.person_deletion import Runners
from portal.domain.runners import runner_rules, runners
from portal.domain.runners.runner_rules import Limits, Registrars
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.runners.runner_tokens import IssuedRunner
from portal.models import AuditEvent, EnrolmentKey, Role, Runner, RunnerType
from tests.cast import SYSTEM, TAGGED, Cast
from tests.domain.queries import asked

TODAY = date(2026, 3, 1)
LONGEST = timedelta(days=365)
HERE = "192.0.2.7"
NOTHING = Asked()  # a request that leaves everything to the template
GOOD = NewEnrolmentKey("Build machines", 3, TODAY + timedelta(days=30), TAGGED)


def use(session: Session, issued: IssuedEnrolmentKey, wanted: Asked = NOTHING, **given: Any) -> IssuedRunner:
    """Create a runner with the key, from HERE unless told otherwise."""
    given = {"address": HERE, "request_id": "request-of-a-test", **given}
    made = enrolment_use.enrol(session, issued.record, wanted, **given)
    session.commit()
    return made


def left(session: Session, issued: IssuedEnrolmentKey) -> int:
    session.rollback()
    session.refresh(issued.record)
    return issued.record.most_runners - issued.record.runners_created


def newest(session: Session) -> AuditEvent:
    return session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()


# What can be chosen


def test_a_good_choice_has_no_problem() -> None:
    assert GOOD.problems(TODAY, LONGEST) == {}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": "  "}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"most_runners": None}, "most_runners"),
        ({"most_runners": 0}, "most_runners"),
        ({"most_runners": enrolment_keys.MOST_RUNNERS + 1}, "most_runners"),
        ({"expires_at": None}, "expires_at"),
        ({"expires_at": TODAY}, "expires_at"),
        ({"expires_at": TODAY + LONGEST + timedelta(days=1)}, "expires_at"),
        ({"template": RunnerSettings()}, "tags"),
        ({"template": replace(TAGGED, maximum_timeout=5)}, "maximum_timeout"),
        ({"networks": ("10.0.0.0/33",)}, "networks"),
        ({"networks": tuple(f"10.0.{n}.0/24" for n in range(51))}, "networks"),
    ],
)
def test_a_wrong_choice_is_told_beside_its_field(wrong: dict[str, Any], field: str) -> None:
    assert set(replace(GOOD, **wrong).problems(TODAY, LONGEST)) == {field}


def test_the_last_days_that_can_be_chosen() -> None:
    for days in (1, LONGEST.days):
        assert replace(GOOD, expires_at=TODAY + timedelta(days=days)).problems(TODAY, LONGEST) == {}


# Making one


def test_a_key_is_kept_as_a_digest_only(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice, networks=("10.0.0.0/8",))
    assert issued.token.startswith("glenrol-")
    assert issued.record.digest == tokens.digest(issued.token)
    assert issued.token not in repr(issued)
    event = newest(session)
    assert (event.action, event.target_kind, event.target_id) == (
        "enrolment_key_created",
        "enrolment_key",
        issued.record.id,
    )
    assert event.scope_path == "acme"
    assert event.changes["runners_at_most"] == [None, 10]
    assert event.changes["networks"] == [None, ["10.0.0.0/8"]]
    assert issued.token not in str(event.changes)


def test_who_may_not_create_runners_makes_no_key(session: Session, cast: Cast) -> None:
    for user, refusal in ((cast.erin, NotAllowed), (cast.bob, Hidden), (cast.charlie, Hidden)):
        with pytest.raises(refusal):
            cast.enrolment_key(user)
    runner_rules.change_registrars(session, cast.as_(cast.dana), Registrars(groups=False, projects=True))
    with pytest.raises(NotAllowed, match="let nobody else create runners in groups"):
        cast.enrolment_key(cast.alice)
    assert cast.enrolment_key(cast.dana).record.creator is cast.dana
    with pytest.raises(Invalid):
        enrolment_keys.create_key(session, SYSTEM, cast.acme, _until_next_year(), longest=LONGEST)


def _until_next_year() -> NewEnrolmentKey:
    return replace(GOOD, expires_at=now().date() + LONGEST)


def test_the_same_form_makes_one_key(session: Session, cast: Cast) -> None:
    again = {"longest": LONGEST, "request_key": uuid.uuid4()}
    enrolment_keys.create_key(session, cast.as_(cast.alice), cast.acme, _until_next_year(), **again)
    with pytest.raises(AlreadyMade):
        enrolment_keys.create_key(session, cast.as_(cast.alice), cast.acme, _until_next_year(), **again)
    assert session.scalar(select(func.count()).select_from(EnrolmentKey)) == 1


def test_locked_stands_in_every_key_and_counts_for_project_runners(session: Session, cast: Cast) -> None:
    locked = replace(TAGGED, locked=True)
    assert cast.enrolment_key(cast.alice, cast.acme, locked).record.locked
    assert cast.enrolment_key(cast.bob, cast.web, locked).record.locked


# Finding it


def test_a_key_is_found_by_its_text(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice)
    assert enrolment_keys.find(session, issued.token) is issued.record


def test_what_has_not_the_form_is_refused_without_a_query(session: Session, cast: Cast) -> None:
    issued, personal = cast.enrolment_key(cast.alice), cast.access_token(cast.alice)
    for text in ("", "glenrol-", issued.token[:-1] + "!", personal, issued.token.replace("glenrol-", "glpat-")):
        with asked(session) as statements, pytest.raises(CredentialRefused, match="missing or mistyped"):
            enrolment_keys.find(session, text)
        assert statements == []
    with pytest.raises(CredentialRefused, match="another portal"):
        enrolment_keys.find(session, tokens.make_for_person(tokens.ENROLMENT))


def test_it_is_good_until_its_day_begins(session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    issued = cast.enrolment_key(cast.alice, days=1)
    day = issued.record.expires_at
    for second, good in ((-1, True), (0, False)):
        moment = now().replace(year=day.year, month=day.month, day=day.day, hour=0, minute=0, second=0, microsecond=0)
        monkeypatch.setattr(enrolment_keys, "now", lambda at=moment + timedelta(seconds=second): at)
        if good:
            enrolment_keys.find(session, issued.token)
        else:
            with pytest.raises(EnrolmentKeyOver, match="expired"):
                enrolment_keys.find(session, issued.token)


# Using it


def test_a_runner_is_as_the_template_says(session: Session, cast: Cast) -> None:
    template = replace(
        TAGGED, maintenance_note="Rack 7", locked=True, protected=True, maximum_timeout=3600,
        token_expiration_interval=7200,
    )  # fmt: skip
    issued = cast.enrolment_key(cast.bob, cast.web, template)
    made = use(session, issued)
    runner = made.runner
    assert (runner.runner_type, runner.project_id) == (RunnerType.PROJECT, cast.web.id)
    assert (runner.tag_list, runner.run_untagged) == (["docker", "linux"], False)
    assert (runner.locked, runner.protected, runner.maximum_timeout) == (True, True, 3600)
    assert (runner.description, runner.maintenance_note) == ("Linux build fleet", "Rack 7")
    assert made.record.expires_at is not None
    assert (runner.creator, runner.enrolled_with, runner.active) == (cast.bob, issued.record, True)
    assert (issued.record.runners_created, issued.record.last_used_address) == (1, HERE)
    assert issued.record.last_used_at is not None


def test_the_trail_names_the_key_not_the_person(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice)
    made = use(session, issued)
    event = newest(session)
    assert (event.action, event.target_id) == ("runner_created", made.runner.id)
    assert (event.actor_kind, event.actor_id) == ("enrolment_key", issued.record.id)
    assert event.actor_name == f"enrolment key a test's ({issued.record.short}…)"
    assert (event.address, event.request_id) == (HERE, "request-of-a-test")


def test_a_request_may_name_its_runner_and_keep_it_from_jobs(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice)
    made = use(session, issued, Asked(description="vm-17", maintenance_note="spot", paused=True)).runner
    assert (made.description, made.maintenance_note, made.active) == ("vm-17", "spot", False)
    assert use(session, issued, Asked(description="")).runner.description == "Linux build fleet"


def test_a_request_may_repeat_the_template(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice)
    same = Asked(
        tags=("linux", "docker"), run_untagged=False, locked=False, protected=False,
        runner_type=RunnerType.GROUP, group_id=cast.acme.id,
    )  # fmt: skip
    assert use(session, issued, same).runner.group_id == cast.acme.id


@pytest.mark.parametrize(
    ("wanted", "field", "said"),
    [
        (Asked(tags=("docker", "linux", "gpu")), "tag_list", "docker, linux"),
        (Asked(tags=()), "tag_list", "docker, linux"),
        (Asked(run_untagged=True), "run_untagged", "false"),
        (Asked(locked=True), "locked", "false"),
        (Asked(protected=True), "access_level", "not_protected"),
        (Asked(maximum_timeout=3600), "maximum_timeout", "none"),
        (Asked(tokens_end=True), "token_expires_at", "tokens live as long as its scope says"),
    ],
)
def test_what_contradicts_the_template_is_refused_and_told_its_value(
    session: Session, cast: Cast, wanted: Asked, field: str, said: str
) -> None:
    issued = cast.enrolment_key(cast.alice)
    with pytest.raises(BadRequest, match=f"^{field} is settled by the enrolment key: {said}. Leave it out"):
        use(session, issued, wanted)
    assert left(session, issued) == 10


def test_it_creates_nowhere_else(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice)
    for wanted in (
        Asked(runner_type=RunnerType.INSTANCE),
        Asked(runner_type=RunnerType.GROUP, group_id=cast.platform.id),
        Asked(project_id=cast.web.id),
    ):
        with pytest.raises(EnrolmentRefused, match=f"group_type with group_id {cast.acme.id}"):
            use(session, issued, wanted)
    instance = cast.enrolment_key(cast.dana, scopes.INSTANCE)
    with pytest.raises(EnrolmentRefused, match=r"the instance only, as instance_type\. Leave"):
        use(session, instance, Asked(group_id=cast.acme.id))
    assert use(session, instance).runner.runner_type == RunnerType.INSTANCE
    assert left(session, issued) == 10


def test_it_makes_as_many_runners_as_it_may(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice, most=2)
    use(session, issued)
    use(session, issued)
    with pytest.raises(EnrolmentRefused, match="has created the 2 runners that it may"):
        use(session, issued)
    session.rollback()
    one = cast.enrolment_key(cast.alice, most=1)
    use(session, one)
    with pytest.raises(EnrolmentRefused, match="has created the one runner"):
        use(session, one)
    assert enrolment_keys.find(session, one.token) is one.record


def test_a_deleted_runner_gives_nothing_back(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice, most=1)
    made = use(session, issued).runner
    runners.delete_runner(session, cast.as_(cast.alice), made)
    session.commit()
    with pytest.raises(EnrolmentRefused, match="that it may"):
        use(session, issued)


def test_a_creation_that_fails_uses_none(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice)
    runner_rules.change_limits(session, cast.as_(cast.dana), cast.acme, Limits(groups=1, projects=None))
    session.commit()
    use(session, issued)
    with pytest.raises(LimitReached):
        use(session, issued)
    assert left(session, issued) == 9
    with pytest.raises(Invalid):
        use(session, issued, Asked(description="x" * 1025))
    assert left(session, issued) == 9


def test_a_repetition_uses_none(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice, most=1)
    once = {"request_key": uuid.uuid4(), "request_digest": b"a" * 32}
    first = use(session, issued, **once)
    with pytest.raises(AlreadyIssued) as repeated:  # though the key is used up since
        use(session, issued, **once)
    assert repeated.value.runner_id == first.runner.id
    with pytest.raises(KeyReused):
        use(session, issued, **{**once, "request_digest": b"b" * 32})
    assert left(session, issued) == 0


@pytest.mark.parametrize("address", ["198.51.100.1", "", "2001:db8::1"])
def test_from_elsewhere_it_is_refused(session: Session, cast: Cast, address: str) -> None:
    issued = cast.enrolment_key(cast.alice, networks=("192.0.2.0/24",))
    with pytest.raises(EnrolmentRefused, match=f"from {address or 'an unknown address'}") as refused:
        use(session, issued, address=address)
    assert "192.0.2" not in str(refused.value)
    assert left(session, issued) == 10
    use(session, issued, address="::ffff:192.0.2.200")
    assert left(session, issued) == 9


# It never can more than its creator


def blocked(session: Session, cast: Cast) -> None:
    people.block(session, cast.as_(cast.dana), cast.alice)


def without_role(session: Session, cast: Cast) -> None:
    memberships.add(session, SYSTEM, cast.acme, "bob", Role.OWNER)
    memberships.change_role(session, cast.as_(cast.dana), cast.acme, cast.alice.id, Role.MAINTAINER)


def without_any_role(session: Session, cast: Cast) -> None:
    memberships.add(session, SYSTEM, cast.acme, "bob", Role.OWNER)
    memberships.remove(session, cast.as_(cast.dana), cast.acme, cast.alice.id)


def closed(session: Session, cast: Cast) -> None:
    runner_rules.change_registrars(session, cast.as_(cast.dana), Registrars(groups=False, projects=True))


def deleted(session: Session, cast: Cast) -> None:
    person_deletion.delete_person(session, cast.as_(cast.dana), cast.alice, created=Runners.KEEP, leave_groups=True)


LOSSES = [
    (blocked, EnrolmentKeyOver, "blocked", State.POWERLESS),
    (without_role, EnrolmentRefused, "may not create runners in acme any more", State.POWERLESS),
    (without_any_role, EnrolmentRefused, "may not create runners in acme any more", State.POWERLESS),
    (closed, EnrolmentRefused, "let nobody else create runners in groups", State.POWERLESS),
    (deleted, EnrolmentKeyOver, "revoked", State.REVOKED),
]


@pytest.mark.parametrize(("loss", "refusal", "said", "state"), LOSSES, ids=lambda each: getattr(each, "__name__", ""))
def test_a_key_loses_what_its_creator_loses(
    session: Session, cast: Cast, loss: Any, refusal: type[Refusal], said: str, state: State
) -> None:
    issued = cast.enrolment_key(cast.alice)
    made = use(session, issued).runner
    loss(session, cast)
    session.commit()
    with pytest.raises(refusal, match=said):
        use(session, issued)
    session.rollback()
    assert [row.state for row in enrolment_key_lists.of_scope(session, cast.acme)] == [state]
    with pytest.raises(refusal, match=said):
        enrolment_use.made_by(session, enrolment_keys.find(session, issued.token), made.id, address=HERE)


def test_a_key_without_a_creator_does_nothing(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice)
    issued.record.creator = None
    session.commit()
    with pytest.raises(EnrolmentKeyOver, match="is gone"):
        use(session, issued)
    assert [row.why for row in enrolment_key_lists.of_scope(session, cast.acme)] == [
        "The account of who made it is gone."
    ]


def test_who_is_let_in_again_has_working_keys_again(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice)
    blocked(session, cast)
    people.unblock(session, cast.as_(cast.dana), cast.alice)
    assert use(session, issued).runner.creator is cast.alice


def test_an_administrators_key_stands_above_the_switches_only_while_they_are_one(
    session: Session, cast: Cast
) -> None:
    issued = cast.enrolment_key(cast.dana)
    closed(session, cast)
    use(session, issued)
    cast.person("frank", admin=True)
    people.set_administrator(session, SYSTEM, cast.dana, False)
    with pytest.raises(EnrolmentRefused, match="any more"):
        use(session, issued)


def test_deleting_a_person_ends_their_keys_and_says_so(session: Session, cast: Cast) -> None:
    good, over = cast.enrolment_key(cast.alice), cast.enrolment_key(cast.alice)
    enrolment_keys.revoke(session, cast.as_(cast.alice), over.record)
    made = use(session, good).runner
    deleted(session, cast)
    session.commit()
    session.expire_all()
    assert (good.record.creator_id, good.record.revoked_at is not None) == (None, True)
    events = {each.action: each for each in session.scalars(select(AuditEvent).order_by(AuditEvent.id))}
    assert events["enrolment_key_revoked"].target_id == good.record.id
    assert events["enrolment_key_revoked"].scope_path == "acme"
    assert events["person_deleted"].changes["enrolment_keys"] == [1, 0]
    assert made.enrolled_with is good.record


# Its group or project


def test_a_deleted_groups_key_works_again_when_the_group_is_restored(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice)
    deletion = groups.delete(session, cast.as_(cast.alice), cast.acme)
    session.commit()
    with pytest.raises(EnrolmentKeyOver, match="was deleted"):
        enrolment_keys.find(session, issued.token)
    with pytest.raises(EnrolmentKeyOver, match="was deleted"):
        use(session, issued)
    session.rollback()
    restores.restore(session, cast.as_(cast.alice), deletion.id, timedelta(days=7))
    session.commit()
    assert use(session, enrolment_keys_again(session, issued)).runner.group_id == cast.acme.id


def enrolment_keys_again(session: Session, issued: IssuedEnrolmentKey) -> IssuedEnrolmentKey:
    session.expire_all()
    return IssuedEnrolmentKey(enrolment_keys.find(session, issued.token), issued.token)


def test_keys_go_for_good_with_their_group(session: Session, cast: Cast) -> None:
    cast.enrolment_key(cast.alice)
    instance = cast.enrolment_key(cast.dana, scopes.INSTANCE)
    deletion = groups.delete(session, cast.as_(cast.alice), cast.acme)
    session.commit()
    deletion_purge.end(session, cast.as_(cast.alice), deletion.id, timedelta(days=7))
    while deletion_purge.purge(session, now(), timedelta(days=7)):
        pass
    assert session.scalars(select(EnrolmentKey.id)).all() == [instance.record.id]


def test_a_group_counts_the_keys_below_it(session: Session, cast: Cast) -> None:
    cast.enrolment_key(cast.alice)
    cast.enrolment_key(cast.bob, cast.web)
    over = cast.enrolment_key(cast.alice, cast.platform)
    cast.enrolment_key(cast.dana, cast.other)
    enrolment_keys.revoke(session, cast.as_(cast.alice), over.record)
    assert enrolment_key_lists.count_below(session, cast.acme) == 2
    assert enrolment_key_lists.count_below(session, cast.web) == 1


# Revoking, reading, listing


def test_a_revoked_key_ends_and_its_runners_stay(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice)
    made = use(session, issued).runner
    assert enrolment_keys.revoke(session, cast.as_(cast.dana), issued.record)
    assert newest(session).action == "enrolment_key_revoked"
    assert newest(session).changes == {"runners_created": [None, 1]}
    assert not enrolment_keys.revoke(session, cast.as_(cast.dana), issued.record)
    with pytest.raises(EnrolmentKeyOver, match="revoked"):
        use(session, issued)
    assert session.get(Runner, made.id) is made


def test_others_do_not_revoke_it(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice)
    for user, refusal in ((cast.erin, NotAllowed), (cast.charlie, NotFound)):
        with pytest.raises(refusal):
            enrolment_keys.revoke(session, cast.as_(user), issued.record)
        with pytest.raises(refusal):
            enrolment_keys.get(session, cast.as_(user), cast.acme, issued.record.id)
        with pytest.raises(NotFound):
            enrolment_keys.by_number(session, cast.as_(user), issued.record.id)


def test_a_key_of_elsewhere_is_not_found_here(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.alice)
    for scope in (cast.platform, cast.web, cast.other):
        with pytest.raises(NotFound):
            enrolment_keys.get(session, cast.as_(cast.dana), scope, issued.record.id)
        assert enrolment_key_lists.of_scope(session, scope) == []
    assert enrolment_keys.get(session, cast.as_(cast.alice), cast.acme, issued.record.id) is issued.record


def test_from_above_a_key_is_found_by_its_number_and_not_listed(session: Session, cast: Cast) -> None:
    issued = cast.enrolment_key(cast.bob, cast.web)
    for user, scope in ((cast.dana, scopes.INSTANCE), (cast.alice, cast.acme)):
        assert enrolment_keys.get(session, cast.as_(user), scope, issued.record.id) is issued.record
        assert enrolment_key_lists.of_scope(session, scope) == []
    groups.delete(session, cast.as_(cast.alice), cast.acme)
    with pytest.raises(NotFound):
        enrolment_keys.get(session, cast.as_(cast.dana), scopes.INSTANCE, issued.record.id)


def test_a_key_reads_the_runners_that_it_made_and_no_others(session: Session, cast: Cast) -> None:
    mine, others = cast.enrolment_key(cast.alice, most=1), cast.enrolment_key(cast.alice)
    made, foreign, by_hand = use(session, mine).runner, use(session, others).runner, cast.runner().runner
    assert enrolment_use.made_by(session, mine.record, made.id, address=HERE) is made
    for runner in (foreign, by_hand):
        with pytest.raises(NotFound):
            enrolment_use.made_by(session, mine.record, runner.id, address=HERE)
    runners.delete_runner(session, cast.as_(cast.alice), made)
    with pytest.raises(NotFound):
        enrolment_use.made_by(session, mine.record, made.id, address=HERE)


def test_every_state_is_told_good_ones_first(session: Session, cast: Cast) -> None:
    good = cast.enrolment_key(cast.alice)
    spent, old, over = (cast.enrolment_key(cast.alice, most=1) for _ in range(3))
    use(session, spent)
    old.record.expires_at = now().date()
    enrolment_keys.revoke(session, cast.as_(cast.alice), over.record)
    session.commit()
    assert [(row.key.id, row.state) for row in enrolment_key_lists.of_scope(session, cast.acme)] == [
        (good.record.id, State.GOOD),
        (over.record.id, State.REVOKED),
        (old.record.id, State.EXPIRED),
        (spent.record.id, State.USED_UP),
    ]


def test_a_list_asks_the_same_number_of_queries_however_long(session: Session, cast: Cast) -> None:
    def statements() -> int:
        session.expire_all()
        session.refresh(cast.acme.group)
        with asked(session) as found:
            enrolment_key_lists.of_scope(session, cast.acme)
        return len(found)

    cast.enrolment_key(cast.alice)
    before = statements()
    for number in range(4):
        owner = cast.person(f"owner-{number}")
        cast.member(owner, cast.acme, Role.OWNER)
        cast.enrolment_key(owner)
        cast.enrolment_key(owner)
    assert statements() == before


def test_what_happened_with_a_key_is_told_of_it_alone(session: Session, cast: Cast) -> None:
    mine, others = cast.enrolment_key(cast.alice), cast.enrolment_key(cast.alice)
    use(session, mine)
    use(session, others)
    told = enrolment_key_lists.uses(session, mine.record, 10)
    assert [event.action for event in told] == ["runner_created", "enrolment_key_created"]


# Many at once


def at_once(database: str, number: int, act: Any) -> list[BaseException | None]:
    """Do it in so many threads, each with a session of its own; what each met."""
    engine = create_engine(database, pool_size=number)
    start, met = threading.Barrier(number), [None] * number

    def run(place: int) -> None:
        with Session(engine) as session:
            start.wait()
            try:
                act(session)
                session.commit()
            except BaseException as problem:
                met[place] = problem

    threads = [threading.Thread(target=run, args=(place,)) for place in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    return met


def test_of_twenty_requests_at_once_exactly_five_make_a_runner(own_database: str) -> None:
    engine = create_engine(own_database)
    with Session(engine) as session:
        cast = Cast(session)
        token = cast.enrolment_key(cast.alice, most=5).token

    def enrol(session: Session) -> None:
        key = enrolment_keys.find(session, token)
        enrolment_use.enrol(session, key, Asked(), address=HERE, request_id="")

    met = at_once(own_database, 20, enrol)
    assert [type(each) for each in met if each is not None] == [EnrolmentRefused] * 15
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(Runner)) == 5
        assert session.scalars(select(EnrolmentKey.runners_created)).one() == 5
    engine.dispose()


def test_using_revoking_blocking_and_deleting_at_once_never_wait_in_a_circle(own_database: str) -> None:
    engine = create_engine(own_database)
    with Session(engine) as session:
        cast = Cast(session)
        owners = [cast.person(f"owner-{number}") for number in range(4)]
        for owner in owners:
            cast.member(owner, cast.acme, Role.OWNER)
        keys = [cast.enrolment_key(owner, most=50) for owner in owners]
        texts, ids = [each.token for each in keys], [owner.id for owner in owners]
        dana = cast.dana.id
    turn = iter(range(1000))

    def act(session: Session) -> None:
        mine = next(turn)
        admin = cast.as_(session.get_one(accounts.User, dana))
        if mine % 4 == 3:
            person = session.get_one(accounts.User, ids[(mine // 4) % len(ids)])
            person_deletion.delete_person(session, admin, person, created=Runners.KEEP)
            return
        key = enrolment_keys.find(session, texts[mine % len(texts)])
        for _ in range(3):
            enrolment_use.enrol(session, key, Asked(), address=HERE, request_id="")

    met = at_once(own_database, 16, act)
    assert [each for each in met if each is not None and not isinstance(each, Refusal)] == []
    with Session(engine) as session:
        created = session.scalars(select(EnrolmentKey.runners_created)).all()
        assert sum(created) == session.scalar(select(func.count()).select_from(Runner))
    engine.dispose()
