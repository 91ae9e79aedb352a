"""The one change that would cost least and let a runner take a job that none can take now. Pure."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from portal.domain.jobs.job_matching import Demand, Obstacle, Offer, obstacle
from portal.domain.jobs.obstacle_words import Likeness, counted, is_slip, listed, quoted

MOST_TRIED = 20  # ways of writing the tags, or tags to add


class Change(enum.StrEnum):
    """What is changed, the cheapest first."""

    TAGS = "change_tags"
    RESUME = "resume_runner"
    INSTANCE_RUNNERS = "turn_on_instance_runners"
    GROUP_RUNNERS = "turn_on_group_runners"
    PROTECTED_REF = "use_protected_ref"
    ADD_TAG = "add_tag"
    RUN_UNTAGGED = "let_runner_take_untagged"
    DROP_TAGS = "drop_tags"


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change, in a sentence, with the numbers of the runners that take the job then.

    `demand` is what the job asks then, and `runner_id` whose settings are changed, if it is a runner's.
    """

    change: Change
    sentence: str
    runner_ids: tuple[int, ...]
    demand: Demand
    runner_id: int | None = None


def cheapest(
    job: Demand, offers: Sequence[Offer], likeness: Likeness, titles: Mapping[int, str], *, ref: str = ""
) -> Remedy | None:
    """The cheapest change after which one of these runners takes the job; None when no single one does.

    `titles` are what the runners are called. Nothing else is asked: who sees few runners hears of those alone.
    """
    ways: list[Callable[[], Remedy | None]] = [
        lambda: _other_tags(job, offers, likeness),
        lambda: _of_runner(job, offers, titles, Change.RESUME),
        lambda: _switch(job, offers, Change.INSTANCE_RUNNERS),
        lambda: _switch(job, offers, Change.GROUP_RUNNERS),
        lambda: _protected(job, offers, ref),
        lambda: _one_more_tag(job, offers),
        lambda: _of_runner(job, offers, titles, Change.RUN_UNTAGGED),
        lambda: _fewer_tags(job, offers),
    ]
    return next((found for way in ways if (found := way()) is not None), None)


def takers(job: Demand, offers: Sequence[Offer]) -> tuple[int, ...]:
    """The numbers of those that may take it."""
    return tuple(each.runner_id for each in offers if obstacle(job, each) is None)


def _best(job: Demand, offers: Sequence[Offer], ways: Iterator[frozenset[str]]) -> tuple[Demand, tuple[int, ...]]:
    """The tags, of these ways to write them, with which most runners take the job."""
    tried = [replace(job, tags=tags) for tags in dict.fromkeys(ways)]
    found = [(demand, takers(demand, offers)) for demand in tried]
    return max(found, key=lambda each: len(each[1]), default=(job, ()))


def _other_tags(job: Demand, offers: Sequence[Offer], likeness: Likeness) -> Remedy | None:
    """Tags that somebody mistyped, as a runner has them."""

    def ways() -> Iterator[frozenset[str]]:
        common = Counter(filter(None, (_corrected(job, offer, likeness) for offer in offers)))
        return (tags for tags, _ in common.most_common(MOST_TRIED))

    demand, found = _best(job, offers, ways())
    if not found:
        return None
    gone, new = sorted(job.tags - demand.tags), sorted(demand.tags - job.tags)
    if len(gone) == len(new) == 1:
        one = f"Change the tag {quoted(gone[0])} to {quoted(new[0])}"
    else:
        one = f"Change the tags {listed(list(map(quoted, gone)))} to {listed(list(map(quoted, new)))}"
    return Remedy(Change.TAGS, f"{one}, and {_take(found)}.", found, demand)


def _corrected(job: Demand, offer: Offer, likeness: Likeness) -> frozenset[str] | None:
    """The job's tags, those that the runner lacks written as it writes them; None when it lacks more than that."""
    missing = job.tags - offer.tags
    near = {tag: likeness.nearest(tag, offer.tags) for tag in missing}
    if not missing or not all(found and is_slip(tag, found) for tag, found in near.items()):
        return None
    return (job.tags & offer.tags) | frozenset(filter(None, near.values()))


def _of_runner(job: Demand, offers: Sequence[Offer], titles: Mapping[int, str], change: Change) -> Remedy | None:
    """Something that is changed at one runner."""
    resumed = change is Change.RESUME
    changed = [replace(each, paused=False) if resumed else replace(each, run_untagged=True) for each in offers]
    found = takers(job, changed)
    if not found:
        return None
    name = quoted(titles.get(found[0], f"Runner #{found[0]}"))
    what = f"Resume {name}" if resumed else f"Let {name} take untagged jobs"
    others = len(found) - 1
    would = "would too, if it were resumed" if resumed else "would too, if it took untagged jobs"
    if others > 1:
        would = would.replace("it were", "they were").replace("it took", "they took")
    more = f" {counted(others, 'other')} {would}." if others else ""
    return Remedy(change, f"{what}, and it takes the job.{more}", found[:1], job, found[0])


def _switch(job: Demand, offers: Sequence[Offer], change: Change) -> Remedy | None:
    instance = change is Change.INSTANCE_RUNNERS
    demand = replace(job, instance_runners=True) if instance else replace(job, group_runners=True)
    found = takers(demand, offers)
    kind = "instance" if instance else "group"
    sentence = f"Let {kind} runners take the project’s jobs, in its job settings, and {_take(found)}."
    return Remedy(change, sentence, found, demand) if found else None


def _protected(job: Demand, offers: Sequence[Offer], ref: str) -> Remedy | None:
    demand = replace(job, ref_protected=True)
    found = takers(demand, offers)
    if not found:
        return None
    add = f"add {quoted(ref)} to the project’s protected refs and run it again" if ref else "protect its ref"
    return Remedy(Change.PROTECTED_REF, f"Run it on a protected ref, or {add}, and {_take(found)}.", found, demand)


def _one_more_tag(job: Demand, offers: Sequence[Offer]) -> Remedy | None:
    """A tag for a job that has none."""
    if job.tags:
        return None
    refuse = [each for each in offers if obstacle(job, each) is Obstacle.UNTAGGED]
    common = Counter(tag for each in refuse for tag in each.tags).most_common(MOST_TRIED)
    demand, found = _best(job, offers, (frozenset({tag}) for tag, _ in common))
    if not found:
        return None
    return Remedy(
        Change.ADD_TAG, f"Give it the tag {quoted(next(iter(demand.tags)))}, and {_take(found)}.", found, demand
    )


def _fewer_tags(job: Demand, offers: Sequence[Offer]) -> Remedy | None:
    lacking = (job.tags & offer.tags for offer in offers)
    fewest = sorted({tags for tags in lacking if tags != job.tags}, key=lambda tags: (-len(tags), sorted(tags)))
    for tags in fewest[:MOST_TRIED]:
        demand = replace(job, tags=tags)
        if found := takers(demand, offers):
            gone = sorted(job.tags - tags)
            words = f"Without the tag{'' if len(gone) == 1 else 's'} {listed(list(map(quoted, gone)))}"
            return Remedy(Change.DROP_TAGS, f"{words} {_take(found)}.", found, demand)
    return None


def _take(found: Sequence[int]) -> str:
    return f"{counted(len(found))} {'takes' if len(found) == 1 else 'take'} it"
