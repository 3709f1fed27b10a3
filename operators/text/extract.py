"""Main text of web pages, out of their bytes (see page.py), with the pages that cannot be read dropped one by one."""

from __future__ import annotations

import importlib.util
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from operators.document import Operator, drop, loaded, parameters, with_columns
from operators.text.page import Settings
from operators.text.sandbox import Reader, Request, Sandbox


@parameters
class Extract(Operator):
    """Sets `text` and `title` from `payload`, which becomes null; `decode_errors` counts what could not be decoded.

    Rows without a payload keep the text they have. `timeout` is in seconds of processor time, so that a busy machine
    drops no more pages than an idle one.
    """

    name: ClassVar[str] = "extract"
    method: Literal["resiliparse", "trafilatura"] = "resiliparse"
    main_content: bool = True  # resiliparse: leave out navigation, footers and the like; trafilatura always does
    favor_precision: bool = False  # trafilatura: rather lose text than keep boilerplate
    timeout: Annotated[float, Field(gt=0, le=3600)] = 10.0
    memory_mb: Annotated[int, Field(ge=16)] = 2048  # beyond what an idle reader of pages uses
    max_bytes: Annotated[int, Field(ge=1, lt=1 << 31)] = 16 << 20
    min_chars: Annotated[int, Field(ge=1)] = 1
    revision: Literal[1] = 1

    @model_validator(mode="after")
    def _fits_the_method(self) -> Self:
        if self.method == "trafilatura":
            if importlib.util.find_spec("trafilatura") is None:
                raise ValueError("method: 'trafilatura' needs the extra corpusmill[quality], which is not installed")
            if not self.main_content:
                raise ValueError("main_content: false is of no meaning to method 'trafilatura'")
        elif self.favor_precision:
            raise ValueError("favor_precision: true is of no meaning to method 'resiliparse'")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        return ("payload", "content_type")

    @property
    def adds(self) -> tuple[str, ...]:
        return ("title", "decode_errors")

    def __call__(self, docs: pa.Table) -> pa.Table:
        n = docs.num_rows
        size = pc.fill_null(pc.binary_length(docs["payload"]), -1).to_numpy()
        rows = np.flatnonzero((size >= 0) & (size <= self.max_bytes))
        asked = docs.select(["content_type", "payload"]).take(rows)
        requests = [
            Request(kind.as_py() or "", memoryview(payload.as_buffer()))
            for kind, payload in zip(asked["content_type"], asked["payload"], strict=True)
        ]
        reader: Reader = loaded(self._sandbox)
        pages = reader.read(requests)

        text = _objects(docs, "text")
        title = _objects(docs, "title")
        errors, reason, detail = np.full((3, n), None, object)
        for row, page in zip(rows, pages, strict=True):
            text[row] = None if page.problem else page.text
            title[row] = page.title or None
            errors[row] = page.decode_errors
            reason[row], detail[row] = page.problem or None, page.detail or None
        texts = pa.array(text, pa.large_string())
        chars = pc.fill_null(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0).to_numpy().astype(float)

        fresh = (size >= 0) | pc.is_null(texts).to_numpy(zero_copy_only=False)
        reason[size > self.max_bytes] = "too_large"
        reason[(reason == None) & fresh & (chars < self.min_chars)] = "no_text"  # noqa: E711  (element by element)
        numbers = {
            "too_large": (size.astype(float), float(self.max_bytes)),
            "no_text": (chars, float(self.min_chars)),
            "timeout": (np.full(n, self.timeout), self.timeout),
        }
        value, threshold = np.full((2, n), np.nan)
        for word, (values, bound) in numbers.items():
            value[reason == word] = values[reason == word]
            threshold[reason == word] = bound
        docs = with_columns(
            docs,
            {
                "text": texts,
                "payload": pa.nulls(n, pa.large_binary()),
                "title": pa.array(title, pa.string()),
                "decode_errors": pa.array(errors, pa.int32()),
            },
        )
        return drop(docs, pa.array(reason, pa.string()), value, threshold, pa.array(detail, pa.string()))

    @property
    def _sandbox(self) -> Sandbox:
        return Sandbox(Settings(self.method, self.main_content, self.favor_precision), self.timeout, self.memory_mb)


def _objects(docs: pa.Table, column: str) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """The column's values, to be overwritten; nulls where there is no such column."""
    values = np.full(docs.num_rows, None, object)
    if column in docs.column_names:
        values[:] = docs[column].cast(pa.large_string()).to_pylist()
    return values
