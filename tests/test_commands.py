"""The portal's own commands: people, and the machines that nobody has heard of for long."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, insert, select, update

from portal.config import ROOT
from portal.database import db, now
from portal.domain import registration_tokens, runner_cleanup
from portal.domain.registration import Configured
from portal.domain.runner_cleanup import Criteria
from portal.domain.scopes import INSTANCE, Scope
from portal.domain.vault import Vault
from portal.models import AuditEvent, RegistrationToken, Runner, RunnerManager, User
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

    def test_what_no_key_opens_is_left_alone_and_told(
        self, app: Flask, cast: Cast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        number, text = self.token(app, cast)
        stranger = Configured(enforced=False, vault=Vault(["somebody else's key, long enough"]))
        monkeypatch.setitem(app.extensions, "registration", stranger)
        result = run(app, "registration-tokens", "re-encrypt")
        assert result.exit_code == 1
        assert "1 could not be opened" in result.output
        assert Vault([ENCRYPTION_KEY]).open(db.session.get_one(RegistrationToken, number).ciphertext or b"") == text


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
