"""All that the rule filters count in a document, in one pass over its text: `statistics`, some 40 numbers by name.

Words are cut once, lines once. The counts go with the table as hidden columns, so that the next operator that asks
reads them: whoever sets `text` drops them (`with_columns`), and they never leave a stage (operators/apply.py). Nothing
here knows a threshold: gopher_quality.py, gopher_repetition.py, fineweb.py and text_rules.py turn numbers into
decisions. characters.py, words.py, lines.py and ngrams.py do the counting; what differs by mode stands there and in
the docstrings of the filters.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from operators.document import STATISTICS_COLUMN, utf8, with_columns
from operators.text.characters import CharacterCounts, classes, count_characters
from operators.text.lines import (
    DATATROVE,
    NEMO,
    PAPER,
    LineCounts,
    Marks,
    RepeatCounts,
    count_lines,
    count_repeats,
    cut_lines,
    line_buffers,
    line_parts,
    paragraph_parts,
    table_size,
)
from operators.text.ngrams import DUPLICATE, TOP, NgramCounts, count_ngrams, gram_buffers
from operators.text.segment import Segmenter, WordSpans, cut_words, frozen, number_of_words, source, word_buffers
from operators.text.words import WordCounts, count_stop_words, count_words, stop_words

Mode = Literal["paper", "datatrove", "nemo"]
Numbers = NDArray[np.float64]

STATISTICS: tuple[tuple[str, str], ...] = (
    ("characters", "characters of the text"),
    ("letters", "share of characters that are letters"),
    ("uppercase", "share of letters that are capitals"),
    ("digits", "share of characters that are decimal digits"),
    ("white_space", "share of characters that are white space"),
    ("punctuation", "share of characters that are no letter, digit or white space"),
    ("non_alphanumeric", "share of characters that are no letter or digit"),
    ("entropy", "entropy of the bytes, in bits a byte"),
    ("words", "words; but for nemo, those with a character that is no symbol"),
    ("distinct_words", "share of words that are different from all words before"),
    ("mean_word_chars", "mean length of a word"),
    ("longest_word", "characters of the longest word"),
    ("unspaced_words", "share of words that begin with a letter of a script without spaces"),
    ("alpha_words", "share of words with a letter"),
    ("stop_words", "stop words: how many of Gopher's eight, in nemo how often they stand"),
    ("stop_word_share", "share of words that are one of Gopher's stop words"),
    ("hashes_per_word", "number signs a word"),
    ("ellipses_per_word", "ellipses a word"),
    ("symbol_words", "(nemo) share of words that are an ellipsis or mostly number signs"),
    ("lines", "lines that are not blank"),
    ("mean_line_chars", "mean length of a line"),
    ("longest_line", "characters of the longest line"),
    ("words_per_line", "words a line"),
    ("bullet_lines", "share of lines that begin with a bullet"),
    ("ellipsis_lines", "share of lines that end in an ellipsis"),
    ("terminal_lines", "share of lines that end in a sentence-ending mark"),
    ("short_lines", "share of lines of at most 30 characters"),
    ("newlines_per_word", "line feeds a word"),
    ("repeated_line_chars", "share of characters, line feeds aside, in lines that stood before (FineWeb)"),
    ("duplicate_lines", "share of lines that are repeated"),
    ("duplicate_line_chars", "share of characters in repeated lines"),
    ("paragraphs", "paragraphs"),
    ("mean_paragraph_chars", "mean length of a paragraph"),
    ("duplicate_paragraphs", "share of paragraphs that are repeated"),
    ("duplicate_paragraph_chars", "share of characters in repeated paragraphs"),
    *((f"top_{n}gram", f"share of characters in the most frequent run of {n} words") for n in TOP),
    *((f"duplicate_{n}gram", f"share of characters in repeated runs of {n} words") for n in DUPLICATE),
)
"""(name, meaning) of each statistic of `statistics`, in its order."""

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
SHORT_LINE_CHARS = 30
UNASKED = "script_without_spaces"  # how many documents rules on words make no sense for
_READING = {"paper": PAPER, "datatrove": DATATROVE, "nemo": NEMO}
_ELLIPSES = ("...", "…")
_NEMO_ELLIPSES = (*_ELLIPSES, "[...]", "(...)", "[…]", "-»", "read more..", "read more")
_BULLETS = {"paper": "•●*-", "datatrove": "•-", "nemo": "•‣⁃⁌⁍∙○●◘◦⦾⦿"}


class StopWordCounts(NamedTuple):
    found: Any
    distinct: Any


class TotalCounts(NamedTuple):
    words: Any


class Counts(NamedTuple):
    """One array a count, of the kinds that NamedTuples beside the kernels name, of the parts that were asked for."""

    total: TotalCounts
    characters: CharacterCounts
    lines: LineCounts
    line_repeats: RepeatCounts
    paragraph_repeats: RepeatCounts
    words: WordCounts | None = None
    stop_words: StopWordCounts | None = None
    ngrams: NgramCounts | None = None


Part = Literal["lines", "words", "ngrams"]
PARTS: tuple[Part, ...] = ("lines", "words", "ngrams")
_KINDS: dict[Part, tuple[Any, ...]] = {
    "lines": (TotalCounts, CharacterCounts, LineCounts, RepeatCounts, RepeatCounts),
    "words": (WordCounts, StopWordCounts),
    "ngrams": (NgramCounts,),
}


def statistics(
    docs: pa.Table, mode: Mode, words: Segmenter, spans: WordSpans | None = None, parts: tuple[Part, ...] = PARTS
) -> tuple[pa.Table, dict[str, Numbers]]:
    """(docs with what was counted, each of STATISTICS): one number a document, NaN where it means nothing there: a
    share of no words, a mean length of words or a stop word in a script without spaces.

    `spans` gives words cut elsewhere. `parts` says what is needed, to leave out the rest: "lines" is all but what
    looks at words one by one; each part needs the ones before it."""
    docs, counts = measured(docs, mode, words, spans, parts)
    return docs, _named(counts, mode)


def measured(
    docs: pa.Table, mode: Mode, words: Segmenter, spans: WordSpans | None = None, parts: tuple[Part, ...] = PARTS
) -> tuple[pa.Table, Counts]:
    """(docs with hidden columns of what was counted now or before, the counts). With `spans` nothing is kept."""
    names: dict[Part, str] = {part: f"{STATISTICS_COLUMN}{mode}/{words}/{part}" for part in parts}
    sizes = {part: sum(len(kind._fields) for kind in _KINDS[part]) for part in parts}
    found: dict[Part, Numbers] = {}
    if spans is None:
        whole = [p for p in parts if names[p] in docs.column_names and not docs[names[p]].null_count]
        found = {p: _read(docs[names[p]], sizes[p]) for p in whole}  # null where rows were added meanwhile
    missing: dict[Part, Numbers] = {p: np.zeros((docs.num_rows, sizes[p])) for p in parts if p not in found}
    if missing:
        nothing = np.zeros((0, 0))
        src = source(docs["text"], words, mode == "paper", spans)
        out = tuple(missing.get(part, nothing) for part in PARTS)
        _measure(src, _marks(mode), stop_words(STOP_WORDS, mode == "paper"), classes(), out)
        if spans is None:
            docs = with_columns(docs, {names[part]: _column(rows) for part, rows in missing.items()})
    groups: list[Any] = []
    for part in parts:
        rows = iter((found | missing)[part].T)
        groups += [kind(*itertools.islice(rows, len(kind._fields))) for kind in _KINDS[part]]
    return docs, Counts(*groups)


def _column(rows: Numbers) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


def _read(column: pa.ChunkedArray, size: int) -> Numbers:
    numbers: Numbers = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return numbers.reshape(-1, size)


def _marks(mode: Mode) -> Marks:
    points = np.array([ord(c) for c in _BULLETS[mode]], np.int64)
    ellipses = _NEMO_ELLIPSES if mode == "nemo" else _ELLIPSES
    endings, offsets = utf8(pa.array(ellipses, pa.large_string()))
    return Marks(_READING[mode], points, frozen(endings), frozen(offsets), SHORT_LINE_CHARS)


def _named(n: Counts, mode: Mode) -> dict[str, Numbers]:
    words, characters, newlines, lines = n.total.words, n.characters.characters, n.characters.newlines, n.lines.lines
    no_letters = characters - n.characters.letters - n.characters.digits
    duplicate_lines, duplicate_line_chars = _repeats(n.line_repeats, characters, mode)
    duplicate_paragraphs, duplicate_paragraph_chars = _repeats(n.paragraph_repeats, characters, mode)
    named = {
        "characters": characters,
        "letters": _of(n.characters.letters, characters),
        "uppercase": _of(n.characters.upper, n.characters.letters),
        "digits": _of(n.characters.digits, characters),
        "white_space": _of(n.characters.spaces, characters),
        "punctuation": _of(no_letters - n.characters.spaces, characters),
        "non_alphanumeric": _of(no_letters, characters),
        "entropy": np.where(characters > 0, n.characters.entropy / 1e6, np.nan),
        "hashes_per_word": _of(n.characters.hashes, words),
        "ellipses_per_word": _of(n.characters.ellipses, words),
        "lines": lines,
        "mean_line_chars": _of(n.lines.line_chars, lines),
        "longest_line": np.where(lines > 0, n.lines.longest_line, np.nan),
        "words_per_line": _of(words, lines),
        "bullet_lines": _of(n.lines.bullet, n.lines.marked),
        "ellipsis_lines": _of(n.lines.ellipsis, n.lines.marked),
        "terminal_lines": _of(n.lines.ended, lines),
        "short_lines": _of(n.lines.short, lines),
        "newlines_per_word": _of(newlines, words),
        "repeated_line_chars": _of(n.line_repeats.solid_repeat_chars, characters - newlines),
        "duplicate_lines": duplicate_lines,
        "duplicate_line_chars": duplicate_line_chars,
        "paragraphs": n.paragraph_repeats.parts,
        "mean_paragraph_chars": _of(n.paragraph_repeats.chars, n.paragraph_repeats.parts),
        "duplicate_paragraphs": duplicate_paragraphs,
        "duplicate_paragraph_chars": duplicate_paragraph_chars,
    }
    if n.words is not None and n.stop_words is not None:
        named |= _of_words(words, n.words, n.stop_words, mode)
        if n.ngrams is not None:
            named |= _of_ngrams(words, n.words, n.ngrams, characters, mode)
    return {name: named[name] for name, _ in STATISTICS if name in named}


def _spaced(total: Numbers, words: WordCounts, mode: Mode) -> NDArray[np.bool_]:
    """Where words are words: not where, in the paper's reading, most are letters of a script without spaces."""
    spaced: NDArray[np.bool_] = (words.character_words * 2 <= total) | (mode != "paper")
    return spaced


def _of_words(total: Numbers, n: WordCounts, stop_words: StopWordCounts, mode: Mode) -> dict[str, Numbers]:
    nemo, spaced = mode == "nemo", _spaced(total, n, mode)
    counted, chars = (total, n.chars) if nemo else (n.solid_words, n.solid_chars)
    return {
        "words": counted,
        "mean_word_chars": np.where(spaced, _of(chars, counted), np.nan),
        "longest_word": np.where(spaced & (total > 0), n.longest, np.nan),
        "unspaced_words": _of(n.character_words, total),
        "alpha_words": np.where(counted > 0, _of(n.alpha_words, total), np.nan),
        "stop_words": np.where(spaced, stop_words.found if nemo else stop_words.distinct, np.nan),
        "stop_word_share": np.where(spaced, _of(stop_words.found, total), np.nan),
        "symbol_words": _of(n.symbol_words, total) if nemo else np.full(len(total), np.nan),
    }


def _of_ngrams(
    total: Numbers, words: WordCounts, n: NgramCounts, characters: Numbers, mode: Mode
) -> dict[str, Numbers]:
    named = {"distinct_words": _of(n.distinct_words, total)}
    whole, spaced = words.chars if mode == "paper" else characters, _spaced(total, words, mode)
    names = [*(("top", size) for size in TOP), *(("duplicate", size) for size in DUPLICATE)]
    for (kind, size), row in zip(names, n[1:], strict=True):
        value = np.where(spaced, _of(row, whole), np.nan)
        named[f"{kind}_{size}gram"] = np.where(total < size, 1.0, value) if mode == "nemo" else value
    return named


def _repeats(n: RepeatCounts, characters: Numbers, mode: Mode) -> tuple[Numbers, Numbers]:
    """(share of parts, share of characters) that are repeated, as the mode reads it."""
    if mode == "paper":
        return _of(n.members, n.parts), _of(n.member_chars, n.chars)
    return _of(n.repeats, n.parts), _of(n.repeat_chars, characters if mode == "datatrove" else n.chars)


def _of(part: Numbers, whole: Numbers) -> Numbers:
    """part / whole, NaN where there is no whole."""
    shares: Numbers = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return shares


@njit(nogil=True, cache=True)
def _measure(src, marks, wanted, classes, out):  # type: ignore[no-untyped-def]
    """Fill the rows of out, the PARTS. One without rows is not asked for."""
    of_lines, of_words, of_ngrams = out
    words = word_buffers(src)
    lines, parts = line_buffers(src)
    grams = gram_buffers(words.hash.shape[0] if of_ngrams.shape[0] else 1, marks.reading)
    table = np.empty(64, np.int32)
    for d in range(src.offsets.shape[0] - 1):
        begin, end = src.offsets[d], src.offsets[d + 1]
        if of_words.shape[0] or of_ngrams.shape[0]:
            n = cut_words(src, d, words)
        else:
            n = number_of_words(src, d, words)
        if of_lines.shape[0]:
            row = of_lines[d]
            row[0] = n
            counts = count_characters(src.data, begin, end, classes)
            at = _put(row, 1, counts)
            rows = cut_lines(src, d, lines, counts[0] == end - begin)
            at = _put(row, at, count_lines(src, d, lines, rows, marks, counts[6] > 0))
            table = _roomy(table, rows)
            found = line_parts(lines, rows, marks.reading, parts)
            at = _put(row, at, count_repeats(parts, found, table))
            found = paragraph_parts(src, d, lines, rows, marks.reading, parts)
            _put(row, at, count_repeats(parts, found, table))
        if of_words.shape[0]:
            at = _put(of_words[d], 0, count_words(src.data, begin, words, n, marks))
            _put(of_words[d], at, count_stop_words(src.data, begin, words, n, wanted))
        if of_ngrams.shape[0]:
            table = _roomy(table, n)
            count_ngrams(src, d, words, n, marks.reading, grams, table, of_ngrams[d])


@njit(inline="always")
def _put(row, at, counts):  # type: ignore[no-untyped-def]
    for count in counts:
        row[at] = count
        at += 1
    return at


@njit(nogil=True, cache=True)
def _roomy(table, entries):  # type: ignore[no-untyped-def]
    size = table_size(entries)
    return table if size <= table.shape[0] else np.empty(size, np.int32)


def stop_words_found(
    docs: pa.Table, mode: Mode, words: Segmenter, wanted: tuple[str, ...], spans: WordSpans | None = None
) -> Numbers:
    """The statistic `stop_words` for other words than Gopher's, and for every script."""
    out = np.zeros((docs.num_rows, len(StopWordCounts._fields)))
    _stop_words(source(docs["text"], words, mode == "paper", spans), stop_words(wanted, mode == "paper"), out)
    counts = StopWordCounts(*out.T)
    found: Numbers = counts.found if mode == "nemo" else counts.distinct
    return found


@njit(nogil=True, cache=True)
def _stop_words(src, wanted, out):  # type: ignore[no-untyped-def]
    words = word_buffers(src)
    for d in range(out.shape[0]):
        n = cut_words(src, d, words)
        _put(out[d], 0, count_stop_words(src.data, src.offsets[d], words, n, wanted))


def short_lines(docs: pa.Table, chars: int) -> Numbers:
    """The statistic of that name where lines of up to `chars` characters are short."""
    src = source(docs["text"])
    out = np.zeros((2, docs.num_rows), np.int64)
    marks = _marks("paper")._replace(short=chars)
    _short_lines(src, marks, out)
    return _of(out[1].astype(np.float64), out[0].astype(np.float64))


@njit(nogil=True, cache=True)
def _short_lines(src, marks, out):  # type: ignore[no-untyped-def]
    lines, _ = line_buffers(src)
    for d in range(out.shape[1]):
        rows = cut_lines(src, d, lines, False)
        counts = count_lines(src, d, lines, rows, marks, False)
        out[0, d], out[1, d] = counts[0], counts[4]
