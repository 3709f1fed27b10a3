"""What pii.py knows by heart: domains, country codes, lengths of IBANs, prefixes of keys, words before numbers.

The kernels that look something up are here, too.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

KINDS = ("email", "ip", "phone", "iban", "card", "secret")
EMAIL, IP, PHONE, IBAN, CARD, SECRET = range(6)
SHORTEST = 3  # bytes of the shortest find: ::1

DIGIT, UPPER, LOWER, HEX, LOCAL, DOMAIN, TOKEN, WORD = (1 << k for k in range(8))  # classes of ASCII bytes
AT, COLON, NUMBER, PLUS, BRACKET, PAIR = range(1, 7)  # what a byte may begin
KEY, COUNTRY = 1, 2  # what a pair of bytes may begin
SPACED, DASHED, DOTTED, SLASHED, BRACKETED = (1 << k for k in range(5))  # what stands between groups of digits
ROOM = 32  # digits, and groups of them, that are remembered of a number
WINDOW = 24  # bytes before a number in which words say what it is

TOP_LEVEL = """
ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz ca cc cd cf cg
ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm fo fr ga gd ge gf gg gh gi
gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kh ki km kn kp kr kw
ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na nc ne nf ng
ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg sh si sk sl sm sn
so sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug uk us uy uz va vc ve vg vi vn vu wf ws
ye yt za zm zw
com org net edu gov mil int info biz name pro aero coop museum mobi asia tel travel jobs cat post xxx
academy agency app art associates audio bank band bar berlin best bike bio blog boutique build builders business buzz
camp capital care careers cash center chat church city cleaning clinic clothing cloud club coach codes coffee community
company computer construction consulting contractors cool credit dance dating deals dental design dev diamonds digital
direct directory doctor dog domains earth education email energy engineer engineering enterprises equipment estate
events exchange expert express family farm fashion fashion film finance financial fish fitness florist foundation fun
fund furniture fyi gallery games garden gift gmbh gold golf google graphics group guide guru hamburg haus health help
holdings holiday host hosting house immo inc industries ink institute insure international investments istanbul jetzt
kitchen koeln land law lawyer lease legal life lighting limited link live loans london love ltd management market
marketing mba media melbourne memorial moda moe money moscow network news ngo ninja nrw nyc one ong online paris
partners parts party pet pharmacy photo photography photos pictures pizza place plumbing plus poker press productions
properties pub quebec racing realty recipes red rehab reisen rent rentals repair report republican rest restaurant
reviews rip rocks run saarland sale salon school schule science scot services sex sexy shoes shop show ski
singles site social software solar solutions soy space store studio style supplies supply support surf surgery swiss
sydney systems taipei tax taxi team tech technology tennis theater tickets tienda tips tirol today tokyo tools top
tours town toys trade training tube university vacations vegas ventures vet viajes video villas vin vip vision vodka
vote voyage wales wang watch webcam website wedding wien wiki win wine work works world wtf xyz yoga zone
"""
NOBODY = "openssh.com libssh.org users.noreply.github.com"  # SSH names its ciphers so; no addresses
COUNTRY_CODES = """
1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 81 82 84 86 90 91
92 93 94 95 98 211 212 213 216 218 220 221 222 223 224 225 226 227 228 229 230 231 232 233 234 235 236 237 238 239 240
241 242 243 244 245 246 247 248 249 250 251 252 253 254 255 256 257 258 260 261 262 263 264 265 266 267 268 269 290 291
297 298 299 350 351 352 353 354 355 356 357 358 359 370 371 372 373 374 375 376 377 378 380 381 382 383 385 386 387 389
420 421 423 500 501 502 503 504 505 506 507 508 509 590 591 592 593 594 595 596 597 598 599 670 672 673 674 675 676 677
678 679 680 681 682 683 685 686 687 688 689 690 691 692 800 808 850 852 853 855 856 870 878 880 881 882 883 886 888 960
961 962 963 964 965 966 967 968 970 971 972 973 974 975 976 977 979 992 993 994 995 996 998
"""
IBAN_LENGTHS = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18
FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20
LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24
SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""  # SWIFT's registry of IBANs
PHONE_WORDS = """
tel tél telephone téléphone telefono teléfono telefone telefon telefoon puhelin phone phones mobile mobil móvil celular
cellphone fax telefax tlf tfno whatsapp hotline тел телефон факс τηλ τηλέφωνο
电话 電話 手机 手機 热线 熱線 传真 傳真 携帯 전화
"""
CARD_WORDS = "card cards visa mastercard amex discover creditcard cardnumber kreditkarte carte tarjeta 卡号"
ADDRESS_WORDS = "ip ips ipv ipaddr ipaddress addr address host client peer remote nameserver dns"
VERSION_WORDS = """
version versions ver vers v release released rev revision section sect chapter clause table figure oid firmware
assemblyversion fileversion driver build kernel package upgrade upgraded update updated python java gcc glibc
chrome firefox safari opera
"""
# Prefix, alphabet, least and most characters after it.
KEYS = (
    ("AKIA", UPPER | DIGIT, 16, 16),  # AWS
    ("ASIA", UPPER | DIGIT, 16, 16),
    ("ghp_", UPPER | LOWER | DIGIT, 36, 36),  # GitHub
    ("gho_", UPPER | LOWER | DIGIT, 36, 36),
    ("ghu_", UPPER | LOWER | DIGIT, 36, 36),
    ("ghs_", UPPER | LOWER | DIGIT, 36, 36),
    ("ghr_", UPPER | LOWER | DIGIT, 36, 76),
    ("github_pat_", WORD, 82, 82),
    ("glpat-", TOKEN, 20, 64),  # GitLab
    ("xoxa-", TOKEN, 20, 255),  # Slack
    ("xoxb-", TOKEN, 20, 255),
    ("xoxp-", TOKEN, 20, 255),
    ("xoxr-", TOKEN, 20, 255),
    ("xoxs-", TOKEN, 20, 255),
    ("sk_live_", UPPER | LOWER | DIGIT, 20, 128),  # Stripe
    ("rk_live_", UPPER | LOWER | DIGIT, 20, 128),
    ("sk-proj-", TOKEN, 40, 255),  # OpenAI
    ("sk-svcacct-", TOKEN, 40, 255),
    ("sk-ant-", TOKEN, 40, 255),  # Anthropic
    ("sk-", UPPER | LOWER | DIGIT, 32, 64),
    ("AIza", TOKEN, 35, 35),  # Google
    ("hf_", UPPER | LOWER | DIGIT, 34, 40),  # Hugging Face
    ("npm_", UPPER | LOWER | DIGIT, 36, 36),
    ("pypi-AgEIcHlwaS5vcmc", TOKEN, 50, 255),
)
LONGEST_TOKEN = 8192  # bytes of a JSON Web Token


class Tables(NamedTuple):
    classes: NDArray[np.uint8]  # of each byte
    pairs: NDArray[np.uint8]  # KEY and COUNTRY, of each pair of bytes
    top_level: NDArray[np.uint64]  # these six are sorted hashes of words
    nobody: NDArray[np.uint64]
    phone: NDArray[np.uint64]
    card: NDArray[np.uint64]
    address: NDArray[np.uint64]
    version: NDArray[np.uint64]
    country_codes: NDArray[np.bool_]
    iban_lengths: NDArray[np.int64]  # by pair of letters
    prefixes: NDArray[np.uint8]
    prefix_at: NDArray[np.int64]
    key_rules: NDArray[np.int64]  # [keys, 3]: alphabet, least, most


@functools.lru_cache(maxsize=1)
def tables() -> Tables:
    classes = np.zeros(256, np.uint8)
    for text, flags in (
        ("0123456789", DIGIT | HEX | LOCAL | DOMAIN | TOKEN | WORD),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", UPPER | LOCAL | DOMAIN | TOKEN | WORD),
        ("abcdefghijklmnopqrstuvwxyz", LOWER | LOCAL | DOMAIN | TOKEN | WORD),
        ("abcdefABCDEF", HEX),
        ("._%+-", LOCAL),
        ("-", DOMAIN),
        ("-_", TOKEN),
        ("_", WORD),
    ):
        for byte in text.encode():
            classes[byte] |= flags
    pairs = np.zeros(1 << 16, np.uint8)
    lengths = np.zeros(26 * 26, np.int64)
    for entry in IBAN_LENGTHS.split():
        one, other = entry[:2].encode()
        pairs[one << 8 | other] |= COUNTRY
        lengths[(one - 65) * 26 + other - 65] = int(entry[2:])
    for prefix in ("--", "ey", *(key[0] for key in KEYS)):
        pairs[int.from_bytes(prefix.encode()[:2])] |= KEY
    codes = np.zeros(1000, np.bool_)
    codes[[int(code) for code in COUNTRY_CODES.split()]] = True
    return Tables(
        classes=classes,
        pairs=pairs,
        top_level=_hashes(TOP_LEVEL),
        nobody=_hashes(NOBODY),
        phone=_hashes(PHONE_WORDS),
        card=_hashes(CARD_WORDS),
        address=_hashes(ADDRESS_WORDS),
        version=_hashes(VERSION_WORDS),
        country_codes=codes,
        iban_lengths=lengths,
        prefixes=np.frombuffer("".join(key[0] for key in KEYS).encode(), np.uint8).copy(),
        prefix_at=np.cumsum([0, *(len(key[0]) for key in KEYS)]),
        key_rules=np.array([key[1:] for key in KEYS], np.int64),
    )


def _hashes(words: str) -> NDArray[np.uint64]:
    data = [np.frombuffer(word.encode(), np.uint8).copy() for word in words.split()]
    return np.unique(np.array([hash_word(word, 0, word.size) for word in data], np.uint64))


@njit(nogil=True, cache=True)
def byte_at(data, low, i, end):  # type: ignore[no-untyped-def]
    """The byte at i, 0 outside of low:end."""
    return np.int64(data[np.uint64(i)]) if low <= i < end else np.int64(0)


@njit(nogil=True, cache=True)
def is_a(classes, byte, flags):  # type: ignore[no-untyped-def]
    return classes[np.uint64(byte)] & flags != 0


@njit(nogil=True, cache=True)
def hash_word(data, begin, end):  # type: ignore[no-untyped-def]
    """FNV-1a of the bytes, ASCII capitals as small letters."""
    h = np.uint64(0xCBF29CE484222325)
    for i in range(begin, end):
        b = np.uint64(data[np.uint64(i)])
        if np.uint64(65) <= b <= np.uint64(90):
            b |= np.uint64(32)
        h = (h ^ b) * np.uint64(0x100000001B3)
    return h


@njit(nogil=True, cache=True)
def is_listed(words, data, begin, end):  # type: ignore[no-untyped-def]
    h = hash_word(data, begin, end)
    k = np.searchsorted(words, h)
    return k < words.shape[0] and words[k] == h


@njit(nogil=True, cache=True)
def told(data, low, at, classes, words):  # type: ignore[no-untyped-def]
    """Whether one of `words` stands on the same line in the WINDOW bytes before `at`; <word> is a placeholder."""
    end = at
    while end > max(low, at - WINDOW) and data[np.uint64(end - 1)] != 10:
        begin = end
        while begin > max(low, end - WINDOW) and _letter(classes, data[np.uint64(begin - 1)]):
            begin -= 1
        if begin == end:
            end -= 1
            continue
        if end - begin > 6 and data[np.uint64(end - 3)] in (0xE3, 0xEF) and data[np.uint64(end - 2)] in (0x80, 0xBC):
            end -= 3  # full-width colon and the like
        if byte_at(data, low, begin - 1, at) != 60:
            if is_listed(words, data, begin, end):
                return True
            if end - begin > 6 and data[np.uint64(end - 6)] >= 0xE3 and is_listed(words, data, end - 6, end):
                return True  # two characters of a script without spaces
        end = begin
    return False


@njit(nogil=True, cache=True)
def beside(data, low, at):  # type: ignore[no-untyped-def]
    """Whether no more than a comma, a slash or a short word is between."""
    for i in range(low, min(at, low + 9)):
        if data[np.uint64(i)] == 10:
            return False
    return at - low <= 8


@njit(nogil=True, cache=True)
def _letter(classes, byte):  # type: ignore[no-untyped-def]
    return byte >= 0x80 or is_a(classes, byte, UPPER | LOWER)
