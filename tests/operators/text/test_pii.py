from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from operators.document import utf8
from operators.text.pii import Pii
from operators.text.pii_numbers import is_public
from operators.text.pii_tables import IBAN_LENGTHS, KINDS

ROOT = Path(__file__).parents[3]
GITHUB = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"  # cut in two, here and in the data, for scanners of keys
DEFAULT = Pii()
MASK = Pii(action="mask")


def table(texts: list[str | None]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.large_string())})


def spans(operator: Pii, texts: list[str]) -> list[list[tuple[str, str]]]:
    """(kind, found text) of each text, before anything is replaced."""
    data, offsets = utf8(table(texts)["text"])
    out: list[list[tuple[str, str]]] = [[] for _ in texts]
    for row, start, end, kind in zip(*operator._find(data, offsets), strict=True):
        out[row].append((KINDS[kind], data[start:end].tobytes().decode()))
    return out


def one(operator: Pii, text: str | None) -> dict[str, Any]:
    row: dict[str, Any] = operator(table([text])).to_pylist()[0]
    return row


def labelled() -> list[dict[str, Any]]:
    """Hand-made lines of prose, code, logs, documentation and numbers, with what should be found in them."""
    lines = (ROOT / "tests" / "data" / "pii_lines.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line.replace("¦", "")) for line in lines]


def test_precision_and_recall_on_the_labelled_lines() -> None:
    lines = labelled()
    assert len(lines) > 350
    right, wrong, missed = Counter[str](), Counter[str](), Counter[str]()
    told = defaultdict(list)
    for line, found in zip(lines, spans(DEFAULT, [line["text"] for line in lines]), strict=True):
        wanted = [(kind, text) for kind, text in line["found"]]
        for item in found:
            (right if item in wanted else wrong)[item[0]] += 1
            if item not in wanted:
                told["wrong"].append(item)
        for item in wanted:
            if item not in found:
                missed[item[0]] += 1
                told["missed"].append(item)
    assert not wrong, told
    recall = {kind: right[kind] / (right[kind] + missed[kind]) for kind in KINDS}
    assert min(right.values()) >= 6
    assert recall.pop("phone") >= 0.9, told
    assert set(recall.values()) == {1.0}, told


def test_what_is_found_in_the_sample() -> None:
    """Each of them was looked at: all addresses are ones, and no number is taken for one of telephone or a card."""
    done = DEFAULT(pq.read_table(ROOT / "workflows" / "sample" / "sample.parquet"))
    counts = {kind: sum(done[f"pii_{kind}"].to_pylist()) for kind in KINDS}
    assert counts == {"email": 20, "ip": 2, "phone": 0, "iban": 0, "card": 0, "secret": 0}


@pytest.mark.parametrize(
    ("operator", "text", "result"),
    [
        (DEFAULT, "to bob@acme.org, +1 415-321-2671.", "to <email>, <phone>."),
        (DEFAULT, "ip 8.8.8.8 2a00:1450:4001:81b::200e", "ip <ip> <ip>"),
        (DEFAULT, "DE89370400440532013000 4539 1488 0343 6467", "<iban> <card>"),
        (DEFAULT, f"token {GITHUB}", "token <secret>"),
        (DEFAULT, "bob@acme.org@acme.org", None),
        (DEFAULT, "写信bob@acme.org吧 😀\x00", "写信<email>吧 😀\x00"),
        (MASK, "to bob+1@acme.org, +1 (415) 321-2671.", "to ***+*@****.***, +* (***) ***-****."),
        (MASK, "büro@größe.de", "****@*****.**"),
        (MASK, "tel 01\u00a042\u00a068\u00a053\u00a000", "tel **\u00a0**\u00a0**\u00a0**\u00a0**"),
        (Pii(placeholders={"email": "email@example.com"}), "bob@acme.org", "email@example.com"),
        (Pii(placeholders={"email": ""}), "x bob@acme.org y", "x  y"),
        (Pii(kinds=("ip",)), "bob@acme.org 141.84.69.20", "bob@acme.org <ip>"),
        (Pii(action="drop"), "bob@acme.org", None),
        (Pii(public_ips_only=False), "10.0.0.138 is fe80::1", "<ip> is <ip>"),
        (DEFAULT, "10.0.0.138 is fe80::1", None),
        (DEFAULT, "", None),
        (DEFAULT, None, None),
    ],
)
def test_result(operator: Pii, text: str | None, result: str | None) -> None:
    assert one(operator, text)["text"] == (text if result is None else result)


@pytest.mark.parametrize(
    ("operator", "text", "reason", "value", "threshold", "detail"),
    [
        (Pii(action="drop"), "bob@acme.org ip 8.8.8.8 ip 9.9.9.9", "found", 3, 0, "ip"),
        (Pii(action="drop"), "nothing", None, None, None, None),
        (Pii(max_found=1), "bob@acme.org ann@acme.org", "too_many", 2, 1, None),
        (Pii(max_found=2), "bob@acme.org ann@acme.org", None, None, None, None),
        (DEFAULT, "bob@acme.org " * 9, None, None, None, None),
    ],
)
def test_drops(
    operator: Pii, text: str, reason: str | None, value: float | None, threshold: float | None, detail: str | None
) -> None:
    row = one(operator, text)
    names = ("drop_reason", "drop_value", "drop_threshold", "drop_detail")
    assert [row[name] for name in names] == [reason, value, threshold, detail]


def test_a_document_of_too_many_finds_does_not_keep_them() -> None:
    assert one(Pii(max_found=0), "bob@acme.org")["text"] == "<email>"


def test_columns() -> None:
    done = DEFAULT(table(["bob@acme.org ann@acme.org ip 8.8.8.8", None, "x"]))
    assert set(done.column_names) >= {"text", "drop_reason", *DEFAULT.adds}
    assert done["pii_email"].to_pylist() == [2, 0, 0]
    assert done["pii_ip"].to_pylist() == [1, 0, 0]
    assert done["pii_email"].type == pa.int32()
    assert Pii(kinds=("ip", "email")).adds == ("pii_email", "pii_ip")
    assert "pii_phone" not in Pii(kinds=("ip",))(table(["x"])).column_names
    assert DEFAULT(table([])).num_rows == 0


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"kinds": ["name"]}, r"(?s)kinds.*'name'"),
        ({"kinds": []}, "kinds"),
        ({"action": "hide"}, r"(?s)action.*'hide'"),
        ({"max_found": -1}, r"(?s)max_found.*-1"),
        ({"max_found": 3, "action": "drop"}, "max_found: 3"),
        ({"placeholders": {"email": "x"}, "action": "mask"}, "placeholders: action mask"),
        ({"placeholders": {"email": "x"}, "kinds": ["ip"]}, "placeholders: email is not"),
        ({"placeholders": {"ip": "22.214.171.124", "email": "x"}}, "placeholders: '22.214.171.124'"),
        ({"placeholders": {"names": "x"}}, "placeholders"),
    ],
)
def test_parameters(given_: dict[str, Any], says: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=says):
        Pii(**given_)


PARTS = st.sampled_from(
    [*"ab.,-_@:/()+=x01é😀\x00", "23", "415", "tel", "ip", "version", "电话", "<phone>", "<ip>", "git", "::"]
    + [
        " ",
        "\n",
        "//",
        "\u00a0",
        "–",
        "@acme.org",
        "bob@acme.org",
        "8.8.8.8",
        "141.84.69.20",
        "2a00:1450::1:200e",
        "tel ",
    ]
    + [
        "+1 415-321-2671",
        "415-321-2671",
        "(415) 321-2671",
        "030 123456",
        "DE89370400440532013000",
        "4539 1488 0343 6467",
    ]
    + [GITHUB, "AKIA", "eyJ", "-----", "ip ", "version "]
)
TEXTS = st.lists(PARTS, max_size=14).map("".join) | st.text(max_size=40)
OPERATORS = st.builds(
    Pii,
    action=st.sampled_from(["replace", "mask"]),
    kinds=st.sets(st.sampled_from(KINDS), min_size=1).map(lambda kinds: tuple(sorted(kinds))),
    public_ips_only=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(TEXTS, OPERATORS)
@example("tel 030 123456, 030 123457 030 123458", DEFAULT)
@example("+1 415-321-2671 8.8.8.8bob@acme.org", DEFAULT)
@example("bob@acme.org:415-321-2671", DEFAULT)
def test_nothing_is_found_in_the_result_and_nothing_else_changes(text: str, operator: Pii) -> None:
    row = one(operator, text)
    again = one(operator, row["text"])
    assert again["text"] == row["text"]
    assert not any(again[name] for name in operator.adds)
    if not any(row[name] for name in operator.adds):
        assert row["text"] == text
    if operator.action == "mask":
        assert len(row["text"]) == len(text)
        assert all(a == b or b == "*" for a, b in zip(text, row["text"], strict=True))


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_the_first_look_is_what_the_spans_say(text: str) -> None:
    found = spans(DEFAULT, [text])[0]
    rest, pieces = text, []
    for _, piece in found:
        before, _, rest = rest.partition(piece)
        pieces += [before, piece]
    assert "".join([*pieces, rest]) == text
    assert len(found) <= sum(one(DEFAULT, text)[name] for name in DEFAULT.adds)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | TEXTS, max_size=6), st.integers(0, 6))
def test_slices_give_the_same(texts: list[str | None], cut: int) -> None:
    docs = table(texts)
    assert DEFAULT(docs).equals(pa.concat_tables([DEFAULT(docs.slice(0, cut)), DEFAULT(docs.slice(cut))]))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32 - 1)
    | st.sampled_from(["10.0.0.0", "172.16.0.0", "100.64.0.0", "198.18.0.0"]).map(
        lambda text: int(ipaddress.IPv4Address(text)) - 1
    )
)
def test_public_is_what_the_standard_library_calls_global(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    inside = any(address in ipaddress.ip_network(net) for net in ("192.0.0.0/24", "192.88.99.0/24"))
    if not inside:  # where versions of Python differ
        assert is_public(number) == (address.is_global and not address.is_multicast)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**128 - 1).map(lambda n: n >> 3 | 1 << 125))
def test_every_public_ipv6_address_is_found(number: int) -> None:
    address = ipaddress.IPv6Address(number)
    if not address.is_global or address in ipaddress.ip_network("3fff::/20"):  # newer than some versions of Python
        return
    for text in (str(address), address.exploded):
        if len(text.replace("::", ":").strip(":").split(":")) < 3:  # as 2003::12, half a time of day
            continue
        assert spans(DEFAULT, [f"[{text}]:80"]) == [[("ip", text)]]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(IBAN_LENGTHS.split()), st.data(), st.booleans())
def test_ibans_of_all_countries(entry: str, data: st.DataObject, spaced: bool) -> None:
    country, length = entry[:2], int(entry[2:])
    body = data.draw(st.text("0123456789ABCXYZ", min_size=length - 4, max_size=length - 4))
    digits = "".join(str(int(c, 36)) for c in body + country + "00")
    right = f"{98 - int(digits) % 97:02d}"
    wrong = f"{(int(right) + 1) % 100:02d}"

    def written(check: str) -> str:
        iban = country + check + body
        return " ".join(re.findall(".{1,4}", iban)) if spaced else iban

    assert spans(Pii(kinds=("iban",)), [f"to {written(right)}.", written(wrong)]) == [[("iban", written(right))], []]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 10_000_000,
        "a@" * 500_000,
        "1." * 500_000,
        "a@" + "a." * 500_000 + "com",
        "+1 " * 300_000,
        "1–" * 200_000,
        "(1)" * 300_000,
        "eyJ" * 300_000,
        "-----BEGIN PRIVATE KEY-----" * 30_000,
        "DE89 " * 200_000,
        "\x00" * 1_000_000,
        "😀" * 250_000,
        "水" * 300_000,
        "9" * 1_000_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_long_repetitive_texts_have_nothing(text: str) -> None:
    assert one(DEFAULT, text) == {"text": text, **dict.fromkeys(DEFAULT.adds, 0)} | dict.fromkeys(
        ("drop_reason", "drop_value", "drop_threshold", "drop_detail")
    )


def test_many_finds_in_one_text() -> None:
    row = one(DEFAULT, "bob@acme.org,\n" * 50_000)
    assert row["text"] == "<email>,\n" * 50_000
    assert row["pii_email"] == 50_000


def test_the_shortest_finds_of_all_fit() -> None:
    text = "::1 1::2 " * 4000
    found = Pii(public_ips_only=False)(pa.table({"id": ["a"], "text": [text]}))
    assert found["pii_ip"].to_pylist() == [8000]
    assert found["text"].to_pylist() == ["<ip> <ip> " * 4000]
