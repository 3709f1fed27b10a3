"""Captions, from recordings to clips with verified captions: how fast on one core, how right on clips of which all is
known (benchmarks/captions_corpus.py, two seeds), and what asking a server costs.

    python -m benchmarks.captions [PACKAGES]    # Debian's packages, and where to keep them; got where they are missing

The steps are those of `workflows/captions.py`, without Ray and without the global ones; times are CPU seconds of this
process. Then a server that takes 0.5 s to answer anything (benchmarks/chat_server.py): how clips a second grow with
requests in flight, beside a peer that does as AudioSetCaps's script does, one request after the other, each on a new
connection; and how many calls are not made, because answers are kept, or there is nothing to ask about. These times are
by the clock. Quote the ratios, not the figures.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from benchmarks import captions_corpus, speech_corpus
from benchmarks.captions_score import Score, total, truths
from benchmarks.chat_server import ChatServer, Faults, chat_server
from benchmarks.speech import row
from benchmarks.speech_score import Ratio
from operators.apply import Applied, Step, apply
from operators.caption.chain import QUESTIONS
from operators.caption.compose import Compose
from operators.caption.extract import Extract
from operators.caption.facts import facts_of
from operators.caption.prompts import PUBLISHED_PROMPT, PUBLISHED_SYSTEM
from operators.models.answers import InMemory, keep_answers_in
from operators.models.chat import Chat, sound_of
from workflows.captions_sample import Known
from workflows.recipe import Params, load_workflow

SEEDS = (1, 2)
WRITERS = {"grammar": 1, "smollm2": 4}  # every clip, every fourth one
LATENCY = 0.5  # seconds of an answer
FLIGHTS = (1, 8, 64)  # requests at a time
FEWEST = 16  # clips that the server is asked about; twice as many as requests in flight, if those are more
ANSWERS = (  # of the server, in the order of the questions; the published script wants 100 characters in all
    "A person speaks at some length while something that may be music is heard in the background.",
    "The speaker sounds calm; nothing is sure about the language.",
    "The music is soft and slow, with an instrument that is hard to make out.",
)
CAPTION = "Somebody speaks over soft music."
SERVER = "benchmarks.captions:reply"


def reply(body: dict[str, Any]) -> str:
    """What the server says to a question of the chain, or for a caption."""
    if "response_format" in body:
        return json.dumps({"caption": CAPTION})
    if any(message["role"] == "system" for message in body["messages"]):
        return CAPTION
    return ANSWERS[len(body["messages"]) // 2]


def steps(stage: str, params: Mapping[str, Any]) -> list[Step]:
    """Those of a stage of the workflow, with their operators' parameters."""
    (found,) = (one for one in load_workflow("captions")(Params(params)).chain() if one.name == stage)
    return list(found.steps)


def together(tables: Iterable[pa.Table]) -> pa.Table:
    return pa.concat_tables(list(tables), promote_options="permissive")


def main() -> None:
    packages = Path(sys.argv[1]) if len(sys.argv) > 1 else speech_corpus.CACHE
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        seconds: dict[str, float] = {}
        for seed in SEEDS:
            seconds |= captions_corpus.build(folder, seed, packages)
        measure(folder, seconds)


def measure(folder: Path, seconds: Mapping[str, float]) -> None:
    """Print all of it, for a corpus."""
    known = truths(folder / "truth")
    print(f"{len(known)} clips, {sum(seconds.values()) / 60:.1f} minutes, seeds {', '.join(map(str, SEEDS))}\n")
    heard = listened(folder, seconds)
    print("captions, by who writes them               clips / CPU s")
    for writer, step in WRITERS.items():
        cut, some = steps("caption", {"compose": {"writer": writer}}), heard.take(np.arange(0, len(heard), step))
        apply(cut, some.slice(0, 1))  # which loads what is needed
        told = apply(cut, some)
        for count in told.counts:
            print(f"  {f'{count.name}, {writer}':40} {len(some) / count.cpu_seconds:12.1f}")
        show_captions(told, known)
    with chat_server(SERVER, Faults(latency=LATENCY)) as server:
        in_flight(server, heard)
    with chat_server(SERVER) as server:
        calls(server, heard)


def listened(folder: Path, seconds: Mapping[str, float]) -> pa.Table:
    """The clips with their facts; prints how fast they were made, and how right they are."""
    listen = steps("listen", {})
    cut, kept, dropped = Counter[str](), [], []
    for seed in SEEDS:
        clip = steps("clip", {"label": {"file": str(folder / f"labels-{seed}.csv")}})
        for name in (name for name in seconds if name.startswith(f"{seed}-")):
            first = apply(clip, row(folder / "audio" / name, name))
            if not cut:
                apply(listen, first.kept)  # which loads the models
            cut.update({count.name: count.cpu_seconds for count in first.counts})
            kept.append(first.kept)
            dropped.append(first.dropped)
    clips = together(kept)
    second = apply(listen, clips)
    spent = cut + Counter({count.name: count.cpu_seconds for count in second.counts})
    audio = sum(clips["samples"].to_pylist()) / 24_000
    print("listening                                  clips / CPU s   audio s / CPU s")
    for name, taken in [*spent.items(), ("end to end", spent.total())]:
        print(f"  {name:40} {len(clips) / taken:12.1f} {audio / taken:14.1f}")
    show_reasons(together([*dropped, second.dropped]))
    print()
    show_facts(second.kept, truths(folder / "truth"))
    return second.kept


def known_of(table: pa.Table, known: Mapping[tuple[str, float], Known]) -> list[Known]:
    """The truth of each row."""
    return [known[pair] for pair in zip(table["recording"].to_pylist(), table["start"].to_pylist(), strict=True)]


def line(what: str, ratio: Ratio) -> None:
    print(f"  {what:40} {ratio.value:12.3f}   of {ratio.whole:g}")


def show_facts(table: pa.Table, known: Mapping[tuple[str, float], Known]) -> None:
    """How right the experts are, all together and over music."""
    score = Score()
    levels: dict[str, Ratio] = {}
    for truth, facts in zip(known_of(table, known), facts_of(table["facts"]), strict=True):
        score.heard(truth, facts)
        if truth.level is not None:
            alone = Score()
            alone.heard(truth, facts)
            ratio = levels.setdefault(f"{truth.kind} at {truth.level:g} dB", Ratio())
            ratio.add(alone.speech.part and (alone.music.part if truth.music else 1), 1)
    print("facts, of clips                               right")
    line("speech or none", score.speech)
    line("music or none", score.music)
    for language, ratio in sorted(score.language.items()):
        line(f"language, of speech in {language}", ratio)
    for gender, ratio in sorted(score.gender.items()):
        line(f"gender, of {gender} voices", ratio)
    line("an instrument, where one is known", score.instruments)
    for name, ratio in sorted(levels.items()):
        line(f"all there is, {name}", ratio)
    print("false facts, of those that can be told")
    for kind, ratio in sorted(score.hallucinated.items()):
        line(kind, ratio)
    line("all", total(score.hallucinated.values()))
    print()


def show_captions(told: Applied, known: Mapping[tuple[str, float], Known]) -> None:
    """How true captions are, to the facts and to the clips."""
    score, kept = Score(), told.kept
    for truth, facts, caption in zip(
        known_of(kept, known), facts_of(kept["facts"]), kept["text"].to_pylist(), strict=True
    ):
        score.told(truth, facts, caption)
    clips = len(kept) + len(told.dropped)
    line("kept", Ratio(len(kept), clips))
    line("accepted", Ratio(sum(kept["accepted"].to_pylist()), clips))
    line("consistent with the facts", score.consistent)
    line("  the score of that", score.agreement)
    line("false claims, of those that can be told", score.claimed)
    print(f"  different captions: {len(set(kept['text'].to_pylist()))}")
    show_reasons(told.dropped)
    print()


def show_reasons(dropped: pa.Table) -> None:
    fate = Counter(dropped["drop_reason"].to_pylist())
    print(f"  not kept: {', '.join(f'{n} {reason}' for reason, n in sorted(fate.items())) or 'none'}")


def asking(chat: Chat) -> tuple[Extract, Compose]:
    """Both operators, four questions a clip, as the published script asks them."""
    return Extract(model=chat, mode="published"), Compose(writer=chat, attempts=1, floor=-1, fallback="off")


def in_flight(server: ChatServer, clips: pa.Table) -> None:
    """Clips a second, by how many requests are in flight, beside the published way."""
    clips = clips.drop_columns([name for name in ("answers", "answers_from") if name in clips.column_names])
    print(f"four questions a clip, {LATENCY:g} s an answer            clips / s     ratio")
    few = clips.slice(0, FEWEST)
    begun = time.perf_counter()
    for payload in few["payload"].to_pylist():
        published(server.url, payload)
    peer = (time.perf_counter() - begun) / len(few)
    print(f"  {'the published way':40} {1 / peer:12.2f} {1.0:9.1f}")
    for requests in FLIGHTS:
        some = clips.slice(0, max(FEWEST, 2 * requests))
        keep_answers_in(InMemory())
        extract, compose = asking(Chat(endpoint=server.url, model="benchmark", concurrency=requests))
        begun = time.perf_counter()
        compose(extract(some))
        own = (time.perf_counter() - begun) / len(some)
        print(f"  {f'{requests} in flight':40} {1 / own:12.2f} {peer / own:9.1f}")
    print()


def published(url: str, payload: bytes) -> str:
    """A clip's caption as AudioSetCaps's scripts get it: a chat of three questions, then the writer; all one by one."""
    encoded = base64.b64encode(sound_of(payload).data).decode()
    audio = {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}}
    messages: list[dict[str, Any]] = []
    answers = []
    for question in QUESTIONS.values():
        first = [audio, {"type": "text", "text": question}]
        messages.append({"role": "user", "content": question if messages else first})
        answers.append(_post(url, messages))
        messages.append({"role": "assistant", "content": answers[-1]})
    prompt = PUBLISHED_PROMPT.format(answers="\n".join(answers), labels="")
    return _post(url, [{"role": "system", "content": PUBLISHED_SYSTEM}, {"role": "user", "content": prompt}])


def _post(url: str, messages: Sequence[Mapping[str, Any]]) -> str:
    data = orjson.dumps({"model": "benchmark", "messages": messages, "temperature": 0})
    request = urllib.request.Request(f"{url}/chat/completions", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return str(orjson.loads(response.read())["choices"][0]["message"]["content"])


def calls(server: ChatServer, clips: pa.Table) -> None:
    """Calls that are made, and those that are not."""
    keep_answers_in(InMemory())
    chat = Chat(endpoint=server.url, model="benchmark", concurrency=FLIGHTS[-1])
    extract, compose = asking(chat)
    print(f"calls for {len(clips)} clips                           made    kept answers")

    def show(what: str, *operators: Any) -> None:
        before = server.told()["requests"]
        table, counted = clips, Counter[str]()
        for operator in operators:
            found = apply([Step(operator.name, operator)], table)
            table = found.kept
            counted.update(found.counts[0].counted)
        made = server.told()["requests"] - before
        print(f"  {what:40} {made:12} {counted['cached']:12}")

    show("the published questions, and captions", extract, compose)
    show("again, as after a crash", extract, compose)
    show(
        "captions anew, by another seed",
        extract,
        dataclasses.replace(compose, writer=dataclasses.replace(chat, seed=1)),
    )
    keep_answers_in(InMemory())
    show("asked only of what experts hear", dataclasses.replace(extract, mode="default"), compose)


if __name__ == "__main__":
    main()
