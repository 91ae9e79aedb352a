"""How often a script may ask: what is counted together, what the headers say, who is refused and for how long."""

import logging

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as some

from portal.api.rate_limits import MOST_KEYS, Counter, RateLimits
from tests.api.for_users.scripts import Script
from tests.cast import Cast
from tests.databases import settings


class Clock:
    """A clock that stands until it is moved; seconds since 1970."""

    def __init__(self, at: float = 6_000_000) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limited(app: Flask, clock: Clock, **limits: str) -> RateLimits:
    """The app with small limits; the app fixture gives the next test new ones."""
    wanted = {f"PORTAL_RATE_LIMIT_{name.upper()}": value for name, value in limits.items()}
    app.extensions["rate_limits"] = RateLimits(settings("postgresql://nobody@localhost/nothing", **wanted), clock)
    return app.extensions["rate_limits"]


@pytest.fixture
def small(app: Flask, clock: Clock) -> Flask:
    limited(app, clock, token="3", address="5", refused="2")
    return app


def test_a_token_has_its_limit_and_is_told_when_to_come_back(small: Flask, cast: Cast, clock: Clock) -> None:
    script = Script(small.test_client(), cast.access_token(cast.alice))
    left = [script.ask("GET", "/version").headers["RateLimit-Remaining"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    refused = script.ask("GET", "/version")
    assert refused.status_code == 429
    assert refused.get_json() == {
        "message": {"error": "This endpoint has been requested too many times. Try again later."}
    }
    assert refused.headers["RateLimit-Name"] == "api_token"
    assert refused.headers["RateLimit-Observed"] == refused.headers["RateLimit-Limit"] == "3"
    clock.at += int(refused.headers["Retry-After"])
    assert clock.at == int(refused.headers["RateLimit-Reset"])
    assert script.ask("GET", "/version").status_code == 200


def test_two_tokens_of_one_person_are_counted_by_themselves_and_an_address_for_all(small: Flask, cast: Cast) -> None:
    first, second = (Script(small.test_client(), cast.access_token(cast.alice)) for _ in range(2))
    assert [first.ask("GET", "/version").status_code for _ in range(3)] == [200] * 3
    assert [second.ask("GET", "/version").status_code for _ in range(3)] == [200, 200, 429]
    assert second.ask("GET", "/version").headers["RateLimit-Name"] == "api_address"


def test_refused_credentials_have_a_small_limit_that_holds_for_good_ones_too(small: Flask, cast: Cast) -> None:
    guesser, script = (
        Script(small.test_client(), "glpat-x"),
        Script(small.test_client(), cast.access_token(cast.alice)),
    )
    answers = [guesser.ask("GET", "/version") for _ in range(3)]
    assert [each.status_code for each in answers] == [401, 401, 429]
    assert [each.headers["RateLimit-Name"] for each in answers] == ["api_refused"] * 3
    assert answers[-1].headers["Retry-After"]
    assert script.ask("GET", "/version").status_code == 429  # behind the same address


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
    app: Flask, cast: Cast, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    limited(app, clock, token="1", log_only="true")
    token = cast.access_token(cast.alice)
    script = Script(app.test_client(), token)
    with caplog.at_level(logging.WARNING, logger="portal.api.rate_limits"):
        assert [script.ask("GET", "/version").status_code for _ in range(4)] == [200] * 4
    said = [each for each in caplog.messages if "rate limit" in each]
    assert len(said) == 1
    assert token not in caplog.text
    assert "token" in said[0]


def test_no_limit_is_no_header(app: Flask, cast: Cast, clock: Clock) -> None:
    limited(app, clock, token="0", address="0", refused="0")
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


# One counter


def test_what_was_asked_fades_within_the_next_minute(clock: Clock) -> None:
    counter = Counter("token", 60, clock)
    assert [counter.look("a").wait for _ in range(60)] == [0] * 60
    assert counter.look("a").wait == 61  # the first one is free when a sixtieth of the next minute is over
    clock.at += 61
    assert counter.look("a").wait == 0
    assert counter.look("a").wait == 1
    clock.at += 120
    assert counter.look("a").remaining == 59


def test_looking_counts_nothing(clock: Clock) -> None:
    counter = Counter("refused", 1, clock)
    assert [counter.look("a", take=False).remaining for _ in range(3)] == [1, 1, 1]


def test_a_clock_that_is_set_back_forgets(clock: Clock) -> None:
    counter = Counter("token", 1, clock)
    counter.look("a")
    clock.at -= 3600
    assert counter.look("a").wait == 0


def test_a_flood_from_many_networks_takes_no_more_memory_than_so_much(clock: Clock) -> None:
    counter = Counter("address", 5, clock)
    for number in range(MOST_KEYS + 1000):
        counter.look(str(number))
    assert len(counter._counts) == MOST_KEYS
    assert [counter.look("0").wait for _ in range(4)] == [0] * 4  # who was there before goes on being counted
    assert counter.look("0").wait
    clock.at += 60
    for number in range(10):
        counter.look(f"another {number}")
    clock.at += 60
    counter.look("one more")
    assert len(counter._before) == 10


@given(
    limit=some.integers(1, 50),
    steps=some.lists(some.tuples(some.floats(0, 50), some.integers(1, 60)), max_size=8),
)
def test_after_the_wait_one_more_is_let_through_and_not_before(limit: int, steps: list[tuple[float, int]]) -> None:
    clock = Clock(6_000_000.5)
    counter = Counter("token", limit, clock)
    for seconds, requests in steps:
        clock.at += seconds
        for _ in range(requests):
            counter.look("a")
    window = counter.look("a", take=False)
    assert 0 <= window.remaining <= limit
    if window.wait:
        begun = clock.at
        clock.at = begun + max(0, window.wait - 1.1)
        assert counter.look("a", take=False).wait
        clock.at = begun + window.wait
        assert not counter.look("a", take=False).wait
