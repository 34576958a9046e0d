"""What a thing on disk is, in plain words: run folders, an aggregator's folder, models, journals, captured messages."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from fedmq.errors import ConfigError, MessageError, StoreError
from fedmq.protocol.messages import Chunk, Message, Task, Update
from fedmq.store.archive import UPDATES, KeptRound, read_archive
from fedmq.store.checkpoint import CheckpointFolder
from fedmq.store.journal import MAGIC as JOURNAL_MAGIC
from fedmq.store.journal import read_journal
from fedmq.store.modelfile import load_model
from fedmq.vectors import fingerprint
from fedmq.wire.envelope import decode
from fedmq.wire.limits import PACKET_BYTES
from fedmq.wire.table import MESSAGES

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.store.journal import Piece

Findings = dict[str, Any]
_SHOWN_BYTES: Final = 16


def inspect_path(path: Path) -> Findings:
    """Return what `path` is and holds. Raises ConfigError when it is nothing that fedmq knows, or StoreError."""
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist: name a run folder, a model file, a journal or a captured message"
        )
    return _folder(path) if path.is_dir() else _file(path)


def _folder(path: Path) -> Findings:
    if (path / "rounds.jsonl").exists():
        return _run(path)
    if any(path.glob("checkpoint-?.npz")):
        return _checkpoint(path)
    if (path / "start" / "model.fedmq").exists():
        return _archive(path)
    raise ConfigError(
        f"{path} is neither a run folder (rounds.jsonl), an aggregator's folder (checkpoint-a.npz), nor kept updates"
    )


def _run(path: Path) -> Findings:
    rows = [json.loads(line) for line in (path / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    summary = path / "summary.json"
    findings: Findings = {"what": "run folder", "rounds": len(rows)}
    if rows:
        best = max((row["accuracy"] for row in rows if row["accuracy"] is not None), default=None)
        findings |= {"last round": rows[-1], "best accuracy": best}
    if summary.exists():
        findings["summary"] = json.loads(summary.read_text(encoding="utf-8"))
    return findings


def _checkpoint(path: Path) -> Findings:
    found = CheckpointFolder(path).load()
    if found is None:
        raise StoreError(f"{path} holds no checkpoint")
    state, weights = found
    journals = sorted(journal.name for journal in path.glob("round-?.journal") if journal.stat().st_size)
    return {
        "what": "aggregator's folder",
        "run": state.run.hex(),
        "layout": state.layout.hex(),
        "started": f"{state.epoch} times",
        "progress": asdict(state.progress),
        "parameters": weights.vector.size,
        "frames": [
            f"{'whole' if each.step.key else 'delta to'} {each.step.version}, {len(each.body)} bytes as {each.codec}"
            for each in weights.frames
        ],
        "open round": journals[0] if journals else "none",
        "kept updates": str(path / UPDATES) if (path / UPDATES).exists() else "none",
    }


def _file(path: Path) -> Findings:
    if path.suffix == ".journal" and not path.stat().st_size:
        return {"what": "journal", "updates": "none: its round is closed"}
    with path.open("rb") as file:
        start = file.read(len(JOURNAL_MAGIC))
    if start == JOURNAL_MAGIC:
        return _journal(path)
    if path.suffix == ".fedmq":
        return _model(path)
    return _message(path)


def _model(path: Path) -> Findings:
    stored = load_model(path)
    variables = [
        f"{v.name} {v.shape} {v.kind}" + (", personal" if v.scope == "personal" else "")
        for v in stored.layout.variables
    ]
    return {
        "what": "model file",
        "parameters": stored.layout.size,
        "layout": stored.layout.digest.hex(),
        "sha256": fingerprint(stored.vector).hex(),
        **stored.facts,
        "variables": variables,
    }


def _journal(path: Path) -> Findings:
    opening, pieces = read_journal(path)
    kept = KeptRound.decode(opening)
    if kept is not None:
        return _kept_round(kept, pieces)
    return {
        "what": "journal of an open round",
        "task": _fields(decode(opening, Task)),
        "pieces": len(pieces),
        "bytes": sum(len(piece.payload) for piece in pieces),
        "updates": [_piece(piece) for piece in pieces],
    }


def _kept_round(kept: KeptRound, pieces: list[Piece]) -> Findings:
    return {
        "what": "kept updates of a closed round",
        "round": kept.round,
        "models": f"from {kept.base} to {kept.version}",
        "model sha256": kept.model.hex(),
        "task": _fields(decode(kept.task, Task)),
        "settings": kept.settings,
        "bytes": sum(len(piece.payload) for piece in pieces),
        "updates": [_piece(piece) for piece in pieces],
    }


def _archive(path: Path) -> Findings:
    found = read_archive(path)
    return {
        "what": "kept updates",
        "run": found.state.run.hex(),
        "parameters": found.layout.size,
        "rounds": len(found.rounds),
        "models": f"from {found.weights.version} to {found.rounds[-1].version if found.rounds else '-'}",
        "updates": sum(kept.updates for kept in found.rounds),
        "bytes": found.bytes,
    }


def _piece(piece: Piece) -> str:
    if piece.chunk is None:
        update = decode(piece.payload, Update)
        return f"{piece.device}: {update.facts.examples} examples, {len(piece.payload)} bytes"
    chunk = decode(piece.payload, Chunk)
    return f"{piece.device}: chunk {chunk.index} of {chunk.count}, {len(piece.payload)} bytes"


def _message(path: Path) -> Findings:
    if path.stat().st_size > PACKET_BYTES + 2:
        raise ConfigError(f"{path} is longer than any message of the protocol")
    data = path.read_bytes()
    message = _decoded(data)
    if message is None:
        raise ConfigError(
            f"{path} is nothing that fedmq knows: no model file, no journal, and no message of its protocol"
        )
    return {"what": f"message: {type(message).__name__}", "bytes": len(data), **_fields(message)}


def _decoded(data: bytes) -> Message | None:
    for struct in MESSAGES.values():
        with suppress(MessageError):
            message: Message = decode(data, struct.make)
            return message
    return None


def _fields(message: Message) -> Findings:
    return {name: _shown(getattr(message, name)) for name in message.__slots__}


def _shown(value: object) -> Any:  # noqa: ANN401 - whatever a field holds, for people
    if isinstance(value, bytes):
        return (
            value.hex()
            if len(value) <= 2 * _SHOWN_BYTES
            else f"{len(value)} bytes, {value[:_SHOWN_BYTES].hex()}…"
        )
    if isinstance(value, tuple):
        return [_shown(entry) for entry in value]
    if isinstance(value, dict):
        return {name: _shown(entry) for name, entry in value.items()}
    if hasattr(value, "__slots__") and not isinstance(value, (str, int, float)):
        return {name: _shown(getattr(value, name)) for name in value.__slots__}
    return value.name.lower() if hasattr(value, "name") and hasattr(value, "value") else value


def as_text(findings: Findings, indent: str = "") -> list[str]:
    """Return the findings as lines for people: names in a column, what is nested indented below its name."""
    lines = []
    for name, value in findings.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}", *as_text(value, indent + "  ")]
        elif isinstance(value, list) and value:
            lines += [f"{indent}{name}", *(f"{indent}  {entry}" for entry in value)]
        else:
            lines.append(f"{indent}{name:<14} {value if value not in ({}, [], None) else '-'}")
    return lines
