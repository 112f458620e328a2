"""Records as bytes: tensors as safetensors has them, and JSON for the rest. Nothing is a pickle.

Bytes hold several records, those of a group, so that a group costs one file. Their header, which
can be read alone, tells the keys and epochs of the records.
"""

import json
import struct

import numpy as np
import torch
from safetensors.torch import load, save

from sktune.engine.specs import TrainState
from sktune.engine.store.base import Record
from sktune.training.divergence import DivergenceError
from sktune.training.stopping import BestEpoch

# It changes with what is written here, so that older files are not misread.
FORMAT = "sktune trainings 1"
_MOST_HEADER_BYTES = 2**26
_STATE_PARTS = ("weights", "optimizer", "best_weights")
_STOPPING = {
    "tol": (int, float),
    "patience": int,
    "best": (int, float),
    "n_misses": int,
    "monitor": str,
    "restores": bool,
}


class ForeignFileError(ValueError):
    """Bytes are no records, or were written by another version."""


def pack(records, is_checkpoint=False):
    """Return the bytes of records, which are pairs of a key and a :class:`Record`.

    Parameters
    ----------
    records : list of tuple of (str, Record)
    is_checkpoint : bool
        Whether the trainings are in progress, so that later records replace these.
    """
    tensors = {}
    index = []
    for number, (key, record) in enumerate(records):
        index.append([key, record.epoch])
        for name, tensor in _list_tensors(record).items():
            tensors[f"{number}/{name}"] = tensor.detach().cpu().contiguous()
    header = {"format": FORMAT, "index": json.dumps(index), "checkpoint": str(is_checkpoint)}
    return save(tensors, header)


def read_index(file):
    """Return the keys and epochs of the records of an open file, and whether they are in progress.

    Raises
    ------
    ForeignFileError
        If it holds no records, or was written by another version.
    """
    try:
        (size,) = struct.unpack("<Q", file.read(8))
        if size > _MOST_HEADER_BYTES:
            raise ForeignFileError(f"its header would take {size} bytes")
        header = json.loads(file.read(size))["__metadata__"]
        index = [(str(key), int(epoch)) for key, epoch in json.loads(header["index"])]
        found = header["format"]
    except ForeignFileError:
        raise
    except Exception as error:
        raise ForeignFileError("it has no readable header") from error
    if found != FORMAT:
        raise ForeignFileError(f"it is of the format {found!r}, and not {FORMAT!r}")
    return index, header.get("checkpoint") == "True"


def unpack(data):
    """Return the records of bytes, in their order.

    Raises
    ------
    ForeignFileError
        If the bytes hold anything else.
    """
    try:
        by_number = {}
        for name, tensor in load(data).items():
            number, _, rest = name.partition("/")
            by_number.setdefault(int(number), {})[rest] = tensor
        return [_read_record(by_number[number]) for number in range(len(by_number))]
    except Exception as error:
        raise ForeignFileError(f"it holds no records: {type(error).__name__}: {error}") from error


def _list_tensors(record):
    """Return all of a record as tensors by name."""
    rest = {"epoch": record.epoch, "is_final": record.is_final, "test": record.test}
    tensors = {}
    if record.error is not None:
        rest["error"] = str(record.error)
    for name, column in record.curve.items():
        tensors[f"curve/{name}"] = torch.from_numpy(np.array(column))
    if record.outputs is not None:
        rest["n_outputs"] = len(record.outputs)
        for n, output in enumerate(record.outputs):
            tensors[f"outputs/{n}"] = output
    if record.state is not None:
        rest["state"] = {"epoch": record.state.epoch}
        _add_state(record.state, rest["state"], tensors)
    text = json.dumps(rest, default=lambda value: value.item())
    tensors["rest"] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    return tensors


def _add_state(state, rest, tensors):
    """Add a state to the tensors, and what is none to the rest."""
    for part in _STATE_PARTS:
        values = getattr(state, part)
        if values is None:
            continue
        rest[part] = {}
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{part}/{name}"] = value
            else:
                rest[part][name] = value
    if state.stopping is not None:
        rest["stopping"] = {name: getattr(state.stopping, name) for name in _STOPPING}
    if state.generator is not None:
        tensors["generator"] = state.generator


def _read_record(tensors):
    """Return a record from its tensors."""
    rest = json.loads(tensors.pop("rest").numpy().tobytes())
    outputs = None
    if "n_outputs" in rest:
        outputs = [tensors[f"outputs/{n}"] for n in range(int(rest["n_outputs"]))]
    curve = {}
    for name, tensor in tensors.items():
        if name.startswith("curve/"):
            curve[name.removeprefix("curve/")] = tensor.tolist()
    epoch = int(rest["epoch"])
    if any(len(column) != epoch for column in curve.values()):
        raise ValueError("a curve must have a value for each epoch")
    error = DivergenceError(str(rest["error"])) if "error" in rest else None
    state = _read_state(rest["state"], tensors) if "state" in rest else None
    if (error is None) == (state is None):
        raise ValueError("a record must have either a state or an error")
    return Record(epoch, state, curve, bool(rest["is_final"]), error, outputs, str(rest["test"]))


def _read_state(rest, tensors):
    """Return a state from its tensors and the rest."""
    parts = {}
    for part in _STATE_PARTS:
        if part not in rest:
            continue
        prefix = f"{part}/"
        parts[part] = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        for name, value in rest[part].items():
            if not isinstance(value, int | float):
                raise ValueError("a state must be of numbers")
            parts[part][name] = value
    stopping = _read_stopping(rest["stopping"]) if "stopping" in rest else None
    generator = tensors.get("generator")
    return TrainState(int(rest["epoch"]), stopping=stopping, generator=generator, **parts)


def _read_stopping(settings):
    """Return what early stopping remembers."""
    stopping = object.__new__(BestEpoch)
    for name, kinds in _STOPPING.items():
        if not isinstance(settings[name], kinds):
            raise ValueError(f"{name} must be a {kinds}")
        setattr(stopping, name, settings[name])
    return stopping
