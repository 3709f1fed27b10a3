"""A text, what people made of it by hand in each style, and other texts; and models that rewrite well or badly, for
the server of benchmarks/chat_server.py."""

from __future__ import annotations

from typing import Any

SOURCE = """\
The lighthouse on Gull Rock was finished in 1871, after nine years of work in which storms twice carried the \
scaffolding away. Its lamp, fed with rape oil until 1904, could be seen from a ship at a distance of eighteen miles. \
Three keepers lived there with their families; supplies came by rowing boat whenever the sea allowed it, which in \
winter might be once a month.

When the light was made automatic in 1983 the last keeper, Thomas Arundel, asked to stay, and he rented the empty \
cottage from the harbour authority until his death. Today the tower is a museum. Visitors climb 142 steps to the \
gallery, and on clear days they can see the coast of the neighbouring country."""
EASY = """\
There is a tall tower on Gull Rock. It has a big light on top. People worked on it for nine years. They were done in \
1871. Two times, a big storm took the wood away. The light used oil to burn. Ships far out on the sea could see it. \
Three men lived there with their families. They cared for the light. Food came in a small boat. In winter the boat \
came only one time each month.

In 1983 a machine began to run the light. Thomas Arundel was the last man there. He asked to stay. He paid for the \
small house and lived in it until he died. Now you can go and look at the tower. You climb 142 steps. If the sky is \
clear, you can see another land."""
WIKI = """\
Gull Rock Lighthouse was completed in 1871 following a construction period of nine years, during which its \
scaffolding was destroyed by storms on two occasions. The lamp burned rape oil until 1904 and was visible to vessels \
eighteen miles away. The station was staffed by three keepers, who lived on the rock with their families and were \
supplied by rowing boat as the weather permitted, in winter as rarely as once a month. Following automation in 1983, \
the final keeper, Thomas Arundel, leased the vacant cottage from the harbour authority and remained there for the \
rest of his life. The tower now serves as a museum, where a climb of 142 steps leads to a gallery from which the coast \
of the neighbouring country is visible in clear weather."""
HARD = """\
Gull Rock's pharos attained completion in 1871, a novennial labour whose staging tempests twice abolished. Rape-oil \
illumination, persisting to 1904, commanded a visibility of eighteen miles. A triad of custodians, domestically \
accompanied, depended upon oared provisioning subject to maritime caprice, hibernally reduced to monthly intervals. \
Upon automation in 1983 Thomas Arundel, ultimate incumbent, petitioned to abide, holding the vacated cottage of the \
harbour authority in tenancy unto decease. The edifice, presently musealised, affords those ascending its 142 steps a \
gallery whence, given pellucid skies, the adjacent nation's littoral is discernible."""
QA = """\
Question: When was the lighthouse on Gull Rock finished, and how long did it take?
Answer: It was finished in 1871 after nine years, and storms carried off the scaffolding twice.
Question: What did the lamp burn, and how far could it be seen?
Answer: Until 1904 it burned rape oil, and ships saw it from eighteen miles away.
Question: Who lived on the rock?
Answer: Three keepers with their families, supplied by rowing boat, in winter perhaps once a month.
Question: What became of the last keeper?
Answer: When the light was automated in 1983, Thomas Arundel asked to stay and rented the cottage from the harbour \
authority until he died.
Question: What is there now?
Answer: A museum. After climbing 142 steps, visitors reach the gallery, and in clear weather they see the \
neighbouring country's coast."""
GERMAN = """\
Der Leuchtturm auf dem Möwenfelsen wurde 1871 nach neun Jahren Bauzeit vollendet; zweimal rissen Stürme das Gerüst \
fort. Seine Lampe brannte bis 1904 mit Rapsöl und war achtzehn Meilen weit zu sehen. Drei Wärter lebten dort mit ihren \
Familien, und Vorräte kamen mit dem Ruderboot, sooft die See es erlaubte, im Winter vielleicht einmal im Monat. Als \
das Licht 1983 automatisch wurde, bat der letzte Wärter, Thomas Arundel, bleiben zu dürfen, und mietete das leere Haus \
von der Hafenbehörde bis zu seinem Tod. Heute ist der Turm ein Museum; 142 Stufen führen hinauf zur Galerie."""
OTHER = """\
Sourdough bread rises without added yeast, because the flour itself carries wild yeasts and bacteria that wake up when \
it is mixed with water and left in a warm place. A baker feeds this starter every day with fresh flour, throwing half \
of it away, until it doubles within a few hours. The dough is folded several times instead of being kneaded, then it \
rests in a basket overnight in the refrigerator. Baked in a closed iron pot, the loaf keeps its steam and grows a \
thin, crackling crust. People say that it stays fresh for a week, and that old bread makes the best soup."""
CHINESE = (
    "海鸥岩上的灯塔于1871年建成，工程历时九年，其间脚手架两次被风暴卷走。灯用菜籽油点燃，船只在十八海里外就能看见。"
)
CHINESE_AGAIN = (
    "经过九年施工，海鸥岩灯塔在1871年完工；风暴曾两度毁掉脚手架。它点的是菜籽油，十八海里以外的船都看得到灯光。"
)
CHINESE_OTHER = (
    "面包师每天用新鲜面粉喂养酵种，把其中一半扔掉。面团折叠几次以后，放进冰箱里的篮子过夜，第二天早上在铁锅里烤熟。"
)
GERMAN_AGAIN = """\
Neun Jahre lang baute man am Turm auf dem Möwenfelsen, ehe er 1871 fertig war, und zweimal nahm ein Sturm das Gerüst \
mit. Bis 1904 speiste Rapsöl die Lampe, die man achtzehn Meilen weit sah. Drei Wärter hausten dort samt Familien; \
was sie brauchten, brachte ein Ruderboot, wenn das Meer ruhig genug war, winters oft nur monatlich. Nach der \
Automatisierung im Jahr 1983 wollte Thomas Arundel, der letzte von ihnen, nicht fort: Er wohnte bis an sein Ende zur \
Miete im Haus der Hafenbehörde. Inzwischen ist der Leuchtturm ein Museum, auf dessen Galerie man über 142 Stufen \
gelangt."""
OTHER_AGAIN = """\
No yeast has to be bought for sourdough: wild yeasts and bacteria live in flour, and become active in a mixture of \
it and water that stands somewhere warm. This starter needs a daily meal. Half is discarded, fresh flour is stirred \
in, and at some point it takes just hours to grow to twice its size. Nobody kneads such dough; folding it now and \
again does the work, and a night in the cold, in a basket, the rest. The crust is thin and crackles, thanks to a \
lidded pot of iron which holds the steam in. A loaf is said to keep for seven days, and what is left over to be best \
for soup."""
MONOTONE = (
    "He had a dog and the dog ran. It ran far, so he ran too. Then he sat on a log, and it sat by him and ate. The sun "
    "was hot, a bird sang, and no one came. At noon he got up. He put his hat on, cut a rod and went out to fish."
)


def swapped(text: str) -> str:
    """The same words and nearly the same language, but no run of five words that stands in the text."""
    words = text.split()
    return " ".join(word for k in range(0, len(words), 2) for word in reversed(words[k : k + 2]))


def source_of(body: dict[str, Any]) -> str:
    """The text that a request asks to have rewritten."""
    content = body["messages"][-1]["content"]
    content = content if isinstance(content, str) else "".join(part["text"] for part in content)
    return str(content.partition("TEXT:\n")[2])


def paraphrasing(body: dict[str, Any]) -> str:
    return f"EDITED: {swapped(source_of(body))} <end>"


def as_told(body: dict[str, Any]) -> str | dict[str, Any]:
    """Does what a word in the text says that this model does to it; rewrites other texts."""
    text = source_of(body)
    replies: dict[str, str | dict[str, Any]] = {
        "COPIES": f"EDITED: {text}\n<end>",
        "FORGETS": f"EDITED: {swapped(text)}",
        "CHATTERS": f"Sure! Here you are: {swapped(text)} <end>",
        "GERMAN": f"EDITED: {GERMAN} <end>",
        "WANDERS": f"EDITED: {OTHER} <end>",
        "STAMMERS": f"EDITED: {'the lighthouse on the rock was finished and ' * 12}<end>",
        "SHORTENS": "EDITED: A lighthouse. <end>",
        "LENGTHENS": f"EDITED: {swapped(text)} {GERMAN} {OTHER} {swapped(OTHER)} {WIKI} <end>",
        "MARKS": f"EDITED:\nEDITED: {swapped(text)} <end>",
        "APOLOGISES": "I'm sorry, but I can't rewrite this text.",
        "REFUSES": {"content": None, "refusal": "No."},
        "EMPTY": "EDITED: <end>",
    }
    return next((reply for word, reply in replies.items() if word in text), paraphrasing(body))
