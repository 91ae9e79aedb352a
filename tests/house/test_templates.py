"""The templates: no inline script or style, so that the Content-Security-Policy can stay strict."""

import re
from pathlib import Path

import pytest

from portal.config import ROOT
from portal.web.pages import CONTENT_SECURITY_POLICY
from tests.house.trees import modules, name_of, templates

ELSEWHERE = r"<(script|link|img|iframe)\b[^>]*(src|href)\s*=\s*[\"'](https?:)?//"
EVALUATED = r"hx-(vals|headers|vars)\s*=\s*[\"']js:|hx-trigger\s*=\s*[\"']([^\"']*,)?\s*\w+\["
INLINE = {
    "a script of its own": re.compile(r"<script(?![^>]*\ssrc=)[^>]*>", re.I),
    "a style element": re.compile(r"<style\b", re.I),
    "a style attribute": re.compile(r"[\s\"']style\s*=", re.I),
    "an on… attribute": re.compile(r"<[^>]*[\s\"']on[a-z]+\s*=", re.I),
    "an hx-on attribute": re.compile(r"\bhx-on\b", re.I),
    "evaluated htmx": re.compile(EVALUATED, re.I),
    "a javascript address": re.compile(r"javascript:", re.I),
    "an address of somebody else": re.compile(ELSEWHERE, re.I),
}


@pytest.mark.parametrize("path", templates(), ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_a_template_has_nothing_inline(path: Path) -> None:
    text = path.read_text()
    assert {what for what, pattern in INLINE.items() if pattern.search(text)} == set()


@pytest.mark.parametrize("path", modules("web"), ids=name_of)
def test_no_markup_in_the_code_has_anything_inline(path: Path) -> None:
    text = path.read_text()
    assert {what for what, pattern in INLINE.items() if pattern.search(text)} == set()


@pytest.mark.parametrize(
    ("what", "html"),
    [
        ("a script of its own", "<script>x()</script>"),
        ("a script of its own", '<script type="module">'),
        ("a style element", "<style>"),
        ("a style attribute", '<p class="a" style="color: red">'),
        ("an on… attribute", '<button type="button"\n onclick="x()">'),
        ("an hx-on attribute", '<p hx-on:click="x()">'),
        ("evaluated htmx", """<p hx-vals='js:{a: 1}'>"""),
        ("evaluated htmx", """<p hx-trigger="every 2s, click[ctrlKey]">"""),
        ("a javascript address", '<a href="javascript:x()">'),
        ("an address of somebody else", '<script src="https://example.com/x.js"></script>'),
    ],
)
def test_these_patterns_find_what_they_forbid(what: str, html: str) -> None:
    assert INLINE[what].search(html)


def test_these_patterns_let_pass_what_is_fine() -> None:
    fine = (
        '<script src="{{ asset(\'portal.js\') }}" defer></script> <link rel="stylesheet" href="/static/portal.css">'
    )
    fine += '<input name="online" value="a"> on = 1; <p hx-trigger="every 2s, change from:find input[type=search]">'
    assert not [what for what, pattern in INLINE.items() if pattern.search(fine)]


def test_the_policy_allows_nothing_inline_and_nobody_elses() -> None:
    assert "default-src 'self'" in CONTENT_SECURITY_POLICY
    assert not re.search(r"unsafe|https?:|\*", CONTENT_SECURITY_POLICY)


@pytest.mark.parametrize("path", templates(), ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_nothing_is_marked_as_safe_by_hand(path: Path) -> None:
    assert not re.search(r"\|\s*safe\b|autoescape\s+false", path.read_text())
