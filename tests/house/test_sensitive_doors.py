"""Asking again who somebody is: each form of a page is sensitive and asks, or an everyday act and does not."""

import re
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update
from sqlalchemy.orm import Session
from werkzeug.routing import Rule

from portal.database import now
from portal.models import UserSession
from portal.web import guards
from tests.cast import csrf_of, sign_in
from tests.domain.queries import asked
from tests.house.test_doors import PAGE_POSTS, WRITES, address, text_of

CONFIRM = "/-/confirm"
RECENT = timedelta(minutes=14)  # PORTAL_RECENT_SIGN_IN is a quarter of an hour
LONG_AGO = timedelta(minutes=16)
TOO_LATE = LONG_AGO + guards.TO_FILL_IN
SCOPE = re.compile(r"^(instance|group|project)_")

# What gives or takes power, ends what machines live by, shows a secret that was made, or cannot be undone. By what it
# is; the three kinds of scopes have the same pages. See docs/decisions/0016.
SENSITIVE = {
    "one's own sessions": {"account.end_session", "account.end_other_sessions"},
    "one's own access tokens": {"access_tokens.new", "access_tokens.rotate", "access_tokens.revoke"},
    "one's own ways to sign in": {
        "identities.connect",
        "identities.disconnect",
        "second_factor.set_up",
        "second_factor.turn_on",
        "second_factor.turn_off",
        "second_factor.recovery_codes",
        "second_factor.download",
    },
    "everything about people": {
        "people.new",
        "people.edit",
        "people.block",
        "people.unblock",
        "people.administrator",
        "people.reset_password",
        "people.remove_second_factor",
        "people.end_sessions",
        "people.delete",
    },
    "giving and changing roles": {"members.add", "members.change"},
    "registration tokens and their switch": {
        "registration.make_token",
        "registration.reset_token",
        "registration.turn_off",
        "registration.turn_on",
    },
    "secrets that create runners without their person": {"enrolment_keys.new", "enrolment_keys.revoke"},
    "new and ended tokens of runners": {"runners.reset_token", "runners.end_token", "token_lookup.end"},
    "many runners in one file": {"runner_import.preview", "runner_import.confirm"},
    "rules for everybody below": {
        "runner_settings.creation",
        "runner_settings.limits",
        "runner_settings.token_life",
    },
    "which jobs count as protected, and whose machines take jobs": {"job_settings.change"},
    "deleting by itself, or at once by rule": {"cleanup.change", "cleanup.turn_off", "cleanup.delete_now"},
    "deleting for good": {"deletions.delete", "jobs.erase"},
}
# The reason stands with each group.
EVERYDAY = {
    "proves by itself who it is, or is the way to prove it": {
        "sessions.sign_in",
        "second_proof.show",
        "openid.start",
        "openid.confirm",
        "confirmations.show",
        "account.password",  # asks for the old one
    },
    "takes only from oneself, at this moment": {"sessions.sign_out", "second_proof.cancel"},
    "a role goes, and those who give roles give it again; leaving is one's own": {"members.remove"},
    "making a runner is what the portal is for; its token is new and ends nothing": {"runners.new"},
    "running jobs is what the portal is for; they are stopped, and run again, on the same page": {
        "jobs.new",
        "jobs.cancel",
        "jobs.retry",
        "jobs.run_template",
        "runners.check",
        "runners.cancel_check",
    },
    "is made anew from any job that it made": {"jobs.new_template", "jobs.edit_template", "jobs.delete_template"},
    "changes a runner, and is changed back on the same page": {
        "runners.edit",
        "runners.pause",
        "runners.resume",
        "runners.assign",
        "runners.unassign",
    },
    "can be restored with its tokens for a week, or stopped": {
        "runners.delete",
        "front.delete",
        "runners.bulk",
        "bulk_acts.start",
        "bulk_acts.stop",
    },
    "brings back what was there; deleting takes it away again": {"deletions.restore", "deletions.restore_runner"},
    "names, descriptions and new places without anything in them": {
        "front.edit",
        "front.new_group",
        "front.new_project",
    },
    "keeps a runner, or leaves it to a rule that asked when it was made": {"cleanup.protect", "cleanup.unprotect"},
    "files that running the job again makes anew": {"jobs.delete_artifact", "jobs.keep_artifacts"},
    "tells of a token that the person has already, and shows none": {"token_lookup.show"},
}


def act(rule: Rule) -> str:
    """What the form does, whichever kind of scope it stands in."""
    return SCOPE.sub("", rule.endpoint)


ASKING = [rule for rule in PAGE_POSTS if act(rule) in set().union(*SENSITIVE.values())]
NOT_ASKING = [rule for rule in PAGE_POSTS if act(rule) in set().union(*EVERYDAY.values())]
PAGES = [rule for rule in ASKING if rule.methods and "GET" in rule.methods]


def dana(app: Flask, session: Session, before: timedelta) -> FlaskClient:
    """The administrator, who has signed in so long ago."""
    client = sign_in(app.test_client(), "dana")
    session.execute(update(UserSession).values(confirmed_at=now() - before))
    session.commit()
    return client


def forms_token(client: FlaskClient) -> str:
    return csrf_of(client.get("/").get_data(as_text=True))


def is_asked(answer: Any) -> bool:
    return answer.status_code == 303 and answer.headers["Location"].startswith(f"{CONFIRM}?")


def test_every_form_is_in_one_of_the_lists_and_in_one_only() -> None:
    listed = [name for groups in (SENSITIVE, EVERYDAY) for group in groups.values() for name in group]
    assert sorted(listed) == sorted({act(rule) for rule in PAGE_POSTS})


@pytest.mark.parametrize("rule", ASKING, ids=text_of)
def test_a_sensitive_form_asks_and_changes_nothing(
    app: Flask, session: Session, places: dict[str, Any], rule: Rule
) -> None:
    client = dana(app, session, TOO_LATE)
    token = forms_token(client)
    with asked(session) as statements:
        answer = client.post(address(app, rule, places), data={"csrf_token": token})
    assert is_asked(answer)
    assert [each for each in statements if WRITES.search(each)] == []


@pytest.mark.parametrize("rule", PAGES, ids=text_of)
def test_the_page_of_a_sensitive_form_asks_before_anything_is_typed(
    app: Flask, session: Session, places: dict[str, Any], rule: Rule
) -> None:
    page = address(app, rule, places)
    answer = dana(app, session, LONG_AGO).get(page)
    assert (answer.status_code, answer.headers.get("Location")) == (303, f"{CONFIRM}?next={page}")


@pytest.mark.parametrize("rule", PAGES, ids=text_of)
def test_after_a_recent_sign_in_it_opens(app: Flask, session: Session, places: dict[str, Any], rule: Rule) -> None:
    assert not is_asked(dana(app, session, RECENT).get(address(app, rule, places)))


@pytest.mark.parametrize("rule", NOT_ASKING, ids=text_of)
def test_an_everyday_form_does_not_ask(app: Flask, session: Session, places: dict[str, Any], rule: Rule) -> None:
    client = dana(app, session, TOO_LATE)
    answer = client.post(address(app, rule, places), data={"csrf_token": forms_token(client)})
    assert answer.status_code < 500
    assert not is_asked(answer)
