"""Starting and stopping the whole portal, as a user does it: settings, addresses, the first administrator."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.config import ROOT
from tests.api.machines import Machine, over_http
from tests.api.people import Person, block_on, token_on
from tests.databases import SECRET_KEY
from tests.portals import ROOT_PASSWORD, RunningPortal, free_port


class TestBelowAPath:
    """PORTAL_URL with a path: pages, API, links and cookies live below it."""

    @pytest.fixture
    def portal(self, own_database: str) -> Iterator[RunningPortal]:
        portal = RunningPortal(own_database)
        portal.environment["PORTAL_URL"] = f"{portal.url}/sub"
        with portal:
            yield portal

    def test_pages_links_redirects_and_cookies_carry_it(self, portal: RunningPortal) -> None:
        root = Person(f"{portal.url}/sub").sign_in()
        assert {cookie.path for cookie in root.cookies} == {"/sub"}
        for path in ("/", "/admin/runners", "/admin/runners/new"):
            links = re.findall(r'(?:href|src|action|hx-get)="(/[^"]*)"', root.page(path))
            assert links
            assert [link for link in links if not link.startswith("/sub")] == []

    def test_its_style_sheet_is_there(self, portal: RunningPortal) -> None:
        person = Person(portal.url)
        page = person.page("/sub/-/sign-in")
        (sheet,) = re.findall(r'<link rel="stylesheet" href="([^"]+)"', page)
        assert person.open(sheet).status == 200

    def test_a_runner_is_created_and_polls_below_it(self, portal: RunningPortal) -> None:
        page = Person(f"{portal.url}/sub").sign_in().create_runner().body.decode()
        assert f"--url {portal.url}/sub " in block_on(page, "linux")
        machine = Machine(over_http(f"{portal.url}/sub"), token_on(page))
        assert machine.verify().status == 200
        assert machine.poll().status == 204
        machine.token = "glrt-nobody-has-this-token"
        assert machine.poll().message.endswith(f": {portal.url}/sub/")
        assert machine.call("GET", "nothing").status == 404

    def test_a_proxy_that_takes_the_path_off_is_no_obstacle(self, portal: RunningPortal) -> None:
        page = Person(portal.url).page("/admin/runners")  # asked without the path, answered with the sign-in page
        assert 'action="/sub/' in page or 'href="/sub/' in page
        assert 'href="/static' not in page


class TestTheHostHeader:
    """Anybody can write it, so it stands in no answer."""

    def test_is_in_no_answer(self, running_portal: RunningPortal) -> None:
        root = Person(running_portal.url).sign_in()
        cookie = "; ".join(f"{each.name}={each.value}" for each in root.cookies)
        call = over_http(running_portal.url)
        for path in (
            "/",
            "/admin/runners",
            "/admin/runners/new",
            "/-/sign-in",
            "/nothing",
            "/api/v4/nothing",
            "/healthz",
        ):
            for headers in ({"Host": "evil.example"}, {"Host": "evil.example", "Cookie": cookie}):
                answer = call("GET", path, b"", headers)
                assert b"evil.example" not in answer.body, path
                assert "evil.example" not in str(answer.headers), path

    def test_is_not_in_the_instructions(self, running_portal: RunningPortal) -> None:
        root = Person(running_portal.url).sign_in()
        cookie = "; ".join(f"{each.name}={each.value}" for each in root.cookies)
        answer = over_http(running_portal.url)(
            "POST",
            "/admin/runners/new",
            root.filled_in("/admin/runners/new", run_untagged="y"),
            {"Host": "evil.example", "Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"},
        )
        page = answer.body.decode()
        assert token_on(page)
        assert f"--url {running_portal.url} " in block_on(page, "linux")
        assert "evil.example" not in page


class TestTheFirstAdministrator:
    def test_gets_the_password_of_the_settings_which_is_not_printed(self, running_portal: RunningPortal) -> None:
        Person(running_portal.url).sign_in("root", ROOT_PASSWORD)
        assert ROOT_PASSWORD not in running_portal.output
        assert f"Runner Portal is at {running_portal.url}" in running_portal.output

    def test_otherwise_gets_one_that_is_printed_once(self, own_database: str) -> None:
        with RunningPortal(own_database, PORTAL_ROOT_PASSWORD="") as portal:
            (password,) = re.findall(r"^  Password    (\S+)$", portal.output, re.MULTILINE)
            Person(portal.url).sign_in("root", password)
            assert portal.stop() == 0
            portal.start()
            assert portal.output.count(password) == 1
            assert "reset-password root" in portal.output
            Person(portal.url).sign_in("root", password)

    def test_keeps_the_password_when_the_setting_changes_later(self, own_database: str) -> None:
        with RunningPortal(own_database) as portal:
            portal.stop()
            portal.environment["PORTAL_ROOT_PASSWORD"] = "another long password"
            portal.start()
            Person(portal.url).sign_in("root", ROOT_PASSWORD)


class TestAWrongSetting:
    """stops the start with status 2 and a sentence that names it."""

    @staticmethod
    def start(**environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("PORTAL_")},
                "SECRET_KEY": SECRET_KEY,
                "PORTAL_PORT": str(free_port()),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @pytest.mark.parametrize(
        ("name", "value", "sentence"),
        [
            ("PORTAL_PORT", "eighty", "PORTAL_PORT is 'eighty'; it must be a whole number from 1 to 65535."),
            ("PORTAL_URL", "portal.example.com", "PORTAL_URL is 'portal.example.com'; it must be an address such as"),
            ("DATABASE_URL", "mysql://x/y", "DATABASE_URL is not usable; it must be a PostgreSQL address"),
            ("SECRET_KEY", "short", "SECRET_KEY is too short"),
            ("PORTAL_TOKEN_GRACE", "soon", "PORTAL_TOKEN_GRACE is 'soon'; it must be a time such as"),
        ],
    )
    def test_is_named(self, name: str, value: str, sentence: str) -> None:
        ended = self.start(**{name: value})
        assert ended.returncode == 2
        assert sentence in ended.stderr
        assert "Traceback" not in ended.stderr

    def test_may_be_a_password_that_is_too_short(self, own_database: str) -> None:
        ended = self.start(DATABASE_URL=own_database, PORTAL_ROOT_PASSWORD="short")
        assert ended.returncode == 2
        assert "PORTAL_ROOT_PASSWORD" in ended.stderr
        assert "Traceback" not in ended.stderr

    def test_may_be_a_port_that_somebody_else_has(self, own_database: str) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            ended = self.start(DATABASE_URL=own_database, PORTAL_PORT=str(taken.getsockname()[1]))
        assert ended.returncode == 2
        assert "Set PORTAL_PORT" in ended.stderr
        assert "Runner Portal is at" not in ended.stdout

    def test_may_be_a_database_that_does_not_answer(self, tmp_path: Path) -> None:
        ended = self.start(DATABASE_URL=f"postgresql://nobody@/nothing?host={tmp_path}")
        assert ended.returncode == 2
        assert "DATABASE_URL" in ended.stderr
        assert "Traceback" not in ended.stderr


class TestStopping:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_is_clean(self, own_database: str, how: signal.Signals) -> None:
        with RunningPortal(own_database, PORTAL_WORKERS="2") as portal:
            assert portal.stop(how) == 0
            assert "Traceback" not in portal.output

    def test_by_kill_9_loses_no_runner_that_was_answered(self, own_database: str) -> None:
        with RunningPortal(own_database, PORTAL_WORKERS="2") as portal:
            root = Person(portal.url).sign_in()
            tokens = [token_on(root.create_runner().body.decode()) for _ in range(5)]
            portal.kill()
            portal.start()
            for token in tokens:
                assert Machine(over_http(portal.url), token).poll().status == 204

    def test_by_kill_9_of_the_first_process_alone_frees_the_port(self, own_database: str) -> None:
        with RunningPortal(own_database) as portal:
            assert portal.process is not None
            portal.process.kill()
            portal.process.wait(timeout=30)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and answers(portal):
                time.sleep(0.1)
            assert not answers(portal), "a server process outlived the portal that started it"


def answers(portal: RunningPortal) -> bool:
    try:
        with urllib.request.urlopen(f"{portal.url}/healthz", timeout=2):
            return True
    except OSError:
        return False


def test_a_body_over_the_limit_is_refused_by_the_running_server_too(running_portal: RunningPortal) -> None:
    answer = over_http(running_portal.url)(
        "POST",
        "/api/v4/jobs/request",
        b'{"token": "' + b"x" * 2_000_000 + b'"}',
        {"Content-Type": "application/json"},
    )
    assert answer.status == 413
    assert "too large" in answer.message


def test_as_many_machines_can_wait_as_the_system_lets_files_be_open() -> None:
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024)); "
        "from portal.serve import allow_connections; "
        "print(allow_connections(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    ran = subprocess.run([sys.executable, "-c", limited], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["1024", "1024", "1024"]
