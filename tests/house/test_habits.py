"""Habits of the code: who commits, what files are called, how long they get, what columns may hold."""

import ast
import re
from pathlib import Path

import pytest
from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, LargeBinary, SmallInteger, String

from portal.config import ROOT
from portal.models import RunnerToken, User
from tests.house.trees import PORTAL, modules, name_of

FORBIDDEN_NAMES = re.compile(r"(?:^|_)(?:utils?|helpers?|common|misc|services?|managers?)(?:_|$)")
ALLOWED_NAMES = {"runner_manager", "runner_managers"}
SECRET = re.compile(r"token|secret|password|passphrase|credential|api_?key|private")
HARMLESS = (Integer, BigInteger, SmallInteger, Boolean, DateTime)


def calls(path: Path) -> set[str]:
    """The names of all methods and functions that the file calls."""
    nodes = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in nodes}


@pytest.mark.parametrize("path", [*modules("domain"), *modules("models")], ids=name_of)
def test_the_domain_never_commits(path: Path) -> None:
    assert not calls(path) & {"commit", "rollback"}


def test_the_doors_do_commit() -> None:
    assert "commit" in calls(PORTAL / "web" / "runner_pages.py")


def test_no_file_is_called_by_a_word_that_says_nothing() -> None:
    tree = [path for folder in ("portal", "tests", "migrations", "bench") for path in (ROOT / folder).rglob("*")]
    stems = {path.stem for path in [*tree, *(ROOT / "templates").rglob("*"), *(ROOT / "static").glob("*")]}
    said_nothing = {
        stem for stem in stems if FORBIDDEN_NAMES.search(stem.removeprefix("test_")) and stem not in ALLOWED_NAMES
    }
    assert said_nothing - {f"test_{name}" for name in ALLOWED_NAMES} == set()


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_every_module_says_on_top_in_one_line_what_lives_there(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if tree.body:
        said = ast.get_docstring(tree)
        assert said
        assert said.splitlines()[0].endswith((".", "?", "!"))


@pytest.mark.parametrize("path", modules("domain"), ids=name_of)
def test_every_public_function_of_the_domain_says_what_it_promises(path: Path) -> None:
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    silent = {each.name for each in functions if not each.name.startswith("_") and not ast.get_docstring(each)}
    assert silent <= PLAIN.get(name_of(path), set())


PLAIN = {
    # Functions whose name and types already say all there is.
    "portal.domain.scopes": {"of_group", "of_project"},
    "portal.domain.people.accounts": {"set_password"},
}


@pytest.mark.parametrize("column", [c for t in User.metadata.sorted_tables for c in t.columns], ids=str)
def test_no_column_could_hold_a_clear_token(column: Column[object]) -> None:
    if not SECRET.search(column.name) or isinstance(column.type, HARMLESS):
        return
    assert column.name.endswith("digest")


def test_a_token_row_holds_a_digest_and_nine_characters_and_no_other_text() -> None:
    columns = RunnerToken.__table__.columns
    texts = {column.name: column.type.length for column in columns if isinstance(column.type, String)}
    assert texts == {"short": 9}
    assert [column.name for column in columns if isinstance(column.type, LargeBinary)] == ["digest", "request_digest"]


def test_the_name_check_of_columns_reads_the_tables_that_matter() -> None:
    assert SECRET.search(User.__table__.c.password_digest.name)
    assert SECRET.search("runners_token")
    assert not isinstance(User.__table__.c.password_digest.type, HARMLESS)
