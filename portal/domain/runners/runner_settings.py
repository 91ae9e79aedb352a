"""What is chosen for a runner: its settings, their rules, and how the trail names them."""

from __future__ import annotations

from dataclasses import dataclass

from portal.domain.errors import Worded
from portal.models import AccessLevel, Runner

MOST_TAGS = 50
LONGEST_TAG = 255
LONGEST_TEXT = 1024
SHORTEST_TIMEOUT = 600  # seconds
LONGEST_TIMEOUT = 2_147_483_647  # the column's
SHORTEST_TOKEN_LIFE = 3600  # seconds
LONGEST_TOKEN_LIFE = 5 * 365 * 86_400  # seconds; longer is "does not expire"
SHORTEST_MEMORY = 3600  # seconds a silent machine is remembered at least
LONGEST_MEMORY = 90 * 86_400


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """What a person chooses for a runner; forms and API bodies build this and nothing else decides.

    `maximum_timeout`, `token_expiration_interval` (how long each of its tokens lives, on top of what its scopes
    say) and `machines_forgotten_after` (of silence; None: seven days) are in seconds. `locked` is kept
    for every runner, as in GitLab (Terraform reads back what it said), and counts for project runners only.
    """

    description: str = ""
    maintenance_note: str = ""
    tags: tuple[str, ...] = ()
    run_untagged: bool = False
    paused: bool = False
    protected: bool = False
    locked: bool = False
    maximum_timeout: int | None = None
    token_expiration_interval: int | None = None
    machines_forgotten_after: int | None = None

    def problems(self) -> dict[str, list[str]]:
        """What is wrong, by field, in GitLab's rules (reference/rest.md section 8); empty when nothing is."""
        found: dict[str, list[str]] = {}
        for name in ("description", "maintenance_note"):
            if len(getattr(self, name)) > LONGEST_TEXT:
                found[name] = [
                    Worded(
                        f"It is too long: at most {LONGEST_TEXT} characters.",
                        gitlab=f"is too long (maximum is {LONGEST_TEXT} characters)",
                    )
                ]
            elif "\0" in getattr(self, name):
                found[name] = ["It has a character that cannot be stored."]
        if tag_problems := self._tag_problems():
            found["tags"] = tag_problems
        if self.maximum_timeout is not None and self.maximum_timeout < SHORTEST_TIMEOUT:
            found["maximum_timeout"] = [
                Worded(
                    "It needs to be at least 10 minutes (600 seconds), or empty for no limit.",
                    gitlab="needs to be at least 10 minutes",
                )
            ]
        elif self.maximum_timeout is not None and self.maximum_timeout > LONGEST_TIMEOUT:
            found["maximum_timeout"] = [f"It is too long: at most {LONGEST_TIMEOUT} seconds, or empty for no limit."]
        if not _within(self.token_expiration_interval, SHORTEST_TOKEN_LIFE, LONGEST_TOKEN_LIFE):
            found["token_expiration_interval"] = ["Write a time from 1h to 1825d, or leave it empty."]
        if not _within(self.machines_forgotten_after, SHORTEST_MEMORY, LONGEST_MEMORY):
            found["machines_forgotten_after"] = ["Write a time from 1h to 90d, or leave it empty for 7 days."]
        return found

    def _tag_problems(self) -> list[str]:
        if not self.tags and not self.run_untagged:
            return [
                Worded(
                    "Add at least one tag, or let the runner take untagged jobs; otherwise no job could ever match.",
                    gitlab="can not be empty when runner is not allowed to pick untagged jobs",
                )
            ]
        if len(self.tags) > MOST_TAGS:
            return [
                Worded(
                    f"Too many tags: {len(self.tags)}. Keep to {MOST_TAGS}.",
                    gitlab=f"Too many tags specified. Please limit the number of tags to {MOST_TAGS}",
                )
            ]
        too_long = [tag[:40] for tag in self.tags if len(tag) > LONGEST_TAG]
        if too_long:
            return [f"A tag is too long (at most {LONGEST_TAG} characters): {too_long[0]}…"]
        return ["A tag has a character that cannot be stored."] if any("\0" in tag for tag in self.tags) else []


def _within(seconds: int | None, lowest: int, highest: int) -> bool:
    return seconds is None or lowest <= seconds <= highest


def split_tags(text: str) -> tuple[str, ...]:
    """Tags from a comma separated text: trimmed, without empty ones, each once, in the order written."""
    return tuple(dict.fromkeys(tag for tag in (part.strip() for part in text.split(",")) if tag))


def settings_of(runner: Runner) -> RunnerSettings:
    """The runner's present settings."""
    return RunnerSettings(
        description=runner.description,
        maintenance_note=runner.maintenance_note,
        tags=tuple(runner.tag_list),
        run_untagged=runner.run_untagged,
        paused=runner.paused,
        protected=runner.protected,
        locked=runner.locked,
        maximum_timeout=runner.maximum_timeout,
        token_expiration_interval=runner.token_expiration_interval,
        machines_forgotten_after=runner.machines_forgotten_after,
    )


def apply(runner: Runner, settings: RunnerSettings) -> None:
    """Give the runner these settings."""
    runner.description = settings.description.strip()
    runner.maintenance_note = settings.maintenance_note.strip()
    runner.tag_list = list(settings.tags)
    runner.run_untagged = settings.run_untagged
    runner.active = not settings.paused
    runner.access_level = AccessLevel.REF_PROTECTED if settings.protected else AccessLevel.NOT_PROTECTED
    runner.locked = settings.locked
    runner.maximum_timeout = settings.maximum_timeout
    runner.token_expiration_interval = settings.token_expiration_interval
    runner.machines_forgotten_after = settings.machines_forgotten_after


def facts(runner: Runner) -> dict[str, object]:
    """The settings as the trail names them."""
    return {
        "description": runner.description,
        "maintenance_note": runner.maintenance_note,
        "tags": list(runner.tag_list),
        "run_untagged": runner.run_untagged,
        "paused": runner.paused,
        "protected": runner.protected,
        "locked": runner.locked,
        "maximum_timeout": runner.maximum_timeout,
        "token_expiration_interval": runner.token_expiration_interval,
        "machines_forgotten_after": runner.machines_forgotten_after,
    }


def chosen(runner: Runner) -> dict[str, tuple[object, object]]:
    """The settings of a new runner as changes for the trail, without those that say nothing."""
    return {name: (None, value) for name, value in facts(runner).items() if value not in ("", None, [], False)}
