#!/usr/bin/env python3
"""Checks a disclosure with SHA-256 and Ed25519 alone, from docs/formats/disclosure.md; nothing of Fangzhi.

Usage: check_disclosure.py FILE.json VKEYFILE     exit 0: it holds; 1: it does not.
Without the package `cryptography` only hashes are checked, and that is said aloud."""
import base64, hashlib, json, sys

try:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError:
    Ed25519PublicKey = None

sha = lambda *parts: hashlib.sha256(b"".join(parts)).digest()
leaf = lambda data: sha(b"\0", data)
node = lambda left, right: sha(b"\1", left, right)

def need(condition, words):
    if not condition:
        sys.exit("DOES NOT HOLD: " + words)

def item(b, at):  # one CBOR item: only what an entry has
    kind, n, at = b[at] >> 5, b[at] & 31, at + 1
    if n > 23:
        size = {24: 1, 25: 2, 26: 4, 27: 8}[n]
        n, at = int.from_bytes(b[at:at + size], "big"), at + size
    if kind == 0:
        return n, at
    if kind == 2:
        return b[at:at + n], at + n
    need(kind in (4, 5), "the entry has an unexpected CBOR type")
    items = []
    for _ in range(n if kind == 4 else 2 * n):
        value, at = item(b, at)
        items.append(value)
    return (items if kind == 4 else dict(zip(items[::2], items[1::2]))), at

def content(first, count, known, siblings):  # RFC 6962 root with the known leaves in place
    if not any(first <= p < first + count for p in known):
        need(siblings, "a sibling is missing")
        return siblings.pop(0)
    if count == 1:
        return leaf(known[first])
    left = 1 << (count - 1).bit_length() - 1
    l = content(first, left, known, siblings)
    return node(l, content(first + left, count - left, known, siblings))

def commitment(f):
    if "salt" not in f:
        need("value" not in f, "a value has no salt")
        return sha(b"fangzhi/no-cell/v1\0")
    tag = b"fangzhi/field/v1\0" if "value" in f else b"fangzhi/absent/v1\0"
    salt = bytes.fromhex(f["salt"])
    need(len(salt) == 16, "a salt is not 16 bytes")
    return sha(tag, bytes([f["position"]]), salt, f.get("value", "").encode())

def included(index, size, hash, path):  # RFC 9162, 2.1.3.2
    need(index < size, "the index is beyond the tree")
    at, last = index, size - 1
    for sibling in path:
        need(last, "the inclusion proof is too long")
        if at & 1 or at == last:
            hash = node(sibling, hash)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            hash = node(hash, sibling)
        at, last = at >> 1, last >> 1
    need(last == 0, "the inclusion proof is too short")
    return hash

def signatures(note, vkeys):
    cut = note.rindex("\n\n") + 1
    text, lines, good = note[:cut].encode(), note[cut + 1:].splitlines(), []
    for vkey in vkeys:
        name, id, key = vkey.split("+", 2)
        key = base64.b64decode(key)
        need(sha(name.encode(), b"\n", key)[:4].hex() == id, "a vkey has a wrong id")
        for line in lines:
            dash, signer, blob = line.split(" ")
            blob = base64.b64decode(blob)
            if signer != name or blob[:4].hex() != id:
                continue
            signed, message = blob[4:], text
            if key[0] == 4:
                time = int.from_bytes(signed[:8], "big")
                signed, message = signed[8:], b"cosignature/v1\ntime %d\n" % time + text
            if Ed25519PublicKey:
                try:
                    Ed25519PublicKey.from_public_bytes(key[1:]).verify(signed, message)
                except Exception:
                    need(False, "the signature of " + name + " is wrong")
            good.append((name, key[0]))
    return text.decode().split("\n"), good

def main(path, vkeys):
    d = json.load(open(path, encoding="utf-8"))["value"]
    need(d["format"] == "fangzhi/disclosure/v1", "another format")
    (origin, size, root, *_), good = signatures(d["checkpoint"], open(vkeys, encoding="utf-8").read().split())
    need(origin == d["origin"], "the checkpoint is of another ledger")
    need((origin, 1) in good, "the log's signature is missing, or its key unknown")
    entry = bytes.fromhex(d["entry"])
    proven = included(d["index"], int(size), leaf(entry), [bytes.fromhex(h) for h in d["inclusion"]])
    need(proven == base64.b64decode(root), "the entry is not in the ledger at this index")
    (format, kind, value), end = item(entry, 0)
    need((format, kind, end) == (1, 1, len(entry)), "the entry is not of a record")
    named = (bytes.fromhex(d["record"]), d["version"], d["schema"])
    need((value[1], value[2], value[5]) == named, "the entry is of another record, version or schema")
    positions = [f["position"] for f in d["fields"]]
    need(positions and positions == sorted(set(positions)) and positions[-1] < d["leaves"] <= 64, "bad positions")
    siblings = [bytes.fromhex(h) for h in d["siblings"]]
    got = content(0, d["leaves"], {f["position"]: commitment(f) for f in d["fields"]}, siblings)
    need(got == value[7] and not siblings, "a value, a salt or the path was altered")
    print("signatures:", "checked" if Ed25519PublicKey else "NOT CHECKED: install the package `cryptography`", [n for n, _ in good])
    for f in d["fields"]:
        print(f["position"], f["id"], f["name"], "=", f.get("value", "(absent)"))

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
