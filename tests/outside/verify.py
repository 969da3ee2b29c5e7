"""Checks ledgers that a node serves, or that were exported into a folder, with aics-tlog.

The same command line and the same lines of output as verify.go, on another implementation of
C2SP tlog-tiles, by another author: https://pypi.org/project/aics-tlog/ 0.2.1, Python 3.12 or later.
It owns the order of the checks and refuses a ledger at the first thing that does not hold.
"""

import argparse
import base64
import os
import re
import sys
from pathlib import Path
from urllib.request import HTTPRedirectHandler, Request, build_opener

import aics_tlog
from aics_tlog.remote import BUNDLE_MAX_BYTES, HttpTileReader, tile_source_url
from aics_tlog.tiles import entry_bundle_path

PROOFS_MAX = 32
NOTE_BYTES_MAX = 1 << 16
LOG, COSIGNER = 0x01, 0x04
ORIGIN = re.compile(r"[a-z0-9][a-z0-9.-]*(/[a-z0-9][a-z0-9.-]*)+")


class Refused(Exception):
    """A ledger that does not hold."""


class NoRedirect(HTTPRedirectHandler):
    """A ledger is not served by redirects, and a token must not follow one."""

    def redirect_request(self, *_):
        return None


class Served(HttpTileReader):
    """aics-tlog's reader, with the auditor's token that entry bundles need and it cannot send."""

    def __init__(self, base: str, origin: str, token: str | None):
        super().__init__(tile_source_url(base).rstrip("/") + "/" + origin)
        self._token = token

    def read_entry_bundle(self, index, width):
        url = self.base_urls[0] + entry_bundle_path(index, width)
        if self._token is None or url.startswith("file:"):
            return super().read_entry_bundle(index, width)
        request = Request(url, headers={"Authorization": f"Bearer {self._token}"})
        with build_opener(NoRedirect()).open(request, timeout=60) as answer:
            return answer.read(BUNDLE_MAX_BYTES + 1)


def role_of(name: str) -> tuple[str, str]:
    node, _, role = name.rpartition("/")
    return node, role


def open_note(args, keys, origin: str, data: bytes):
    """Verifies a checkpoint: its log's signature and every cosignature by a key that is known."""
    note = aics_tlog.parse_note(data)
    logs = [key for key in keys if key.key_type == LOG and key.name == origin]
    if len(logs) != 1:
        raise Refused(f"the file of verifier keys has {len(logs)} keys of this log")
    cosigners = [key for key in keys if key.key_type == COSIGNER]
    known = {(key.name, key.key_id) for key in keys}
    unknown = sum((line.name, line.key_id) not in known for line in note.signatures)
    if args.strict and unknown:
        raise Refused(f"{unknown} signatures are by keys that are not in the file of verifier keys")
    result = aics_tlog.verify_checkpoint(note, logs[0], cosigners, 0, expected_origin=origin)
    if not result.ok:
        raise Refused(result.error)
    roles = [role_of(name) for name in result.witnesses]
    witnesses = sum(role == "witness" and not origin.startswith(node + "/") for node, role in roles)
    held = sum(role == "held" for _, role in roles)
    return note, result, witnesses, held, unknown


def seen_path(args, origin: str) -> Path:
    return Path(args.seen, origin, "checkpoint")


def check_seen(args, keys, origin: str, result, reader) -> str:
    """Proves that a checkpoint extends the one seen before; gives the size of that."""
    if args.seen is None or not seen_path(args, origin).exists():
        return "none"
    path = seen_path(args, origin)
    _, old, *_ = open_note(args, keys, origin, path.read_bytes())
    proof = None
    if old.size <= result.size:
        proof = aics_tlog.consistency_proof_from_tiles(reader, old.size, result.size)
    if proof is None or not aics_tlog.verify_consistency(old.size, result.size, old.root, result.root, proof):
        raise Refused(f"it does not extend the checkpoint seen before, `{path}`; keep both, they are evidence")
    return str(old.size)


def remember(args, origin: str, note) -> None:
    """Keeps a checkpoint of which everything held."""
    if args.seen is None:
        return
    path = seen_path(args, origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(note.to_bytes())
    os.replace(part, path)


def verify(args, keys, base: str, origin: str) -> str:
    """Checks one ledger at one place, all of it."""
    if not ORIGIN.fullmatch(origin):
        raise Refused("this is no origin of a ledger; give <realm>/<division>/<name>")
    source = Served(base, origin, args.token)
    data = source.read_checkpoint()
    if len(data) > NOTE_BYTES_MAX:
        raise Refused("the checkpoint is too long")
    note, result, witnesses, held, unknown = open_note(args, keys, origin, data)
    if witnesses < args.quorum:
        raise Refused(f"{witnesses} witnesses cosigned it, the quorum is {args.quorum}")
    reader = aics_tlog.VerifiedTileReader(source, result.size, result.root)
    extends = check_seen(args, keys, origin, result, reader)
    audited = aics_tlog.audit_tiles(source, result.size, result.root, entries=args.entries)
    every = result.size // PROOFS_MAX + 1
    indexes = sorted({*range(0, result.size, every), max(result.size - 1, 0)}) if result.size else []
    for index in indexes:
        leaf = aics_tlog.leaf_hash(reader.entry(index)) if args.entries else reader.leaf_hash(index)
        proof = aics_tlog.inclusion_proof_from_tiles(reader, index, result.size)
        if not aics_tlog.verify_inclusion(leaf, index, result.size, proof, result.root):
            raise Refused(f"inclusion of entry {index} does not verify")
    remember(args, origin, note)
    root = base64.b64encode(result.root).decode()
    signatures = 1 + result.cosignature_count
    entries = result.size if args.entries else 0
    return (
        f"size={result.size} root={root} signatures={signatures} witnesses={witnesses} held={held} "
        f"unknown={unknown} tiles={audited.tiles} entries={entries} proofs={len(indexes)} extends={extends}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-vkeys", required=True, help="file of verifier keys, one a line")
    parser.add_argument("-base", action="append", required=True, help="URL or folder of the ledgers; repeat for mirrors")
    parser.add_argument("-quorum", type=int, default=0, help="cosignatures of witnesses that a checkpoint must have")
    parser.add_argument("-strict", action="store_true", help="refuse signatures by keys that are not in the file")
    parser.add_argument("-entries", action="store_true", help="read the entry bundles too")
    parser.add_argument("-token-file", help="file with the token of an auditor's session")
    parser.add_argument("-seen", help="folder of the checkpoints seen before: each must be extended")
    parser.add_argument("origin", nargs="+")
    args = parser.parse_args()
    args.token = Path(args.token_file).read_text().strip() if args.token_file else None
    try:
        lines = Path(args.vkeys).read_text(encoding="utf-8").split("\n")
        keys = list(dict.fromkeys(aics_tlog.parse_vkey(line) for line in lines if line))
    except (ValueError, OSError) as error:
        print(f"{args.vkeys}: {error}", file=sys.stderr)
        return 2
    failed = False
    for base in args.base:
        for origin in args.origin:
            try:
                print(f"ok {base} {origin} {verify(args, keys, base, origin)}")
            # Errors of aics-tlog are ValueError, OSError and subclasses of LookupError; any other
            # must not end a run that has other ledgers to check, and is a failure all the same.
            except Exception as error:  # noqa: BLE001
                failed = True
                print(f"FAILED {base} {origin}: {type(error).__name__}: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
