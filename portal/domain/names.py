"""What groups, projects and people may be called: GitLab's rules, with our own reserved words."""

from __future__ import annotations

import re

PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
# Letters and digits of any script, emoji and a few signs; GitLab's rule for display names.
NAME = re.compile(
    r"[\w\U0001F000-\U0010FFFF\u2600-\u27BF](?:[\w\U0001F000-\U0010FFFF\u2600-\u27BF .()+\-\u200d\ufe0f])*"
)

# First segments that pages, files or the API of this portal (or of GitLab, so that people can move) use.
RESERVED_AT_THE_TOP = frozenset(
    [
        "-",
        ".well-known",
        "404.html",
        "422.html",
        "500.html",
        "502.html",
        "503.html",
        "admin",
        "api",
        "apple-touch-icon.png",
        "assets",
        "dashboard",
        "deploy.html",
        "explore",
        "favicon.ico",
        "favicon.png",
        "files",
        "groups",
        "health_check",
        "healthz",
        "help",
        "import",
        "jwt",
        "login",
        "metrics",
        "oauth",
        "profile",
        "projects",
        "public",
        "readyz",
        "robots.txt",
        "s",
        "search",
        "sitemap",
        "sitemap.xml",
        "sitemap.xml.gz",
        "slash-command-logo.png",
        "snippets",
        "static",
        "unsubscribe",
        "uploads",
        "users",
        "v2",
    ]
)
# Words GitLab keeps for pages below a group or a project.
RESERVED_BELOW = frozenset(
    [
        "-",
        "badges",
        "blame",
        "blob",
        "builds",
        "commits",
        "create",
        "create_dir",
        "edit",
        "files",
        "find_file",
        "new",
        "preview",
        "raw",
        "refs",
        "tree",
        "update",
        "wikis",
    ]
)


def path_problems(path: str, *, at_the_top: bool) -> list[str]:
    """What is wrong with one segment of a path; empty when nothing is."""
    if not path:
        return ["Choose a path."]
    problems = []
    if not PATH.fullmatch(path):
        problems.append(
            "Use letters, digits, '_', '-' and '.' only, at most 255, and start with a letter, a digit or '_'."
        )
    if path.endswith((".", ".git", ".atom")):
        problems.append("It cannot end in '.', '.git' or '.atom'.")
    reserved = RESERVED_AT_THE_TOP if at_the_top else RESERVED_BELOW
    if path.lower() in reserved:
        problems.append(f"'{path}' is reserved. Choose another path.")
    return problems


def name_problems(name: str) -> list[str]:
    """What is wrong with a display name; empty when nothing is."""
    if not name:
        return ["Choose a name."]
    if len(name) > 255:
        return ["It is too long: at most 255 characters."]
    if not NAME.fullmatch(name):
        return [
            "Start with a letter, a digit, an emoji or '_'; after that spaces, '.', '-', '+', '(' and ')' may follow."
        ]
    return []


def username_problems(username: str) -> list[str]:
    """What is wrong with a user name; empty when nothing is."""
    return [sentence.replace("path", "user name") for sentence in path_problems(username, at_the_top=True)]


def path_from(name: str) -> str:
    """A path to propose for a name: lower case, words joined by '-'."""
    return re.sub(r"[^a-z0-9_.]+", "-", name.lower()).strip("-.")
