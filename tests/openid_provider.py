"""A real OpenID Connect provider (canaille) in a process of its own: `python -m tests.openid_provider PORT URI`."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from tests.portals import free_port

ROOT = Path(__file__).resolve().parent.parent
CLIENT_ID, CLIENT_SECRET = "portal", "a client secret for tests only".replace(" ", "-")
PASSWORD = "a password at the provider"
GROUPS = ("ops", "developers", "testers")
SCOPES = "openid profile email groups"


class RunningProvider:
    """Start with `with`; `url` is its issuer. It knows whom `put` makes, all with the same password."""

    def __init__(self, *redirect_uris: str, port: int = 0) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.redirect_uris = redirect_uris
        self.process: subprocess.Popen[str] | None = None

    def settings(self, **more: str) -> dict[str, str]:
        """What the portal is set to, for this provider."""
        return {
            "PORTAL_OPENID_URL": self.url,
            "PORTAL_OPENID_CLIENT_ID": CLIENT_ID,
            "PORTAL_OPENID_CLIENT_SECRET": CLIENT_SECRET,
            "PORTAL_OPENID_SCOPES": SCOPES,
            "PORTAL_OPENID_NAME": "Example Login",
            **more,
        }

    def __enter__(self) -> RunningProvider:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.openid_provider", str(self.port), *self.redirect_uris],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._line() == "ready", "the provider did not start"
        deadline = time.monotonic() + 30
        while True:
            try:
                if requests.get(f"{self.url}/.well-known/openid-configuration", timeout=5).ok:
                    return self
            except requests.ConnectionError:
                assert time.monotonic() < deadline, "the provider does not answer"

    def put(self, username: str, *groups: str, **more: Any) -> None:
        """Make a person there, or change whom there is; they are in these groups and no others."""
        self._tell({"username": username, "groups": groups, **more})

    def _tell(self, order: dict[str, Any]) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        assert self._line() == "done"

    def _line(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate(timeout=30)


class Browser:
    """A browser at the provider: follows its pages, fills in its forms, and stops where it leads back."""

    def __init__(self) -> None:
        self.session = requests.Session()

    def visit(self, address: str, username: str) -> str:
        """From the provider's address back to the portal's. Returns the address that the portal is called with."""
        home = urlsplit(address).netloc
        answer = self.session.get(address, allow_redirects=False, timeout=20)
        for _ in range(12):
            if answer.is_redirect:
                target = urljoin(answer.url, answer.headers["Location"])
                if urlsplit(target).netloc != home:
                    return target
                answer = self.session.get(target, allow_redirects=False, timeout=20)
            else:
                answer = self._fill(answer, {"login": username, "password": PASSWORD, "answer": "accept"})
        raise AssertionError("the provider leads round in circles")

    def _fill(self, page: requests.Response, known: dict[str, str]) -> requests.Response:
        form = re.search(r"<form[^>]*method=\"post\".*?</form>", page.text, re.S | re.I)
        assert form, page.text[:2000]
        names = set(re.findall(r'<(?:input|button)[^>]*\bname="([^"]+)"', form[0]))
        hidden = {
            name[1]: html.unescape(value[1]) if (value := re.search(r'\bvalue="([^"]*)"', tag)) else ""
            for tag in re.findall(r'<input[^>]*type="hidden"[^>]*>', form[0])
            if (name := re.search(r'\bname="([^"]+)"', tag))
        }
        action = re.search(r'<form[^>]*\baction="([^"]+)"', form[0])
        target = urljoin(page.url, html.unescape(action[1])) if action else page.url
        typed = {name: value for name, value in known.items() if name in names}
        return self.session.post(target, data={**hidden, **typed}, allow_redirects=False, timeout=20)


def serve(port: int, redirect_uris: list[str]) -> None:
    """Serve until the process ends; each line on standard input is a person to make or change."""
    warnings.simplefilter("ignore")
    from canaille import create_app
    from canaille.app import models
    from canaille.backends import Backend
    from canaille.backends.memory.backend import MemoryBackend
    from werkzeug.serving import make_server

    plain = MemoryBackend.do_query

    def query(self: Any, model: Any, *args: Any, **criteria: Any) -> list[Any]:
        """Its store in memory finds what fits any of the criteria; a code must fit all of them."""
        if len(criteria) < 2:
            return list(plain(self, model, *args, **criteria))
        found = [{each.id: each for each in plain(self, model, **{name: criteria[name]})} for name in criteria]
        return [each for key, each in found[0].items() if all(key in others for others in found)]

    MemoryBackend.do_query = query
    app = create_app(
        {
            "SECRET_KEY": "a key for tests only, of no use to anybody else",
            "SERVER_NAME": f"127.0.0.1:{port}",
            "PREFERRED_URL_SCHEME": "http",
            "CANAILLE": {
                "DATABASE": "memory",
                "FORCE_HTTPS": False,
                "CAPTCHA_ENABLED": False,
                "JAVASCRIPT": False,
                "HTMX": False,
            },
            "CANAILLE_OIDC": {
                "REQUIRE_NONCE": True,
                "TRUSTED_DOMAINS": sorted({str(urlsplit(each).hostname) for each in redirect_uris}),
                "USERINFO_MAPPING": {"PREFERRED_USERNAME": "{{ user.user_name }}"},
            },
        }
    )

    def person(username: str, email: str | None = None, name: str | None = None) -> Any:
        names = (name or f"{username.capitalize()} Example").split(" ")
        return models.User(
            user_name=username,
            password=PASSWORD,
            given_name=names[0],
            family_name=names[-1],
            formatted_name=" ".join(names),
            emails=[email or f"{username}@example.com"],
        )

    with app.app_context():
        backend = Backend.instance
        keeper = person("keeper")
        backend.save(keeper)
        for name in GROUPS:  # a group is never empty there
            backend.save(models.Group(display_name=name, members=[keeper]))
        client = models.Client(
            client_id=CLIENT_ID,
            client_secret=CLIENT_SECRET,
            client_name="Runner Portal",
            client_uri="{0.scheme}://{0.netloc}".format(urlsplit(redirect_uris[0])),
            redirect_uris=redirect_uris,
            grant_types=["authorization_code"],
            response_types=["code"],
            scope=SCOPES.split(),
            token_endpoint_auth_method="client_secret_basic",
            id_token_signed_response_alg="RS256",
        )
        backend.save(client)  # only what is stored can be its own audience
        client.audience = [client]
        backend.save(client)

    def put(username: str, groups: list[str], **more: Any) -> None:
        with app.app_context():
            found = backend.get(models.User, user_name=username)
            if found is None:
                found = person(username, **more)
                backend.save(found)
            for each in GROUPS:
                group = backend.get(models.Group, display_name=each)
                others = [member for member in group.members if member.id != found.id]
                group.members = [*others, found] if each in groups else others
                backend.save(group)

    server = make_server("127.0.0.1", port, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        put(**json.loads(line))
        print("done", flush=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2:])
