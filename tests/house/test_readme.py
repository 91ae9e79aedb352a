"""The README: every setting stands in its table, with the default and the sentence that the code has."""

import pytest

from portal.config import ROOT, documented


@pytest.mark.parametrize(("name", "default", "sentence"), documented(), ids=[name for name, _, _ in documented()])
def test_a_setting_stands_in_the_readme(name: str, default: str, sentence: str) -> None:
    shown = f"`{default}`" if default else ""
    row = [f"`{name}`", shown, sentence]
    assert row in rows()


def test_the_readme_has_no_setting_that_the_portal_lacks() -> None:
    known = {name for name, _, _ in documented()}
    listed = {cells[0].strip("`") for cells in rows() if cells[0].strip("`").isupper()}
    assert listed - known == set()


def rows() -> list[list[str]]:
    """The cells of every table row of the README."""
    lines = (ROOT / "README.md").read_text().splitlines()
    tables = [line.strip().strip("|") for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")] for line in tables]
