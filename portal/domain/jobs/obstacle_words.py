"""The rules of matching in words: why a runner may not take a job, and what would change that. Pure.

Source of the rules: job_matching.py. What is said here is judged by those rules alone: a change is only proposed when
they let a runner take the job afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher

from portal.domain.jobs.job_matching import Demand, Obstacle, Offer, obstacle
from portal.models import RunnerType

LIKE = 0.6  # of 1: tags less alike than that have nothing to do with each other
SHORTEST_SLIP = 4  # characters; shorter tags that differ in one are different words, as gpu and cpu
MOST_COMPARED = 5000  # pairs of tags for one answer; what comes later is compared no more
LONGEST_COMPARED = 64  # characters of a tag


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a runner may not take a job, and what would change that.

    `nearest_tags` has each tag that the runner lacks, with the one of its own that looks most like it, or None.
    """

    code: Obstacle
    message: str
    change: str
    nearest_tags: Mapping[str, str | None] = field(default_factory=dict)


class Likeness:
    """Which tags look like which. Pairs are compared once, and only so many of them."""

    def __init__(self) -> None:
        self._alike: dict[tuple[str, str], float] = {}

    def nearest(self, wanted: str, tags: Iterable[str]) -> str | None:
        """The tag that looks most like the wanted one, the first of several by name; None when none does."""
        best = max(((self._ratio(wanted, each), each) for each in sorted(tags, reverse=True)), default=(0.0, ""))
        return best[1] if best[0] >= LIKE else None

    def _ratio(self, wanted: str, tag: str) -> float:
        pair = (wanted, tag)
        if pair not in self._alike:
            if len(self._alike) >= MOST_COMPARED:
                return 0.0
            self._alike[pair] = _alike(wanted.casefold()[:LONGEST_COMPARED], tag.casefold()[:LONGEST_COMPARED])
        return self._alike[pair]


def _alike(one: str, other: str) -> float:
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    if matcher.real_quick_ratio() < LIKE or matcher.quick_ratio() < LIKE:
        return 0.0
    return 1.0 if is_slip(one, other) else matcher.ratio() * 0.99  # a slip of the finger before everything else


def is_slip(one: str, other: str) -> bool:
    """Whether two tags differ by one slip: a letter too many, another letter, two that changed places, or the case.

    Digits are no slips (linux-1 is not linux-2), nor are very short words.
    """
    one, other = one.casefold(), other.casefold()
    if one == other:
        return True
    if min(len(one), len(other)) < SHORTEST_SLIP:
        return False
    while one and other and one[0] == other[0]:
        one, other = one[1:], other[1:]
    while one and other and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    if any(each.isdigit() for each in one + other):
        return False
    return max(len(one), len(other)) == 1 or (len(one) == 2 and one == other[::-1])


def reason(job: Demand, runner: Offer, code: Obstacle, likeness: Likeness, ref: str = "") -> Reason:
    """What to say of this obstacle, and whether another one is behind it. `ref` is the job's, where it is known."""
    first, behind = _reason(job, runner, code, likeness, ref), _behind(job, runner, code)
    if behind is None:
        return first
    then = _reason(job, runner, behind, likeness, ref)
    also = then.message[0].lower() + then.message[1:]
    return Reason(code, first.message, f"{first.change} That alone would not do: {also}", then.nearest_tags)


def _behind(job: Demand, runner: Offer, code: Obstacle) -> Obstacle | None:
    """The next rule that fails when this one is seen to."""
    match code:
        case Obstacle.PAUSED:
            return obstacle(job, replace(runner, paused=False))
        case Obstacle.REF_NOT_PROTECTED:
            return obstacle(replace(job, ref_protected=True), runner)
        case Obstacle.INSTANCE_RUNNERS_OFF:
            return obstacle(replace(job, instance_runners=True), runner)
        case Obstacle.GROUP_RUNNERS_OFF:
            return obstacle(replace(job, group_runners=True), runner)
    return None


def _reason(job: Demand, runner: Offer, code: Obstacle, likeness: Likeness, ref: str) -> Reason:
    if code is Obstacle.TAGS_MISSING:
        return _tags_missing(job, runner, likeness)
    if code is Obstacle.UNTAGGED:
        return _untagged(runner)
    if code is Obstacle.REF_NOT_PROTECTED:
        return _not_protected(ref)
    message, change = _SAID.get(code) or _OUT_OF_REACH[runner.type]
    return Reason(code, message, change)


_SAID = {
    Obstacle.CHECKS_ANOTHER: (
        "The job is a check of another runner, or of another machine.",
        "Check this runner instead.",
    ),
    Obstacle.INSTANCE_RUNNERS_OFF: (
        "The project takes no instance runners.",
        "Let instance runners take its jobs, in the project’s job settings.",
    ),
    Obstacle.GROUP_RUNNERS_OFF: (
        "The project takes no group runners.",
        "Let group runners take its jobs, in the project’s job settings.",
    ),
    Obstacle.PAUSED: ("It is paused.", "Resume it."),
}
_OUT_OF_REACH = {
    RunnerType.INSTANCE: ("It is out of reach.", "Let instance runners take the project’s jobs."),
    RunnerType.GROUP: (
        "It belongs to a group that the project is not in.",
        "Use a runner of the project, of a group above it, or of the instance.",
    ),
    RunnerType.PROJECT: ("It serves other projects.", "Assign it to this project too."),
}


def _tags_missing(job: Demand, runner: Offer, likeness: Likeness) -> Reason:
    missing = sorted(job.tags - runner.tags)
    nearest = {tag: likeness.nearest(tag, runner.tags - job.tags) for tag in missing}
    one = len(missing) == 1
    named = listed([_with_nearest(tag, nearest[tag]) for tag in missing])
    near = {tag: found for tag, found in nearest.items() if found is not None}
    words = f"the tag{'' if one else 's'} {listed([quoted(tag) for tag in missing])}"
    if len(near) == len(missing):
        instead = listed([f"{quoted(found)} in place of {quoted(tag)}" for tag, found in near.items()])
        change = f"Give the job {instead}, or the runner {words}."
    else:
        change = f"Give the runner {words}, or run the job without."
    return Reason(Obstacle.TAGS_MISSING, f"It lacks the tag{'' if one else 's'} {named}.", change, nearest)


def _with_nearest(tag: str, nearest: str | None) -> str:
    return f"{quoted(tag)} (its nearest is {quoted(nearest)})" if nearest is not None else quoted(tag)


def _untagged(runner: Offer) -> Reason:
    tags = [quoted(tag) for tag in sorted(runner.tags)[:3]]
    given = f"Give the job one of its tags, such as {' or '.join(tags)}" if tags else "Give the job a tag"
    return Reason(
        Obstacle.UNTAGGED,
        "The job has no tags, and it takes tagged jobs only.",
        f"{given}, or let the runner take untagged jobs.",
    )


def _not_protected(ref: str) -> Reason:
    which = f"{quoted(ref)} does not count as protected" if ref else "the job’s ref is not"
    add = f"add {quoted(ref)} to the project’s protected refs" if ref else "add its ref to the protected ones"
    return Reason(
        Obstacle.REF_NOT_PROTECTED,
        f"It takes jobs on protected refs only, and {which}.",
        f"Run the job on a protected ref, {add} and run it again, or let the runner take any ref.",
    )


def quoted(text: str) -> str:
    """As the pages quote what people wrote."""
    return f"“{text}”"


def listed(parts: list[str]) -> str:
    """As a sentence lists them: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1] if parts else ""]))


def counted(number: int, noun: str = "runner") -> str:
    """A number with its noun: "1 runner", "3 runners"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
