"""What the portal does not believe: a provider that lies, is too slow, or is somebody else's."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from portal import create_app
from portal.web import openid_provider
from portal.web.openid_provider import CodeRefused, Proof, Provider, ProviderSilent, ProviderWrong
from tests import databases

CLIENT, SECRET = "portal", "a-client-secret-for-tests-only-of-no-use-to-anybody"
KEY = RSAKey.generate_key(2048, parameters={"kid": "1"})
OTHER = RSAKey.generate_key(2048, parameters={"kid": "1"})


class Liar:
    """A provider that says whatever a test wants, as no real one would; `told` is what it has been asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.told: list[tuple[str, str]] = []
        self.redirects: dict[str, str] = {}
        liar = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                liar.told.append((self.path, self.rfile.read(length).decode()))
                if self.path in liar.redirects:
                    self.send_response(307)
                    self.send_header("Location", liar.redirects[self.path])
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                answer = liar.answers[self.path]
                status, body = answer if isinstance(answer, tuple) else (200, answer)
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET  # noqa: N815  (the name is http.server's)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # who asked may not have waited
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.metadata = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "id_token_signing_alg_values_supported": ["none", "HS256", "RS256", "ES256"],
        }
        self.answers["/.well-known/openid-configuration"] = self.metadata
        self.answers["/keys"] = KeySet([KEY]).as_dict()
        self.answers["/userinfo"] = {"sub": "7", "name": "Frank Lee", "email": "frank@example.com"}

    def claims(self, nonce: str, **more: Any) -> dict[str, Any]:
        moment = int(time.time())
        plain = {"iss": self.url, "sub": "7", "aud": CLIENT, "exp": moment + 300, "iat": moment, "nonce": nonce}
        return {name: value for name, value in {**plain, **more}.items() if value is not None}

    def vouch(self, claims: dict[str, Any], key: Any = KEY, **header: Any) -> None:
        """Answer the code with these claims, signed."""
        token = jwt.encode(
            {"alg": "RS256", "kid": "1", **header}, claims, key, algorithms=["RS256", "HS256", "ES256"]
        )
        self.answers["/token"] = {"access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": token}


@pytest.fixture
def liar() -> Iterator[Liar]:
    liar = Liar()
    yield liar
    liar.server.shutdown()
    liar.server.server_close()


@pytest.fixture
def app(liar: Liar) -> Iterator[Flask]:
    """An app whose provider is the liar; its database is never asked."""
    app = create_app(
        databases.settings(
            "postgresql://nobody@localhost/nothing",
            PORTAL_OPENID_URL=liar.url,
            PORTAL_OPENID_CLIENT_ID=CLIENT,
            PORTAL_OPENID_CLIENT_SECRET=SECRET,
            PORTAL_OPENID_GROUPS_CLAIM="realm.roles",
        )
    )
    with app.test_request_context():
        yield app


@pytest.fixture
def provider(app: Flask) -> Provider:
    found: Provider = app.extensions["openid"]
    return found


@pytest.fixture
def nonce(provider: Provider) -> str:
    """The nonce of the sign-in with the state "s"."""
    return parse_qs(urlsplit(provider.address("s")).query)["nonce"][0]


def test_what_a_provider_vouches_for_is_believed(liar: Liar, provider: Provider, nonce: str) -> None:
    liar.vouch(liar.claims(nonce, auth_time=1_700_000_000, amr=["pwd"], realm={"roles": ["ops", 7]}))
    proof = provider.proof("code", "s")
    found = proof.identity
    assert (found.issuer, found.subject, found.name, found.email) == (liar.url, "7", "Frank Lee", "frank@example.com")
    assert found.groups == {"ops"}
    assert proof == Proof(found, datetime.fromtimestamp(1_700_000_000, UTC), False)


def test_the_code_is_exchanged_with_its_proof_key(liar: Liar, provider: Provider, nonce: str) -> None:
    liar.vouch(liar.claims(nonce))
    provider.proof("the-code", "s")
    (sent,) = [parse_qs(body) for path, body in liar.told if path == "/token"]
    assert sent["code"] == ["the-code"]
    assert len(sent["code_verifier"][0]) >= 43
    assert sent["redirect_uri"] == ["https://portal.example.com/-/sign-in/openid/callback"]


LIES: dict[str, Callable[[Liar, str], dict[str, Any]]] = {
    "another issuer": lambda liar, nonce: liar.claims(nonce, iss="https://evil.example"),
    "no issuer": lambda liar, nonce: liar.claims(nonce, iss=None),
    "another client": lambda liar, nonce: liar.claims(nonce, aud="another"),
    "other clients, for the portal's use": lambda liar, nonce: liar.claims(nonce, aud=["a", "b"], azp=CLIENT),
    "for another party": lambda liar, nonce: liar.claims(nonce, azp="another"),
    "no client": lambda liar, nonce: liar.claims(nonce, aud=None),
    "over": lambda liar, nonce: liar.claims(nonce, exp=int(time.time()) - 120),
    "never over": lambda liar, nonce: liar.claims(nonce, exp=None),
    "another sign-in": lambda liar, nonce: liar.claims(f"{nonce}x"),
    "no sign-in": lambda liar, nonce: liar.claims(nonce) | {"nonce": ""},
    "nobody": lambda liar, nonce: liar.claims(nonce, sub=None),
    "an empty subject": lambda liar, nonce: liar.claims(nonce, sub=""),
    "a number": lambda liar, nonce: liar.claims(nonce, sub=7),
    "an endless subject": lambda liar, nonce: liar.claims(nonce, sub="x" * 256),
    "from the future": lambda liar, nonce: liar.claims(nonce, iat=int(time.time()) + 3600),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_token_for_something_else_is_not_believed(liar: Liar, provider: Provider, nonce: str, lie: str) -> None:
    claims = LIES[lie](liar, nonce)
    liar.answers["/userinfo"] = {"sub": claims.get("sub"), "name": "Frank Lee"}
    liar.vouch(claims)
    with pytest.raises(ProviderWrong):
        provider.proof("code", "s")


def by_hand(claims: dict[str, Any], alg: str, key: str) -> str:
    """A token as the library refuses to make one: without a signature, or signed with what everybody knows."""
    parts = [json.dumps(part).encode() for part in ({"alg": alg, "kid": "1"}, claims)]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = hmac.new(key.encode(), signed, hashlib.sha256).digest() if key else b""
    return b".".join([signed, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


@pytest.mark.parametrize(
    ("alg", "key"),
    [("none", ""), ("HS256", SECRET), ("HS256", KEY.as_pem(private=False).decode())],
    ids=["unsigned", "the client's secret", "the public key"],
)
def test_a_token_signed_with_what_others_know_too_is_not_believed(
    liar: Liar, provider: Provider, nonce: str, alg: str, key: str
) -> None:
    token = by_hand(liar.claims(nonce), alg, key)
    liar.answers["/token"] = {"access_token": "a", "token_type": "Bearer", "id_token": token}
    with pytest.raises(ProviderWrong):
        provider.proof("code", "s")


@pytest.mark.parametrize("key", [OTHER, ECKey.generate_key("P-256", parameters={"kid": "1"})], ids=["rsa", "ec"])
def test_a_token_signed_with_another_key_is_not_believed(
    liar: Liar, provider: Provider, nonce: str, key: Any
) -> None:
    liar.vouch(liar.claims(nonce), key=key, alg="RS256" if key is OTHER else "ES256")
    with pytest.raises(ProviderWrong):
        provider.proof("code", "s")


def test_a_new_key_of_the_providers_is_fetched(liar: Liar, provider: Provider, nonce: str) -> None:
    liar.vouch(liar.claims(nonce))
    provider.proof("code", "s")
    new = RSAKey.generate_key(2048, parameters={"kid": "2"})
    liar.answers["/keys"] = KeySet([KEY, new]).as_dict()
    liar.vouch(liar.claims(nonce), key=new, kid="2")
    assert provider.proof("code", "s").identity.subject == "7"


def test_userinfo_about_somebody_else_is_not_believed(liar: Liar, provider: Provider, nonce: str) -> None:
    liar.answers["/userinfo"] = {"sub": "8", "groups": ["ops"]}
    liar.vouch(liar.claims(nonce))
    with pytest.raises(ProviderWrong, match="somebody else"):
        provider.proof("code", "s")


def test_userinfo_does_not_overrule_what_was_signed(liar: Liar, provider: Provider, nonce: str) -> None:
    liar.answers["/userinfo"] = {"sub": "7", "email": "evil@example.com", "iss": "https://evil.example"}
    liar.vouch(liar.claims(nonce, email="frank@example.com"))
    found = provider.proof("code", "s").identity
    assert (found.issuer, found.email) == (liar.url, "frank@example.com")


def test_no_token_at_all_is_not_believed(liar: Liar, provider: Provider, nonce: str) -> None:
    liar.answers["/token"] = {"access_token": "a", "token_type": "Bearer"}
    with pytest.raises(ProviderWrong):
        provider.proof("code", "s")


def test_a_refused_code_is_told_apart(liar: Liar, provider: Provider, nonce: str) -> None:
    liar.answers["/token"] = (400, {"error": "invalid_grant", "error_description": "used"})
    with pytest.raises(CodeRefused):
        provider.proof("code", "s")
    liar.answers["/token"] = (401, {"error": "invalid_client"})
    with pytest.raises(ProviderWrong, match="invalid_client"):
        provider.proof("code", "s")


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": None},
        {"jwks_uri": "file:///etc/passwd"},
    ],
)
def test_a_discovery_that_leads_elsewhere_is_not_followed(
    liar: Liar, provider: Provider, metadata: dict[str, str | None]
) -> None:
    liar.answers["/.well-known/openid-configuration"] = liar.metadata | metadata
    for _ in range(2):  # nor is it remembered
        with pytest.raises(ProviderWrong):
            provider.address("s")
    liar.answers["/.well-known/openid-configuration"] = liar.metadata
    assert provider.address("s").startswith(f"{liar.url}/authorize?")


def test_a_redirect_is_not_followed(liar: Liar, provider: Provider, nonce: str) -> None:
    """It would carry the client's secret wherever the answer says."""
    liar.redirects = {"/token": f"{liar.url}/elsewhere"}
    liar.vouch(liar.claims(nonce))
    liar.answers["/elsewhere"] = liar.answers["/token"]
    with pytest.raises(ProviderSilent):
        provider.proof("c", "s")
    assert "/elsewhere" not in [path for path, _ in liar.told]


@pytest.mark.parametrize("answer", [(500, ""), (404, "nothing"), (200, "<html>"), (200, [1, 2])])
def test_a_broken_discovery_is_no_failure_of_ours(liar: Liar, provider: Provider, answer: tuple[int, Any]) -> None:
    liar.answers["/.well-known/openid-configuration"] = answer
    with pytest.raises((ProviderSilent, ProviderWrong)):
        provider.address("s")


def test_a_provider_that_never_answers_is_not_waited_for(
    app: Flask, liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openid_provider, "SECONDS", (0.2, 0.2))
    impatient = Provider(app, app.config["PORTAL"])
    hold = threading.Event()
    liar.answers = type("Slow", (dict,), {"__getitem__": lambda *_: hold.wait(20)})()
    with pytest.raises(ProviderSilent):
        impatient.address("s")
    hold.set()


def test_the_portal_starts_without_asking_the_provider(app: Flask, liar: Liar) -> None:
    assert liar.told == []


def test_what_is_known_of_the_provider_is_looked_up_again_after_an_hour(
    liar: Liar, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moment, asked in ((0, 1), (3590, 1), (3700, 2)):
        later = time.time() + moment
        monkeypatch.setattr(openid_provider.time, "time", lambda later=later: later)
        provider.address("s")
        monkeypatch.undo()
        assert len(liar.told) == asked


@pytest.mark.parametrize(
    ("claims", "two"),
    [
        ({}, False),
        ({"amr": None}, False),
        ({"amr": ["pwd"]}, False),
        ({"amr": ["otp"]}, False),
        ({"amr": ["pwd", "kba"]}, False),
        ({"amr": ["pwd", 7, None]}, False),
        ({"amr": ["mfa"]}, True),
        ({"amr": ["pwd", "otp"]}, True),
        ({"amr": ["hwk", "fpt"]}, True),
        ({"acr": "https://refeds.org/profile/mfa"}, True),
        ({"acr": "0"}, False),
    ],
)
def test_two_factors_are_believed_when_the_provider_names_them(
    liar: Liar, provider: Provider, nonce: str, claims: dict[str, Any], two: bool
) -> None:
    liar.vouch(liar.claims(nonce, **claims))
    assert provider.proof("code", "s").two_factors is two


@pytest.mark.parametrize(
    ("claims", "groups"),
    [
        ({}, set()),
        ({"realm": {"roles": "ops"}}, {"ops"}),
        ({"realm.roles": ["ops", "dev"]}, {"ops", "dev"}),
        ({"realm": ["ops"]}, set()),
        ({"realm": {"roles": {"ops": True}}}, set()),
        ({"_claim_names": {"realm.roles": "src1"}}, None),
    ],
)
def test_groups_are_read_from_the_claim_that_the_setting_names(
    liar: Liar, provider: Provider, nonce: str, claims: dict[str, Any], groups: set[str] | None
) -> None:
    liar.vouch(liar.claims(nonce, **claims))
    assert provider.proof("code", "s").identity.groups == groups


def test_claims_that_no_column_could_take_are_cut_or_left_out(liar: Liar, provider: Provider, nonce: str) -> None:
    liar.vouch(liar.claims(nonce, name="A\0B\n C", email=["x"], preferred_username="y" * 5000))
    found = provider.proof("code", "s").identity
    assert (found.name, found.email, len(found.username)) == ("AB C", "", 1000)


def test_a_secret_that_the_provider_wants_in_the_body_is_sent_there(liar: Liar, provider: Provider) -> None:
    liar.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_post"]  # type: ignore[assignment]
    nonce = parse_qs(urlsplit(provider.address("s")).query)["nonce"][0]
    liar.vouch(liar.claims(nonce))
    provider.proof("code", "s")
    (sent,) = [parse_qs(body) for path, body in liar.told if path == "/token"]
    assert sent["client_secret"] == [SECRET]
