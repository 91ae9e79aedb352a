"""How often a script may ask: what is counted together, what the headers say, who is refused and for how long."""

import logging
from time import sleep
from typing import Any

import pytest
from flask import Flask
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond

from portal.api.rate_limits import RateLimits
from tests.api.for_users.scripts import Script
from tests.cast import Cast
from tests.databases import settings


class InTwoSeconds(RateLimitItemPerSecond):
    """So many in two seconds, for who waits."""

    def __init__(self, amount: int) -> None:
        super().__init__(amount, 2)


def limited(app: Flask, period: Any = RateLimitItemPerMinute, **limits: str) -> None:
    """The app with small limits; the app fixture gives the next test new ones."""
    wanted = {f"PORTAL_RATE_LIMIT_{name.upper()}": value for name, value in limits.items()}
    app.extensions["rate_limits"] = RateLimits(settings("postgresql://nobody@localhost/nothing", **wanted), period)


@pytest.fixture
def small(app: Flask) -> Flask:
    limited(app, token="3", address="5", refused="2")
    return app


def test_a_token_has_its_limit_and_is_told_when_to_come_back(app: Flask, cast: Cast) -> None:
    limited(app, InTwoSeconds, token="3")
    script = Script(app.test_client(), cast.access_token(cast.alice))
    left = [script.ask("GET", "/version").headers["RateLimit-Remaining"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    refused = script.ask("GET", "/version")
    assert refused.status_code == 429
    assert refused.get_json() == {
        "message": {"error": "This endpoint has been requested too many times. Try again later."}
    }
    assert refused.headers["RateLimit-Name"] == "api_token"
    assert refused.headers["RateLimit-Observed"] == refused.headers["RateLimit-Limit"] == "3"
    wait = int(refused.headers["Retry-After"])
    assert 1 <= wait <= 3
    sleep(wait)
    assert script.ask("GET", "/version").status_code == 200


def test_two_tokens_of_one_person_are_counted_by_themselves_and_an_address_for_all(small: Flask, cast: Cast) -> None:
    first, second = (Script(small.test_client(), cast.access_token(cast.alice)) for _ in range(2))
    assert [first.ask("GET", "/version").status_code for _ in range(3)] == [200] * 3
    assert [second.ask("GET", "/version").status_code for _ in range(3)] == [200, 200, 429]
    assert second.ask("GET", "/version").headers["RateLimit-Name"] == "api_address"


def test_refused_credentials_have_a_small_limit_and_good_ones_from_there_pass(small: Flask, cast: Cast) -> None:
    guesser, script = (
        Script(small.test_client(), "glpat-x"),
        Script(small.test_client(), cast.access_token(cast.alice)),
    )
    answers = [guesser.ask("GET", "/version") for _ in range(3)]
    assert [each.status_code for each in answers] == [401, 401, 429]
    assert [each.headers["RateLimit-Name"] for each in answers] == ["api_refused"] * 3
    assert answers[-1].headers["Retry-After"]
    assert script.ask("GET", "/version").status_code == 200  # nobody keeps out a neighbour by guessing


def test_every_answer_of_the_door_says_what_is_left(app: Flask, cast: Cast) -> None:
    script = Script(app.test_client(), cast.access_token(cast.alice))
    small = Script(app.test_client(), cast.access_token(cast.alice, "create_runner"))
    asked = {
        200: script.ask("GET", "/user"),
        400: script.ask("PUT", f"/runners/{cast.runner().runner.id}", paused="perhaps"),
        401: Script(app.test_client(), "").ask("GET", "/user"),
        403: small.ask("GET", "/user"),
        404: script.ask("GET", "/runners/999999"),
    }
    for status, answer in asked.items():
        assert answer.status_code == status
        assert int(answer.headers["RateLimit-Remaining"]) < int(answer.headers["RateLimit-Limit"])


def test_log_only_lets_everybody_pass_and_logs_once_without_the_token(
    app: Flask, cast: Cast, caplog: pytest.LogCaptureFixture
) -> None:
    limited(app, token="1", log_only="true")
    token = cast.access_token(cast.alice)
    script = Script(app.test_client(), token)
    with caplog.at_level(logging.WARNING, logger="portal.api.rate_limits"):
        assert [script.ask("GET", "/version").status_code for _ in range(4)] == [200] * 4
    said = [each for each in caplog.messages if "rate limit" in each]
    assert len(said) == 1
    assert token not in caplog.text
    assert "token" in said[0]


def test_no_limit_is_no_header(app: Flask, cast: Cast) -> None:
    limited(app, token="0", address="0", refused="0")
    answer = Script(app.test_client(), cast.access_token(cast.alice)).ask("GET", "/version")
    assert answer.status_code == 200
    assert not [name for name, _ in answer.headers if name.startswith("RateLimit")]


def test_an_ipv6_network_is_one_address(small: Flask) -> None:
    def ask(address: str) -> int:
        client = small.test_client()
        return client.get("/api/v4/user", environ_base={"REMOTE_ADDR": address}).status_code

    assert [ask(f"2001:db8::{number}") for number in range(1, 4)] == [401, 401, 429]
    assert ask("2001:db8:0:1::1") == 401
    assert ask("192.0.2.1") == 401


def test_machines_are_never_limited(small: Flask) -> None:
    client = small.test_client()
    polls = [client.post("/api/v4/jobs/request", json={"token": "glrt-x"}).status_code for _ in range(20)]
    assert set(polls) == {403}
    answer = client.post("/api/v4/runners", json={"token": "GR1348941-nobodys"})
    assert answer.status_code == 403
    assert "RateLimit-Limit" not in answer.headers


def test_creating_with_an_access_token_at_the_machines_address_is_limited(small: Flask, cast: Cast) -> None:
    script = Script(small.test_client(), cast.access_token(cast.dana))
    wanted = {"runner_type": "instance_type", "tag_list": ["docker"]}
    assert [script.ask("POST", "/runners", **wanted).status_code for _ in range(4)] == [201, 201, 201, 429]


def test_a_flood_from_many_networks_takes_no_more_memory_than_so_much() -> None:
    limits = RateLimits(settings("postgresql://nobody@localhost/nothing"))
    names = {limits.bucket(f"198.51.{number >> 8 & 255}.{number & 255}/{number}") for number in range(100_000)}
    assert len(names) <= 65_536
    assert limits.bucket("192.0.2.1") == limits.bucket("192.0.2.1")
    assert len({limits.bucket(f"192.0.2.{number}") for number in range(10)}) > 5
