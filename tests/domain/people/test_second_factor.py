"""The second factor: codes pass once, wrong ones are few, and what is stored tells nobody the key."""

import re
import threading
from datetime import UTC, datetime, timedelta

import pyotp
import pytest
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from portal.domain import actors
from portal.domain.errors import Invalid, NotAllowed, NotFound, Stale
from portal.domain.people import second_factor, user_sessions
from portal.domain.people.second_factor import Configured, Demand
from portal.domain.vault import SECOND_FACTORS, Vault
from portal.models import AuditEvent, RecoveryCode, SecondFactor, User, UserSession
from tests.cast import Cast

KEY = "a key for tests only that is long enough"
CONFIGURED = Configured(Demand.OPTIONAL, Vault([KEY], SECOND_FACTORS))
PORTAL = "https://portal.example.com"
NOON = datetime(2026, 3, 2, 12, 0, 5, tzinfo=UTC)
VISITOR = actors.visitor(address="192.0.2.9", request_id="request-of-a-visitor")


class App:
    """An authenticator app that knows a key."""

    def __init__(self, key: str) -> None:
        self.key = key

    def code(self, at: datetime = NOON, steps: int = 0) -> str:
        return pyotp.TOTP(self.key).at(at, counter_offset=steps)

    def wrong(self, at: datetime = NOON) -> str:
        """A code that is good at no moment near this one."""
        good = {self.code(at, steps) for steps in range(-3, 4)}
        return next(code for code in ("000000", "111111", "222222", "333333", "444444") if code not in good)


def set_up(session: Session, user: User, at: datetime = NOON - timedelta(hours=1)) -> tuple[App, list[str]]:
    """The person has an app, since an hour before noon."""
    drafted = second_factor.draft(user, CONFIGURED, portal=PORTAL, at=at)
    app = App(drafted.key)
    codes = second_factor.set_up(
        session, Cast.as_(user), CONFIGURED, sealed=drafted.sealed, code=app.code(at), at=at + timedelta(seconds=1)
    )
    session.flush()
    return app, list(codes)


def try_(session: Session, user: User, code: str, at: datetime = NOON) -> second_factor.Tried:
    tried = second_factor.check(session, VISITOR, user, code, CONFIGURED, at=at)
    session.flush()
    return tried


def events(session: Session, action: str) -> list[AuditEvent]:
    session.flush()
    return list(session.scalars(select(AuditEvent).where(AuditEvent.action == action).order_by(AuditEvent.id)))


@pytest.fixture
def app_of_alice(session: Session, cast: Cast) -> App:
    return set_up(session, cast.alice)[0]


class TestSettingUp:
    def test_nothing_counts_before_a_right_code(self, session: Session, cast: Cast) -> None:
        drafted = second_factor.draft(cast.alice, CONFIGURED, portal=PORTAL, at=NOON)
        with pytest.raises(Invalid, match="wrong"):
            second_factor.set_up(
                session,
                Cast.as_(cast.alice),
                CONFIGURED,
                sealed=drafted.sealed,
                code=App(drafted.key).wrong(),
                at=NOON,
            )
        assert second_factor.find(session, cast.alice) is None
        assert session.scalar(select(func.count()).select_from(RecoveryCode)) == 0

    def test_a_draft_of_somebody_else_is_refused(self, session: Session, cast: Cast) -> None:
        drafted = second_factor.draft(cast.bob, CONFIGURED, portal=PORTAL, at=NOON)
        code = App(drafted.key).code()
        with pytest.raises(Stale):
            second_factor.set_up(session, Cast.as_(cast.alice), CONFIGURED, sealed=drafted.sealed, code=code, at=NOON)

    @pytest.mark.parametrize("sealed", ["", "nonsense", "é"])
    def test_a_draft_that_somebody_wrote_is_refused(self, session: Session, cast: Cast, sealed: str) -> None:
        with pytest.raises(Stale):
            second_factor.set_up(session, Cast.as_(cast.alice), CONFIGURED, sealed=sealed, code="123456", at=NOON)

    def test_a_draft_ends_after_half_an_hour(self, session: Session, cast: Cast) -> None:
        drafted = second_factor.draft(cast.alice, CONFIGURED, portal=PORTAL, at=NOON)
        late = NOON + timedelta(minutes=31)
        with pytest.raises(Stale, match="half an hour"):
            second_factor.set_up(
                session,
                Cast.as_(cast.alice),
                CONFIGURED,
                sealed=drafted.sealed,
                code=App(drafted.key).code(late),
                at=late,
            )

    def test_a_draft_sets_up_once(self, session: Session, cast: Cast) -> None:
        drafted = second_factor.draft(cast.alice, CONFIGURED, portal=PORTAL, at=NOON)
        actor, app = Cast.as_(cast.alice), App(drafted.key)
        given = {"sealed": drafted.sealed, "at": NOON}
        second_factor.set_up(session, actor, CONFIGURED, code=app.code(), **given)
        with pytest.raises(Stale, match="meanwhile"):
            second_factor.set_up(session, actor, CONFIGURED, code=app.code(steps=1), **given)

    def test_the_address_in_the_qr_code_is_what_apps_read(self, cast: Cast) -> None:
        drafted = second_factor.draft(cast.alice, CONFIGURED, portal="https://portal.example.com:8443/x", at=NOON)
        read = pyotp.parse_uri(drafted.address)
        assert isinstance(read, pyotp.TOTP)
        assert (read.secret, read.digits, read.interval) == (drafted.key, 6, 30)
        assert (read.name, read.issuer) == ("alice", "Runner Portal (portal.example.com)")
        assert len(drafted.key) == 32  # 160 bits

    def test_other_sessions_end_and_this_one_is_proven_twice(self, session: Session, cast: Cast) -> None:
        actor = Cast.as_(cast.alice)
        here, _ = user_sessions.begin(session, actor, method="password")
        user_sessions.begin(session, actor, method="password")
        drafted = second_factor.draft(cast.alice, CONFIGURED, portal=PORTAL, at=NOON)
        second_factor.set_up(
            session, actor, CONFIGURED, sealed=drafted.sealed, code=App(drafted.key).code(), here=here, at=NOON
        )
        assert session.scalars(select(UserSession.id)).all() == [here.id]
        assert here.second_factor

    def test_moving_to_another_app_ends_the_first_and_its_recovery_codes(
        self, session: Session, cast: Cast, app_of_alice: App
    ) -> None:
        first = app_of_alice
        second, _ = set_up(session, cast.alice, NOON - timedelta(minutes=30))
        assert not try_(session, cast.alice, first.code()).passed
        assert try_(session, cast.alice, second.code()).passed
        assert second_factor.codes_left(session, cast.alice) == 10
        assert events(session, "second_factor_set_up")[-1].changes["replaced"] == [None, True]

    def test_the_key_is_encrypted_and_stands_in_no_event(
        self, session: Session, cast: Cast, app_of_alice: App
    ) -> None:
        factor = session.get_one(SecondFactor, cast.alice.id)
        assert app_of_alice.key.encode() not in factor.ciphertext
        assert CONFIGURED.vault.open(factor.ciphertext) == app_of_alice.key
        told = [str(event.changes) for event in session.scalars(select(AuditEvent))]
        assert not [each for each in told if app_of_alice.key in each]


class TestCodesOfTheApp:
    def test_a_right_code_passes(self, session: Session, cast: Cast, app_of_alice: App) -> None:
        assert try_(session, cast.alice, app_of_alice.code()).passed

    def test_with_a_space_in_the_middle_too(self, session: Session, cast: Cast, app_of_alice: App) -> None:
        code = app_of_alice.code()
        assert try_(session, cast.alice, f" {code[:3]} {code[3:]} ").passed

    @pytest.mark.parametrize("code", ["", "abc", "12345", "1234567", "１２３４５６", "x" * 100_000, "-1", "9" * 8])
    def test_what_is_no_code_is_refused(self, session: Session, cast: Cast, app_of_alice: App, code: str) -> None:
        assert not try_(session, cast.alice, code).passed

    def test_somebody_elses_code_is_refused(self, session: Session, cast: Cast, app_of_alice: App) -> None:
        set_up(session, cast.bob)
        assert not try_(session, cast.bob, app_of_alice.code()).passed

    def test_without_a_second_factor_nothing_passes(self, session: Session, cast: Cast) -> None:
        assert not try_(session, cast.bob, "123456").passed

    @pytest.mark.parametrize(("steps", "passes"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
    def test_a_clock_may_be_off_by_one_step(
        self, session: Session, cast: Cast, app_of_alice: App, steps: int, passes: bool
    ) -> None:
        assert try_(session, cast.alice, app_of_alice.code(steps=steps)).passed is passes

    def test_a_code_passes_once(self, session: Session, cast: Cast, app_of_alice: App) -> None:
        code = app_of_alice.code()
        assert try_(session, cast.alice, code).passed
        again = try_(session, cast.alice, code)
        assert not again.passed
        assert "used already" in again.sentence

    def test_an_older_code_than_the_one_taken_is_refused(
        self, session: Session, cast: Cast, app_of_alice: App
    ) -> None:
        assert try_(session, cast.alice, app_of_alice.code()).passed
        assert not try_(session, cast.alice, app_of_alice.code(steps=-1)).passed
        assert try_(session, cast.alice, app_of_alice.code(steps=1)).passed

    def test_the_code_that_set_it_up_does_not_sign_in(self, session: Session, cast: Cast) -> None:
        app, _ = set_up(session, cast.alice, NOON)
        assert not try_(session, cast.alice, app.code()).passed

    def test_a_wrong_code_leaves_an_event_without_the_code(
        self, session: Session, cast: Cast, app_of_alice: App
    ) -> None:
        try_(session, cast.alice, app_of_alice.wrong())
        (event,) = events(session, "second_factor_refused")
        assert (event.actor_kind, event.target_id, event.address) == ("visitor", cast.alice.id, "192.0.2.9")
        assert event.changes == {"reason": [None, "wrong"]}

    def test_a_lost_key_is_told_in_a_sentence(self, session: Session, cast: Cast, app_of_alice: App) -> None:
        other = Configured(Demand.OPTIONAL, Vault(["another key that is long enough to be one"], SECOND_FACTORS))
        tried = second_factor.check(session, VISITOR, cast.alice, app_of_alice.code(), other, at=NOON)
        assert not tried.passed
        assert "encryption key was replaced" in tried.sentence


class TestWrongCodes:
    def test_five_in_a_quarter_of_an_hour_stop_even_the_right_one(
        self, session: Session, cast: Cast, app_of_alice: App
    ) -> None:
        tried = [try_(session, cast.alice, app_of_alice.wrong()) for _ in range(5)]
        assert [each.ends for each in tried] == [False, False, False, False, True]
        stopped = try_(session, cast.alice, app_of_alice.code())
        assert not stopped.passed
        assert "recovery code" in stopped.sentence
        assert stopped.ends

    def test_the_right_one_passes_again_a_quarter_of_an_hour_later(
        self, session: Session, cast: Cast, app_of_alice: App
    ) -> None:
        for _ in range(5):
            try_(session, cast.alice, app_of_alice.wrong())
        later = NOON + timedelta(minutes=15)
        assert not try_(session, cast.alice, app_of_alice.code(), later - timedelta(seconds=1)).passed
        assert try_(session, cast.alice, app_of_alice.code(later), later).passed

    def test_twenty_in_a_day_stop_for_the_day(self, session: Session, cast: Cast, app_of_alice: App) -> None:
        moment = NOON
        for _ in range(20):
            assert second_factor.paused_until(session.get_one(SecondFactor, cast.alice.id), moment) is None
            try_(session, cast.alice, app_of_alice.wrong(moment), moment)
            moment += timedelta(minutes=20)
        tried = try_(session, cast.alice, app_of_alice.code(moment), moment)
        assert not tried.passed
        assert "in a day" in tried.sentence
        next_day = NOON + timedelta(days=1)
        assert try_(session, cast.alice, app_of_alice.code(next_day), next_day).passed

    def test_nobody_is_locked_out_a_recovery_code_passes_all_the_same(self, session: Session, cast: Cast) -> None:
        app, codes = set_up(session, cast.alice)
        for _ in range(6):
            try_(session, cast.alice, app.wrong())
        assert try_(session, cast.alice, codes[0]).passed

    def test_a_code_used_before_does_not_count_as_a_guess(
        self, session: Session, cast: Cast, app_of_alice: App
    ) -> None:
        code = app_of_alice.code()
        for _ in range(7):
            try_(session, cast.alice, code)
        assert second_factor.wrong_lately(session.get_one(SecondFactor, cast.alice.id), NOON) == 0


class TestRecoveryCodes:
    def test_there_are_ten_of_120_bits_grouped_for_reading(self, session: Session, cast: Cast) -> None:
        _, codes = set_up(session, cast.alice)
        assert len(set(codes)) == 10
        assert all(re.fullmatch(r"(?:[A-Z2-7]{4}-){5}[A-Z2-7]{4}", code) for code in codes)

    def test_each_works_once(self, session: Session, cast: Cast) -> None:
        _, codes = set_up(session, cast.alice)
        assert try_(session, cast.alice, codes[3]).passed
        assert not try_(session, cast.alice, codes[3]).passed
        assert second_factor.codes_left(session, cast.alice) == 9
        (event,) = events(session, "recovery_code_used")
        assert (event.actor_id, event.changes) == (cast.alice.id, {"codes": [10, 9]})

    def test_typed_in_small_letters_without_hyphens(self, session: Session, cast: Cast) -> None:
        _, codes = set_up(session, cast.alice)
        assert try_(session, cast.alice, codes[0].lower().replace("-", " ")).passed
        assert try_(session, cast.alice, codes[1].replace("-", "").replace("O", "0").replace("I", "1")).passed

    def test_somebody_elses_is_refused(self, session: Session, cast: Cast) -> None:
        _, codes = set_up(session, cast.alice)
        set_up(session, cast.bob)
        assert not try_(session, cast.bob, codes[0]).passed

    def test_only_digests_are_stored(self, session: Session, cast: Cast) -> None:
        _, codes = set_up(session, cast.alice)
        stored = session.scalars(select(RecoveryCode.digest)).all()
        assert {len(each) for each in stored} == {32}
        assert not [code for code in codes if code.encode() in b"".join(stored)]

    def test_new_ones_end_the_old(self, session: Session, cast: Cast) -> None:
        _, old = set_up(session, cast.alice)
        new = second_factor.new_codes(session, Cast.as_(cast.alice))
        assert not try_(session, cast.alice, old[0]).passed
        assert try_(session, cast.alice, new[0]).passed
        assert [event.changes for event in events(session, "recovery_codes_made")] == [{"codes": [10, 10]}]

    def test_without_a_second_factor_there_are_none(self, session: Session, cast: Cast) -> None:
        with pytest.raises(NotFound):
            second_factor.new_codes(session, Cast.as_(cast.alice))

    def test_the_file_is_only_for_the_persons_own(self, session: Session, cast: Cast) -> None:
        _, codes = set_up(session, cast.alice)
        assert second_factor.are_codes_of(session, cast.alice, codes)
        assert not second_factor.are_codes_of(session, cast.bob, codes)
        assert not second_factor.are_codes_of(session, cast.alice, [*codes[:9], "made up"])
        assert not second_factor.are_codes_of(session, cast.alice, [])


class TestTurningOff:
    def test_needs_a_code(self, session: Session, cast: Cast, app_of_alice: App) -> None:
        actor = Cast.as_(cast.alice)
        assert not second_factor.turn_off(session, actor, app_of_alice.wrong(), CONFIGURED, at=NOON).passed
        assert second_factor.find(session, cast.alice) is not None
        assert second_factor.turn_off(session, actor, app_of_alice.code(), CONFIGURED, at=NOON).passed
        assert second_factor.find(session, cast.alice) is None
        assert second_factor.codes_left(session, cast.alice) == 0
        assert len(events(session, "second_factor_turned_off")) == 1

    def test_is_refused_where_it_is_demanded(self, session: Session, cast: Cast, app_of_alice: App) -> None:
        demanding = Configured(Demand.EVERYBODY, CONFIGURED.vault)
        with pytest.raises(NotAllowed):
            second_factor.turn_off(session, Cast.as_(cast.alice), app_of_alice.code(), demanding, at=NOON)

    def test_of_nothing_is_refused(self, session: Session, cast: Cast) -> None:
        with pytest.raises(NotFound):
            second_factor.turn_off(session, Cast.as_(cast.bob), "123456", CONFIGURED)


class TestRemoving:
    def test_a_person_may_not_remove_somebody_elses(self, session: Session, cast: Cast, app_of_alice: App) -> None:
        with pytest.raises((NotAllowed, NotFound)):
            second_factor.remove(session, Cast.as_(cast.bob), cast.alice)
        assert second_factor.find(session, cast.alice) is not None

    def test_an_administrator_removes_it_and_all_sessions_end(
        self, session: Session, cast: Cast, app_of_alice: App
    ) -> None:
        user_sessions.begin(session, Cast.as_(cast.alice), method="password", second_factor=True)
        second_factor.remove(session, Cast.as_(cast.dana), cast.alice)
        assert second_factor.find(session, cast.alice) is None
        assert session.scalar(select(func.count()).where(UserSession.user_id == cast.alice.id)) == 0
        (event,) = events(session, "second_factor_removed")
        assert (event.actor_id, event.target_id) == (cast.dana.id, cast.alice.id)

    def test_who_has_none_is_told_so(self, session: Session, cast: Cast) -> None:
        with pytest.raises(NotFound, match="no second factor"):
            second_factor.remove(session, Cast.as_(cast.dana), cast.alice)


class TestDemand:
    @pytest.mark.parametrize(
        ("demand", "of_alice", "of_dana"),
        [(Demand.OPTIONAL, False, False), (Demand.ADMINISTRATORS, False, True), (Demand.EVERYBODY, True, True)],
    )
    def test_of_whom_it_is_demanded(self, cast: Cast, demand: Demand, of_alice: bool, of_dana: bool) -> None:
        configured = Configured(demand, CONFIGURED.vault)
        assert (configured.demands_of(cast.alice), configured.demands_of(cast.dana)) == (of_alice, of_dana)


class TestKeys:
    NEW = "a new key that is long enough to be one"

    def test_a_new_first_key_takes_over(self, session: Session, cast: Cast, app_of_alice: App) -> None:
        both = Configured(Demand.OPTIONAL, Vault([self.NEW, KEY], SECOND_FACTORS))
        done = second_factor.renew_encryption(session, VISITOR, both)
        assert (done.renewed, done.lost) == (1, 0)
        only_new = Configured(Demand.OPTIONAL, Vault([self.NEW], SECOND_FACTORS))
        assert second_factor.check(session, VISITOR, cast.alice, app_of_alice.code(), only_new, at=NOON).passed

    def test_what_no_key_opens_is_left_alone_and_counted(
        self, session: Session, cast: Cast, app_of_alice: App
    ) -> None:
        strange = Configured(Demand.OPTIONAL, Vault([self.NEW], SECOND_FACTORS))
        done = second_factor.renew_encryption(session, VISITOR, strange)
        assert (done.renewed, done.lost) == (0, 1)
        assert try_(session, cast.alice, app_of_alice.code()).passed


THREADS = 10


@pytest.mark.parametrize("kind", ["app", "recovery"])
def test_of_ten_who_send_the_same_code_at_once_one_passes(own_database: str, kind: str) -> None:
    engine = create_engine(own_database, pool_size=THREADS)
    with Session(engine) as session:
        cast = Cast(session)
        app, codes = set_up(session, cast.alice)
        user_id, code = cast.alice.id, app.code() if kind == "app" else codes[0]
        session.commit()
    together, passed = threading.Barrier(THREADS), []

    def try_once() -> None:
        with Session(engine) as session:
            user = session.get_one(User, user_id)
            together.wait()
            tried = second_factor.check(session, VISITOR, user, code, CONFIGURED, at=NOON)
            session.commit()
            passed.append(tried.passed)

    threads = [threading.Thread(target=try_once) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    assert sorted(passed) == [False] * (THREADS - 1) + [True]


def test_guesses_at_once_are_counted_one_by_one(own_database: str) -> None:
    engine = create_engine(own_database, pool_size=THREADS)
    with Session(engine) as session:
        cast = Cast(session)
        app, _ = set_up(session, cast.alice)
        user_id = cast.alice.id
        session.commit()

    def guess() -> None:
        with Session(engine) as session:
            second_factor.check(session, VISITOR, session.get_one(User, user_id), app.wrong(), CONFIGURED, at=NOON)
            session.commit()

    threads = [threading.Thread(target=guess) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Session(engine) as session:
        assert len(session.get_one(SecondFactor, user_id).refused_at) == 5
        reasons = [event.changes["reason"][1] for event in events(session, "second_factor_refused")]
        assert sorted(reasons) == ["too many wrong ones"] * 5 + ["wrong"] * 5
    engine.dispose()
