from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.document import loaded
from operators.text.listed import Listed, ListFile, ascii_host, cache_folder
from operators.text.url_filter import UrlFilter

HOSTS = (
    "# bad hosts\nbad.com\n\nBücher.example  # a comment\nwww.only.org\n"
    ".Dotted.net.\r\nwww.co.uk\nxn--mgbh0fb.example\n"
)
URLS = "site.com/bad\nsite.com/q?id=1\nwww.other.com/x/\nwhole.com/\nsite.com/%7Ejoe\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUSMILL_CACHE", str(tmp_path / "cache"))
    loaded.cache_clear()


def written(folder: Path, text: str) -> Any:
    path = folder / "list.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


def table(urls: list[str | None]) -> pa.Table:
    return pa.table({"url": pa.array(urls, pa.string())})


def fate(operator: UrlFilter, url: str | None) -> tuple[str | None, str | None]:
    row = operator(table([url])).to_pylist()[0]
    return row["drop_reason"], row["drop_detail"]


@pytest.mark.parametrize(
    ("url", "listed"),
    [
        ("http://bad.com", "bad.com"),
        ("https://A.B.BAD.com:8080/x", "bad.com"),
        ("//bad.com/x", "bad.com"),
        ("bad.com/x", "bad.com"),
        ("http://user:p@ss@bad.com/", "bad.com"),
        ("http://bad.com./", "bad.com"),
        ("http:\\\\bad.com\\x", "bad.com"),
        ("http://b%61d.com/", "bad.com"),
        ("http://bad.com?x", "bad.com"),
        ("http://notbad.com", None),
        ("http://bad.com.org", None),
        ("http://good.com/bad.com", None),
        ("http://good.com@bad.com/", "bad.com"),
        ("http://good.com/@bad.com/", None),
        ("http://bücher.example/", "xn--bcher-kva.example"),
        ("http://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ("http://BÜCHER。example/", "xn--bcher-kva.example"),
        ("http://مثال.example/", "xn--mgbh0fb.example"),
        ("http://only.org/", "www.only.org"),
        ("http://a.www.only.org/", "www.only.org"),
        ("http://a.only.org/", None),
        ("http://shop.co.uk/", None),
        ("http://a.dotted.net/", "dotted.net"),
        ("http://[::1]:80/", None),
        ("http://1.2.3.4/", None),
        ("", None),
        ("not a url", None),
        (None, None),
    ],
)
def test_hosts(tmp_path: Path, url: str | None, listed: str | None) -> None:
    assert fate(UrlFilter(hosts=written(tmp_path, HOSTS)), url) == ("host" if listed else None, listed)


@pytest.mark.parametrize(
    ("url", "listed"),
    [
        ("http://site.com/bad", "site.com/bad"),
        ("http://www.site.com/bad/", "site.com/bad"),
        ("http://SITE.com/bad/worse?x=1", "site.com/bad"),
        ("http://site.com/bad#top", "site.com/bad"),
        ("http://site.com/badly", None),
        ("http://site.com/BAD", None),
        ("http://a.site.com/bad", None),
        ("http://site.com/q?id=1&x=2", "site.com/q?id=1"),
        ("http://site.com/q?id=12", None),
        ("http://other.com/x", "www.other.com/x"),
        ("http://whole.com", "whole.com"),
        ("http://whole.com/any", "whole.com"),
        ("http://site.com/~joe/", "site.com/~joe"),
        (None, None),
    ],
)
def test_urls(tmp_path: Path, url: str | None, listed: str | None) -> None:
    assert fate(UrlFilter(urls=written(tmp_path, URLS)), url) == ("url" if listed else None, listed)


@pytest.mark.parametrize(
    ("operator", "url", "reason", "detail"),
    [
        (UrlFilter(), "http://a.b/c", None, None),
        (UrlFilter(words=("casino", "bet")), "http://a.b/My-BET-casino", "word", "casino"),
        (UrlFilter(words=("casino",)), "http://casino.com/a", None, None),
        (UrlFilter(words=("порно",)), "http://a.b/%D0%BF%D0%BE%D1%80%D0%BD%D0%BE", "word", "порно"),
        (UrlFilter(soft_words=("win", "cash", "free")), "http://a.b/win?free", "soft_words", None),
        (UrlFilter(soft_words=("win", "cash", "free")), "http://a.b/win/win", None, None),
        (UrlFilter(patterns=(r"\.ru(/|$)",)), "http://a.ru/x", "pattern", r"\.ru(/|$)"),
        (UrlFilter(patterns=(".*",)), None, None, None),
        (UrlFilter(words=("a",), patterns=(".",)), "http://x/a", "word", "a"),
    ],
)
def test_words_and_patterns(operator: UrlFilter, url: str | None, reason: str | None, detail: str | None) -> None:
    assert fate(operator, url) == (reason, detail)


def test_soft_words_say_how_many() -> None:
    row = UrlFilter(soft_words=("win", "cash"))(table(["http://a.b/win-cash"])).to_pylist()[0]
    assert (row["drop_value"], row["drop_threshold"]) == (2, 2)


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("hosts", "good.com\nhttp://bad.com\n", r"hosts.*line 2: http://bad.com is not a host"),
        ("hosts", "# x\n\n0.0.0.0 bad.com", r"line 3: 0\.0\.0\.0 bad\.com"),
        ("hosts", "*.bad.com", r"line 1"),
        ("urls", "bad.com", r"urls.*line 1: bad.com is not host/path"),
    ],
)
def test_bad_lists(tmp_path: Path, field: str, text: str, message: str) -> None:
    operator = UrlFilter(**{field: written(tmp_path, text)})
    with pytest.raises(ValueError, match=message):
        operator(table(["http://a.b"]))


def test_parameters() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"patterns.*\n.*'\(' is no RE2 pattern"):
        UrlFilter(patterns=("(",))
    with pytest.raises(pydantic.ValidationError, match=r"no such file: /nowhere"):
        UrlFilter(hosts="/nowhere")  # type: ignore[arg-type]
    with pytest.raises(pydantic.ValidationError, match="words"):
        UrlFilter(words=("",))


@pytest.mark.parametrize("text", ["", "# nothing\n", "bad.com"])
def test_empty_lists_and_tables(tmp_path: Path, text: str) -> None:
    operator = UrlFilter(hosts=written(tmp_path, text), urls=written(tmp_path, ""), words=("w",), patterns=("zzz",))
    assert operator(table([])).num_rows == 0
    assert operator(table([None, "http://good.com"]))["drop_reason"].null_count == 2


def test_many_hosts_are_mapped_and_built_once(tmp_path: Path) -> None:
    operator = UrlFilter(hosts=written(tmp_path, "".join(f"h{k}.example\n" for k in range(50_000))))
    urls: list[str | None] = [f"http://a.h{k}.example/" for k in range(0, 100_000, 1000)]
    assert operator(table(urls))["drop_reason"].to_pylist() == ["host"] * 50 + [None] * 50
    (saved,) = cache_folder().glob("*.npy")
    built = saved.stat().st_mtime_ns
    loaded.cache_clear()
    assert operator.hosts is not None
    listed: Listed = ListFile(operator.hosts, "hosts").load()
    assert type(listed.hashes).__name__ == "memmap"
    assert listed.has(["h49999.example", "h50000.example"]).tolist() == [True, False]
    assert saved.stat().st_mtime_ns == built
    assert not list(cache_folder().glob("*.part"))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | st.text(max_size=12) | st.from_regex(r"http://(bad|ok)\.com/[a-c/?%#]{0,5}"), max_size=8))
def test_slices_give_the_same(urls: list[str | None]) -> None:
    operator = UrlFilter(words=("b",), soft_words=("a", "c"), patterns=("bad", r"\?$"))
    docs = table(urls)
    cut = len(urls) // 2
    whole = operator(docs)
    assert whole.equals(pa.concat_tables([operator(docs.slice(0, cut)), operator(docs.slice(cut))]))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_ascii_hosts_stay(host: str) -> None:
    once = ascii_host(host.replace("%", ""))
    assert once.isascii()
    assert ascii_host(once.replace("%", "")) == once.replace("%", "")
