"""The mutation of registration tokens: reset."""

from __future__ import annotations

from typing import Any

from ariadne import MutationType
from flask import url_for

from portal.addresses import absolute
from portal.api.graphql import global_ids, scope_ids
from portal.api.graphql.context import Context
from portal.api.graphql.mutations import Payload, changes
from portal.api.graphql.problems import ArgumentWrong
from portal.domain.errors import Refusal
from portal.domain.registration import registration_tokens
from portal.domain.scopes import INSTANCE, Scope
from portal.models import RunnerType
from portal.requests import registration_configured, settings

mutation = MutationType()


class ProofWanted(Refusal):
    """Who asks with the browser's session has not proved for a while who they are."""


@changes(mutation, "runnersRegistrationTokenReset")
def reset(asked: Context, given: dict[str, Any]) -> Payload:
    """A new registration token, in clear; the old one ends at once."""
    _require_recent_proof(asked)  # first, so that it tells nothing of the scope
    scope = _scope(asked, given)
    configured = registration_configured()
    made = registration_tokens.reset_token(asked.session, asked.actor, scope, configured)
    return {"token": configured.vault.open(made.ciphertext) if made.ciphertext else None}


def _scope(asked: Context, given: dict[str, Any]) -> Scope:
    """The scope whose token it is. Raises ArgumentWrong, or NotFound."""
    kind, given_id = given["type"], given.get("id")
    if kind == RunnerType.INSTANCE:
        if given_id is not None:
            raise ArgumentWrong("`id` must be left out for INSTANCE_TYPE.")
        return INSTANCE
    model = "Group" if kind == RunnerType.GROUP else "Project"
    if given_id is None:
        raise ArgumentWrong(f"`id` is missing: give that of the {model.lower()}, {global_ids.write(model, 1)}.")
    return scope_ids.find(asked.session, kind, global_ids.read(given_id, model)[1])


def _require_recent_proof(asked: Context) -> None:
    """As on the page that resets it: a browser left open by somebody is not enough. Raises ProofWanted."""
    session = asked.credential.session if asked.credential is not None else None
    if session is not None and session.confirmed_at + settings().recent_sign_in <= asked.at:
        page = absolute(url_for("confirmations.show"))
        raise ProofWanted(f"Your sign-in was long ago. Confirm that it is you, then send this again: {page}")
