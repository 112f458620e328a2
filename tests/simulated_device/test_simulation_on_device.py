"""The simulated device itself: it computes, counts, and refuses what a GPU refuses."""

import pytest
import torch


def begin(graph):
    graph.capture_begin(capture_error_mode="thread_local")


@pytest.fixture
def stream(gpu):
    with torch.cuda.stream(torch.cuda.Stream()):
        yield


def test_tensors_are_on_the_device_and_launches_are_counted(gpu):
    X = torch.ones(3, 2, device="cuda")
    gpu.reset()
    total = (X @ X.T).relu().sum()

    assert X.is_cuda
    assert str(total.device) == "cuda:0"
    assert gpu.counts().launched == {"aten::mm": 1, "aten::relu": 1, "aten::sum": 1}
    assert gpu.counts().waits == 0
    assert total.item() == 18
    assert gpu.counts().waited == {"aten::_local_scalar_dense": 1}


def test_uploads_that_do_not_block_are_no_waits(gpu):
    numbers = torch.arange(3)
    numbers.to("cuda", non_blocking=True)
    assert gpu.counts().waits == 0
    numbers.to("cuda").cpu()
    assert gpu.counts().waited == {"a download": 1, "an upload": 1}


def test_device_and_host_do_not_mix(gpu):
    with pytest.raises(RuntimeError, match="all tensors to be on the same device"):
        torch.ones(2, device="cuda") + torch.ones(2)


def test_a_replay_computes_what_a_recording_did_not(gpu, stream):
    weight = torch.ones(2, device="cuda")
    graph = torch.cuda.CUDAGraph()
    begin(graph)
    weight.mul_(3)
    doubled = weight * 2
    graph.capture_end()
    assert weight.tolist() == [1, 1]
    for _ in range(2):
        graph.replay()

    assert weight.tolist() == [9, 9]
    assert doubled.tolist() == [18, 18]
    assert len(graph) == 2


@pytest.mark.parametrize(
    "wait",
    [
        lambda X: X.sum().item(),
        lambda X: X.cpu(),
        lambda X: X[X > 0],
        lambda X: X.nonzero(),
        lambda X: torch.ones(1).to("cuda"),
        lambda X: torch.cuda.synchronize(),
        lambda X: torch.cuda.empty_cache(),
    ],
)
def test_waiting_breaks_a_recording(gpu, stream, wait):
    X = torch.ones(2, device="cuda")
    graph = torch.cuda.CUDAGraph()
    begin(graph)
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        wait(X)
    with pytest.raises(RuntimeError, match="."):
        graph.capture_end()


def test_a_stream_is_captured_once_and_not_the_default_one(gpu):
    with pytest.raises(RuntimeError, match="non-default stream"):
        begin(torch.cuda.CUDAGraph())
    with torch.cuda.stream(torch.cuda.Stream()):
        graph = torch.cuda.CUDAGraph()
        begin(graph)
        with pytest.raises(RuntimeError, match="captured already"):
            begin(torch.cuda.CUDAGraph())
        graph.capture_end()


def test_memory_that_was_freed_is_noticed(gpu, stream):
    X = torch.ones(2, device="cuda")
    graph = torch.cuda.CUDAGraph()
    begin(graph)
    found = X * 2
    graph.capture_end()
    del X
    with pytest.raises(RuntimeError, match="reads memory that was freed"):
        graph.replay()
    del found


def test_streams_are_handed_out_in_turn(gpu):
    numbers = [torch.cuda.Stream().stream_id for _ in range(33)]

    assert len(set(numbers)) == 32
    assert numbers[0] == numbers[32]
