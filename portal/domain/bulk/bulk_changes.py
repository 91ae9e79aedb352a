"""What one act does to each of many runners, and to which it may not."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from portal.domain import permissions
from portal.domain.actors import Actor
from portal.domain.errors import Invalid, NotAllowed, NotFound
from portal.domain.permissions import Action
from portal.domain.runners import runner_access, runner_settings
from portal.domain.runners.runner_settings import LONGEST_TAG, MOST_TAGS, RunnerSettings
from portal.domain.scopes import of_project, of_runner
from portal.models import Runner


class Act(enum.StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    TAGS = "tags"
    ACCESS = "access"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be done to each runner; `add` and `remove` are tags, `protected` the new access level."""

    act: Act
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    protected: bool = False

    def problems(self) -> dict[str, list[str]]:
        """What is wrong, by field; empty when nothing is."""
        if self.act is not Act.TAGS:
            return {}
        if not self.add and not self.remove:
            return {"add": ["Write a tag to add, or one to remove."]}
        found: dict[str, list[str]] = {}
        for name, tags in (("add", self.add), ("remove", self.remove)):
            if too_long := [tag for tag in tags if len(tag) > LONGEST_TAG]:
                found[name] = [f"A tag is too long (at most {LONGEST_TAG} characters): {too_long[0][:40]}…"]
            elif len(tags) > MOST_TAGS:
                found[name] = [f"Too many tags: {len(tags)}. Keep to {MOST_TAGS}."]
        if both := [tag for tag in self.add if tag in self.remove]:
            found.setdefault("remove", []).append(f"“{both[0]}” cannot be added and removed at once.")
        return found

    def applied(self, settings: RunnerSettings) -> RunnerSettings:
        """The settings of a runner after this; a deletion changes none."""
        if self.act in (Act.PAUSE, Act.RESUME):
            return replace(settings, paused=self.act is Act.PAUSE)
        if self.act is Act.ACCESS:
            return replace(settings, protected=self.protected)
        if self.act is Act.TAGS:
            kept = [tag for tag in settings.tags if tag not in self.remove]
            return replace(settings, tags=tuple(dict.fromkeys([*kept, *self.add])))
        return settings

    def told(self) -> dict[str, Any]:
        """How it is stored and stands on the trail."""
        if self.act is Act.TAGS:
            return {"add": list(self.add), "remove": list(self.remove)}
        return {"protected": self.protected} if self.act is Act.ACCESS else {}


class Rules:
    """The rules for one actor and some runners, whose roles and further projects are looked up together."""

    def __init__(self, session: Session, actor: Actor, wanted: Wanted, runners: Collection[Runner]) -> None:
        self.session, self.actor, self.wanted = session, actor, wanted
        self.further = runner_access.further_projects_of(session, runners)
        places = [of_runner(runner) for runner in runners]
        places += [of_project(project) for projects in self.further.values() for project in projects]
        permissions.remember_roles(session, actor, places)

    def allow(self, runner: Runner) -> tuple[RunnerSettings, RunnerSettings]:
        """The settings that the runner has and those it gets; a deletion changes none. Raises NotAllowed, Invalid.

        They are the rules of a single act, and asked in its functions.
        """
        further = self.further.get(runner.id, [])
        try:
            if self.wanted.act is Act.DELETE:
                runner_access.require_delete(self.session, self.actor, runner, further=further)
            else:
                runner_access.require(self.session, self.actor, Action.WRITE_RUNNERS, runner, further=further)
        except NotFound:  # it is inherited: the person sees the runner, though not the scope that owns it
            raise NotAllowed(
                f"This runner belongs to {of_runner(runner).title}: those who look after its runners may do that."
            ) from None
        old = runner_settings.settings_of(runner)
        new = self.wanted.applied(old)
        if problems := new.problems() if new is not old else {}:
            raise Invalid(problems)
        return old, new
