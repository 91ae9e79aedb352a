"""Walks through pages: what is seen of them, and the figures that are made of it."""

import pytest

from bench import page_walks
from bench.page_walks import Asked, Seen
from portal.database import db
from portal.domain.people import accounts


def seen(name: str, ms: float, queries: int = 5, deep_of: str = "") -> Seen:
    return Seen(Asked(name, "/", "dana", deep_of=deep_of), ms, queries, 10)


def test_the_worst_page_and_the_one_that_asks_most_are_named() -> None:
    pages = [seen("a", 10), seen("b", 20, queries=9), seen("c", 200), seen("deep a", 40, deep_of="a")]
    found = {each.name: each for each in page_walks.figures(pages, named="list", most_queries=8)}
    assert (found["list_median_ms"].value, found["list_median_ms"].ok) == (30, True)
    assert (found["list_worst_ms"].value, found["list_worst_ms"].note, found["list_worst_ms"].ok) == (200, "c", False)
    assert (found["list_deep_page_ratio"].value, found["list_deep_page_ratio"].note) == (4, "deep a")
    most = found["list_most_queries_on_a_page"]
    assert (most.value, most.note, most.ok) == (9, "b", False)


def test_a_deep_page_is_not_slow_because_its_first_one_is_very_quick() -> None:
    pages = [seen("a", 1), seen("deep a", 5, deep_of="a")]
    found = {each.name: each.value for each in page_walks.figures(pages, named="list", most_queries=8)}
    assert found["list_deep_page_ratio"] == 1


def test_pages_and_answers_are_asked_for_by_who_may(own_database: str, tmp_path: pytest.TempPathFactory) -> None:
    app = page_walks.app_on(own_database, str(tmp_path))
    with app.app_context():
        accounts.ensure_first_administrator(db.session(), "correct horse battery")
        db.session.commit()
    asked = [
        Asked("start", "/", "root"),
        Asked("REST", "/api/v4/runners/all", "root"),
        Asked("GraphQL", "/api/graphql", "root", query="{ runners { count } }"),
        Asked("visitor", "/-/sign-in", ""),
    ]
    found = page_walks.walk(app, lambda _session: asked, rounds=1)
    assert [each.asked for each in found] == asked
    assert all(each.ms > 0 and each.kilobytes > 0 for each in found)
    assert all(each.queries > 0 for each in found[:3])
    with pytest.raises(AssertionError, match="was answered with 404"):
        page_walks.walk(app, lambda _session: [Asked("nothing", "/nothing/here", "root")], rounds=1)
    with app.app_context():
        db.engine.dispose()
