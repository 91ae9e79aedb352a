"""The OpenID Connect provider as the portal speaks to it: discovery, the way there, and what comes back, checked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from authlib.common.errors import AuthlibBaseError
from authlib.integrations.flask_client import FlaskOAuth2App, OAuth
from authlib.integrations.requests_client import OAuth2Session
from flask import Flask
from joserfc.errors import JoseError
from requests import RequestException

from portal.config import Settings
from portal.domain.people.openid_accounts import LONGEST_SUBJECT, Identity

DISCOVERY = "/.well-known/openid-configuration"
SECONDS = (5, 10)  # to connect, and to answer
KNOWN_FOR = 3600.0  # seconds that the provider's addresses and keys are taken as known
LEEWAY = 60  # seconds that the provider's clock may be off
# Signatures with a key that only the provider has. Neither "none" nor HS256, whose key the client has too.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
# RFC 8176: methods by what they show that somebody knows, has or is. One of two kinds makes two factors.
FACTORS = ({"pwd", "pin", "kba"}, {"otp", "hwk", "swk", "sc"}, {"face", "fpt", "iris", "retina", "vbm"})
TWO_FACTORS = {"http://schemas.openid.net/pape/policies/2007/06/multi-factor", "https://refeds.org/profile/mfa"}


class ProviderSilent(Exception):
    """The provider does not answer, or answers that it cannot."""


class ProviderWrong(Exception):
    """The provider answered something that cannot be trusted; the text says what, for the log."""


class CodeRefused(Exception):
    """The provider does not take the code: used, too old, or not its own."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Who the provider says it is, when they last proved it there (if it says so), and whether by two factors."""

    identity: Identity
    proven_at: datetime | None
    two_factors: bool


class _Session(OAuth2Session):  # type: ignore[misc]  # the library has no types
    """Goes only where discovery says: a redirect would lead the client's secret wherever the answer likes."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.max_redirects = 0


class _Client(FlaskOAuth2App):  # type: ignore[misc]
    client_cls = _Session


class Provider:
    """One provider, known by its issuer. Nothing is asked of it before somebody wants to sign in."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        self.issuer, self.client_id, self.name = settings.openid_url, settings.openid_client_id, settings.openid_name
        self.redirect_uri = f"{settings.url}/-/sign-in/openid/callback"
        self._groups_claim = settings.openid_groups_claim
        self._key = settings.secret_key.encode()
        self._client: Any = OAuth(app).register(
            "openid",
            client_cls=_Client,
            client_id=settings.openid_client_id,
            client_secret=settings.openid_client_secret or None,
            server_metadata_url=settings.openid_url + DISCOVERY,
            client_kwargs={
                "scope": settings.openid_scopes,
                "code_challenge_method": "S256",
                "default_timeout": SECONDS,
                "leeway": 0,  # an access token is used at once, however short it lives
            },
        )

    def address(self, state: str, *, again: bool = False) -> str:
        """Where the browser goes to sign in; `again` asks for a proof even of who is signed in there.

        Raises ProviderSilent or ProviderWrong.
        """
        # max_age makes the provider say when the proof was given. With 0 some lead round in circles.
        more = {"prompt": "login", "max_age": LEEWAY} if again else {}
        with _Answers():
            self._metadata()
            made = self._client.create_authorization_url(
                self.redirect_uri,
                state=state,
                code_verifier=self._derived("verifier", state),
                nonce=self._derived("nonce", state),
                **more,
            )
        address: str = made["url"]
        return address

    def is_answer_of(self, issuer: str | None) -> bool:
        """Whether the answer that names this issuer (RFC 9207) is the provider's. Raises as `address` does."""
        with _Answers():
            metadata = self._metadata()
        if issuer is None:
            return not metadata.get("authorization_response_iss_parameter_supported")
        return bool(issuer == metadata["issuer"])

    def proof(self, code: str, state: str) -> Proof:
        """Exchange the code for what the provider vouches for; its tokens are dropped again.

        Raises ProviderSilent, ProviderWrong or CodeRefused.
        """
        with _Answers():
            metadata = self._metadata()
            token = self._exchange(code, state)
            if "id_token" not in token:
                raise ProviderWrong("it sent no ID token")
            claims = self._client.parse_id_token(
                token,
                nonce=self._derived("nonce", state),
                claims_options={
                    "iss": {"essential": True, "value": metadata["issuer"]},
                    "aud": {"essential": True, "value": self.client_id},
                },
                leeway=LEEWAY,
            )
            return self._read(self._complete(dict(claims), token, metadata), str(metadata["issuer"]))

    def _exchange(self, code: str, state: str) -> Mapping[str, Any]:
        try:
            token: Mapping[str, Any] = self._client.fetch_access_token(
                redirect_uri=self.redirect_uri, code=code, code_verifier=self._derived("verifier", state)
            )
        except AuthlibBaseError as problem:
            if problem.error == "invalid_grant":
                raise CodeRefused from None
            raise
        return token

    def _derived(self, purpose: str, state: str) -> str:
        """A secret of this one sign-in. It is made from the key and the state, so it stands in no cookie or table."""
        made = hmac.new(self._key, f"openid {purpose}\0{state}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(made).rstrip(b"=").decode()

    def _metadata(self) -> dict[str, Any]:
        """What the provider says of itself, fetched when it is wanted and when it is old; checked each time."""
        known = self._client.server_metadata
        if known.get("_loaded_at", 0.0) + KNOWN_FOR < time.time():
            for name in ("_loaded_at", "jwks"):
                known.pop(name, None)
        metadata: dict[str, Any] = self._client.load_server_metadata()
        if str(metadata.get("issuer")).rstrip("/") != self.issuer:
            known.pop("_loaded_at", None)
            raise ProviderWrong(f"it says that its issuer is {metadata.get('issuer')!r}, not {self.issuer!r}")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if urlsplit(str(metadata.get(name))).scheme not in ("https", urlsplit(self.issuer).scheme):
                known.pop("_loaded_at", None)
                raise ProviderWrong(f"its {name} is {metadata.get(name)!r}")
        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        metadata["id_token_signing_alg_values_supported"] = [each for each in offered if each in ALGORITHMS]
        methods = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if self._client.client_secret and "client_secret_basic" not in methods and "client_secret_post" in methods:
            metadata["token_endpoint_auth_method"] = "client_secret_post"  # noqa: S105  (the name of a method)
        return metadata

    def _complete(
        self, claims: dict[str, Any], token: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The claims, with those that only the userinfo endpoint tells."""
        wanted = ("preferred_username", "name", "email", self._groups_claim.partition(".")[0])
        endpoint = metadata.get("userinfo_endpoint")
        if not endpoint or all(name in claims for name in wanted):
            return claims
        answer = self._client.get(endpoint, token=token)
        answer.raise_for_status()
        told = answer.json()
        if told.get("sub") != claims["sub"]:
            raise ProviderWrong("its userinfo is about somebody else")
        return {**told, **claims}

    def _read(self, claims: Mapping[str, Any], issuer: str) -> Proof:
        subject, at = claims["sub"], claims.get("auth_time")
        if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT or "\0" in subject:
            raise ProviderWrong("its subject is no text, or too long")
        identity = Identity(
            issuer,
            subject,
            username=_text(claims, "preferred_username"),
            name=_text(claims, "name"),
            email=_text(claims, "email"),
            email_refuted=claims.get("email_verified") in (False, "false"),
            groups=_groups(claims, self._groups_claim),
        )
        return Proof(identity, datetime.fromtimestamp(at, UTC) if at else None, _two_factors(claims))


def register(app: Flask, settings: Settings) -> None:
    """Make the provider known to the app, if there is one."""
    # At its most talkative the library logs what proves that a code is ours.
    logging.getLogger("authlib").setLevel(logging.INFO)
    app.extensions["openid"] = Provider(app, settings) if settings.openid_url else None


class _Answers:
    """Whatever goes wrong while the provider is asked, in three words: silent, wrong, or the code refused."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: object) -> None:
        if isinstance(problem, RequestException):
            raise ProviderSilent(type(problem).__name__) from problem
        if isinstance(problem, AuthlibBaseError | JoseError | ValueError | TypeError | KeyError | RuntimeError):
            said = getattr(problem, "error", "") or type(problem).__name__
            raise ProviderWrong(f"{said!r:.200}") from problem


def _text(claims: Mapping[str, Any], name: str) -> str:
    """A claim as text that a column can hold; empty when it is none."""
    value = claims.get(name)
    return " ".join(value.replace("\0", "").split())[:1000] if isinstance(value, str) else ""


def _groups(claims: Mapping[str, Any], name: str) -> frozenset[str] | None:
    """The groups that a claim lists. None when the provider says that there are too many to list (Entra ID)."""
    if name in (claims.get("_claim_names") or {}):
        return None
    value: Any = claims
    for part in [name] if name in claims else name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        value = [value]
    return frozenset(each for each in value if isinstance(each, str)) if isinstance(value, list) else frozenset()


def _two_factors(claims: Mapping[str, Any]) -> bool:
    methods = {each for each in claims.get("amr") or [] if isinstance(each, str)}
    kinds = sum(1 for kind in FACTORS if methods & kind)
    return "mfa" in methods or kinds > 1 or claims.get("acr") in TWO_FACTORS
