"""Runners by words: in their description, or the beginning of a short token, a system ID or an address."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select, union_all
from sqlalchemy.orm import Session

from portal.domain.groups.groups import owned_below
from portal.domain.runners.runner_paging import among
from portal.domain.scopes import Scope
from portal.models import Runner, RunnerManager, RunnerToken

MOST_LOOKED_AT = 2000  # tokens, system IDs and addresses that begin so, of each kind
_TOKEN, _SYSTEM_ID, _ADDRESS = "token", "system_id", "address"


@dataclass(frozen=True, slots=True)
class Found:
    """The condition for the runners that the words find.

    `cut` says that more than MOST_LOOKED_AT tokens, system IDs or addresses begin with them: then not all were looked
    at, and a longer beginning finds the others.
    """

    condition: ColumnElement[bool]
    cut: bool = False


def found_by(session: Session, scope: Scope, words: str) -> Found:
    """Runners with these words in the description, or this beginning of a short token, system ID or address.

    Built-in full text search with the beginnings of words: it has an index without any extension. What begins so is
    looked up first, with one query: inside the list's own the database would go through all machines there are.
    """
    ids, cut = _beginning_so(session, words)
    parts: list[ColumnElement[bool]] = [among([*ids[_TOKEN], *ids[_SYSTEM_ID]])]
    # The list does not show the addresses of inherited runners, so nobody may guess them piece by piece.
    parts.append(and_(among(ids[_ADDRESS]), owned_below(scope)))
    lexemes = re.findall(r"[^\W_]+", words)
    if lexemes:
        query = func.to_tsquery("simple", " & ".join(f"{lexeme}:*" for lexeme in lexemes))
        parts.append(Runner.words.op("@@")(query))
    if number := re.fullmatch(r"#?(\d{1,18})", words):
        parts.append(Runner.id == int(number[1]))
    return Found(or_(*parts), cut)


def _beginning_so(session: Session, words: str) -> tuple[dict[str, list[int]], bool]:
    """The ids of runners by what of theirs begins with the words; and whether there is more of it."""
    shorts = [RunnerToken.short.startswith(begun, autoescape=True) for begun in _as_logged(words)]
    asked = (
        _first(_TOKEN, RunnerToken.runner_id, or_(*shorts)),
        _first(_SYSTEM_ID, RunnerManager.runner_id, RunnerManager.system_xid.startswith(words, autoescape=True)),
        _first(_ADDRESS, RunnerManager.runner_id, RunnerManager.ip_address.startswith(words, autoescape=True)),
    )
    rows: Sequence[Any] = session.execute(union_all(*(select(each.subquery()) for each in asked))).all()
    ids: dict[str, list[int]] = {_TOKEN: [], _SYSTEM_ID: [], _ADDRESS: []}
    for kind, runner_id in rows:
        ids[kind].append(runner_id)
    cut = any(len(each) > MOST_LOOKED_AT for each in ids.values())
    return {kind: sorted(set(each)) for kind, each in ids.items()}, cut


def _first(kind: str, runner_id: Any, which: ColumnElement[bool]) -> Select[Any]:
    return select(literal(kind).label("kind"), runner_id.label("runner_id")).where(which).limit(MOST_LOOKED_AT + 1)


def _as_logged(words: str) -> set[str]:
    """The words, and what they begin with as a short token: gitlab-runner before 18.1 logs a part of the prefix too.

    15.10 to 18.0 print nine characters behind `glrt-`, so `t2_` and the first six of ours (reference/wire.md
    section 10). `glrtr-` and `t2_` come off one by one, as tokens got by registering keep `t2_` in their short form.
    """
    behind = re.sub(r"^(?:glrt-|glrtr-)", "", words)
    return {words, behind or words, re.sub(r"^t[123]_", "", behind) or words}
