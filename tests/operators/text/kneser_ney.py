"""Modified Kneser-Ney by dictionaries, straight from the formulas of Chen & Goodman 1998, and tokens by Python's own
string methods: what the kernels are held against."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict

Gram = tuple[str, ...]
FALLBACK = (0.5, 1.0, 1.5)
SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
LIKE = {"’": "'", "‘": "'", "“": '"', "”": '"', "«": '"', "»": '"', "–": "-", "—": "-", "。": ".", "、": ","}
LIKE |= {"…": ".", "\u00b4": "'", "\u00b7": "."}


def tokens(text: str) -> list[list[str]]:
    """The tokens of each line that has any."""
    lines = []
    for line in text.split("\n"):
        found: list[str] = []
        word, mark = "", ""
        for char in line + " ":
            kind = unicodedata.category(char)
            if kind in ("Mn", "Me", "Cf"):
                continue
            spaceless = kind[0] == "L" and unicodedata.name(char, "").startswith(SPACELESS)
            if kind[0] in "LNM" and not spaceless:
                bare = [c for c in unicodedata.normalize("NFD", char.lower()) if unicodedata.category(c) != "Mn"]
                word += "0" if kind == "Nd" else bare[0] if len(bare) == 1 else char.lower()[0]
                mark = ""
                continue
            if word and len(word) <= 64:
                found.append(word)
            elif word:
                found.append("<unk>")
            word = ""
            if spaceless:
                found.append(char)
                mark = ""
            elif kind[0] in "PS":
                like = unicodedata.normalize("NFKC", char)
                like = like if len(like) == 1 else char
                like = LIKE.get(like, like)
                if like != mark:
                    found.append(like)
                mark = like
            else:
                mark = ""
        if found:
            lines.append(found)
    return lines


class KneserNey:
    """Every probability by recursion over plain counts."""

    def __init__(self, lines: list[list[str]], order: int, prune: tuple[int, ...], vocabulary: int) -> None:
        self.order = order
        words = Counter(word for line in lines for word in line)
        ranked = sorted(words, key=lambda word: (-words[word], word.encode()))[:vocabulary]
        self.words = ["<unk>", "<s>", "</s>", *ranked]
        raw: Counter[Gram] = Counter()
        before: dict[Gram, set[str]] = defaultdict(set)
        for line in lines:
            row = ["<s>", *(word if word in ranked else "<unk>" for word in line), "</s>"]
            for k in range(1, order + 1):
                for at in range(len(row) - k + 1):
                    gram = tuple(row[at : at + k])
                    raw[gram] += 1
                    if at:
                        before[gram].add(row[at - 1])
        raw.pop(("<s>",))
        self.lines = len(lines)
        self.count = {g: n if len(g) == order or g[0] == "<s>" else len(before[g]) for g, n in raw.items()}
        least = [prune[min(k, len(prune)) - 1] for k in range(1, order + 1)]
        self.kept = {g for g, n in raw.items() if "<unk>" not in g and n > least[len(g) - 1]}
        self.discount = {k: self._discounts(k) for k in range(1, order + 1)}
        self.following: dict[Gram, list[Gram]] = defaultdict(list)
        for gram in self.count:
            self.following[gram[:-1]].append(gram)

    def _discounts(self, k: int) -> tuple[float, ...]:
        t = Counter(n for g, n in self.count.items() if len(g) == k and "<unk>" not in g)
        if not all(t[n] for n in (1, 2, 3, 4)):
            return FALLBACK
        y = t[1] / (t[1] + 2 * t[2])
        found = tuple(n - (n + 1) * y * t[n + 1] / t[n] for n in (1, 2, 3))
        return found if all(0 < d <= n for n, d in enumerate(found, 1)) else FALLBACK

    def _alpha(self, gram: Gram) -> float:
        n = self.count[gram]
        return n - self.discount[len(gram)][min(n, 3) - 1]

    def backoff(self, context: Gram) -> float:
        total = sum(self.count[g] for g in self.following[context])
        kept = [g for g in self.following[context] if g in self.kept]
        return 1 - sum(self._alpha(g) for g in kept) / total if kept else 1.0

    def p(self, word: str, context: Gram) -> float:
        """The probability of a word after the words of `context`, of which the last count."""
        context = context[-(self.order - 1) :]
        gram = (*context, word)
        total = sum(self.count[g] for g in self.following[context])
        own = self._alpha(gram) / total if gram in self.kept else 0.0
        if not context:
            return own + self.backoff(()) / (len(self.words) - 1)
        return own + self.backoff(context) * self.p(word, context[1:])
