"""Reading the code and the templates as text, for the tests of the house rules."""

import ast
from collections.abc import Iterator
from pathlib import Path

from portal.config import ROOT

PORTAL = ROOT / "portal"


def modules(below: str = "") -> list[Path]:
    """The Python files of the portal, or of one folder of it."""
    found = sorted((PORTAL / below).rglob("*.py"))
    assert found, f"there is no code in portal/{below}"
    return found


def templates() -> list[Path]:
    found = sorted((ROOT / "templates").rglob("*.html"))
    assert found
    return found


def name_of(path: Path) -> str:
    """`portal.domain.runners` for its file, `portal.web` for the folder's `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Every module that the file imports, at the top or inside a function, as its full name."""
    return set(_imports(ast.parse(path.read_text())))


def _imports(tree: ast.Module) -> Iterator[str]:
    known = {name_of(each) for each in modules()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a module comes from"
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield below if below in known else str(node.module)
