"""Compile the kernels of the text workflow once, before the tests: each worker of each Ray would do it for itself, all
at once, half a minute of a core each. `make test` runs this beside the lint."""

from __future__ import annotations

from pathlib import Path

from cluster.session import prepare_environment

SAMPLE = Path(__file__).parents[1] / "workflows" / "sample" / "sample.parquet"


def main() -> None:
    prepare_environment()  # before numba reads where its cache is
    import pyarrow as pa
    import pyarrow.parquet as pq

    from operators.apply import apply
    from operators.dedup.minhash import MinHashDedup
    from operators.document import SCHEMA, with_columns
    from operators.phases import run_in_memory
    from workflows.recipe import Params
    from workflows.text import text

    docs = pq.read_table(SAMPLE).slice(0, 200)
    missing = {field.name: pa.nulls(len(docs), field.type) for field in SCHEMA if field.name not in docs.column_names}
    docs = with_columns(docs, missing | {"priority": pa.repeat(pa.scalar(0, pa.int32()), len(docs))})
    for stage in text(Params({})).chain():
        if stage.name == "clean":
            docs = apply(stage.steps, docs).kept
    run_in_memory(MinHashDedup(), [docs])


if __name__ == "__main__":
    main()
