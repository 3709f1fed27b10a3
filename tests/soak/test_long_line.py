"""One line of 200 MB through all rule filters: an answer, in memory that grows with the text (about 4 GB here)."""

import pyarrow as pa
import pytest

from operators.text.c4 import C4
from operators.text.fineweb import FineWeb
from operators.text.gopher_quality import GopherQuality
from operators.text.gopher_repetition import GopherRepetition

SIZE = 200_000_000


@pytest.mark.parametrize(
    ("unit", "reasons"),
    [
        ("x", ["too_few_words", None, "few_terminal_lines", "too_few_sentences"]),
        ("words on one line ", ["too_many_words", "top_2gram", "few_terminal_lines", "too_few_sentences"]),
    ],
)
def test_one_line(unit: str, reasons: list[str | None]) -> None:
    docs = pa.table({"text": pa.array([unit * (SIZE // len(unit))], pa.large_string())})
    found = []
    for operator in (GopherQuality(), GopherRepetition(), FineWeb(), C4()):
        docs = operator(docs)
        found.append(docs["drop_reason"][0].as_py())
    assert found == reasons
