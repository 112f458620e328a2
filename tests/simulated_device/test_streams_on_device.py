"""A worker keeps its stream; two workers never share one."""

import threading
from contextlib import suppress

import torch
from device import N_STREAMS

from sktune.runtime.gpu.streams import own_stream

DEVICE = torch.device("cuda:0")


def read_stream():
    return torch.cuda.current_stream(DEVICE).stream_id


def test_a_stream_lasts(gpu):
    numbers = set()
    for _ in range(3 * N_STREAMS):
        with own_stream(DEVICE):
            numbers.add(read_stream())

    assert len(numbers) == 1
    assert gpu.n_streams_made <= 1


def test_blocks_within_blocks_stay_on_the_stream(gpu):
    with own_stream(DEVICE):
        outer = read_stream()
        with own_stream(DEVICE):
            assert read_stream() == outer
        assert read_stream() == outer
    assert read_stream() == 0


def test_threads_at_work_have_streams_of_their_own(gpu):
    found = []
    together = threading.Barrier(4)

    def work():
        with own_stream(DEVICE):
            found.append(read_stream())
            together.wait()

    for _ in range(3):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # also after many streams were handed out to others
    assert all(len(set(found[n : n + 4])) == 4 for n in (0, 4, 8))
    assert gpu.n_streams_made <= 4


def test_a_stream_is_waited_for_and_given_back_after_an_error(gpu):
    found = []
    with suppress(MemoryError), own_stream(DEVICE):
        found.append(read_stream())
        raise MemoryError
    assert gpu.counts().waited == {"Stream.synchronize": 1}
    with own_stream(DEVICE):
        assert found == [read_stream()]


def test_a_processor_has_no_streams():
    with own_stream(torch.device("cpu")):
        pass
