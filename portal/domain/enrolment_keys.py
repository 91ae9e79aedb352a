"""Enrolment keys: secrets that create runners in one scope, from one template, and can do nothing else."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import tokens
from portal.domain.errors import CredentialRefused
from portal.models import EnrolmentKey


def find(session: Session, text: str) -> EnrolmentKey:
    """The good key with this text. Raises CredentialRefused.

    What does not have the form, checksum included, is refused without a query.
    """
    if not tokens.is_of_people(text, tokens.ENROLMENT):
        raise CredentialRefused("Enrolment key was not found. Check it for a missing or mistyped character.")
    row = session.scalar(select(EnrolmentKey).where(EnrolmentKey.digest == tokens.digest(text)))
    if row is None:
        raise CredentialRefused("Enrolment key was not found. It may belong to another portal.")
    if row.revoked_at is not None:
        raise CredentialRefused("Enrolment key was revoked.")
    if row.expires_at <= now().date():
        raise CredentialRefused("Enrolment key is expired.")
    return row
