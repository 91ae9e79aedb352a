"""A script written as one text: which of its lines are commands of their own.

A runner runs the entries of a script one by one and writes each into the log first. So a line that goes on in the
next must not be an entry of its own: what the runner puts between two entries would land in the middle of it.
"""

from __future__ import annotations

import re
import shlex

_GOES_ON = re.compile(r"(\\|\||&&|\(|\{|\[|;;|`)\s*$")
_INDENTED = re.compile(r"^\s")
_HERE = re.compile(r"<<-?\s*[\"'\\]?\w")
# Words of shells and PowerShell that open, divide or close something of several lines.
_BLOCK = re.compile(
    r"^(if|then|elif|else|elseif|fi|for|foreach|while|until|do|done|case|esac|select|function|try|catch|finally|switch"
    r"|begin|process|end)\b|^[})\]@]|^\w[\w-]*\s*\(\)",
    re.IGNORECASE,
)


def commands(text: str) -> tuple[str, ...]:
    """The entries of the script: its lines, or all of it as one entry when a line does not stand on its own.

    Empty lines at the end are left out, and line ends of any kind are read.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) < 2 or all(_stands_alone(line) for line in lines):
        return tuple(lines)
    return ("\n".join(lines),)


def _stands_alone(line: str) -> bool:
    if not line.strip():
        return True
    if _INDENTED.search(line) or _GOES_ON.search(line) or _HERE.search(line) or _BLOCK.search(line):
        return False
    try:
        shlex.split(line, comments=True)
    except ValueError:  # a quotation that is not closed
        return False
    return True
