"""Pages go out compressed where nobody can learn a secret from their length (docs/decisions/0038)."""

from __future__ import annotations

import gzip

from flask import Response, request

from portal.requests import settings

SMALLEST = 1000  # bytes; below it there is nothing to gain
LEVEL = 5  # of 9: what the higher ones gain is less than they cost
OWN_SITE = ("same-origin", "none")  # a link or form of the portal, or an address that somebody typed or kept


def compress(response: Response) -> None:
    """Compress the page, unless it holds a secret or another site may have had the browser ask for it.

    Who watches the line and may have a page asked for again and again, with other guesses in its address, learns from
    the lengths what else stands on it. Browsers say who had them ask; over plain HTTP there is nothing left to learn.
    What a page asks for by itself counts as the other site's: it is the address that the page was opened with.
    """
    headers = response.headers
    if response.mimetype != "text/html" or response.is_streamed or request.method not in ("GET", "HEAD"):
        return
    response.vary.update(("Accept-Encoding", "Sec-Fetch-Site", "Sec-Fetch-Mode", "HX-Request"))
    secret = "no-store" in headers.get("Cache-Control", "")  # said by the view itself: secret_pages.unstored
    content = response.get_data()
    if secret or len(content) < SMALLEST or not _asked_for_here() or "Content-Encoding" in headers:
        return
    if request.accept_encodings.quality("gzip") > 0:
        response.set_data(gzip.compress(content, LEVEL, mtime=0))
        headers["Content-Encoding"] = "gzip"


def _asked_for_here() -> bool:
    headers = request.headers
    if "HX-Request" in headers:
        return False
    site = headers.get("Sec-Fetch-Site", "")
    if site:
        return site in OWN_SITE and headers.get("Sec-Fetch-Mode") == "navigate"
    return not settings().over_https
