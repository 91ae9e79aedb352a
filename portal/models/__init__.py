"""What is stored. Import models from here: so every table is known before the first query."""

from portal.models.audit_event import AuditEvent
from portal.models.group import Group
from portal.models.membership import Membership, Role
from portal.models.project import Project
from portal.models.registration_token import RegistrationToken
from portal.models.route import Route
from portal.models.runner import AccessLevel, CreationState, RegistrationType, Runner, RunnerType
from portal.models.runner_manager import EXECUTORS, LEGACY, Executor, RunnerManager
from portal.models.runner_token import RunnerToken, TokenOrigin
from portal.models.scope_settings import REGISTRARS, GroupSettings, InstanceSettings, ProjectSettings
from portal.models.user import User

__all__ = [
    "EXECUTORS",
    "LEGACY",
    "REGISTRARS",
    "AccessLevel",
    "AuditEvent",
    "CreationState",
    "Executor",
    "Group",
    "GroupSettings",
    "InstanceSettings",
    "Membership",
    "Project",
    "ProjectSettings",
    "RegistrationToken",
    "RegistrationType",
    "Role",
    "Route",
    "Runner",
    "RunnerManager",
    "RunnerToken",
    "RunnerType",
    "TokenOrigin",
    "User",
]
