"""Every way to say no, one class each. Doors translate them into pages or API answers once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Refusal(Exception):
    """The base: `str(refusal)` is a sentence for people that says what is wrong and what to do."""


class NotFound(Refusal):
    """There is no such thing, or the person may not know that there is."""


# One sentence for what does not exist and for what may not be seen, so that it tells nobody which of the two.
NOTHING_HERE = "There is nothing here, or you may not see it."


class NotAllowed(Refusal):
    """The person sees the thing and may not do this with it."""


class Worded(str):
    """A sentence for people that knows how GitLab words the same refusal, for the clients that print that."""

    gitlab: str

    def __new__(cls, sentence: str, *, gitlab: str) -> Worded:
        made = super().__new__(cls, sentence)
        made.gitlab = gitlab
        return made


class Invalid(Refusal):
    """Some values cannot be taken. `problems` maps a field to its sentences, in the words of the field."""

    def __init__(self, problems: Mapping[str, Sequence[str]]) -> None:
        self.problems = {name: list(sentences) for name, sentences in problems.items()}
        super().__init__(" ".join(s for sentences in self.problems.values() for s in sentences))


class LimitReached(Invalid):
    """The scope has as many runners as it may have."""


class Stale(Refusal):
    """What the person saw when deciding is no longer so; they should look again."""


class AlreadyIssued(Refusal):
    """The same form was sent before: its runner exists and its token was shown then."""

    def __init__(self, runner_id: int) -> None:
        self.runner_id = runner_id
        super().__init__(
            "This form was already sent. The token was shown in the answer to the first sending and cannot be "
            "shown again; if it is lost, reset the token."
        )


class TokenUnknown(Refusal):
    """No runner has this token: mistyped, ended, expired, or its runner was deleted."""


class TokenOver(TokenUnknown):
    """The token is no good any more: it has expired or was ended. Its holder may know that, nobody else asks."""

    def __init__(self, sentence: str, runner_id: int) -> None:
        self.runner_id = runner_id
        super().__init__(sentence)


class RegistrationTokenUnknown(Refusal):
    """No scope has this registration token: mistyped, reset since, or never one of ours."""


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


class BadRequest(Refusal):
    """A machine's request has a value that cannot be taken; the text names it."""


class TryLater(Refusal):
    """It cannot succeed now. `seconds` is how long to wait before the next try."""

    def __init__(self, sentence: str, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(sentence)
