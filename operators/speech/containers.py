"""What FFmpeg may open of what strangers made, and what a container says of its own length.

Only containers and codecs of sound that are named here, told by content and not by name: no playlist, which would make
it open other files, no protocol beside the file in hand, no picture.
"""

from __future__ import annotations

import os
import re
from typing import Any, BinaryIO

CONTAINERS = (  # FFmpeg's names of those that may be opened
    *("aac", "ac3", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "eac3", "flac", "flv", "g722", "matroska,webm"),
    *("mov,mp4,m4a,3gp,3g2,mj2", "mp3", "mpeg", "mpegts", "ogg", "tta", "w64", "wav", "wv"),
)
CODECS = (
    *("aac", "aac_latm", "ac3", "eac3", "alac", "amrnb", "amrwb", "ape", "dca", "flac", "g722", "gsm", "gsm_ms"),
    *("mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float", "opus", "speex", "tta", "vorbis", "wavpack"),
    *("wmalossless", "wmapro", "wmav1", "wmav2", "wmavoice", "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "adpcm_swf"),
    *("pcm_alaw", "pcm_mulaw", "pcm_bluray", "pcm_dvd", "pcm_f32be", "pcm_f32le", "pcm_f64be", "pcm_f64le", "pcm_s8"),
    *("pcm_s16be", "pcm_s16le", "pcm_s24be", "pcm_s24le", "pcm_s32be", "pcm_s32le", "pcm_s64be", "pcm_s64le"),
    *("pcm_u8", "nellymoser", "truehd"),
)
HEADERLESS = {"g722": "g722"}  # suffix of a file's name to container: of these the content does not tell
DECLARING = {  # containers that state their length, to how many seconds of it may be missing: codecs round and pad
    **dict.fromkeys(("aiff", "au", "caf", "flac", "tta", "w64", "wav", "wv"), 0.001),
    **dict.fromkeys(("avi", "matroska", "mov", "mp3"), 0.1),
}
OGG_PAGE = 27 + 255 + 255 * 255  # bytes, at most
ID3, XING = 10, 2048  # bytes: of the header of an ID3 tag, and within which the first frame of an MP3 has its own tag
DURATION = re.compile(r"(\d{1,9}):(\d\d):(\d\d(?:\.\d{1,9})?)")  # as Matroska's muxers tag each stream

OPTIONS = {
    "format_whitelist": ",".join(CONTAINERS),
    "codec_whitelist": ",".join(CODECS),  # pictures are not decoded even to see what they are
    "protocol_whitelist": "none",
}


def open_container(file: BinaryIO, name: str) -> Any:
    """The file as PyAV has it; `name` matters only where content does not tell the container. Raises FFmpegError,
    ValueError, OSError."""
    import av  # of the extra `speech`

    form = HEADERLESS.get(name.lower().rpartition(".")[2])
    return av.open(
        _Nameless(file), format=form, container_options=OPTIONS, metadata_errors="replace", buffer_size=1 << 16
    )


class _Nameless:
    """A file without the name from which FFmpeg would take hints."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def kind(container: Any) -> str:
    """FFmpeg's first name of the container's format."""
    return str(container.format.name).partition(",")[0]


def stated_seconds(container: Any, stream: Any, file: BinaryIO) -> float | None:
    """The length that the container states: none where FFmpeg only estimates it, from size and bit rate."""
    if kind(container) not in DECLARING or (kind(container) == "mp3" and not _counts_frames(file)):
        return None
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    if (tagged := DURATION.fullmatch(stream.metadata.get("DURATION", ""))) is not None:
        return 3600.0 * int(tagged[1]) + 60.0 * int(tagged[2]) + float(tagged[3])
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / 1e6)
    return None


def lacks_end(container: Any, file: BinaryIO) -> bool:
    """Whether an Ogg file does not end with a whole last page, the only thing that tells that its end is missing."""
    if kind(container) != "ogg":
        return False
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - OGG_PAGE))
    tail = file.read(OGG_PAGE)
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail) or at + 27 + tail[at + 26] > len(tail):
        return True
    whole = at + 27 + tail[at + 26] + sum(tail[at + 27 : at + 27 + tail[at + 26]]) <= len(tail)
    return not (whole and tail[at + 5] & 4)


def _counts_frames(file: BinaryIO) -> bool:
    """Whether the first frame of an MP3 holds the tag that says how many there are."""
    file.seek(0)
    head = file.read(ID3)
    if head[:3] == b"ID3" and len(head) == ID3:
        file.seek(ID3 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)))
    else:
        file.seek(0)
    head = file.read(XING)
    return any(tag in head for tag in (b"Xing", b"Info", b"VBRI"))
