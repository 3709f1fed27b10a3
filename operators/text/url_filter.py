"""Drops pages by their address: listed hosts and addresses, words, patterns (as RefinedWeb, arXiv:2306.01116, G.1).

A listed host takes its subdomains with it, compared label by label: `bad.com` matches `a.bad.com`, never
`notbad.com`. Hosts are compared in lower case and ASCII, so a list may write them in Unicode or Punycode; user, port,
and final dot do not matter. `www.x` on a list matches `x` itself as well, but no other part of it, so that an entry
never reaches further than it says. A listed address matches itself and what is below it: `x.com/a` matches
`x.com/a/b` and `x.com/a?b`, not `x.com/ab`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import re2
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from operators.document import Operator, Pinned, PinnedFile, drop, loaded, parameters
from operators.text.listed import Listed, ListFile, ascii_hosts, unquoted

# Scheme, user, host, port, rest; browsers take a backslash for a slash.
ADDRESS = (
    r"(?s)^\s*(?:(?:[a-zA-Z][a-zA-Z0-9+.\-]*:)?[/\\]{2,})?(?:[^/\\?#]*@)?(?P<host>\[[^\]]*\]|[^/\\?#:]*)(?::[0-9]*)?"
    r"(?P<path>[/\\?#].*)?$"
)
MAX_PREFIXES = 64  # of a path that are looked up; an entry with more separators matches nothing


def _compiles(pattern: str) -> str:
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"{pattern!r} is no RE2 pattern: {error}") from error
    return pattern


Word = Annotated[str, Field(min_length=1)]
Pattern = Annotated[str, AfterValidator(_compiles)]


class Address(NamedTuple):
    """Columns of a table's addresses; null addresses are empty ones."""

    host: pa.Array
    path: pa.Array  # with the query


@parameters
class UrlFilter(Operator):
    """Rows without a URL stay. Of several reasons the first counts: host, url, word, soft_words, pattern."""

    name: ClassVar[str] = "url_filter"
    hosts: PinnedFile | None = None  # a file, one host a line
    urls: PinnedFile | None = None  # a file, one host/path a line
    words: tuple[Word, ...] = ()  # anywhere in the path, whatever their case
    soft_words: tuple[Word, ...] = ()  # the same, but only several different ones drop a page
    min_soft_words: Annotated[int, Field(ge=1)] = 2
    patterns: tuple[Pattern, ...] = ()  # RE2, searched in the whole URL
    revision: Literal[1] = 1

    @property
    def needs(self) -> tuple[str, ...]:
        return ("url",)

    def __call__(self, docs: pa.Table) -> pa.Table:
        n = docs.num_rows
        urls = pa.concat_arrays([pa.array([], pa.large_string()), *docs["url"].cast(pa.large_string()).chunks])
        valid = urls.is_valid().to_numpy(zero_copy_only=False)
        urls = pc.fill_null(urls, "")
        address = _parsed(urls)
        soft = self._soft_words(address.path)
        rules: list[tuple[str, NDArray[np.object_]]] = [
            ("host", _listed(self.hosts, "hosts", address, _host_candidates)),
            ("url", _listed(self.urls, "urls", address, _url_candidates)),
            ("word", _first(self.words, lambda word: _contains(address.path, word), n)),
            ("soft_words", np.array([True if many else None for many in soft >= self.min_soft_words], object)),
            ("pattern", _first(self.patterns, lambda pattern: pc.match_substring_regex(urls, pattern), n)),
        ]
        reason, detail = np.full((2, n), None, object)
        for word, found in reversed(rules):  # the first rule has the last word
            hit = np.array([f is not None for f in found], bool) & valid
            reason[hit], detail[hit] = word, found[hit]
        by_soft = reason == "soft_words"
        detail[by_soft] = None
        value = np.where(by_soft, soft, np.nan)
        threshold = np.where(by_soft, float(self.min_soft_words), np.nan)
        return drop(docs, pa.array(reason, pa.string()), value, threshold, pa.array(detail, pa.string()))

    def _soft_words(self, path: pa.Array) -> NDArray[np.float64]:
        """How many different soft words are in each path."""
        count = np.zeros(len(path))
        for word in self.soft_words:
            count += np.asarray(_contains(path, word), float)
        return count


def host_of(urls: pa.ChunkedArray) -> pa.Array:
    """The host of each URL, in lower case and ASCII; empty where there is none."""
    return _parsed(
        pc.fill_null(pa.concat_arrays([pa.array([], pa.large_string()), *urls.cast(pa.large_string()).chunks]), "")
    ).host


def _parsed(urls: pa.Array) -> Address:
    parts = pc.extract_regex(urls, ADDRESS)
    host, path = (pc.fill_null(pc.struct_field(parts, name), "") for name in ("host", "path"))
    return Address(ascii_hosts(host), pc.replace_substring(unquoted(path), "\\", "/"))


def _contains(path: pa.Array, word: str) -> pa.Array:
    return pc.match_substring(path, word, ignore_case=True)


def _first(items: tuple[str, ...], found: Callable[[str], pa.Array], n: int) -> NDArray[np.object_]:
    """The first of `items` that is found in each row, None where none is."""
    out = np.full(n, None, object)
    for item in reversed(items):
        out[np.asarray(found(item), bool)] = item
    return out


def _listed(
    file: Pinned | None,
    kind: Literal["hosts", "urls"],
    address: Address,
    candidates: Callable[[Address], tuple[NDArray[np.int64], list[str]]],
) -> NDArray[np.object_]:
    """The entry of the list that each row matches, the most specific one; None where it matches none."""
    out = np.full(len(address.host), None, object)
    if file is None:
        return out
    listed: Listed = loaded(ListFile(file, kind))
    rows, names = candidates(address)
    for at in np.flatnonzero(listed.has(names))[::-1]:
        out[rows[at]] = names[at]
    return out


def _host_candidates(address: Address) -> tuple[NDArray[np.int64], list[str]]:
    """(row, name) of every name a list could have for a row's host, the most specific first."""
    rows: list[int] = []
    names: list[str] = []
    for row, host in enumerate(address.host.to_pylist()):
        if host:
            labels = host.split(".")
            found = [host, "www." + host, *(".".join(labels[k:]) for k in range(1, len(labels)))]
            names += found
            rows += [row] * len(found)
    return np.array(rows, np.int64), names


def _url_candidates(address: Address) -> tuple[NDArray[np.int64], list[str]]:
    """The same of the host with each beginning of the path that ends before a separator; `www.` does not matter."""
    rows: list[int] = []
    names: list[str] = []
    for row, (host, path) in enumerate(zip(address.host.to_pylist(), address.path.to_pylist(), strict=True)):
        ends = [k for k, char in enumerate(path) if char in "/?#&"] + [len(path)] if host else []
        bare = host.removeprefix("www.")
        for end in reversed(ends[:MAX_PREFIXES]):
            for name in (bare, "www." + bare):
                rows.append(row)
                names.append(name + path[:end])
    return np.array(rows, np.int64), names
