"""A portal with the large demo in it, filled once for all parts of a run that look at it."""

from __future__ import annotations

import os
from time import perf_counter

from sqlalchemy.orm import Session

from bench.page_walks import app_on
from bench.runs import Run
from portal.database import db
from portal.demo import demo_scale, demo_story
from portal.domain.people import accounts

FULL, SHORT = 100.0, 1.0
_filled: dict[int, str] = {}


def database(run: Run) -> str:
    """The URL of a database with the large demo: BENCH_LARGE_DATABASE, or one that is filled now (SCALE=1 or 100)."""
    if given := os.environ.get("BENCH_LARGE_DATABASE", ""):
        return given
    if id(run) not in _filled:
        url = run.server.create(f"{run.server.name}_large", run.server.template)
        _fill(run, url, FULL if run.full else SHORT)
        _filled[id(run)] = url
    return _filled[id(run)]


def _fill(run: Run, url: str, scale: float) -> None:
    app, begun = app_on(url, str(run.folder / "large-demo")), perf_counter()
    with app.app_context():
        accounts.ensure_first_administrator(db.session(), "correct horse battery")
        extensions = (app.extensions[name] for name in ("registration", "job_vault", "artifact_store"))
        demo_story.fill(db.session(), "let me look around", *extensions)
        db.session.commit()
        with db.engine.connect() as connection, Session(connection) as session:
            for progress in demo_scale.fill(session, scale, app.extensions["job_vault"]):
                session.commit()
                if progress.rows == progress.of:
                    took = perf_counter() - begun
                    run.say(f"  large demo, scale {scale:g}: {progress.of:,} {progress.part}, {took:,.0f} s so far")
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            demo_scale.count_all(connection)
        db.engine.dispose()
