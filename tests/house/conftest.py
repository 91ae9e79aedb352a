"""What the tests of the house share: passwords that cost little to hash, so that the cast is on stage at once."""

import pytest
from argon2 import PasswordHasher

from portal.domain import accounts


@pytest.fixture(autouse=True)
def _cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same Argon2 with its smallest cost; tests/domain/test_accounts.py looks at the real one."""
    monkeypatch.setattr(accounts, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
