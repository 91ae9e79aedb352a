"""Acts of many kinds, each done again and again by a thread of its own, to see whether any two block each other."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from portal.domain.errors import LostRace, Refusal


class AllAtOnce:
    """What was done how often, and what failed; a refusal is no failure."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.did: Counter[str] = Counter()
        self.failures: list[str] = []

    def keep_doing(self, act: Callable[[Session, random.Random], object], until: float) -> threading.Thread:
        """Do it in a thread, each time in a transaction of its own, until then or until something failed."""
        chance = random.Random(act.__name__)  # noqa: S311

        def run() -> None:
            while time.monotonic() < until and not self.failures:
                with Session(self.engine) as session:
                    try:
                        act(session, chance)
                        session.commit()
                        self.did[act.__name__] += 1
                    except LostRace:  # what could not be run by anybody has failed by then
                        session.commit()
                    except Refusal:
                        session.rollback()
                    except Exception as failure:
                        self.failures.append(f"{act.__name__}: {failure!r}")

        thread = threading.Thread(target=run)
        thread.start()
        return thread
