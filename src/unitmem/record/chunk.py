"""Chunks of the history: what changed within a stretch of samples, in columns, and its bytes.

The parts of a sample are its units, the machine (`HOST`), and the levels, by the paths of their cgroups. Each has a
description, which is texts, and columns of numbers. Only changes are in a chunk: what isn't mentioned is as it was at the
end of the chunk before, unless this one is a key. A part that isn't there at the end of a chunk is forgotten.

The bytes are zlib's, with its checksum: the length of a header, the header in JSON, then the ticks, bounds and clocks of
all columns, one after the other. Equal bytes of neighbouring numbers stand side by side, as they compress best so.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

HOST = "host"
"""The machine's name among the parts of a sample: no unit is called so, as a unit's name has a dot."""
AT_MOST = "at most "
"""What precedes the name of a measure in the column of its upper bound, as it was not read."""
AT_LEAST = "at least "
"""Likewise of its lower bound."""
PARTLY = "partly"
"""The key in the description of a part of which a thinned chunk says nothing, as it was not the same all the time."""
MAX_TICKS = 0xFFFF
_MOST_SAMPLES = 1_000_000
_WINDOW_BITS = 12
_HASH_LEVEL = 6
"""With these, zlib takes 48 KiB to compress and not 256, which the watch would keep; it finds as much, as like is near like."""
_LARGEST = 256 << 20
"""Bytes that a chunk may have; what claims to have more is damaged."""


class Range(NamedTuple):
    """Bounds that a value stays within, from a tick on, until the next run; both are NaN where it is unknown."""

    tick: int
    low: float
    high: float


Description = Mapping[str, Any]
"""The texts about a part of a sample."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of samples."""

    clocks: Sequence[float]
    """The times of its ticks by the monotonic clock; of a thinned one, those of the first and the last."""
    samples: int
    """The number of samples, which are more than `clocks` where it is thinned."""
    is_key: bool = False
    """Whether nothing of earlier chunks holds on."""
    is_resumed: bool = False
    """Whether nobody looked just before it, as the watch had stopped, or the machine was suspended."""
    descriptions: Mapping[str, Sequence[tuple[int, Description | None]]] = field(default_factory=dict)
    """(tick, description) of each part, None from where on it is gone."""
    columns: Mapping[str, Mapping[str, Sequence[Range]]] = field(default_factory=dict)
    """The ranges of each part, by column."""

    @property
    def is_thinned(self) -> bool:
        return self.samples != len(self.clocks)


def encode(chunk: Chunk) -> bytes:
    """Return the bytes of `chunk`."""
    ranges = [each for columns in chunk.columns.values() for column in columns.values() for each in column]
    head = {
        "clocks": len(chunk.clocks),
        "samples": chunk.samples,
        "key": chunk.is_key,
        "resumed": chunk.is_resumed,
    }
    about = _by_part(chunk.descriptions.items())
    counts = _by_part(
        (part, {name: len(column) for name, column in columns.items()})
        for part, columns in chunk.columns.items()
    )
    header = f'{_json(head)[:-1]},"about":{about},"columns":{counts}}}'
    # a name may hold half of a surrogate pair
    text = header.encode(errors="replace")
    wide = [each.low < each.high for each in ranges]
    ticks = struct.pack(f"<{len(ranges)}H", *(each.tick for each in ranges))
    numbers = [
        *(each.low for each in ranges),
        *(each.high for each, is_wide in zip(ranges, wide, strict=True) if is_wide),
    ]
    numbers += chunk.clocks
    packer = zlib.compressobj(wbits=_WINDOW_BITS, memLevel=_HASH_LEVEL)
    parts = (
        struct.pack("<I", len(text)),
        text,
        bytes(wide),
        _planes(ticks, 2),
        _planes(struct.pack(f"<{len(numbers)}d", *numbers), 8),
    )
    return b"".join((*map(packer.compress, parts), packer.flush()))


def _by_part(parts: Iterable[tuple[str, object]]) -> str:
    """Return an object of JSON, of which one part is written at a time: json takes ten times the memory of its text."""
    return f"{{{','.join(f'{_json(part)}:{_json(value)}' for part, value in parts)}}}"


def _json(value: object) -> str:
    # as it is, since escapes take three times as much
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def decode(data: bytes) -> Chunk:
    """Return the chunk of `encode`.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return _decode(data)
    except (zlib.error, struct.error, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"a chunk is damaged: {error}") from None


def _decode(data: bytes) -> Chunk:
    reader = zlib.decompressobj()
    plain = reader.decompress(data, _LARGEST)
    if not reader.eof:
        raise ValueError("a chunk is damaged: it is cut off")
    (length,) = struct.unpack_from("<I", plain)
    header = json.loads(plain[4 : 4 + length])
    counts = [count for columns in header["columns"].values() for count in columns.values()]
    total, clocks = sum(counts), header["clocks"]
    rest = plain[4 + length :]
    wide, rest = rest[:total], rest[total:]
    ticks = struct.unpack(f"<{total}H", _whole(rest[: 2 * total], 2))
    numbers = struct.unpack(f"<{total + sum(wide) + clocks}d", _whole(rest[2 * total :], 8))
    highs = iter(numbers[total:])
    ranges = iter(
        [
            Range(tick, low, next(highs) if is_wide else low)
            for tick, low, is_wide in zip(ticks, numbers, wide, strict=False)
        ]
    )
    samples = int(header["samples"])
    if not 0 < samples <= _MOST_SAMPLES or clocks not in (2, samples):
        raise ValueError(f"a chunk is damaged: it has {samples} samples at {clocks} times")
    return Chunk(
        clocks=numbers[len(numbers) - clocks :],
        samples=samples,
        is_key=bool(header["key"]),
        is_resumed=bool(header["resumed"]),
        descriptions={
            part: [(int(tick), _description(about)) for tick, about in changes]
            for part, changes in header["about"].items()
        },
        columns={
            part: {name: list(islice(ranges, count)) for name, count in columns.items()}
            for part, columns in header["columns"].items()
        },
    )


def _description(about: object) -> Description | None:
    if about is None or isinstance(about, dict):
        return about
    raise ValueError("a chunk is damaged: it has no description where one belongs")


def _planes(data: bytes, width: int) -> bytes:
    """Return `data`, numbers of `width` bytes, with all their first bytes first, then all second ones, and so on."""
    return b"".join(data[place::width] for place in range(width))


def _whole(planes: bytes, width: int) -> bytes:
    """Return the numbers of `_planes`."""
    data = bytearray(len(planes))
    count = len(planes) // width
    for place in range(width):
        data[place::width] = planes[place * count : (place + 1) * count]
    return bytes(data)
