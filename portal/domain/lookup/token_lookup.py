"""Whose token is this? For administrators who hold one and do not know where it belongs."""

from __future__ import annotations

import enum
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import scopes, tokens
from portal.domain.actors import Actor
from portal.domain.enrolment import enrolment_key_lists, enrolment_keys
from portal.domain.errors import NotFound
from portal.domain.groups import groups
from portal.domain.imports.import_formats import SHORTEST_TOKEN, USUAL_TOKEN
from portal.domain.people.access_token_lists import State
from portal.domain.permissions import Action, require
from portal.domain.registration import registration, registration_tokens
from portal.domain.registration.registration import Configured, Decision
from portal.domain.runners import runner_tokens
from portal.domain.scopes import INSTANCE, Scope
from portal.models import (
    WITH_DELETED,
    AccessToken,
    Deletion,
    EnrolmentKey,
    RegistrationToken,
    Runner,
    RunnerManager,
    RunnerToken,
    TokenOrigin,
)

SHOWN = 50  # machines, and registrations
# A line of config.toml, JSON, YAML or a command: what stands behind the word token, up to its end.
_LINE = re.compile(
    r"""(?im)(?:^|[\s{,])(?:-{2})?["']?(?:runner|ci_server|registration)?[-_]?token["']?(?:\s*[=:]\s*|\s+)["']?([^\s"',}#]+)"""
)
_KNOWN = re.compile(
    r"(?<![0-9A-Za-z_-])(?:glrtr?-|glpat-|glenrol-|GR1348941)[0-9A-Za-z_.-]+"
)  # these beginnings tell it anywhere
_LETTERS = re.compile(r"[0-9A-Za-z_.-]+")
FEWEST_LETTERS = 4  # by which runners are looked for: fewer fit too many


class TokenState(enum.StrEnum):
    """Whether machines may use a runner's token."""

    LIVE = "live"
    REPLACED = "replaced"  # lives until `ends_at`: a machine got a newer one for it
    UNUSED = "unused"  # minted by a machine's reset: lives until `ends_at` unless a machine uses it
    EXPIRED = "expired"
    ENDED = "ended"

    @property
    def works(self) -> bool:
        return self not in (TokenState.EXPIRED, TokenState.ENDED)


@dataclass(frozen=True, slots=True)
class RunnersToken:
    """A runner's authentication token, with the machines that used exactly this one last."""

    token: RunnerToken
    runner: Runner
    scope: Scope
    state: TokenState
    machines: Sequence[RunnerManager]
    machines_total: int
    others: Sequence[RunnerToken]


@dataclass(frozen=True, slots=True)
class ScopesToken:
    """A registration token, with the runners that were registered with it."""

    token: RegistrationToken
    scope: Scope
    decision: Decision
    runners: Sequence[Runner]
    runners_total: int

    @property
    def deletion(self) -> Deletion | None:
        """The act that deleted its scope, if it is deleted."""
        owner = self.scope.project or self.scope.group
        return owner.deletion if owner is not None else None

    @property
    def title(self) -> str:
        """What people call its scope, or called it before it was deleted."""
        return groups.before_deletion(self.scope.title)

    @property
    def works(self) -> bool:
        return self.token.ended_at is None and self.decision.allowed and self.deletion is None


@dataclass(frozen=True, slots=True)
class PersonsToken:
    """A personal access token, ended ones too."""

    token: AccessToken
    state: State

    @property
    def works(self) -> bool:
        """Whether it opens anything, or does again when its person is no longer blocked."""
        return self.state not in (State.EXPIRED, State.REVOKED)


@dataclass(frozen=True, slots=True)
class KeyFound:
    """An enrolment key with its state, ended ones too."""

    scope: Scope
    row: enrolment_key_lists.Row

    @property
    def deletion(self) -> Deletion | None:
        """The act that deleted its scope, if it is deleted."""
        owner = self.scope.project or self.scope.group
        return owner.deletion if owner is not None else None

    @property
    def works(self) -> bool:
        """Whether it opens anything, were it only reading what it made."""
        return self.row.state not in (enrolment_key_lists.State.EXPIRED, enrolment_key_lists.State.REVOKED)


@dataclass(frozen=True, slots=True)
class NobodysToken:
    """A text that is no token of anybody here."""

    empty: bool = False
    mistyped: bool = False
    of_people: bool = False  # it has the form of an access token or an enrolment key
    registration: bool = False


@dataclass(frozen=True, slots=True)
class BeginningOfToken:
    """The beginning of a token, such as gitlab-runner prints in its logs, with the tokens here that begin so.

    `whole` when it is as long as a token: then it was mistyped near its end, or cut there.
    """

    tokens: Sequence[tuple[RunnerToken, Runner]] = ()
    total: int = 0
    whole: bool = False


Found = RunnersToken | ScopesToken | PersonsToken | KeyFound | BeginningOfToken | NobodysToken


def bare(pasted: str) -> str:
    """The token in what somebody pasted: a command, a line of a config.toml, a sentence, with or without quotes."""
    if known := _KNOWN.search(pasted):
        return known[0].rstrip(".")
    found = _LINE.search(pasted)
    text = found[1] if found else pasted
    return text.strip().strip("\"'`,;").strip()


def look_up(session: Session, actor: Actor, pasted: str, configured: Configured) -> Found:
    """Whose token this is, ended ones too; or of which tokens it is the beginning.

    The text itself is kept nowhere. Raises NotFound or NotAllowed.
    """
    require(session, actor, Action.LOOK_UP_TOKENS, INSTANCE)
    text = bare(pasted)
    if not text:
        return NobodysToken(empty=True)
    if tokens.is_like_of_people(text):
        return _of_people(session, text)
    if (row := registration_tokens.find(session, text)) is not None:
        return _of_scope(session, row, configured)
    digest = tokens.digest(text)
    token = session.scalar(select(RunnerToken).where(RunnerToken.digest == digest))
    if token is not None and hmac.compare_digest(token.digest, digest):
        return of_runners_token(session, token)
    nobodys = NobodysToken(mistyped=tokens.is_mistyped(text), registration=text.startswith(tokens.REGISTRATION))
    return nobodys if nobodys.mistyped or nobodys.registration else _beginning(session, text) or nobodys


def _of_people(session: Session, text: str) -> PersonsToken | KeyFound | NobodysToken:
    """Whose access token or enrolment key this is, ended ones too; without a query for what has not the form."""
    prefix = tokens.PERSONAL if text.startswith(tokens.PERSONAL) else tokens.ENROLMENT
    if not tokens.is_of_people(text, prefix):
        return NobodysToken(mistyped=True, of_people=True)
    digest = tokens.digest(text)
    if prefix == tokens.PERSONAL:
        token = session.scalar(select(AccessToken).where(AccessToken.digest == digest))
        return PersonsToken(token, State.of(token, now())) if token else NobodysToken(of_people=True)
    key = session.scalar(select(EnrolmentKey).where(EnrolmentKey.digest == digest))
    if key is None:
        return NobodysToken(of_people=True)
    scope = enrolment_keys.scope_of(key)
    (row,) = enrolment_key_lists.with_states(session, [key])
    return KeyFound(scope, row)


def _beginning(session: Session, text: str) -> BeginningOfToken | None:
    """The tokens that begin with this text; None for one that is as long as a token while none begins so."""
    if not _LETTERS.fullmatch(text) or len(text) > tokens.LONGEST:
        return None
    rest = tokens.body(text)
    if len(re.sub("^t[123]_", "", rest)) < FEWEST_LETTERS:
        return BeginningOfToken()
    # Older clients count `t2_` to the nine characters; behind `glrtr-` the newest do so as well.
    starts = {rest[: tokens.SHORT_LENGTH], re.sub("^glrtr?-", "", text)[: tokens.SHORT_LENGTH]}
    begins = or_(
        *(RunnerToken.short.like(each.replace("_", r"\_") + "%") for each in starts if len(each) >= FEWEST_LETTERS)
    )
    query = select(RunnerToken, Runner).join(Runner, Runner.id == RunnerToken.runner_id).where(begins)
    rows = session.execute(query.order_by(RunnerToken.id.desc()).limit(SHOWN)).all()
    if not rows and len(rest) >= SHORTEST_TOKEN:
        return None
    counted = select(func.count(RunnerToken.id)).join(Runner, Runner.id == RunnerToken.runner_id)
    total = session.scalar(counted.where(begins)) or 0
    return BeginningOfToken(tuple(rows), total, whole=len(rest) >= USUAL_TOKEN)


def token_by_id(session: Session, token_id: int) -> RunnersToken:
    """The same for a runner's token that was found before. Raises NotFound."""
    token = session.get(RunnerToken, token_id)
    if token is None or session.get(Runner, token.runner_id) is None:
        raise NotFound("There is no such token. Its runner may have been deleted.")
    return of_runners_token(session, token)


def of_runners_token(session: Session, token: RunnerToken) -> RunnersToken:
    """What is known of a runner's token, a deleted runner's too."""
    runner = session.get_one(Runner, token.runner_id, execution_options=WITH_DELETED)
    using = RunnerManager.token_id == token.id
    newest = RunnerManager.contacted_at.desc().nulls_last()
    return RunnersToken(
        token=token,
        runner=runner,
        scope=scopes.of_runner(runner),
        state=state_of(token, now()),
        machines=session.scalars(select(RunnerManager).where(using).order_by(newest).limit(SHOWN)).all(),
        machines_total=session.scalar(select(func.count()).select_from(RunnerManager).where(using)) or 0,
        others=[each for each in runner_tokens.family(session, runner) if each.id != token.id],
    )


def state_of(token: RunnerToken, at: datetime) -> TokenState:
    """Whether the token works at this moment, and if not, what came first: its end or the end of its life."""
    if not token.is_live(at):
        ended = token.cut or (token.ends_at is not None and token.ends_at <= at)
        expired = token.expires_at is not None and token.expires_at <= at
        if ended and expired:
            return TokenState.ENDED if (token.ends_at or at) < (token.expires_at or at) else TokenState.EXPIRED
        return TokenState.ENDED if ended else TokenState.EXPIRED
    if token.ends_at is None:
        return TokenState.LIVE
    unused = token.origin == TokenOrigin.RESET_BY_MACHINE and token.first_used_at is None
    return TokenState.UNUSED if unused else TokenState.REPLACED


def _of_scope(session: Session, token: RegistrationToken, configured: Configured) -> ScopesToken:
    scope = registration_tokens.scope_of(token)
    registered = Runner.registered_with_id == token.id
    return ScopesToken(
        token=token,
        scope=scope,
        decision=registration.decision(session, scope, configured),
        runners=session.scalars(select(Runner).where(registered).order_by(Runner.id.desc()).limit(SHOWN)).all(),
        runners_total=session.scalar(select(func.count()).select_from(Runner).where(registered)) or 0,
    )
