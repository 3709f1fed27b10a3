"""`corpusmill fingerprint`: names and fingerprints of the recordings of an evaluation set, for `decontaminate_audio`.

Sound cannot be made from them again, so they can be shared where recordings cannot. The file's bytes depend on the
recordings only, not on how they were named on the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.inputs import open_input
from operators.caption.fingerprint import words_of
from operators.caption.heard_sets import write
from operators.speech.decode import Decoder, Undecodable
from operators.speech.spool import FULL_SCALE
from workflows.recipe import RecipeError
from workflows.recordings import check_arguments, published, recordings

LONGEST = 3600.0  # seconds, of a recording, which is held whole
SILENT = "silent"  # or too short for a word


def fingerprints(patterns: Sequence[str], output: Path) -> dict[str, Any]:
    """Writes the fingerprints of the recordings that paths, folders and globs name, and returns what was read, with the
    reason for each recording that was not. Raises RecipeError for bad arguments, and if nothing could be read."""
    check_arguments("fingerprint", output, "a file of fingerprints ends in .parquet", {})
    found: dict[str, NDArray[np.uint32]] = {}
    unread: dict[str, str] = {}
    for rel, url in recordings(patterns):
        if rel in found or rel in unread:
            raise RecipeError(f"{url}: there are two recordings {rel}")
        try:
            words = _words(rel, url)
        except Undecodable as error:
            unread[rel] = error.reason
        except OSError as error:
            raise RecipeError(f"{url}: {error}") from error
        else:
            if words.any():
                found[rel] = words
            else:
                unread[rel] = SILENT
    if not found:
        raise RecipeError(f"{' '.join(patterns)}: no recording that has a fingerprint, of {len(unread)}")
    names = sorted(found)
    return {
        "fingerprints": output.name,
        **published(output, lambda part: write(part, names, [found[name] for name in names])),
        "recordings": len(names),
        "words": sum(map(len, found.values())),
        "unread": dict(sorted(unread.items())),
    }


def _words(rel: str, url: str) -> NDArray[np.uint32]:
    with open_input(url) as file, Decoder(file, rel) as decoder:
        blocks = list(decoder.blocks(LONGEST))
    samples = np.concatenate([np.zeros(0, np.int16), *blocks])
    return words_of(samples.astype(np.float32) / np.float32(FULL_SCALE))
