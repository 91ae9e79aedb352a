"""Every way to say no, one class each. Doors translate them into pages or API answers once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any


class Refusal(Exception):
    """The base: `str(refusal)` is a sentence for people that says what is wrong and what to do."""


class NotFound(Refusal):
    """There is no such thing, or the person may not know that there is. `what` it was, where a door says that."""

    what = ""


class Hidden(NotFound):
    """What was asked for exists, and the person may not know that: the trail keeps which `action` it was, and where.

    `where` is the Scope; it is not named in the words of the refusal.
    """

    def __init__(self, sentence: str, *, action: str = "", where: Any = None) -> None:
        self.action, self.where = action, where
        super().__init__(sentence)


# One sentence for what does not exist and for what may not be seen, so that it tells nobody which of the two.
NOTHING_HERE = "There is nothing here, or you may not see it."


class NotAllowed(Refusal):
    """The person sees the thing and may not do this with it: `action`, in the table's words, in the Scope `where`."""

    def __init__(self, sentence: str, *, action: str = "", where: Any = None) -> None:
        self.action, self.where = action, where
        super().__init__(sentence)


class IdentityRefused(NotAllowed):
    """A provider has said who somebody is, and they do not come in; `reason` in a few words, for the trail.

    `user_id` is the account that was meant, where that is known.
    """

    def __init__(self, sentence: str, *, reason: str, user_id: int | None = None) -> None:
        self.reason, self.user_id = reason, user_id
        super().__init__(sentence)


class SignedOut(NotAllowed):
    """The session ended while a form was filled in."""

    def __init__(self) -> None:
        super().__init__("You are signed out, so nothing was changed. Sign in and send the form again.")


class Worded(str):
    """A sentence for people that knows how GitLab words the same refusal, for the clients that print that.

    `whole` says that GitLab's words say all of it already, so that ours need not follow.
    """

    gitlab: str
    whole: bool

    def __new__(cls, sentence: str, *, gitlab: str, whole: bool = False) -> Worded:
        made = super().__new__(cls, sentence)
        made.gitlab, made.whole = gitlab, whole
        return made


class Invalid(Refusal):
    """Some values cannot be taken. `problems` maps a field to its sentences, in the words of the field."""

    def __init__(self, problems: Mapping[str, Sequence[str]]) -> None:
        self.problems = {name: list(sentences) for name, sentences in problems.items()}
        super().__init__(" ".join(s for sentences in self.problems.values() for s in sentences))


class LimitReached(Invalid):
    """The scope has as many runners as it may have."""


class LastAdministrator(Invalid):
    """Without this person nobody who can sign in would administer the portal."""


class OwnAccount(Invalid):
    """An administrator may do this to everybody but to themselves."""


class AlreadyMember(Invalid):
    """The person has a role that was given here already."""


class LeftWithoutOwner(Invalid):
    """Top-level groups would be left without an owner."""


class Stale(Refusal):
    """What the person saw when deciding is no longer so; they should look again."""


class ChangedSince(Refusal):
    """Somebody changed the thing after the moment until which the request takes it to be unchanged."""


class AlreadyIssued(Refusal):
    """The same form was sent before: its runner exists and its token was shown then."""

    def __init__(self, runner_id: int) -> None:
        self.runner_id = runner_id
        super().__init__(
            "This form was already sent. The token was shown in the answer to the first sending and cannot be "
            "shown again; if it is lost, reset the token."
        )


class AlreadyMade(Refusal):
    """The same form was sent before: what it made exists and was shown then."""

    def __init__(self) -> None:
        super().__init__(
            "This form was already sent. The secret was shown in the answer to the first sending and cannot be shown "
            "again; if it is lost, revoke it and make a new one."
        )


class KeyReused(Refusal):
    """The idempotency key was used before, for something else."""

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was sent before with other values. Send the same values to hear the first answer, "
            "or a new key to create something else."
        )


class CredentialMissing(Refusal):
    """Nobody said who asks."""


class CredentialRefused(Refusal):
    """The access token or enrolment key is no good: unknown, revoked, expired, used up, or of somebody blocked."""


class EnrolmentKeyOver(CredentialRefused):
    """An enrolment key that is known opens nothing any more, or not at present; `key` it is, for the trail."""

    def __init__(self, sentence: str, *, key: Any) -> None:
        self.key = key
        super().__init__(sentence)


class EnrolmentRefused(NotAllowed):
    """An enrolment key is good, and may not create this runner: used up, from elsewhere, or of who may no longer."""


class ScopeTooSmall(Refusal):
    """The credential is good, but does not open this; an access token with one of `scopes` would."""

    def __init__(
        self,
        scopes: Sequence[str],
        sentence: str = "The request requires higher privileges than provided by the access token.",
    ) -> None:
        self.scopes = tuple(scopes)
        super().__init__(sentence)


class TokenUnknown(Refusal):
    """No runner has this token: mistyped, ended, expired, or its runner was deleted."""


class TokenOver(TokenUnknown):
    """The token is no good any more: it has expired or was ended. Its holder may know that, nobody else asks."""

    def __init__(self, sentence: str, runner_id: int) -> None:
        self.runner_id = runner_id
        super().__init__(sentence)


class RunnerDeleted(TokenUnknown):
    """The token's runner was deleted at this time and can be restored still; then the token works again."""

    def __init__(self, runner_id: int, deleted_at: datetime) -> None:
        self.runner_id, self.deleted_at = runner_id, deleted_at
        super().__init__(f"This runner was deleted on {deleted_at:%Y-%m-%d}")


class RegistrationTokenUnknown(Refusal):
    """No scope has this registration token: mistyped, reset since, or never one of ours."""


class ScopeDeleted(RegistrationTokenUnknown):
    """The group or project of the registration token was deleted; restored, it has the token again."""


class RegistrationOff(Refusal):
    """Registration tokens are off in the scope; `path` is that of the group or project, empty for the instance."""

    def __init__(self, sentence: str, *, kind: str = "instance", path: str = "") -> None:
        self.kind, self.path = kind, path
        super().__init__(sentence)


class ClientTooOld(Refusal):
    """The machine sends no system ID, and its scope takes only machines that do."""

    def __init__(self, sentence: str, runner_id: int) -> None:
        self.runner_id = runner_id
        super().__init__(sentence)


class ManagerUnknown(Refusal):
    """The runner has no manager with this system ID."""


class JobRefused(Refusal):
    """A machine may not speak of this job (any more): the token is no good, or the job is over.

    `status` is the job's, where the token was its own; the machine then stops.
    """

    def __init__(self, sentence: str, *, status: str = "") -> None:
        self.status = status
        super().__init__(sentence)


class LogTooLong(JobRefused):
    """The log would grow past its limit; the job has failed for it."""


class LogElsewhere(Refusal):
    """The piece does not continue the log, of which `size` bytes are stored."""

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__("Range Not Satisfiable")


class LostRace(Refusal):
    """Others took the jobs that were found; there may be more at the next try."""


class TooLarge(Refusal):
    """A file is larger than what is taken."""


class BadRequest(Refusal):
    """A machine's request has a value that cannot be taken; the text names it."""


class ParametersWrong(BadRequest):
    """Parameters of a script's request are missing or of the wrong kind; one sentence for each."""

    def __init__(self, said: Sequence[str]) -> None:
        self.said = list(said)
        super().__init__(", ".join(said))


class TryLater(Refusal):
    """It cannot succeed now. `seconds` is how long to wait before the next try."""

    def __init__(self, sentence: str, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(sentence)


class Collided(TryLater):
    """Two requests waited for each other, and this one gave way."""

    def __init__(self) -> None:
        super().__init__(
            "Somebody else was changing the same things at this very moment. Nothing was changed; send it again.", 1
        )


class StoreUnreachable(TryLater):
    """Where the artifacts lie does not answer, or takes nothing."""

    def __init__(self, sentence: str = "The store of artifacts does not answer. Try again in a while.") -> None:
        super().__init__(sentence, 5)


class TooMany(TryLater):
    """A token or an address has asked too often in the last minute."""

    def __init__(self, seconds: int) -> None:
        super().__init__("This endpoint has been requested too many times. Try again later.", seconds)
