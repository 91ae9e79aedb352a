"""The portal's own commands: people, and the machines that nobody has heard of for long."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, insert, select, text, update

from portal.config import ROOT
from portal.database import db, now
from portal.domain import audit
from portal.domain.jobs import job_definitions
from portal.domain.jobs.job_definitions import JobVariable, Undecryptable
from portal.domain.people import second_factor
from portal.domain.registration import registration_tokens
from portal.domain.registration.registration import Configured
from portal.domain.runners import runner_cleanup
from portal.domain.runners.runner_cleanup import Criteria
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE, Scope
from portal.domain.vault import JOB_SECRETS, SECOND_FACTORS, Vault
from portal.models import AccessToken, AuditEvent, Job, RegistrationToken, Runner, RunnerManager, SecondFactor, User
from tests.api.processes import Process
from tests.cast import PASSWORD, SYSTEM, Cast, send, sign_in
from tests.databases import ENCRYPTION_KEY, SECRET_KEY, Server
from tests.domain.clock import let_pass


def run(app: Flask, *words: str) -> Result:
    return app.test_cli_runner().invoke(args=list(words))


def create(app: Flask, username: str = "frida", *more: str) -> Result:
    return run(app, "user", "create", username, "--name", "Frida Moe", "--email", f"{username}@acme.example", *more)


def shown_password(result: Result) -> str:
    (password,) = re.findall(r"^Password \(shown once\): (\S+)$", result.output, re.MULTILINE)
    return str(password)


class TestReEncrypt:
    @staticmethod
    def token(app: Flask, cast: Cast) -> tuple[int, str]:
        configured: Configured = app.extensions["registration"]
        row = registration_tokens.make_token(db.session(), cast.as_(cast.dana), cast.acme, configured)
        made = row.id, configured.vault.open(row.ciphertext or b"") or ""
        db.session.commit()
        return made

    def test_a_new_first_key_takes_over_and_the_old_one_can_go(
        self, app: Flask, cast: Cast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        number, text = self.token(app, cast)
        new = "a new key that is long enough to be one"
        both = Configured(enforced=False, vault=Vault([new, ENCRYPTION_KEY]))
        monkeypatch.setitem(app.extensions, "registration", both)
        result = run(app, "registration-tokens", "re-encrypt")
        assert (result.exit_code, result.output) == (0, "Encrypted 1 registration token with the first key.\n")
        stored = db.session.get_one(RegistrationToken, number).ciphertext or b""
        assert Vault([new]).open(stored) == text
        assert Vault([ENCRYPTION_KEY]).open(stored) is None
        event = db.session.scalars(select(AuditEvent).where(AuditEvent.action == "encryption_renewed")).one()
        assert (event.actor_name, event.changes) == ("command line", {"registration_tokens": [None, 1]})

    def test_what_no_key_opens_is_left_alone_and_told(
        self, app: Flask, cast: Cast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        number, text = self.token(app, cast)
        stranger = Configured(enforced=False, vault=Vault(["somebody else's key, long enough"]))
        monkeypatch.setitem(app.extensions, "registration", stranger)
        result = run(app, "registration-tokens", "re-encrypt")
        assert result.exit_code == 1
        assert "1 could not be opened" in result.output
        renewed = select(AuditEvent).where(AuditEvent.action == "encryption_renewed")
        assert db.session.scalars(renewed).all() == []
        assert Vault([ENCRYPTION_KEY]).open(db.session.get_one(RegistrationToken, number).ciphertext or b"") == text

    def test_second_factors_go_along_under_the_new_name_of_the_command(
        self, app: Flask, cast: Cast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        new = "a new key that is long enough to be one"
        factor = SecondFactor(
            user_id=cast.alice.id, ciphertext=Vault([ENCRYPTION_KEY], SECOND_FACTORS).close("KEY"), last_step=0
        )
        db.session.add(factor)
        db.session.commit()
        alice_id = cast.alice.id
        both = second_factor.Configured(second_factor.Demand.OPTIONAL, Vault([new, ENCRYPTION_KEY], SECOND_FACTORS))
        monkeypatch.setitem(app.extensions, "second_factor", both)
        result = run(app, "keys", "re-encrypt")
        assert (result.exit_code, result.output.splitlines()[1]) == (
            0,
            "Encrypted 1 second factor with the first key.",
        )
        stored = db.session.get_one(SecondFactor, alice_id).ciphertext
        assert Vault([new], SECOND_FACTORS).open(stored) == "KEY"
        event = db.session.scalars(select(AuditEvent).where(AuditEvent.action == "encryption_renewed")).one()
        assert event.changes == {"second_factors": [None, 1]}

    def test_a_second_factor_that_no_key_opens_is_told(
        self, app: Flask, cast: Cast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        db.session.add(SecondFactor(user_id=cast.alice.id, ciphertext=b"not to be opened", last_step=0))
        db.session.commit()
        result = run(app, "keys", "re-encrypt")
        assert result.exit_code == 1
        assert "1 second factor could not be opened" in result.output

    def test_variables_of_jobs_go_along(self, app: Flask, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        new = "a new key that is long enough to be one"
        job_id = cast.job(variables=(JobVariable("PASSWORD", "correct horse", masked=True),)).id
        monkeypatch.setitem(app.extensions, "job_vault", Vault([new, ENCRYPTION_KEY], JOB_SECRETS))
        result = run(app, "keys", "re-encrypt")
        assert (result.exit_code, result.output.splitlines()[1:]) == (
            0,
            ["Encrypted the variables of 1 job with the first key."],
        )
        definition = db.session.get_one(Job, job_id).definition
        assert job_definitions.opened(definition, Vault([new], JOB_SECRETS)).variables[0].value == "correct horse"
        with pytest.raises(Undecryptable):
            job_definitions.opened(definition, Vault([ENCRYPTION_KEY], JOB_SECRETS))

    def test_variables_that_no_key_opens_are_told(
        self, app: Flask, cast: Cast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cast.job()
        monkeypatch.setitem(app.extensions, "job_vault", Vault(["somebody else's key, long enough"], JOB_SECRETS))
        result = run(app, "keys", "re-encrypt")
        assert result.exit_code == 1
        assert "The variables of 1 job could not be opened" in result.output


class TestRemoveSecondFactor:
    def test_takes_it_away(self, app: Flask, cast: Cast) -> None:
        dana_id = cast.dana.id
        db.session.add(SecondFactor(user_id=dana_id, ciphertext=b"unread", last_step=0))
        db.session.commit()
        assert run(app, "user", "remove-second-factor", "dana").exit_code == 0
        assert db.session.get(SecondFactor, dana_id) is None

    def test_says_who_has_none_and_who_is_nobody(self, app: Flask, cast: Cast) -> None:
        assert "has no second factor" in run(app, "user", "remove-second-factor", "erin").output
        assert "nobody called" in run(app, "user", "remove-second-factor", "nobody").output


class TestUserCreate:
    def test_makes_a_person_with_a_generated_password(self, app: Flask, client: FlaskClient) -> None:
        result = create(app)
        assert (result.exit_code, result.output.splitlines()[0]) == (0, "Created frida.")
        sign_in(client, "frida", shown_password(result))
        answer = client.get("/")
        assert answer.status_code == 302
        assert "password" in answer.headers["Location"]

    def test_takes_a_password_and_does_not_print_it(self, app: Flask, client: FlaskClient) -> None:
        result = create(app, "frida", "--password", PASSWORD)
        assert result.exit_code == 0
        assert PASSWORD not in result.output
        sign_in(client, "frida", PASSWORD)

    def test_makes_an_administrator_only_when_asked(self, app: Flask) -> None:
        create(app, "frida")
        create(app, "gerd", "--admin")
        admins = dict(db.session.execute(select(User.username, User.admin)).all())
        assert admins == {"frida": False, "gerd": True}

    def test_leaves_a_trace(self, app: Flask) -> None:
        create(app)
        assert "person_created" in db.session.scalars(select(AuditEvent.action)).all()

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (("alice",), "Somebody else has the user name already."),
            (("ALICE",), "Somebody else has the user name already."),
            (("frida", "--email", "alice@acme.example"), "Somebody else has the address already."),
            (("frida", "--email", "nonsense"), "This is no e-mail address"),
            (("frida", "--password", "short"), "at least 12 characters"),
            (("frida moe",), "Error: "),
            (("frida", "--name", " "), "Say what to call them."),
        ],
    )
    def test_says_what_is_wrong(self, app: Flask, cast: Cast, words: tuple[str, ...], sentence: str) -> None:
        before = db.session.scalar(select(func.count(User.id)))
        result = create(app, *words)
        assert result.exit_code == 1
        assert result.output.startswith("Error: ")
        assert sentence in result.output
        assert "Traceback" not in result.output
        assert db.session.scalar(select(func.count(User.id))) == before


class TestResetPassword:
    def test_gives_a_new_password_and_ends_the_sessions(self, app: Flask, client: FlaskClient, cast: Cast) -> None:
        sign_in(client, "alice")
        result = run(app, "user", "reset-password", "alice")
        assert result.exit_code == 0
        assert client.get("/").headers.get("Location", "").startswith("/-/sign-in")
        send(client, "/-/sign-in", login="alice", password=PASSWORD, expect=422)
        sign_in(client, "alice", shown_password(result))

    def test_finds_people_by_their_address_too(self, app: Flask, cast: Cast) -> None:
        result = run(app, "user", "reset-password", "alice@acme.example", "--password", "another long password")
        assert result.output == "alice has a new password and chooses another at the next sign-in.\n"

    def test_of_nobody_is_an_error(self, app: Flask, cast: Cast) -> None:
        result = run(app, "user", "reset-password", "nobody")
        assert (result.exit_code, result.output) == (1, "Error: There is nobody called 'nobody'.\n")

    def test_to_a_short_one_is_an_error(self, app: Flask, client: FlaskClient, cast: Cast) -> None:
        result = run(app, "user", "reset-password", "alice", "--password", "short")
        assert result.exit_code == 1
        assert "at least 12 characters" in result.output
        sign_in(client, "alice")


class TestBlockAndAdmin:
    def test_a_blocked_person_is_out_until_unblocked(self, app: Flask, client: FlaskClient, cast: Cast) -> None:
        sign_in(client, "bob")
        result = run(app, "user", "block", "bob")
        assert (result.exit_code, result.output) == (0, "bob cannot sign in any more; 1 session ended.\n")
        assert client.get("/").headers.get("Location", "").startswith("/-/sign-in")
        assert run(app, "user", "unblock", "bob").output == "bob can sign in again.\n"
        assert run(app, "user", "unblock", "bob").output == "bob was not blocked.\n"
        sign_in(client, "bob")

    def test_an_administrator_is_made_and_unmade(self, app: Flask, cast: Cast) -> None:
        assert run(app, "user", "admin", "bob").output == "bob is an administrator now.\n"
        assert run(app, "user", "admin", "bob").output == "bob is an administrator already.\n"
        assert run(app, "user", "admin", "bob", "--take-away").output == "bob is no administrator now.\n"
        told = db.session.execute(select(AuditEvent.actor_name, AuditEvent.action)).all()
        assert ("command line", "administrator_added") in told

    @pytest.mark.parametrize("words", [("block", "dana"), ("admin", "dana", "--take-away")])
    def test_the_last_administrator_stays(self, app: Flask, cast: Cast, words: tuple[str, ...]) -> None:
        result = run(app, "user", *words)
        assert result.exit_code == 1
        assert "Make somebody else an administrator first" in result.output

    @pytest.mark.parametrize("act", ["block", "unblock", "admin"])
    def test_of_nobody_is_an_error(self, app: Flask, cast: Cast, act: str) -> None:
        result = run(app, "user", act, "nobody")
        assert (result.exit_code, result.output) == (1, "Error: There is nobody called 'nobody'.\n")


class TestManagersPrune:
    @pytest.fixture
    def silent(self, cast: Cast) -> None:
        """Three machines, without contact for 6, 8 and 40 days."""
        runner_id = cast.runner().runner.id
        for days in (6, 8, 40):
            moment = now() - timedelta(days=days)
            row = {"runner_id": runner_id, "system_xid": f"r_{days}", "created_at": moment, "contacted_at": moment}
            db.session.execute(insert(RunnerManager).values(**row))
        db.session.commit()

    @pytest.mark.parametrize(
        ("words", "told", "left"),
        [
            ((), "Deleted 2 machines without contact for 7 days.", {"r_6"}),
            (("--days", "30"), "Deleted 1 machine without contact for 30 days.", {"r_6", "r_8"}),
            (("--days", "100"), "Deleted 0 machines without contact for 100 days.", {"r_6", "r_8", "r_40"}),
        ],
    )
    def test_takes_the_silent_ones(
        self, app: Flask, silent: None, words: tuple[str, ...], told: str, left: set[str]
    ) -> None:
        result = run(app, "managers", "prune", *words)
        assert (result.exit_code, result.output) == (0, told + "\n")
        assert set(db.session.scalars(select(RunnerManager.system_xid))) == left
        assert db.session.scalar(select(func.count(Runner.id))) == 1

    @pytest.mark.parametrize("days", ["0", "-1", "soon", "99999"])
    def test_refuses_a_number_of_days_that_is_none(self, app: Flask, silent: None, days: str) -> None:
        result = run(app, "managers", "prune", "--days", days)
        assert result.exit_code == 2
        assert "--days" in result.output
        assert db.session.scalar(select(func.count(RunnerManager.id))) == 3

    def test_a_runner_with_a_time_of_its_own_keeps_to_it(self, app: Flask, silent: None) -> None:
        db.session.execute(update(Runner).values(machines_forgotten_after=30 * 86_400))
        db.session.commit()
        result = run(app, "managers", "prune", "--days", "1")
        assert result.output == "Deleted 1 machine without contact for 1 days.\n"


class TestRunnersCleanUp:
    @pytest.fixture
    def stale(self, cast: Cast) -> list[str]:
        """Two runners, in acme and in acme/web, that are stale for ten days; how the command names them."""
        runners = [cast.runner(scope).runner for scope in (cast.acme, cast.web)]
        let_pass(db.session(), timedelta(days=10))
        cast.runner()
        db.session.commit()
        return [
            f"  Linux build fleet (#{runner.id}) of {path}, never polled"
            for runner, path in zip(runners, ("acme", "acme/web"), strict=True)
        ]

    @staticmethod
    def turn_on(*scopes_: Scope) -> None:
        for scope in scopes_:
            runner_cleanup.change(db.session(), SYSTEM, scope, Criteria(10))
        db.session.commit()

    def test_says_so_where_nothing_is_turned_on(self, app: Flask, stale: list[str]) -> None:
        result = run(app, "runners", "clean-up")
        assert result.exit_code == 0
        assert result.output == (
            "No clean-up is turned on. The instance's is turned on at https://portal.example.com/admin/cleanup.\n"
        )
        assert db.session.scalar(select(func.count(Runner.id))) == 3

    def test_prints_what_goes(self, app: Flask, cast: Cast, stale: list[str]) -> None:
        self.turn_on(cast.acme)
        result = run(app, "runners", "clean-up")
        end = "acme, silent for 10 days: 2 stale runners deleted."
        assert (result.exit_code, result.output.splitlines()) == (0, [*stale, end])
        assert db.session.scalar(select(func.count(Runner.id))) == 1
        again = run(app, "runners", "clean-up")
        assert again.output == "acme, silent for 10 days: 0 stale runners deleted.\n"

    def test_prints_only_with_dry_run_and_each_runner_once(self, app: Flask, cast: Cast, stale: list[str]) -> None:
        self.turn_on(INSTANCE, cast.acme)
        before = db.session.scalar(select(func.count(AuditEvent.id)))
        result = run(app, "runners", "clean-up", "--dry-run")
        assert result.exit_code == 0
        assert result.output.splitlines() == [
            *stale,
            "the instance, silent for 10 days: 2 stale runners would go; nothing was changed.",
            "acme, silent for 10 days: 0 stale runners would go; nothing was changed.",
        ]
        assert db.session.scalar(select(func.count(Runner.id))) == 3
        assert db.session.scalar(select(func.count(AuditEvent.id))) == before
        assert runner_cleanup.due(db.session(), now()) == [None, cast.acme.id]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("user",), "Create people and give them new passwords."),
        (("user", "create"), "Create the person USERNAME"),
        (("user", "reset-password"), "Give USERNAME a new password"),
        (("managers",), "Look after runner managers"),
        (("managers", "prune"), "Delete managers without contact"),
        (("runners",), "Look after runners."),
        (("runners", "clean-up"), "Delete stale runners wherever their clean-up is turned on"),
    ],
)
def test_each_command_explains_itself(app: Flask, words: tuple[str, ...], sentence: str) -> None:
    result = run(app, *words, "--help")
    assert result.exit_code == 0
    assert sentence in result.output


@pytest.mark.parametrize("words", [("user", "create"), ("user", "create", "frida"), ("user", "reset-password")])
def test_a_missing_word_is_named(app: Flask, words: tuple[str, ...]) -> None:
    result = run(app, *words)
    assert result.exit_code == 2
    assert "Missing" in result.output


class TestAccessTokens:
    @staticmethod
    def create(app: Flask, *more: str, username: str = "alice") -> Result:
        return run(app, "access-token", "create", username, "--scopes", "api, read_api", "--expires", "9", *more)

    def test_the_longest_life_is_the_settings_and_said_in_help_and_refusal(self, app: Flask, cast: Cast) -> None:
        assert "PORTAL_ACCESS_TOKEN_LONGEST" in run(app, "access-token", "create", "--help").output
        for days in ("366", "9" * 30):
            refused = self.create(app, "--expires", days)
            assert refused.exit_code == 2
            assert "at most 365, as PORTAL_ACCESS_TOKEN_LONGEST says" in refused.output
        assert self.create(app, "--expires", "365").exit_code == 0

    def test_create_prints_the_token_and_nothing_else(self, app: Flask, client: FlaskClient, cast: Cast) -> None:
        result = self.create(app)
        assert result.exit_code == 0
        assert re.fullmatch(r"glpat-\S{37}\n", result.output)
        script = client.get("/api/v4/personal_access_tokens/self", headers={"PRIVATE-TOKEN": result.stdout.strip()})
        assert script.get_json()["scopes"] == ["api", "read_api"]
        assert script.get_json()["name"] == "command line"
        assert script.get_json()["expires_at"] == str(now().date() + timedelta(days=9))
        event = db.session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()
        assert (event.action, event.actor_name) == ("access_token_created", "command line")

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (("--scopes", "sudo"), "There is no scope 'sudo'"),
            (("--scopes", ","), "Choose at least one scope."),
            (("--name", ""), "Say what it is for"),
        ],
    )
    def test_a_refusal_is_no_token(self, app: Flask, cast: Cast, words: tuple[str, ...], sentence: str) -> None:
        result = self.create(app, *words)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("Error: ")
        assert sentence in result.stderr
        assert db.session.scalar(select(func.count()).select_from(AccessToken)) == 0

    def test_of_nobody_and_of_somebody_blocked_there_is_none(self, app: Flask, cast: Cast) -> None:
        assert "nobody called" in self.create(app, username="nobody").stderr
        run(app, "user", "block", "alice")
        assert "blocked" in self.create(app).stderr

    def test_list_tells_of_each_without_its_secret_and_revoke_ends_one(
        self, app: Flask, client: FlaskClient, cast: Cast
    ) -> None:
        token = self.create(app, "--name", "first step").stdout.strip()
        listed = run(app, "access-token", "list", "alice").output
        assert token[10:] not in listed
        assert re.search(r"good .* api,read_api  first step \(never used\)\n", listed)
        number = listed.split()[0]
        assert run(app, "access-token", "revoke", number).output == "first step of alice is revoked.\n"
        assert client.get("/api/v4/user", headers={"PRIVATE-TOKEN": token}).status_code == 401
        assert run(app, "access-token", "revoke", number).output == "first step of alice was revoked before.\n"
        assert "revoked" in run(app, "access-token", "list", "alice").output
        missing = run(app, "access-token", "revoke", "999999")
        assert (missing.exit_code, missing.stdout) == (1, "")


class TestAsAProcess:
    """`flask --app app …`, as people type it."""

    @staticmethod
    def flask(database_url: str, *words: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PORTAL_")}
        return subprocess.run(
            [sys.executable, "-m", "flask", "--app", "app", *words],
            cwd=ROOT,
            env={**kept, "DATABASE_URL": database_url, "SECRET_KEY": SECRET_KEY},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def test_a_person_is_created_once(self, own_database: str) -> None:
        words = (
            "user",
            "create",
            "frida",
            "--name",
            "Frida",
            "--email",
            "frida@acme.example",
            "--password",
            PASSWORD,
        )
        first, second = self.flask(own_database, *words), self.flask(own_database, *words)
        assert (first.returncode, first.stdout) == (0, "Created frida.\n")
        assert second.returncode == 1
        assert second.stderr.startswith("Error: Somebody else has the user name already.")

    def test_the_first_token_of_automation_stands_alone_on_the_standard_output(self, own_database: str) -> None:
        person = ("--name", "Frida", "--email", "frida@acme.example", "--password", PASSWORD)
        self.flask(own_database, "user", "create", "frida", *person)
        words = ("access-token", "create", "frida", "--scopes", "api", "--expires", "1")
        made = self.flask(own_database, *words)
        assert made.returncode == 0
        assert re.fullmatch(r"glpat-\S{37}\n", made.stdout)
        refused = self.flask(own_database, *words[:2], "nobody", *words[3:])
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == "Error: There is nobody called 'nobody'.\n"

    def test_a_wrong_setting_is_a_sentence(self) -> None:
        ended = self.flask("mysql://x/y", "managers", "prune")
        assert ended.returncode != 0
        assert "DATABASE_URL is not usable" in ended.stderr
        assert "Traceback" not in ended.stderr

    def test_a_database_without_tables_is_a_sentence(self, postgres: Server) -> None:
        name = f"{postgres.name}_bare"
        try:
            ended = self.flask(postgres.create(name), "user", "reset-password", "root")
        finally:
            postgres.drop(name)
        assert ended.returncode == 1
        assert ended.stderr == "Error: The database has no tables yet. Run: flask --app app db upgrade\n"

    def test_a_database_that_does_not_answer_is_a_sentence(self, tmp_path: Path) -> None:
        ended = self.flask(f"postgresql://nobody@/nothing?host={tmp_path}", "managers", "prune")
        assert ended.returncode == 1
        assert ended.stderr.startswith("Error: The database does not answer.")
        assert "Traceback" not in ended.stderr


class TestAudit:
    """`flask --app app audit …`, on a database where events are really committed."""

    @staticmethod
    def record(process: Process, number: int = 3) -> None:
        for each in range(number):
            with process.session() as session:
                audit.record(session, replace(SYSTEM, name=f"=tester {each}"), f"change_{each}", INSTANCE, INSTANCE)
                session.commit()

    @staticmethod
    def tamper(process: Process, statement: str) -> None:
        with process.session() as session:
            session.execute(text("SET session_replication_role = replica"))
            session.execute(text(statement))
            session.commit()
            session.execute(text("SET session_replication_role = DEFAULT"))

    def test_an_empty_trail_is_said_to_be_empty(self, process: Process) -> None:
        assert run(process.app, "audit", "verify").output == "The trail is empty.\n"

    def test_a_whole_trail_is_told_with_the_head_to_note(self, process: Process) -> None:
        self.record(process)
        result = run(process.app, "audit", "verify")
        assert result.exit_code == 0
        first, second = result.output.splitlines()
        assert first == "The trail is unbroken: 3 events, positions 1 to 3."
        assert re.fullmatch(r"Head: 3:[0-9a-f]{64}", second)
        self.record(process)
        again = run(process.app, "audit", "verify", "--head", second.removeprefix("Head: "))
        assert again.exit_code == 0
        assert "6 events" in again.output

    def test_the_first_broken_event_is_named_and_the_exit_says_so(self, process: Process) -> None:
        self.record(process, 5)
        self.tamper(process, "UPDATE audit_events SET address = '192.0.2.9' WHERE action IN ('change_1', 'change_3')")
        result = run(process.app, "audit", "verify")
        assert result.exit_code == 1
        assert re.search(
            r"^Error: The trail is broken at position 2 \(event 2, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, =tester 1: "
            r"change_1 the instance\): its values are not those that were written\.$",
            result.output,
            re.MULTILINE,
        )

    def test_a_cut_off_end_is_found_with_the_head_that_was_noted(self, process: Process) -> None:
        self.record(process)
        head = run(process.app, "audit", "verify").output.split("Head: ")[1].strip()
        self.tamper(process, "DELETE FROM audit_links WHERE position = 3")
        self.tamper(process, "DELETE FROM audit_events WHERE id = 3")
        assert run(process.app, "audit", "verify").exit_code == 0
        result = run(process.app, "audit", "verify", "--head", head)
        assert result.exit_code == 1
        assert "the chain ends at position 2" in result.output

    def test_a_head_that_is_none_is_refused(self, process: Process) -> None:
        result = run(process.app, "audit", "verify", "--head", "3:abc")
        assert result.exit_code == 2
        assert "64 hexadecimal digits" in result.output

    def test_an_export_can_be_verified_without_the_portal(self, process: Process) -> None:
        """As the help of `audit verify` says, with nothing but Python's own libraries."""
        with process.session() as session:
            cast = Cast(session)
            cast.runner(cast.web, RunnerSettings('Zoë\'s "fleet" \u2028 日本', run_untagged=True))
        exported = run(process.app, "audit", "export")
        assert exported.exit_code == 0
        previous = "00" * 32
        lines = [json.loads(line) for line in exported.output.split("\n") if line]
        assert len(lines) > 10
        for position, line in enumerate(lines, 1):
            values = [value for name, value in line.items() if name not in ("position", "hash", "previous_hash")]
            values[-1] = dict(sorted(values[-1].items(), key=lambda each: (len(each[0].encode()), each[0].encode())))
            array = json.dumps(values, ensure_ascii=False)
            assert (line["position"], line["previous_hash"]) == (position, previous)
            previous = hashlib.sha256(bytes.fromhex(previous) + array.encode()).hexdigest()
            assert line["hash"] == previous
        assert run(process.app, "audit", "verify").output.strip().endswith(f"Head: {len(lines)}:{previous}")

    def test_an_export_takes_days_and_a_scope(self, process: Process) -> None:
        with process.session() as session:
            cast = Cast(session)
            cast.runner(cast.web)
        told = run(process.app, "audit", "export", "--scope", "acme/web").output
        assert {json.loads(line)["scope_path"] for line in told.splitlines()} == {"acme/web"}
        assert run(process.app, "audit", "export", "--until", "2020-01-01").output == ""
        assert run(process.app, "audit", "export", "--since", "2020-01-01").output.count("\n") > 10

    def test_a_csv_export_holds_no_formula(self, process: Process) -> None:
        self.record(process)
        heading, *rows = csv.reader(io.StringIO(run(process.app, "audit", "export", "--format", "csv").output))
        assert [row[heading.index("actor_name")] for row in rows] == ["'=tester 0", "'=tester 1", "'=tester 2"]
        assert [row[0] for row in rows] == ["1", "2", "3"]
