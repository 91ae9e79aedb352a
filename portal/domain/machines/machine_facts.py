"""What a machine tells of itself: its system ID and facts, read from a request, refused when they cannot be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from portal.domain.errors import BadRequest
from portal.models import EXECUTORS, LEGACY, Executor

LONGEST_SYSTEM_ID = 64
_LIMITS = {"version": 2048, "revision": 255, "platform": 255, "architecture": 255}
_MOST_ENTRIES = 256  # of features, config and labels
_LONGEST_ENTRY = 1024


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What `info` says of a machine; None where it says nothing."""

    version: str | None = None
    revision: str | None = None
    platform: str | None = None
    architecture: str | None = None
    executor_type: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, bool] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def read_system_id(value: object) -> str:
    """The system ID of a request; `<legacy>` when there is none. Raises BadRequest."""
    if value is None or value == "":
        return LEGACY
    if not isinstance(value, str) or len(value) > LONGEST_SYSTEM_ID or "\0" in value:
        raise BadRequest(f"system_id must be a text of at most {LONGEST_SYSTEM_ID} characters.")
    return value


def read_facts(info: object) -> MachineFacts | None:
    """The facts in a request's `info`; unknown keys are ignored. Raises BadRequest for what cannot be stored."""
    if info is None:
        return None
    if not isinstance(info, Mapping):
        raise BadRequest("info must be an object.")
    texts = {name: _read_text(info, name, limit) for name, limit in _LIMITS.items()}
    executor = _read_text(info, "executor", 255)
    return MachineFacts(
        **texts,
        executor_type=EXECUTORS.get(executor, Executor.UNKNOWN) if executor else None,
        config=_read_object(info, "config", (str, int, float, bool, type(None))),
        features=_read_object(info, "features", (bool, type(None))),
        labels=_read_object(info, "labels", (str,)),
    )


def _read_text(info: Mapping[str, Any], name: str, limit: int) -> str | None:
    value = info.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > limit or "\0" in value:
        raise BadRequest(f"info.{name} must be a text of at most {limit} characters.")
    return value


def _read_object(info: Mapping[str, Any], name: str, kinds: tuple[type, ...]) -> dict[str, Any]:
    value = info.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping) or len(value) > _MOST_ENTRIES:
        raise BadRequest(f"info.{name} must be an object with at most {_MOST_ENTRIES} entries.")
    for key, entry in value.items():
        if (
            not isinstance(entry, kinds)
            or len(key) > 255
            or len(str(entry)) > _LONGEST_ENTRY
            or "\0" in f"{key}{entry}"
        ):
            raise BadRequest(f"info.{name}.{key[:80]} has a value of a wrong type or length.")
    return dict(value)
