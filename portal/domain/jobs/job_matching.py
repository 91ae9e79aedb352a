"""May this runner take this job, and if not, why? Pure rules; the claiming query answers the same.

Source of the rules: design/product.md "Jobs", reference/rest.md section 7.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from portal.models import QueueScope, RunnerType


@dataclass(frozen=True, slots=True)
class Demand:
    """What a pending job asks of a runner.

    `project_id` is None for a check, which `runner_id` alone may take, and of its machines only `system_xid` where it
    is aimed at one. `group_ids` are the groups above the project, the top one first.
    """

    tags: frozenset[str] = frozenset()
    ref_protected: bool = False
    project_id: int | None = None
    group_ids: tuple[int, ...] = ()
    instance_runners: bool = True
    group_runners: bool = True
    runner_id: int | None = None
    system_xid: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """What a runner takes. `project_ids` are all projects that a project runner serves, its owner too."""

    runner_id: int
    type: RunnerType
    tags: frozenset[str] = frozenset()
    run_untagged: bool = True
    protected: bool = False
    paused: bool = False
    group_id: int | None = None
    project_ids: frozenset[int] = frozenset()

    def takes(self, tags: frozenset[str], ref_protected: bool) -> bool:
        """Whether it takes jobs with these tags on such a ref, wherever they are."""
        return tags <= self.tags and (bool(tags) or self.run_untagged) and (ref_protected or not self.protected)

    def scopes(self) -> list[tuple[QueueScope, int]]:
        """Through what it finds the jobs of projects."""
        if self.type is RunnerType.INSTANCE:
            return [(QueueScope.INSTANCE, 0)]
        if self.type is RunnerType.GROUP:
            return [(QueueScope.GROUP, self.group_id or 0)]
        return [(QueueScope.PROJECT, project_id) for project_id in sorted(self.project_ids)]


class Obstacle(enum.StrEnum):
    """The rules, in the order in which they are looked at."""

    CHECKS_ANOTHER = "checks_another"  # the job is a check of another runner, or of another of its machines
    OUT_OF_REACH = "out_of_reach"  # the runner belongs to a group or project that the job's project is not in
    INSTANCE_RUNNERS_OFF = "instance_runners_off"
    GROUP_RUNNERS_OFF = "group_runners_off"
    PAUSED = "paused"
    REF_NOT_PROTECTED = "ref_not_protected"
    UNTAGGED = "untagged"  # the job has no tags, and the runner takes none such
    TAGS_MISSING = "tags_missing"


def obstacle(job: Demand, runner: Offer, system_xid: str | None = None) -> Obstacle | None:
    """The first rule by which the runner may not take the job; None when it may.

    `system_xid` is of the machine that asks; None leaves open which one does.
    """
    if job.runner_id is not None:
        return _of_check(job, runner, system_xid)
    if unreachable := _reach(job, runner):
        return unreachable
    if runner.paused:
        return Obstacle.PAUSED
    if runner.protected and not job.ref_protected:
        return Obstacle.REF_NOT_PROTECTED
    if not job.tags and not runner.run_untagged:
        return Obstacle.UNTAGGED
    return Obstacle.TAGS_MISSING if job.tags - runner.tags else None


def _of_check(job: Demand, runner: Offer, system_xid: str | None) -> Obstacle | None:
    """A check asks whether the machine works, not what it is for: tags and protection do not count."""
    if job.runner_id != runner.runner_id:
        return Obstacle.CHECKS_ANOTHER
    if job.system_xid is not None and system_xid is not None and job.system_xid != system_xid:
        return Obstacle.CHECKS_ANOTHER
    return Obstacle.PAUSED if runner.paused else None


def _reach(job: Demand, runner: Offer) -> Obstacle | None:
    if runner.type is RunnerType.PROJECT:
        return None if job.project_id in runner.project_ids else Obstacle.OUT_OF_REACH
    if runner.type is RunnerType.GROUP:
        if runner.group_id not in job.group_ids:
            return Obstacle.OUT_OF_REACH
        return None if job.group_runners else Obstacle.GROUP_RUNNERS_OFF
    return None if job.instance_runners else Obstacle.INSTANCE_RUNNERS_OFF


def queue_scopes(job: Demand) -> Iterable[tuple[QueueScope, int]]:
    """Through what runners find the job, the widest first."""
    if job.runner_id is not None:
        return [(QueueScope.RUNNER, job.runner_id)]
    found: list[tuple[QueueScope, int]] = [(QueueScope.INSTANCE, 0)] if job.instance_runners else []
    if job.group_runners:
        found += [(QueueScope.GROUP, group_id) for group_id in job.group_ids]
    return [*found, (QueueScope.PROJECT, job.project_id or 0)]
