"""Which actions the code puts on the trail, read from its calls of `audit.record`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from portal.domain.scopes import ScopeKind
from tests.house.trees import modules

DEEPEST = 6  # names and calls that are followed to find an action


def recorded() -> dict[str, str]:
    """Every action by its name, with the file that records it."""
    return {action: path.name for path in modules() for action in _of(path)}


def unread() -> list[str]:
    """The calls of `audit.record` whose action cannot be read from the code."""
    return [f"{path.name}:{call.lineno}" for path in modules() for call, texts in _calls(path) if not texts]


def _of(path: Path) -> Iterator[str]:
    for _, texts in _calls(path):
        yield from texts


def _calls(path: Path) -> Iterator[tuple[ast.Call, list[str]]]:
    tree = ast.parse(path.read_text())
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            if _called(call) == "audit.record":
                yield call, list(Reader(tree, function).texts(call.args[2]))


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        return f"{call.func.value.id}.{call.func.attr}"
    return call.func.id if isinstance(call.func, ast.Name) else ""


@dataclass
class Reader:
    """Reads the texts that an expression in a function may have; a scope's kind in one is group or project."""

    tree: ast.Module
    function: ast.FunctionDef
    depth: int = 0

    def texts(self, value: ast.expr | None) -> Iterator[str]:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield from filter(None, [value.value])
        elif isinstance(value, ast.JoinedStr):
            for kind in (ScopeKind.GROUP, ScopeKind.PROJECT):
                yield "".join(str(p.value) if isinstance(p, ast.Constant) else kind.value for p in value.values)
        elif isinstance(value, ast.Name) and self.depth < DEEPEST:
            deeper = Reader(self.tree, self.function, self.depth + 1)
            for each in self.assigned(value.id):
                yield from deeper.texts(each)
            yield from self.given(value.id)
        else:
            for each in _choices(value):
                yield from self.texts(each)

    def assigned(self, name: str) -> Iterator[ast.expr]:
        for node in [*ast.walk(self.function), *self.tree.body]:
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
                yield node.value

    def given(self, name: str) -> Iterator[str]:
        """What the function's own callers in its module give for the parameter."""
        names = [argument.arg for argument in self.function.args.args]
        if name not in names:
            return
        place = names.index(name)
        for caller in (node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)):
            for call in (node for node in ast.walk(caller) if isinstance(node, ast.Call)):
                if _called(call) != self.function.name:
                    continue
                by_name = [each.value for each in call.keywords if each.arg == name]
                for value in by_name or call.args[place : place + 1]:
                    yield from Reader(self.tree, caller, self.depth + 1).texts(value)


def _choices(value: ast.expr | None) -> list[ast.expr]:
    if isinstance(value, ast.IfExp):
        return [value.body, value.orelse]
    if isinstance(value, ast.BoolOp):
        return value.values
    if isinstance(value, ast.Subscript):
        return _choices(value.value)
    return [each for each in value.values if each is not None] if isinstance(value, ast.Dict) else []
