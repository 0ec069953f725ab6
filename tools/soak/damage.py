"""Ways to damage the bytes of a file, an archive of PNGs and what a JSON holds, each by a random generator."""

import json
import math
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

Damage = Callable[[Path, random.Random], object]


def of_bytes(change: Callable[[bytearray, random.Random], Any]) -> Damage:
    """The damage of a file by a function that changes its content in place or returns another one."""

    def damage(path: Path, rng: random.Random) -> None:
        content = bytearray(path.read_bytes())
        changed = change(content, rng)
        path.write_bytes(content if changed is None else changed)

    return damage


def _flip(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 20))):
        content[rng.randrange(len(content))] ^= rng.randint(1, 255)


def _flip_at_the_end(content: bytearray, rng: random.Random) -> None:
    """Damage the table of contents of an archive."""
    for _ in range(rng.randint(1, 4)):
        content[-rng.randint(1, min(len(content), 900))] = rng.choice((0, 1, 255, rng.randrange(256)))


def _zeros(content: bytearray, rng: random.Random) -> None:
    begin = rng.randrange(len(content))
    end = rng.randint(begin, len(content))
    content[begin:end] = bytes(end - begin)


BYTES: dict[str, Damage] = {
    "cut": of_bytes(lambda content, rng: content[: rng.randrange(len(content))]),
    "flipped": of_bytes(_flip),
    "flipped at the end": of_bytes(_flip_at_the_end),
    "zeros": of_bytes(_zeros),
    "appended": of_bytes(lambda content, rng: content + rng.randbytes(rng.randint(1, 70_000))),
    "repeated": of_bytes(lambda content, rng: content + content),
    "garbage": of_bytes(lambda content, rng: rng.randbytes(rng.randint(0, 5000))),
    "huge": lambda path, rng: _grow(path),
    "folder": lambda path, rng: _as_folder(path),
    "gone": lambda path, rng: path.unlink(),
}


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _grow(path: Path) -> None:
    """8 GiB, of which the disk has none."""
    with path.open("ab") as file:
        file.truncate(2**33)


def of_entries(change: Callable[[dict[str, bytes], random.Random], object], **options) -> Damage:
    """The damage of an archive by a function that changes its entries; `options` are those of the new archive."""

    def damage(path: Path, rng: random.Random) -> None:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        change(entries, rng)
        with zipfile.ZipFile(path, "w", **options) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)

    return damage


def _replaced(make: Callable[[bytes, random.Random], bytes]) -> Callable[[dict[str, bytes], random.Random], None]:
    def change(entries: dict[str, bytes], rng: random.Random) -> None:
        name = rng.choice(sorted(entries))
        entries[name] = make(entries[name], rng)

    return change


def png(pixels: np.ndarray, kind: str = ".png") -> bytes:
    return cv2.imencode(kind, pixels)[1].tobytes()


def decoded(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_png(content: bytes, rng: random.Random) -> bytes:
    """The header of a PNG of 144 million pixels, fewer than Pillow refuses, and the pixels of a small one."""
    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 0, 0, 0, 0)
    return content[:8] + chunk(b"IHDR", header) + content[33:]


def _renamed(entries: dict[str, bytes], rng: random.Random) -> None:
    name = rng.choice(sorted(entries))
    entries[rng.choice(("../" + name, "/" + name, name.upper(), "x" * 500))] = entries.pop(name)


ARCHIVES: dict[str, Damage] = {
    "entry renamed": of_entries(_renamed),
    "entry missing": of_entries(lambda entries, rng: entries.pop(rng.choice(sorted(entries)))),
    "packed": of_entries(lambda entries, rng: None, compression=zipfile.ZIP_DEFLATED),
    "PNG bomb": of_entries(_replaced(huge_png)),
    "text for PNG": of_entries(_replaced(lambda content, rng: b"hello")),
    "PNG cut": of_entries(_replaced(lambda content, rng: content[: rng.randrange(len(content))])),
    "JPEG for PNG": of_entries(_replaced(lambda content, rng: png(decoded(content), ".jpg"))),
    "16 bits": of_entries(_replaced(lambda content, rng: png(decoded(content).astype(np.uint16)))),
    "3 channels": of_entries(_replaced(lambda content, rng: png(np.stack([decoded(content)] * 3, axis=2)))),
    "another size": of_entries(_replaced(lambda content, rng: png(decoded(content)[:-1]))),
}

VALUES = (None, True, False, 0, -1, 1, 7, 1.5, 2**31, 2**70, math.nan, math.inf, "", "7", "x" * 5000, "../a", "\0",
          [], {}, [[]], [None], {"a": 1}, "é")  # fmt: skip


def edit(value: Any, rng: random.Random) -> Any:
    """A copy of what a JSON holds with one value, anywhere, replaced, removed, repeated or nudged."""
    copy = json.loads(json.dumps(value))
    places: list[tuple[Any, Any]] = []

    def collect(part: object) -> None:
        for key, inner in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
            places.append((part, key))
            collect(inner)

    collect(copy)
    # Tables are few among the values, but matter as much.
    shallow = [place for place in places if place[0] is copy]
    part, key = rng.choice(shallow if shallow and rng.random() < 0.2 else places)
    kind = rng.choice(("replaced", "replaced", "removed", "repeated", "nudged", "as text", "renamed"))
    if kind == "removed":
        del part[key]
    elif kind == "repeated" and isinstance(part, list):
        part.append(part[key])
    elif kind == "nudged" and type(part[key]) in (int, float):
        part[key] += rng.choice((-1, 1, 0.5, 1000))
    elif kind == "as text":
        part[key] = str(part[key])
    elif kind == "renamed" and isinstance(part, dict):
        part[f"{key}_"] = part.pop(key)
    else:
        part[key] = rng.choice(VALUES)
    return copy


def edit_json(path: Path, rng: random.Random) -> None:
    """An edit, or the same content in another encoding or under something that does not belong there."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if rng.random() < 0.9:
        path.write_text(json.dumps(edit(content, rng)), encoding="utf-8")
        return
    text = json.dumps(content).encode()
    path.write_bytes(
        rng.choice((b"\xef\xbb\xbf" + text, b"[" * 100_000, b"[" + text + b"]", b"null", text + b"}", b""))
    )
