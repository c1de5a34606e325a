#!/usr/bin/env python3
"""Restore from a walkeep repository without walkeep, written from FORMAT.md alone.

  restore.py backup REPO SYSID LABEL TARGET [IDENTITY]   files of a backup into TARGET
  restore.py wal    REPO SYSID NAME  FILE   [IDENTITY]   one file of the WAL archive

REPO is the directory of the cluster in a file-system repository. IDENTITY is an
age key file, for an encrypted one. Needs the zstd (lz4, age) command lines, and
xxh128sum for WAL.
Tablespaces are restored as directories under TARGET/pg_tblspc.
"""
import base64
import hashlib
import json
import os
import struct
import subprocess
import sys

def fail(what):
    sys.exit("restore.py: " + what)

def run(command, data):
    p = subprocess.run(command, input=data, stdout=subprocess.PIPE)
    if p.returncode != 0:
        fail(" ".join(command) + " failed")
    return p.stdout

TABLE = list(range(256))
for _ in range(8):
    TABLE = [n >> 1 ^ (0x82F63B78 if n & 1 else 0) for n in TABLE]

def crc32c(data):
    crc = 0xFFFFFFFF
    for b in data:
        crc = TABLE[(crc ^ b) & 255] ^ crc >> 8
    return "%08x" % (crc ^ 0xFFFFFFFF)

def read(repo, key, identity):
    """The stored bytes of an object, and the plain ones."""
    with open(os.path.join(repo, key), "rb") as f:
        stored = f.read()
    if stored.startswith(b"age-encryption.org/v1\n"):
        if identity is None:
            fail(key + " is encrypted: give an identity")
        return stored, run(["age", "-d", "-i", identity], stored)
    return stored, stored

def sealed(b, key):
    line, digest = b.splitlines()
    if hashlib.sha256(line + b"\n").hexdigest() != digest.decode():
        fail(key + " is damaged")
    v = json.loads(line)
    if v["format"] != 1:
        fail(key + " has another format")
    return v

def decompress(frames):
    lz4 = frames[:4] == b"\x04\x22\x4d\x18"
    return run(["lz4" if lz4 else "zstd", "-dcq"], frames)

def name(entry, member):
    if member + "_b64" in entry:
        return base64.b64decode(entry[member + "_b64"])
    return entry[member].encode()

def content(entry, packs):
    parts = []
    for pack, offset, stored, plain, _xxh3, crc in entry.get("chunks", []):
        frame = packs(pack)[offset:offset + stored]
        if crc32c(frame) != crc:
            fail("a chunk of %r is damaged" % name(entry, "path"))
        parts.append(decompress(frame))
        if len(parts[-1]) != plain:
            fail("a chunk of %r has a wrong length" % name(entry, "path"))
    if "extents" in entry:
        parts = [parts[c][o:o + n] for _, n, c, o in entry["extents"]]
    data = b"".join(parts)
    if len(data) != entry["size"] or crc32c(data) != entry.get("crc32c", crc32c(data)):
        fail("%r is damaged" % name(entry, "path"))
    return data

def backup(repo, sysid, label, target, identity):
    key = f"{sysid}/summary/{label}"
    summary = sealed(read(repo, key, identity)[1], key)
    key = f"{sysid}/backup/{label}/manifest"
    stored, plain = read(repo, key, identity)
    if [len(stored), hashlib.sha256(stored).hexdigest()] != [summary["manifest"]["size"], summary["manifest"]["sha256"]]:
        fail(key + " is damaged")
    table, cache = {}, {}

    def packs(id):
        if id not in cache:
            p = table[id]
            key = "%s/backup/%s/pack/%08x" % (sysid, p["label"], p["number"])
            stored, plain = read(repo, key, identity)
            if [len(stored), hashlib.sha256(stored).hexdigest(), len(plain)] != [p["size"], p["sha256"], p["plain"]]:
                fail(key + " is damaged")
            cache.clear()
            cache[id] = plain
        return cache[id]

    root, files = os.fsencode(target), 0
    for line in decompress(plain).splitlines():
        entry = json.loads(line)
        if entry["kind"] == "pack":
            table[entry["id"]] = entry
        if entry["kind"] != "file":
            continue
        path = name(entry, "path")
        if path.startswith(b"/") or b".." in path.split(b"/"):
            fail("a path leads out of the target: %r" % path)
        path = os.path.join(root, path)
        if entry["type"] == "symlink" and not name(entry, "path").startswith(b"pg_tblspc/"):
            os.symlink(name(entry, "link"), path)
            continue
        if entry["type"] == "file":
            with open(path, "xb") as f:
                f.write(content(entry, packs))
            files += 1
        else:  # a tablespace becomes a directory in its place
            os.makedirs(path, exist_ok=True)
        os.chmod(path, 0o700 if entry["type"] == "symlink" else int(entry["mode"], 8))
    if files != summary["files"]:
        fail("the manifest has another number of files than the summary")

def wal(repo, sysid, file, target, identity):
    kind = "history" if file.endswith(".history") else "label" if file.endswith(".backup") else f"wal/{file[:8]}/{file[8:16]}"
    key = f"{sysid}/{kind}/{file}"
    _, b = read(repo, key, identity)
    magic, length = struct.unpack("<II", b[:8])
    head = sealed(b[8:8 + length], key)
    data = decompress(b[8 + length:])
    digest = run(["xxh128sum"], data).split()[0].decode()
    if magic != 0x184D2A50 or head["name"] != file or [len(data), digest] != [head["length"], head["xxh3"]]:
        fail(key + " is damaged")
    with open(target, "xb") as f:
        f.write(data)

if __name__ == "__main__":
    if len(sys.argv) not in (6, 7) or sys.argv[1] not in ("backup", "wal"):
        fail(__doc__)
    {"backup": backup, "wal": wal}[sys.argv[1]](*sys.argv[2:6], (sys.argv + [None])[6])
