"""A simulated GPU: tensors on ``cuda:0`` whose operations a processor computes and counts.

It is a library in C++ that gives torch's CPU build kernels for the dispatch key of CUDA
(``device.cpp``), and stand-ins for the parts of ``torch.cuda`` that need the driver. What a device
would refuse raises here, too: tensors of device and host in one operation, waiting for the device
while a stream is captured, a capture on a stream that is captured already, a replay that reads
memory which was freed. What a stream or a kernel costs is not simulated: launches and waits are
counted.
"""

import itertools
import threading
from collections import namedtuple
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import torch
from library import load_library

_COUNTERS = ("launches", "recorded", "waits", "uploads", "replays", "allocated", "peak")
# torch hands out so many streams of a device in turn
N_STREAMS = 32

Counts = namedtuple("Counts", (*_COUNTERS, "launched", "waited"))


class Device:
    """The library, once for a process."""

    def __init__(self):
        self.lib = load_library()
        self.n_streams = 0
        self.n_streams_made = 0
        self.lock = threading.Lock()

    def check(self, status):
        if status:
            raise torch.AcceleratorError(self.lib.sim_last_error().decode())

    def wait(self, what, for_all_streams=False):
        self.check(self.lib.sim_wait(what.encode(), int(for_all_streams)))

    def counts(self):
        """Return what was counted since the last reset."""
        numbers = [self.lib.sim_counter(n) for n in range(len(_COUNTERS))]
        return Counts(*numbers, self.describe(0), self.describe(1))

    def describe(self, which):
        lines = self.lib.sim_describe(which).decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines)
        return dict(sorted(((n, int(c)) for n, c in pairs), key=lambda pair: -pair[1]))

    def reset(self):
        self.lib.sim_reset()
        self.n_streams_made = 0

    def set_memory(self, n_bytes):
        """Let all devices together have so many bytes beside what is taken; None is no limit."""
        taken = self.lib.sim_counter(_COUNTERS.index("allocated"))
        self.lib.sim_set_memory_limit((1 << 62) if n_bytes is None else taken + n_bytes)

    def next_stream(self):
        """Return the number of the next stream, from a pool that is handed out in turn."""
        with self.lock:
            self.n_streams = self.n_streams % N_STREAMS + 1
            self.n_streams_made += 1
            return self.n_streams


_device = None


def load():
    """Return the device of this process.

    It is there until the process ends, and its autograd must not have computed anything before.
    """
    global _device
    if _device is None:
        _device = Device()
    return _device


def _index(device):
    """Return the number of a device."""
    if isinstance(device, int):
        return device
    index = None if device is None else torch.device(device).index
    return _device.lib.sim_device() if index is None else index


class Stream:
    """A stream; all of them do their work at once."""

    def __init__(self, device=None, priority=0, number=None):
        self.device = torch.device("cuda", _index(device))
        self.stream_id = _device.next_stream() if number is None else number

    def __eq__(self, other):
        return (self.device, self.stream_id) == (other.device, other.stream_id)

    def __hash__(self):
        return hash((self.device, self.stream_id))

    def wait_stream(self, other):
        assert isinstance(other, Stream)

    def wait_event(self, event):
        assert isinstance(event, Event)

    def synchronize(self):
        _device.wait("Stream.synchronize")

    def record_event(self, event=None):
        return event or Event()

    def query(self):
        return True


class Event:
    def __init__(self, enable_timing=False, blocking=False):
        pass

    def record(self, stream=None):
        pass

    def wait(self, stream=None):
        pass

    def synchronize(self):
        _device.wait("Event.synchronize")

    def query(self):
        return True


# How many graphs use each pool of memory.
pools = {}
_handles = itertools.count(1)


class Graph:
    """A CUDA graph: operations that were taken down, and that a replay computes again."""

    # where it is set, all captures fail
    obstacle = None

    def __init__(self, keep_graph=False):
        self.handle = None
        self.place = None
        self.pool_of = None
        self.has_ended = False

    def capture_begin(self, pool=None, capture_error_mode="global"):
        assert capture_error_mode == "thread_local"
        if pool is not None and pools.get(pool) == 0:
            raise RuntimeError("INTERNAL ASSERT FAILED: the pool's graphs are all gone")
        stream = current_stream()
        if stream.stream_id == 0:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream.")
        if Graph.obstacle is not None:
            raise RuntimeError(Graph.obstacle)
        self.handle = _device.lib.sim_begin_recording()
        if not self.handle:
            raise torch.AcceleratorError("CUDA error: the stream is being captured already")
        self.place = (stream.device.index, stream.stream_id)
        self.pool_of = pool
        pools[pool] = pools.get(pool, 0) + 1

    def capture_end(self):
        stream = current_stream()
        if self.place != (stream.device.index, stream.stream_id):
            raise RuntimeError("Capture must end on the same stream it began on.")
        self.has_ended = True
        _device.check(_device.lib.sim_end_recording(self.handle, *self.place))

    def replay(self):
        _device.check(_device.lib.sim_replay(self.handle))

    def reset(self):
        # a capture that nobody ends goes on without its graph
        if self.handle and self.has_ended:
            _device.lib.sim_delete_recording(self.handle)
            self.handle = None
            pools[self.pool_of] -= 1

    def pool(self):
        return self.pool_of

    def __len__(self):
        return _device.lib.sim_recording_size(self.handle)

    def __del__(self):
        self.reset()


def current_stream(device=None):
    index = _index(device)
    return Stream(index, number=_device.lib.sim_stream(index))


@contextmanager
def use_stream(stream):
    """Compute on a stream in a block."""
    if stream is None:
        yield
        return
    index = stream.device.index
    with use_device(index):
        before = _device.lib.sim_stream(index)
        _device.lib.sim_set_stream(index, stream.stream_id)
        try:
            yield
        finally:
            _device.lib.sim_set_stream(index, before)


def set_stream(stream):
    _device.lib.sim_set_device(stream.device.index)
    _device.lib.sim_set_stream(stream.device.index, stream.stream_id)


class use_device:  # noqa: N801
    """Compute on a device in a block; a class because torch asks for its instances."""

    def __init__(self, device):
        self.index = _index(device)
        self.before = []

    def __enter__(self):
        self.before.append(_device.lib.sim_device())
        _device.lib.sim_set_device(self.index)

    def __exit__(self, *error):
        _device.lib.sim_set_device(self.before.pop())


@contextmanager
def capture(graph, pool=None, stream=None, capture_error_mode="global"):
    _device.wait("torch.cuda.graph")
    with use_stream(stream or Stream()):
        graph.capture_begin(capture_error_mode=capture_error_mode)
        try:
            yield
        finally:
            graph.capture_end()


def synchronize(device=None):
    _device.wait("torch.cuda.synchronize", for_all_streams=True)


def clone_storage(storage):
    """Copy the memory of a storage: torch's own way needs CUDA's allocator."""
    if storage.device.type != "cuda":
        return _clone_on_host(storage)
    data = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    return data.clone().untyped_storage()


def move_storage(storage, *, device, non_blocking=False):
    """Copy the memory of a storage to another device."""
    data = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    return data.to(device, non_blocking=non_blocking).untyped_storage()


_clone_on_host = torch.UntypedStorage.clone


def _stand_ins(n_devices):
    """Return what takes the place of parts of ``torch.cuda``, by their names."""
    one_gb = 1 << 30
    state = torch.zeros(16, dtype=torch.uint8)
    properties = SimpleNamespace(
        name="simulated", total_memory=8 * one_gb, major=9, minor=0, multi_processor_count=4
    )
    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda including_emulation=True: True,
        "device_count": lambda: n_devices,
        "current_device": lambda: _device.lib.sim_device(),
        "set_device": lambda device: _device.lib.sim_set_device(_index(device)),
        "device": use_device,
        "default_generators": tuple(torch.Generator() for _ in range(n_devices)),
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "stream": use_stream,
        "set_stream": set_stream,
        "current_stream": current_stream,
        "default_stream": lambda device=None: Stream(device, number=0),
        "graph": capture,
        "graph_pool_handle": lambda: (0, next(_handles)),
        "is_current_stream_capturing": lambda: bool(_device.lib.sim_is_recording()),
        "synchronize": synchronize,
        "empty_cache": lambda: _device.wait("torch.cuda.empty_cache", for_all_streams=True),
        "memory_allocated": lambda device=None: _device.lib.sim_counter(5),
        "max_memory_allocated": lambda device=None: _device.lib.sim_counter(6),
        "memory_reserved": lambda device=None: _device.lib.sim_counter(5),
        "reset_peak_memory_stats": lambda device=None: _device.lib.sim_reset_peak(),
        "set_per_process_memory_fraction": lambda fraction, device=None: (
            _device.lib.sim_set_memory_limit(int(fraction * 8 * one_gb))
        ),
        "mem_get_info": lambda device=None: (
            8 * one_gb - _device.lib.sim_counter(5),
            8 * one_gb,
        ),
        "get_device_name": lambda device=None: "simulated",
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: properties,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device="cuda": state.clone(),
        "get_rng_state_all": lambda: [state.clone() for _ in range(n_devices)],
        "set_rng_state": lambda state, device="cuda": None,
        "set_rng_state_all": lambda states: None,
    }


@contextmanager
def simulate(n_devices=1):
    """Let this process have GPUs in a block; yields the device, whose counts begin at 0.

    Parameters
    ----------
    n_devices : int, default=1
        At most 4.
    """
    device = load()
    device.lib.sim_set_device_count(n_devices)
    device.set_memory(None)
    device.reset()
    with (
        mock.patch.multiple(torch.cuda, **_stand_ins(n_devices)),
        mock.patch.object(torch.UntypedStorage, "clone", clone_storage),
        mock.patch.object(torch.UntypedStorage, "to", move_storage),
    ):
        yield device
