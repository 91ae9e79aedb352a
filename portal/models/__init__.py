"""What is stored. Import models from here: so every table is known before the first query."""

from portal.models.access_token import AccessToken, TokenScope
from portal.models.audit_event import AuditEvent
from portal.models.audit_link import AuditLink
from portal.models.bulk_act import BulkAct
from portal.models.deletion import WITH_DELETED, Deletable, Deletion
from portal.models.enrolment_key import EnrolmentKey
from portal.models.group import Group
from portal.models.job import (
    Job,
    JobClass,
    JobDefinition,
    JobMachine,
    JobPartition,
    JobStatus,
    PendingJob,
    QueueScope,
    job_dependencies,
)
from portal.models.job_artifact import JobArtifact
from portal.models.job_log import JobLog, JobLogPiece
from portal.models.job_template import JobTemplate
from portal.models.membership import Membership, Role
from portal.models.project import Project
from portal.models.registration_token import RegistrationToken
from portal.models.route import Route
from portal.models.runner import AccessLevel, CreationState, RegistrationType, Runner, RunnerType
from portal.models.runner_manager import EXECUTORS, LEGACY, Executor, RunnerManager
from portal.models.runner_project import RunnerProject
from portal.models.runner_token import RunnerToken, TokenOrigin
from portal.models.scope_settings import (
    DEFAULT_JOB_TIMEOUT,
    REGISTRARS,
    GroupSettings,
    InstanceSettings,
    ProjectSettings,
)
from portal.models.second_factor import RecoveryCode, SecondFactor
from portal.models.sign_in_attempt import KnownNetwork, SignInAttempt
from portal.models.user import User
from portal.models.user_identity import UserIdentity
from portal.models.user_session import UserSession

__all__ = [
    "DEFAULT_JOB_TIMEOUT",
    "EXECUTORS",
    "LEGACY",
    "REGISTRARS",
    "WITH_DELETED",
    "AccessLevel",
    "AccessToken",
    "AuditEvent",
    "AuditLink",
    "BulkAct",
    "CreationState",
    "Deletable",
    "Deletion",
    "EnrolmentKey",
    "Executor",
    "Group",
    "GroupSettings",
    "InstanceSettings",
    "Job",
    "JobArtifact",
    "JobClass",
    "JobDefinition",
    "JobLog",
    "JobLogPiece",
    "JobMachine",
    "JobPartition",
    "JobStatus",
    "JobTemplate",
    "KnownNetwork",
    "Membership",
    "PendingJob",
    "Project",
    "ProjectSettings",
    "QueueScope",
    "RecoveryCode",
    "RegistrationToken",
    "RegistrationType",
    "Role",
    "Route",
    "Runner",
    "RunnerManager",
    "RunnerProject",
    "RunnerToken",
    "RunnerType",
    "SecondFactor",
    "SignInAttempt",
    "TokenOrigin",
    "TokenScope",
    "User",
    "UserIdentity",
    "UserSession",
    "job_dependencies",
]
