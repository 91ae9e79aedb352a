"""`python -m bench`: run all parts or the named ones, print each figure as it comes and all of them at the end."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from bench.figures import Figure, show
from bench.runs import Run

# Each is a module here, with a function figures(run).
PARTS = {
    "claims": "claims with short and very long queues, and beside a bare one in pgbench",
    "queue_day": "a day of the queue in minutes: size, dead rows, cost of a claim",
    "lists": "lists and pages of 100,000 runners: the median, the worst, deep ones, and what they ask the database",
    "polls": "immediate polls beside a bare Flask route, their queries and their heartbeats",
    "held_polls": "10,000 held polls: memory, wake-ups, idle cost, stop",
    "job_lists": "lists and pages of jobs, with a million jobs and 100,000 runners behind them",
    "trail": "the trail's pages with all filters, its exports and its check, with 10,000,000 events behind them",
    "page_weights": "what pages weigh on a first visit",
    "fleet": "fleets of up to 1,000,000 machines, simulated with figures measured here",
}


OF_URLS = ("polls",)  # parts that can measure servers that run already


class Part(Protocol):
    """A module of this package that measures something."""

    def figures(self, run: Run) -> Iterator[Figure]: ...


def main(arguments: list[str] | None = None) -> int:
    """Run the parts. Returns 1 when a figure missed its target or a part could not be measured."""
    asked = _parser().parse_args(arguments)
    unknown = [name for name in asked.names if name not in PARTS]
    if unknown:
        print(f"There is no part {', '.join(unknown)}; there are {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    if wrong := _misplaced(asked):
        print(wrong, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped, as after Ctrl-C
    run = Run(full=asked.full, urls=tuple(asked.url), tokens=tuple(asked.tokens))
    taken: list[Figure] = []
    try:
        whole = [_measure(run, name, taken) for name in asked.names or PARTS]
    finally:
        run.close()
    show(taken)
    return 0 if all(whole) and all(figure.ok for figure in taken) else 1


def _misplaced(asked: argparse.Namespace) -> str:
    """What is wrong with --url and --tokens, in a sentence; empty when they are of use to every part asked for."""
    if not asked.url and not asked.tokens:
        return ""
    others = [name for name in asked.names or PARTS if name not in OF_URLS]
    if others:
        parts = " ".join(OF_URLS)
        return (
            f"--url and --tokens are read by {parts} only; {', '.join(others)} would measure a portal of their own. "
            f"Name the part: python -m bench {parts} --url …"
        )
    return "" if asked.url else "--tokens are for the servers of --url, and none is given."


def _measure(run: Run, name: str, taken: list[Figure]) -> bool:
    """Add a part's figures to those taken. False when it broke; the other parts are measured all the same."""
    run.say(f"{name}: {PARTS[name]}")
    try:
        part = cast(Part, import_module(f"bench.{name}"))
        for figure in part.figures(run):
            taken.append(figure)
            print(figure.line(), flush=True)
    except Exception:
        traceback.print_exc()
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    words = "\n".join(f"  {name:12} {sentence}" for name, sentence in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure what the portal costs.",
        epilog=f"parts:\n{words}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="part", help="the parts to run; all unless named")
    parser.add_argument(
        "--full", action="store_true", default=os.environ.get("BENCH") == "full", help="the long form; BENCH=full too"
    )
    parser.add_argument(
        "--url",
        action="append",
        default=[],
        help="a running server to measure, by the part polls only; several are measured side by side",
    )
    parser.add_argument(
        "--tokens",
        action="append",
        type=Path,
        default=[],
        help="a file with a runner's token on each line for the servers of --url: one for all, or one for each",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
