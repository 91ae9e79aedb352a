"""Searching runners: by words of the description, short token, system ID, address and number."""

import pytest
from sqlalchemy.orm import Session

from portal.domain import tokens
from portal.domain.runners import runner_lists, runner_search, runner_tokens, runners
from portal.domain.runners.runner_lists import RunnerFilter
from portal.domain.runners.runner_settings import RunnerSettings
from portal.domain.scopes import INSTANCE
from portal.models import Runner, RunnerManager
from tests.cast import Cast


@pytest.fixture
def fleet(cast: Cast) -> Runner:
    """The runner to find, with a machine; two more stand beside it."""
    found = described(cast, "Linux build fleet, Zażółć")
    cast.session.add(RunnerManager(runner_id=found.id, system_xid="s_AbC123", ip_address="2001:db8::17"))
    for name in ("Windows", "100% macOS_arm"):
        described(cast, name)
    return found


def described(cast: Cast, description: str) -> Runner:
    settings = RunnerSettings(description=description, run_untagged=True)
    return runners.create_runner(cast.session, cast.as_(cast.dana), INSTANCE, settings).runner


def search(session: Session, words: str) -> list[str]:
    page = runner_lists.page(session, INSTANCE, RunnerFilter(words=words))
    return sorted(row.runner.description for row in page.rows)


@pytest.mark.parametrize(
    "words",
    ["linux", "LINUX", "buil", "fleet build", "linux, fleet", "  linux  ", "zażółć", "ZAŻÓ", "s_AbC", "s_AbC123"],
)
def test_a_runner_is_found_by_the_beginnings_of_its_words(session: Session, fleet: Runner, words: str) -> None:
    assert search(session, words) == [fleet.description]


@pytest.mark.parametrize("words", ["2001:db8::17", "2001:db8"])
def test_a_runner_is_found_by_the_address_of_a_machine(session: Session, fleet: Runner, words: str) -> None:
    assert search(session, words) == [fleet.description]


def test_a_runner_is_found_by_its_number(session: Session, fleet: Runner) -> None:
    assert fleet.description in search(session, str(fleet.id))
    assert search(session, f"#{fleet.id}") == [fleet.description]


def test_a_runner_is_found_by_any_of_its_short_tokens_whole_or_begun(
    session: Session, cast: Cast, fleet: Runner
) -> None:
    old = runner_tokens.last_issued(session, fleet).short
    new = runner_tokens.reset_token(session, cast.as_(cast.dana), fleet, seen_token_id=None).record.short
    for short in (old, new, new[:6]):
        assert search(session, short) == [fleet.description]


@pytest.mark.parametrize("logged", ["t2_{}", "glrt-t2_{}", "glrt-{}", "t1_{}", "glrtr-t3_{}"])
def test_a_runner_is_found_by_what_older_versions_of_gitlab_runner_log(
    session: Session, fleet: Runner, logged: str
) -> None:
    short = runner_tokens.last_issued(session, fleet).short
    assert search(session, logged.format(short[:6])) == [fleet.description]


def test_a_registered_runner_is_found_with_and_without_what_stands_before_its_token(
    session: Session, fleet: Runner
) -> None:
    token = runner_tokens.last_issued(session, fleet)
    token.short = tokens.shorten("glrtr-t2_9GuIPQGvNxyz")
    session.flush()
    for words in ("t2_9GuIPQ", "glrtr-t2_9GuIPQ", "glrtr-t2"):
        assert search(session, words) == [fleet.description]


@pytest.mark.parametrize("words", ["t2_", "glrt-", "glrt-t1_", "glrtr-"])
def test_a_prefix_alone_is_no_beginning_of_every_token(session: Session, fleet: Runner, words: str) -> None:
    assert search(session, words) == []


@pytest.mark.parametrize(
    "words", ["inux", "linux windows", "xs_AbC123", "#999999999999999999", "9" * 30, "%", "_", "s%"]
)
def test_what_stands_nowhere_finds_nothing(session: Session, fleet: Runner, words: str) -> None:
    assert search(session, words) == []


@pytest.mark.parametrize(
    "words",
    [
        "'",
        "''; DROP TABLE ci_runners; --",
        "a & | ! <-> :* (b",
        "linux:*",
        "\\",
        "\\'",
        "%_\\%",
        "()",
        "<->",
        "!linux",
        "²",
        "_",
        "٣",
        "#",
        "\N{GRINNING FACE}",
        "\u202e",
        "e\u0301",
        "x" * 255,
        "字" * 255,
        "a " * 127,
    ],
)
def test_no_search_breaks_the_list(session: Session, fleet: Runner, words: str) -> None:
    assert len(search(session, words)) <= 3
    assert runner_lists.counts(session, INSTANCE, RunnerFilter(words=words)).total <= 3


ONE_WORD = ["build-1", "build-01.acme.example", "linux/amd64", "v1.2.3", "ops@acme.example"]


@pytest.mark.parametrize("description", ONE_WORD)
def test_a_runner_is_found_by_its_whole_description(session: Session, cast: Cast, description: str) -> None:
    described(cast, description)
    assert search(session, description) == [description]


def test_a_project_does_not_find_inherited_runners_by_the_address_that_it_does_not_show(
    session: Session, cast: Cast
) -> None:
    inherited = cast.runner(cast.acme).runner
    session.add(RunnerManager(runner_id=inherited.id, system_xid="s_inherited", ip_address="198.51.100.7"))
    session.flush()
    by_address = RunnerFilter(words="198.51.100")
    assert runner_lists.page(session, cast.web, by_address).rows == []
    assert [row.runner for row in runner_lists.page(session, cast.acme, by_address).rows] == [inherited]


def test_of_many_machines_that_begin_so_only_the_first_are_looked_at_and_the_page_says_so(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_search, "MOST_LOOKED_AT", 2)
    made = cast.runner(cast.acme).runner
    session.add_all(RunnerManager(runner_id=made.id, system_xid=f"s_{number}") for number in range(3))
    session.flush()
    assert runner_lists.page(session, INSTANCE, RunnerFilter(words="s_")).cut
    found = runner_lists.page(session, INSTANCE, RunnerFilter(words="s_1"))
    assert ([row.runner for row in found.rows], found.cut) == ([made], False)
