from __future__ import annotations

import codecs

import pytest

from operators.text.page import Settings, decode, media_type, read_page

ALL = Settings("resiliparse", main_content=False, favor_precision=False)


@pytest.mark.parametrize(
    ("payload", "declared", "found"),
    [
        (b"<p>a", "text/html", "text/html"),
        (b"<p>a", "text/plain", "text/plain"),
        (b"  <!DOCTYPE HTML><p>", "", "text/html"),
        (b"\xef\xbb\xbf<div class=x>", "", "text/html"),
        (b"<!-- x --><p>", "", "text/html"),
        (b"<pre-release>", "", "text/plain"),
        (b"plain words", "", "text/plain"),
        (b"caf\xe9", "", "text/plain"),
        (b"\x00\x01\x02", "", "application/octet-stream"),
        (codecs.BOM_UTF16_LE + "hello".encode("utf-16-le"), "", "text/plain"),
        (b"%PDF-1.4", "text/html", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n", "", "image/png"),
        (b'{"a": 1}', "application/json", "application/json"),
        (b'<?xml version="1.0"?><html xmlns="x">', "application/xml", "text/html"),
        (b'<?xml version="1.0"?><html xmlns="x">', "", "text/html"),
        (b'<?xml version="1.0"?><rss>', "text/xml", "text/xml"),
        (b"", "", "text/plain"),
    ],
)
def test_media_type(payload: bytes, declared: str, found: str) -> None:
    assert media_type(payload, declared) == found


@pytest.mark.parametrize(
    ("payload", "content_type", "text", "errors"),
    [
        ("café".encode(), "text/html; charset=UTF-8", "café", 0),
        ("café".encode("latin-1"), 'text/html; Charset="ISO-8859-1"', "café", 0),
        (b"\x93x\x94", "text/html; charset=iso-8859-1", "\u201cx\u201d", 0),  # as the WHATWG's table has it
        ("日本".encode("shift_jis"), "text/html;charset=Shift_JIS", "日本", 0),
        (b"<meta charset=windows-1251>" + "мир".encode("cp1251"), "text/html", "<meta charset=windows-1251>мир", 0),
        (b"<meta charset=utf-16>a", "text/html", "<meta charset=utf-16>a", 0),
        (codecs.BOM_UTF8 + "é".encode(), "text/html; charset=latin-1", "é", 0),
        (codecs.BOM_UTF16_BE + "é".encode("utf-16-be"), "", "é", 0),
        (b"a\xffb\xc3", "text/html; charset=utf-8", "a\ufffdb\ufffd", 2),
        ("\ufffd".encode() + b"\xff", "text/html; charset=utf-8", "\ufffd\ufffd", 1),
        (b"plain", "text/html; charset=no-such", "plain", 0),
        (b"", "", "", 0),
    ],
)
def test_decode(payload: bytes, content_type: str, text: str, errors: int) -> None:
    assert decode(payload, content_type) == (text, errors)


def test_page() -> None:
    html = b"<title> A\n title</title><body><h1>Head</h1><script>no</script><p>Text &amp; &#xD800; more.</p>"
    page = read_page(html, "text/html", ALL)
    assert (page.problem, page.title) == ("", "A title")
    assert page.text.split("\n\n") == ["Head", "Text & \ufffd more."]
    assert read_page(b"<b>x", "text/plain", ALL).text == "<b>x"
    assert read_page(b"GIF89a", "image/gif; x=y", ALL)[:2] == ("not_html", "image/gif")


def test_trafilatura() -> None:
    pytest.importorskip("trafilatura")
    sentence = "This is a paragraph with enough words in it to be taken for the article's own text. "
    html = f"<html><body><nav><a href=/>Home</a></nav><article><p>{sentence * 5}</p></article></body></html>"
    page = read_page(html.encode(), "text/html", Settings("trafilatura", main_content=True, favor_precision=True))
    assert sentence.strip() in page.text
    assert "Home" not in page.text
