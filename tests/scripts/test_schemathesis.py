"""schemathesis reads the API's own description and asks every operation of it, rightly and wrongly.

It finds no failure of the portal's and no status, type, header or body that is not described. Each request is undone
afterwards, so that every one of them finds the cast, and the token that asks, as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks
from sqlalchemy.orm import Session

from portal.api.for_users.parameters import LARGEST
from portal.api.rate_limits import RateLimits
from portal.database import db
from portal.domain.jobs import job_templates
from portal.domain.jobs.job_definitions import JobVariable, NewJob
from portal.models import AccessToken, RunnerManager
from tests import databases
from tests.cast import JOB_VAULT, Cast
from tests.house.test_doors import APP

# What is right by its schema may still be refused: a path that is taken, tags that are missing, a day too far away.
# Every longer path below `/groups/<path>` could be a group too: to a wrong method there is no such group, so 404.
LEFT_OUT = [checks.positive_data_acceptance, checks.allow_header_conformance, checks.unsupported_method]
FEW: dict[str, Any] = {
    "max_examples": 5,
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


def described(*, boundaries: bool) -> Any:
    """The API as its description has it; with the values at and beyond every boundary, which take a while, or not."""
    config = {
        "checks": {"negative_data_rejection": {"expected-statuses": ["4xx"]}},  # 412 too
        "phases": {"coverage": {"enabled": boundaries, "unexpected-methods": []}},
    }
    config_of = SchemathesisConfig.from_dict(config)
    return schemathesis.openapi.from_wsgi("/api/v4/openapi.json", APP, config=config_of).exclude(path="/openapi.json")


THOROUGH, QUICK = described(boundaries=True), described(boundaries=False)
Ask = Callable[[schemathesis.Case, str], None]


@pytest.fixture
def things(session: Session, cast: Cast) -> dict[str, Any]:
    """What really is at the places that paths have, owned by somebody or everybody of the cast."""
    cast.access_token(cast.erin)
    token = session.query(AccessToken).order_by(AccessToken.id.desc()).first()
    assert token is not None
    runner = cast.runner(cast.web).runner
    session.add(RunnerManager(runner_id=runner.id, system_xid="s_1"))
    nightly = NewJob(name="nightly", script=("make",), variables=(JobVariable("LEVEL", "debug"),))
    template = job_templates.create(session, cast.as_(cast.dana), cast.web, nightly, JOB_VAULT)
    session.commit()
    return {
        "job_id": cast.job().id,
        "check_id": cast.check(runner).id,
        "template_id": template.id,
        "system_id": "s_1",
        "group": "acme",
        "project": "acme/web",
        "runner_id": runner.id,
        "user_id": cast.erin.id,
        "access_token_id": token.id,
        "key_id": cast.enrolment_key(cast.dana, cast.web).record.id,
    }


@pytest.fixture
def ask(app: Flask, things: dict[str, Any]) -> Ask:
    """Send the case with this token, undo what it did, and look at the answer."""
    app.extensions["rate_limits"] = RateLimits(
        databases.settings(
            "postgresql://nobody@localhost/nothing",
            PORTAL_RATE_LIMIT_TOKEN="0",
            PORTAL_RATE_LIMIT_ADDRESS="0",
            PORTAL_RATE_LIMIT_REFUSED="0",
        )
    )

    def send(case: schemathesis.Case, token: str) -> None:
        for name, value in case.path_parameters.items():
            if name in things and is_meant_well(value) and len(str(value)) % 2:  # the others meet what is not there
                case.path_parameters[name] = things[name]
        sent = {"app": app, "headers": {"PRIVATE-TOKEN": token}}
        point = db.session.get_bind().begin_nested()
        try:
            answer = case.call(**sent)
        finally:
            db.session.remove()
            point.rollback()
        case.validate_response(answer, excluded_checks=LEFT_OUT, headers=sent["headers"], transport_kwargs=sent)

    return send


def is_meant_well(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and 0 < value <= LARGEST)


@pytest.fixture
def of_dana(cast: Cast) -> str:
    return cast.access_token(cast.dana)


@pytest.fixture
def of_charlie(cast: Cast) -> str:
    return cast.access_token(cast.charlie)


@THOROUGH.parametrize()
@settings(**FEW, phases=[Phase.explicit, Phase.generate])
def test_an_administrators_script_meets_nothing_that_is_not_described(
    case: schemathesis.Case, ask: Ask, of_dana: str
) -> None:
    ask(case, of_dana)


@QUICK.parametrize()
@settings(**FEW, phases=[Phase.generate])
def test_a_strangers_script_meets_nothing_that_is_not_described(
    case: schemathesis.Case, ask: Ask, of_charlie: str
) -> None:
    ask(case, of_charlie)
