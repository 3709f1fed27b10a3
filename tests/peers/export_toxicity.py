"""Regenerate operators/models/toxicity.npz, the model of alt-profanity-check 1.9.1 as plain arrays, and
tests/data/peers/toxicity.npz, the probabilities that it gives.

    uv venv .venv-toxicity && uv pip install --python .venv-toxicity/bin/python -r tests/peers/requirements-toxicity.txt
    .venv-toxicity/bin/python tests/peers/export_toxicity.py

The package holds its model as pickles, which run code when they are read: here, once, in an environment of its own.
"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from profanity_check.profanity_check import model, vectorizer

ROOT = Path(__file__).parents[2]
TEXTS = 400  # of the sample
LINES = [
    "",
    "a",
    "You are a stupid idiot and nobody likes you",
    "YOU ARE AN IDIOT!!! SHUT UP",
    "idiot idiot idiot idiot thank you for the kind review",
    "Thank you for the kind review, it was of great help.",
    "the_idiot is no word of it, nor is idiot_; an idiot2 is not either",
    "d\u00e9j\u00e0 vu, caf\u00e9, pok\u00e9mon and JOS\u00c9, \u9023\u7d61 \u8ff7\u60d1",
    "\u0130diot, id\u0130ot, \u212aill, \u017fhit, fu\u00adck, fuck\u0301ing",
    "Go away, moron\u2014you pathetic loser\u2026",
    "kill the parent process and its child",
    "the and of to in",
    "\u0924\u0941\u092e\u094d\u0939\u093e\u0930\u093e \u0915\u094d\u092f\u093e \u0928\u093e\u092e \u0939\u0948",
    "\U0001f600 shitty \U0001d41f\U0001d42e\U0001d41c\U0001d424 weather",
]


def main() -> None:
    parts = model.calibrated_classifiers_
    sigmoids = [part.calibrators[0] for part in parts]
    order = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
    np.savez(
        ROOT / "operators" / "models" / "toxicity.npz",
        words=np.frombuffer("\n".join(order).encode(), np.uint8),
        idf=vectorizer.idf_.astype("<f4"),
        coefficients=np.stack([part.estimator.coef_[0] for part in parts], axis=1).astype("<f4"),
        intercept=np.array([part.estimator.intercept_[0] for part in parts], "<f8"),
        slope=np.array([part.a_ for part in sigmoids], "<f8"),
        offset=np.array([part.b_ for part in sigmoids], "<f8"),
    )
    sample = pq.read_table(ROOT / "workflows" / "sample" / "sample.parquet")["text"].to_pylist()[:TEXTS]
    np.savez(
        ROOT / "tests" / "data" / "peers" / "toxicity.npz",
        lines=np.frombuffer("\n".join(LINES).encode(), np.uint8),
        of_lines=model.predict_proba(vectorizer.transform(LINES))[:, 1],
        of_sample=model.predict_proba(vectorizer.transform(sample))[:, 1],
    )


if __name__ == "__main__":
    main()
