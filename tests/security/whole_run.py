"""Builds, reports, explains and verifies a small corpus in object storage that opens with one of the planted secrets,
and brings what lies there below a folder: `python -m tests.security.offline python -m tests.security.whole_run FOLDER`.

The server is a part of it, as a namespace without a network has a loopback of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import boto3

from cluster.seaweed import serve
from tests.security.canaries import VALUES, environment
from tests.workflows.corpora import lay_out, recipe

COMMAND = str(Path(sys.executable).with_name("corpusmill"))
SAMPLE = Path(__file__).parents[2] / "workflows" / "sample"
OUTPUT = "s3://corpora/out"
KEPT = "eos"  # a document of the corpus that is


def main(folder: Path) -> None:
    secret = VALUES["AWS_SECRET_ACCESS_KEY"]
    lay_out(folder / "in", SAMPLE)
    made = recipe(folder / "r.yaml", [str(folder / "in")], OUTPUT)
    (folder / "tmp").mkdir()  # of Ray's session too
    with serve(folder / "server", ["corpora"], "anyone", secret) as endpoint:
        planted = environment(**endpoint.environment(), TMPDIR=str(folder / "tmp"))
        commands = (["build", made, "--json"], ["report", OUTPUT], ["why", OUTPUT, KEPT, "--json"], ["verify", OUTPUT])
        for arguments in commands:
            subprocess.run([COMMAND, *map(str, arguments)], cwd=folder, env=planted, check=True)
        keys = {"aws_access_key_id": "anyone", "aws_secret_access_key": secret, "region_name": "us-east-1"}
        for stored in boto3.resource("s3", endpoint_url=endpoint.url, **keys).Bucket("corpora").objects.all():
            target = folder / "stored" / stored.key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(stored.get()["Body"].read())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
