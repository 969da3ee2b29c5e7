#!/usr/bin/env python3
"""Seals and opens what docs/formats/{body,grant,keystore,share}.md describe; nothing of Fangzhi.

Reads a JSON array of jobs from standard input and prints the array of their results.
A job names what is done in `do`; bytes are hex. What cannot be opened is {"refused": ...}.

HPKE, HKDF, HMAC, ML-KEM, X25519, Ed25519, Argon2id and ChaCha20-Poly1305 are those of the
package `cryptography`. It has no XChaCha20: HChaCha20, which makes a key of key and nonce,
is here, 20 lines from draft-irtf-cfrg-xchacha. GF(256) is here too.
"""

import hashlib
import json
import os
import struct
import sys

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Refused(Exception):
    """It does not open, or is not what it says."""


# --- deterministic CBOR: unsigned integers, bytes, text, arrays, maps


def cbor(value):
    def head(major, number):
        for extra, size in ((None, 24), (24, 1 << 8), (25, 1 << 16), (26, 1 << 32), (27, 1 << 64)):
            if number < size:
                if extra is None:
                    return bytes([major << 5 | number])
                return bytes([major << 5 | extra]) + number.to_bytes(1 << (extra - 24), "big")

    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    if isinstance(value, dict):
        return head(5, len(value)) + b"".join(cbor(k) + cbor(value[k]) for k in sorted(value))
    raise TypeError(value)


def uncbor(data):
    def one(at):
        major, number = data[at] >> 5, data[at] & 31
        at += 1
        if number >= 24:
            size = 1 << (number - 24)
            number = int.from_bytes(data[at : at + size], "big")
            at += size
        if major == 0:
            return number, at
        if major in (2, 3):
            raw = data[at : at + number]
            return (raw if major == 2 else raw.decode()), at + number
        items = []
        for _ in range(number * (2 if major == 5 else 1)):
            item, at = one(at)
            items.append(item)
        return (items if major == 4 else dict(zip(items[::2], items[1::2]))), at

    value, end = one(0)
    if end != len(data) or cbor(value) != data:
        raise Refused("not canonical")
    return value


# --- the pieces


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack(">H", len(raw)) + raw


def tag(name):
    return name.encode() + b"\x00\x01"


def derive(secret, info, salt=b"", length=32):
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt or None, info=info).derive(secret)


def hchacha20(key, nonce):
    mask = 0xFFFFFFFF
    x = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))

    def quarter(a, b, c, d):
        for one, two, three, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[one] = (x[one] + x[two]) & mask
            mixed = x[three] ^ x[one]
            x[three] = (mixed << turn | mixed >> (32 - turn)) & mask

    for _ in range(10):
        for i in range(4):
            quarter(i, i + 4, i + 8, i + 12)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<8I", *x[:4], *x[12:])


def xchacha(key, nonce):
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])), b"\0" * 4 + nonce[16:]


def xseal(key, nonce, aad, plain):
    cipher, nonce = xchacha(key, nonce)
    return cipher.encrypt(nonce, plain, aad)


def xopen(key, nonce, aad, sealed):
    cipher, nonce = xchacha(key, nonce)
    try:
        return cipher.decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise Refused("a ciphertext does not open") from None


# --- docs/formats/body.md


def field_key(job, position):
    info = tag("fangzhi/field-key/v1") + text(job["origin"]) + struct.pack(">IB", job["epoch"], position)
    return derive(job["epoch_secret"], info)


def row_key(job, group):
    info = tag("fangzhi/row-key/v1") + text(job["origin"]) + job["record"] + text(group)
    return derive(job["record_secret"], info)


def cell_key(field, row, position):
    return derive(row, tag("fangzhi/cell-key/v1") + bytes([position]), salt=field)


def cell_aad(job, position):
    numbers = struct.pack(">QIIB", job["version"], job["epoch"], job["schema"], position)
    return tag("fangzhi/cell/v1") + text(job["origin"]) + job["record"] + numbers


def open_plain(plain, width):
    """Salt and value of a cell; the value of an absent field is None."""
    salt, length, rest = plain[:16], struct.unpack(">H", plain[16:18])[0], plain[18:]
    if len(rest) != width:
        raise Refused("another width")
    size = 0 if length == 0xFFFF else length
    if any(rest[size:]):
        raise Refused("padding")
    return salt, None if length == 0xFFFF else rest[:size].decode()


def commitment(position, salt, value):
    if value is None:
        return hashlib.sha256(b"fangzhi/absent/v1\0" + bytes([position]) + salt).digest()
    return hashlib.sha256(b"fangzhi/field/v1\0" + bytes([position]) + salt + value.encode()).digest()


def root(hashes):
    if len(hashes) == 1:
        return hashlib.sha256(b"\0" + hashes[0]).digest()
    middle = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root(hashes[:middle]) + root(hashes[middle:])).digest()


def content(fields, cells):
    none = hashlib.sha256(b"fangzhi/no-cell/v1\0").digest()
    highest = max(field["position"] for field in fields)
    return root([commitment(at, *cells[at]) if at in cells else none for at in range(highest + 1)])


def open_body(job):
    body = uncbor(job["body"])
    if (body[0], body[1]) != (1, 1):
        raise Refused("another format")
    fields = {field["position"]: field for field in job["fields"]}
    cells = {}
    for position, sealed in body[3]:
        field = fields[position]
        key = cell_key(field_key(job, position), row_key(job, field["group"]), position)
        cells[position] = open_plain(xopen(key, body[2], cell_aad(job, position), sealed), field["width"])
    return {
        "values": {str(at): value for at, (_, value) in cells.items()},
        "content": content(job["fields"], cells),
    }


def seal_body(job):
    nonce, sealed, cells = os.urandom(24), [], {}
    for field in job["fields"]:
        position, width = field["position"], field["width"]
        value = job["values"].get(str(position))
        if value is None and not field["always"]:
            continue
        salt = os.urandom(16)
        raw = (value or "").encode()
        length = 0xFFFF if value is None else len(raw)
        plain = salt + struct.pack(">H", length) + raw.ljust(width, b"\0")
        key = cell_key(field_key(job, position), row_key(job, field["group"]), position)
        sealed.append([position, xseal(key, nonce, cell_aad(job, position), plain)])
        cells[position] = (salt, value)
    body = cbor({0: 1, 1: 1, 2: nonce, 3: sealed})
    return {"body": body, "content": content(job["fields"], cells)}


def keys(job):
    return {
        "field": field_key(job, job["position"]),
        "row": row_key(job, job["group"]),
    }


# --- docs/formats/grant.md


def suite():
    return hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)


def envelope_info(job):
    parts = job["grant"] + job["owner_charter"] + job["holder_charter"] + text(job["origin"])
    return tag("fangzhi/grant/v1") + parts + struct.pack(">I", job["epoch"]) + text(bytes(job["fields"]))


def private_key(seed):
    """X-Wing's private key: SHAKE256 makes a seed of ML-KEM-768 and a key of X25519 of it."""
    expanded = hashlib.shake_256(seed).digest(96)
    return hpke.MLKEM768X25519PrivateKey(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        x25519.X25519PrivateKey.from_private_bytes(expanded[64:]),
    )


def open_envelope(job):
    envelope = uncbor(job["envelope"])
    if (envelope[0], envelope[1]) != (1, 1):
        raise Refused("another format")
    try:
        plain = suite().decrypt(envelope[2] + envelope[3], private_key(job["seed"]), envelope_info(job))
    except (InvalidTag, ValueError) as error:
        raise Refused("the envelope does not open") from error
    payload = uncbor(plain)
    return {"secret": payload[0], "keys": {str(at): key for at, key in payload[1].items()}}


def seal_envelope(job):
    public = hpke.MLKEM768X25519PublicKey(
        mlkem.MLKEM768PublicKey.from_public_bytes(job["public"][:1184]),
        x25519.X25519PublicKey.from_public_bytes(job["public"][1184:]),
    )
    payload = cbor({0: job["secret"], 1: {int(at): bytes.fromhex(key) for at, key in job["keys"].items()}})
    sealed = suite().encrypt(payload, public, envelope_info(job))
    return {"envelope": cbor({0: 1, 1: 1, 2: sealed[:1120], 3: sealed[1120:]})}


def open_parcel(job):
    parcel = uncbor(job["parcel"])
    granted = bytes(job["granted"])
    blank = cbor({**parcel, 9: b""})
    key = derive(job["secret"], tag("fangzhi/parcel-key/v1") + job["grant"] + job["record"])
    aad = tag("fangzhi/parcel/v1") + job["grant"] + text(job["origin"]) + job["record"]
    aad += struct.pack(">Q", job["version"]) + text(granted) + hashlib.sha256(blank).digest()
    rows = dict(uncbor(xopen(key, parcel[8], aad, parcel[9])))
    fields = {field["position"]: field for field in job["fields"]}
    values = {}
    for position, sealed in parcel[6]:
        field = fields[position]
        key = cell_key(bytes.fromhex(job["keys"][str(position)]), rows[field["group"]], position)
        plain = xopen(key, parcel[5], cell_aad(job, position), sealed)
        values[str(position)] = open_plain(plain, field["width"])[1]
    return {"values": values, "groups": sorted(rows)}


# --- signatures: RFC 8032, over the text of a C2SP signed note


def verify(job):
    key = ed25519.Ed25519PublicKey.from_public_bytes(job["key"])
    try:
        key.verify(job["signature"], job["text"].encode())
    except InvalidSignature:
        raise Refused("the signature does not verify") from None
    return {}


def sign(job):
    key = ed25519.Ed25519PrivateKey.from_private_bytes(job["seed"])
    public = key.public_key().public_bytes_raw()
    return {"signature": key.sign(job["text"].encode()), "key": public}


# --- docs/formats/keystore.md


def open_operator(job):
    head, blob = (lambda file: (file[2], file[3]))(uncbor(job["file"]))
    key = Argon2id(
        salt=head[0], length=32, iterations=head[2], lanes=head[3], memory_cost=head[1]
    ).derive(job["passphrase"].encode())
    nonce, named, sealed = blob[2:26], blob[26:58], blob[58:]
    both = derive(key, tag("fangzhi/operator/v1"), salt=nonce, length=64)
    if both[32:] != named:
        raise Refused("another key")
    return {"seed": xopen(both[:32], nonce, blob[:2], sealed)}


# --- docs/formats/share.md


def product(a, b):
    result = 0
    while b:
        if b & 1:
            result ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return result


def read_share(typed):
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    data = b""
    for line in typed.splitlines():
        number, *groups = line.split()
        letters, check = "".join(groups[:-1]), groups[-1]
        bits = "".join(f"{alphabet.index(letter):05b}" for letter in letters)
        part = int(bits[: len(bits) // 8 * 8], 2).to_bytes(len(bits) // 8, "big")
        digest = hashlib.sha256(tag("fangzhi/share-line/v1") + bytes([int(number)]) + part).digest()
        wanted = "".join(alphabet[int.from_bytes(digest[:3], "big") >> shift & 31] for shift in (19, 14, 9, 4))
        if check != wanted:
            raise Refused("a line's checksum")
        data += part
    body, checksum = data[:-4], data[-4:]
    if hashlib.sha256(tag("fangzhi/share-check/v1") + body).digest()[:4] != checksum:
        raise Refused("the share's checksum")
    return {"ceremony": body[4:20], "header": body[20:36], "number": body[36], "value": body[-32:]}


def combine(job):
    header = uncbor(job["header"])
    digest = hashlib.sha256(tag("fangzhi/share-header/v1") + job["header"]).digest()[:16]
    shares = [read_share(typed) for typed in job["shares"]]
    for share in shares:
        parts = share["ceremony"] + bytes([share["number"]]) + share["value"]
        named = header[8][share["number"] - 1]
        if hashlib.sha256(tag("fangzhi/share/v1") + parts).digest() != named or share["header"] != digest:
            raise Refused("a share of another ceremony")
    secret = bytearray(32)
    for share in shares:
        weight = 1
        for other in shares:
            if other is not share:
                difference = other["number"] ^ share["number"]
                inverse = next(x for x in range(1, 256) if product(x, difference) == 1)
                weight = product(weight, product(other["number"], inverse))
        secret = bytearray(had ^ product(weight, byte) for had, byte in zip(secret, share["value"]))
    if hashlib.sha256(tag("fangzhi/shared-secret/v1") + header[2] + header[6] + secret).digest() != header[7]:
        raise Refused("another secret")
    return {"secret": bytes(secret)}


DO = {
    function.__name__: function
    for function in (
        open_body, seal_body, keys, open_envelope, seal_envelope, open_parcel, verify, sign,
        open_operator, combine,
    )
}
HEX = {
    "body", "ceremony", "envelope", "epoch_secret", "file", "grant", "header", "holder_charter", "key",
    "owner_charter", "parcel", "public", "record", "record_secret", "secret", "seed", "signature",
}


def printable(value):
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: printable(item) for key, item in value.items()}
    return value


def main():
    results = []
    for job in json.load(sys.stdin):
        job = {key: bytes.fromhex(value) if key in HEX else value for key, value in job.items()}
        try:
            results.append(printable(DO[job["do"]](job)))
        except Refused as refused:
            results.append({"refused": str(refused)})
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
