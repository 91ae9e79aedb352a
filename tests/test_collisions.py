"""Two requests that wait for each other: the database gives one up, which is told to try again."""

import threading

import pytest
from flask import Flask
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError

HOLD = text("SELECT pg_advisory_xact_lock(:number)")


@pytest.fixture
def collision(own_database: str) -> OperationalError:
    """What the driver raises: two transactions that really wait for each other."""
    engine = create_engine(own_database)
    ready, raised = threading.Barrier(2), []

    def lock(connection: Connection, first: int, second: int) -> None:
        connection.execute(HOLD, {"number": first})
        ready.wait()
        try:
            connection.execute(HOLD, {"number": second})
        except OperationalError as failure:
            raised.append(failure)
        connection.rollback()

    with engine.connect() as one, engine.connect() as two:
        threads = [threading.Thread(target=lock, args=each) for each in ((one, 1, 2), (two, 2, 1))]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    engine.dispose()
    (failure,) = raised
    return failure


@pytest.mark.parametrize("path", ["/api/v4/openapi.json", "/api/graphql", "/admin/runners"])
def test_who_gave_way_is_asked_to_send_it_again(app: Flask, collision: OperationalError, path: str) -> None:
    with app.test_request_context(path):
        app.preprocess_request()
        answer = app.make_response(app.handle_user_exception(collision))
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert "Nothing was changed; send it again." in answer.get_data(as_text=True)
