"""`/version` and `/metadata`: which version of GitLab's contract this is."""

from __future__ import annotations

from portal.api.for_users.door import operation
from portal.api.for_users.operations import Nothing, Shape
from portal.requests import portal_url

# Tools choose what to do by it: the version of GitLab whose contract we answer (reference/rest.md, "18.x+").
GITLAB = "18.6.0"
REVISION = "runner-portal"


class Version(Shape):
    """What GitLab's clients ask for first."""

    version: str
    revision: str


class AgentServer(Shape):
    """The agent server, which there is none of here."""

    enabled: bool
    externalUrl: str | None  # noqa: N815  (GitLab's name)
    externalK8sProxyUrl: str | None  # noqa: N815
    version: str | None


class Metadata(Version):
    """The same with what else there is to know."""

    kas: AgentServer
    enterprise: bool
    web_url: str


@operation("GET", "/version", room="Metadata")
def version(_given: Nothing) -> Version:
    """The version of GitLab whose contract this portal answers."""
    return Version(version=GITLAB, revision=REVISION)


@operation("GET", "/metadata", room="Metadata")
def metadata(_given: Nothing) -> Metadata:
    """The same with what else tools ask for."""
    none = AgentServer(enabled=False, externalUrl=None, externalK8sProxyUrl=None, version=None)
    return Metadata(version=GITLAB, revision=REVISION, kas=none, enterprise=False, web_url=portal_url())
