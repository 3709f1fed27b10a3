"""A disk that fills: the build fails saying so, leaves no manifest of the stage, and goes on when there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.units import UnitFailed
from tests.workflows.corpora import hashes, lay_out, recipe
from workflows.build import build, prepare


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 900 kB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_fails_by_name_and_the_next_build_resumes(
    small_disk: Path, tmp_path: Path, sample: Path, ray_session: None
) -> None:
    lay_out(tmp_path / "in", sample)
    path = recipe(tmp_path / "r.yaml", [str(tmp_path / "in")], small_disk / "out")
    with pytest.raises(UnitFailed, match="No space left on device"):
        build(prepare(path))
    stages = {folder.name.split("-")[0]: folder for folder in (small_disk / "out" / "stages").iterdir()}
    unfinished = [name for name, folder in stages.items() if not (folder / "manifest.json").exists()]
    assert len(unfinished) == 1
    assert not (small_disk / "out" / "_log").exists()
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    result = build(prepare(path))
    assert result["committed"]
    elsewhere = recipe(tmp_path / "e.yaml", [str(tmp_path / "in")], tmp_path / "out")
    assert hashes(result) == hashes(build(prepare(elsewhere)))
