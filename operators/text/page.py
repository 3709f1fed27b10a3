"""One web page from bytes to text: what type it is, how it is encoded, what of it is prose.

The type is the server's; where it says none, or the bytes are plainly something else, the bytes decide, much as in
the WHATWG MIME Sniffing standard (7.1). The encoding is found in the order of the HTML standard (13.2.3.2): byte order
mark, HTTP header, `meta`, then statistics (uchardet). Text comes from resiliparse (Bevendorff et al., ECIR 2018) or
trafilatura (Barbaresi, ACL 2021). Runs in the child process of sandbox.py, so it imports little.
"""

from __future__ import annotations

import codecs
import re
from typing import Literal, NamedTuple

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, detect_mime, map_encoding_to_html5
from resiliparse.parse.html import HTMLParserException, HTMLTree

HTML = frozenset({"text/html", "application/xhtml+xml", "application/vnd.wap.xhtml+xml"})
XML = frozenset({"text/xml", "application/xml"})  # taken as HTML where an element html follows
UNDECLARED = frozenset({"", "unknown/unknown", "application/unknown", "*/*"})
UNTELLING = XML | {"text/plain", "text/html", "application/octet-stream"}  # what detect_mime says of mere text, too
SNIFFED_BYTES = 1445  # of the standard

BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s;\"']+)", re.IGNORECASE)
_TAG = re.compile(
    rb"(?:\xef\xbb\xbf)?[\t\n\f\r ]*<(?:!--|(?:!doctype html|html|head|body|script|iframe|style|title|meta|link"
    rb"|h[1-6]|div|span|font|table|ul|ol|p|a|b|br)[\t\n\f\r />])",
    re.IGNORECASE,
)
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_COUNTED = "corpusmill_counted"


class Settings(NamedTuple):
    """How pages are read."""

    method: Literal["resiliparse", "trafilatura"]
    main_content: bool
    favor_precision: bool


class Page(NamedTuple):
    """What a page holds, or the `problem` (a drop reason) that keeps it from being read."""

    problem: str = ""
    detail: str = ""
    text: str = ""
    title: str = ""
    decode_errors: int = 0  # malformed byte sequences that were replaced by U+FFFD


def read_page(payload: bytes, content_type: str, settings: Settings) -> Page:
    mime = content_type.partition(";")[0].strip().lower()
    found = media_type(payload, mime)
    if found not in HTML and found != "text/plain":
        return Page("not_html", found)
    text, errors = decode(payload, content_type)
    if found == "text/plain":
        return Page(text=text, decode_errors=errors)
    try:
        tree = HTMLTree.parse(text)
        title = " ".join((tree.title or "").split())
        if settings.method == "resiliparse":
            prose = extract_plain_text(tree, main_content=settings.main_content)
        else:
            prose = _trafilatura(text, settings.favor_precision)
    except HTMLParserException as error:  # any bytes are HTML: this parser fails only when it gets no memory
        raise MemoryError from error
    except Unreadable as error:
        return Page("unparseable", str(error), decode_errors=errors)
    return Page(text=prose, title=title, decode_errors=errors)


def media_type(payload: bytes, declared: str) -> str:
    """The media type that the page is read as: `declared`, unless the bytes contradict it or it says nothing."""
    magic: str = detect_mime(payload[:SNIFFED_BYTES])
    if magic not in UNTELLING:
        return magic
    if declared in XML or (declared in UNDECLARED and magic in XML):
        return "text/html" if b"<html" in payload[:SNIFFED_BYTES].lower() else declared or magic
    if declared not in UNDECLARED:
        return declared
    if _TAG.match(payload):
        return "text/html"
    marked = any(payload.startswith(bom) for bom, _ in BOMS)
    return "application/octet-stream" if not marked and _BINARY.search(payload[:SNIFFED_BYTES]) else "text/plain"


def decode(payload: bytes, content_type: str) -> tuple[str, int]:
    """The page's characters, and how many malformed sequences were replaced by U+FFFD in them."""
    encoding = _encoding(payload, content_type)
    for bom, name in BOMS:
        if payload.startswith(bom) and name == encoding:
            payload = payload[len(bom) :]
    try:
        return payload.decode(encoding), 0
    except UnicodeDecodeError:
        replacer = _Replacer()
        codecs.register_error(_COUNTED, replacer)
        return payload.decode(encoding, _COUNTED), replacer.count


def _encoding(payload: bytes, content_type: str) -> str:
    for bom, name in BOMS:
        if payload.startswith(bom):
            return name
    label = _CHARSET.search(content_type)
    stated: str | None = map_encoding_to_html5(label[1], fallback_utf8=False) if label else None
    encoding = stated or detect_encoding(payload, from_html_meta=True) or "utf-8"
    # UTF-16 without zero bytes is a wrong label, which the standard, too, reads as UTF-8.
    return "utf-8" if encoding.startswith("utf-16") and b"\0" not in payload[:SNIFFED_BYTES] else encoding


class _Replacer:
    """A codec error handler like "replace" that counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeDecodeError):
            raise error
        self.count += 1
        return "\N{REPLACEMENT CHARACTER}", error.end


class Unreadable(ValueError):
    """The extractor failed on a page."""


def _trafilatura(text: str, favor_precision: bool) -> str:
    from lxml.etree import LxmlError  # type: ignore[import-untyped]
    from trafilatura import extract

    # These are faults of the library on odd pages, so they belong to the page: nothing else runs in the block.
    # Its `deduplicate` is never used: it remembers earlier pages.
    try:
        return extract(text, favor_precision=favor_precision, include_comments=False, deduplicate=False) or ""
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, LxmlError) as error:
        raise Unreadable(type(error).__name__) from error
