import random
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils import check_random_state

from sktune.runtime.seeds import draw_seed, mask_key, mix, permutation, random_int16, seeded

# The generator that the functions of numpy.random draw from.
NUMPY = check_random_state(None)
N = 1 << 16
words = st.integers(0, 2**64 - 1)


def draw(*position, n=N):
    """Return n random numbers of a position, as float64."""
    return random_int16(torch.tensor([mask_key(*position)], dtype=torch.int32), n)[0].double()


def correlate(a, b):
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


@given(words, words)
def test_mix_depends_on_all_values_and_their_order(a, b):
    assert 0 <= mix(a, b) < 2**64
    assert mix(a, b) == mix(a, b)
    assert mix(a, b) != mix(a)
    if a != b:
        assert mix(a, b) != mix(b, a)


@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.integers(0, 100))
def test_permutation_is_one_and_is_repeatable(n_rows, seed, epoch):
    order = permutation(n_rows, seed, epoch)

    assert sorted(order.tolist()) == list(range(n_rows))
    assert torch.equal(order, permutation(n_rows, seed, epoch))


def test_permutation_changes_with_epoch_and_seed():
    orders = {
        tuple(permutation(50, seed, epoch).tolist()) for seed in range(4) for epoch in range(4)
    }

    assert len(orders) == 16


def test_permutation_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    permutation(10, 0, 0)

    assert torch.equal(before, torch.get_rng_state())


def test_seed_of_an_int_is_itself():
    assert draw_seed(7) == draw_seed(np.int64(7)) == 7


def test_seed_of_a_random_state_moves_on():
    generator = np.random.RandomState(0)
    first = draw_seed(generator)
    second = draw_seed(generator)

    assert first != second
    assert first == draw_seed(np.random.RandomState(0))


@pytest.mark.parametrize("random_state", [None, np.random])
def test_seed_is_drawn_from_numpy_s_global_generator(random_state):
    before = NUMPY.get_state()
    try:
        NUMPY.seed(3)
        seeds = [draw_seed(random_state) for _ in range(2)]
        NUMPY.seed(3)
        again = draw_seed(random_state)
    finally:
        NUMPY.set_state(before)

    assert seeds[0] == again != seeds[1]


@pytest.mark.parametrize("random_state", [-1, 2**32, "a", 1.5])
def test_bad_random_state(random_state):
    with pytest.raises(ValueError, match="Seed must be between|cannot be used to seed"):
        draw_seed(random_state)


@pytest.mark.parametrize("position", [(0, 0, 0, 0, 0), (1, 0, 0, 0, 0), (2**32 - 1, 3, 17, 2, 1)])
def test_numbers_are_uniform(position):
    numbers = draw(*position)

    sigma = 65536 / 12**0.5
    assert abs(numbers.mean() + 0.5) < 4 * sigma / N**0.5
    assert numbers.std() == pytest.approx(sigma, rel=0.01)
    counts = torch.histc(numbers, 64, -32768, 32767)
    # For 64 classes, its mean is 63 and its variance 2 * 63.
    chi_squared = float(((counts - N / 64) ** 2 / (N / 64)).sum())
    assert chi_squared < 63 + 5 * (2 * 63) ** 0.5


@pytest.mark.parametrize("lag", [1, 2, 3, 64, 128, 4096])
def test_neighbours_are_independent(lag):
    numbers = draw(0, 0, 0, 0, 0)

    assert abs(correlate(numbers[:-lag], numbers[lag:])) < 4 / N**0.5


POSITION = ["seed", "epoch", "batch", "layer", "call"]


@pytest.mark.parametrize("axis", range(5), ids=POSITION)
def test_places_are_independent(axis):
    positions = np.zeros((6, 5), dtype=int)
    positions[:, axis] = range(6)
    numbers = torch.stack([draw(*position.tolist()) for position in positions])

    off_diagonal = torch.corrcoef(numbers) - torch.eye(6)

    assert off_diagonal.abs().max() < 4.5 / N**0.5


@given(st.integers(0, 2**32 - 1), st.integers(0, 100), st.integers(0, 100))
def test_shorter_row_is_the_beginning_of_a_longer(seed, n, m):
    shorter, longer = sorted([n, m])

    assert torch.equal(draw(seed, 0, n=longer)[:shorter], draw(seed, 0, n=shorter))


def test_rows_do_not_depend_on_their_companions():
    keys = torch.tensor([mask_key(seed, 1, 2, 3, 4) for seed in range(5)], dtype=torch.int32)

    alone = torch.cat([random_int16(keys[i : i + 1], 33) for i in range(5)])

    assert torch.equal(random_int16(keys, 33), alone)


def test_numbers_never_change():
    assert mix(0, 1, 2) == 0xF4F373571B7FEB84
    assert draw(0, 0, 0, 0, 0, n=4).tolist() == [26587, -1195, 15136, 32358]


def test_seeded_is_repeatable_and_restores_the_state():
    before = torch.get_rng_state()
    with seeded(5):
        first = torch.rand(3)
    with seeded(5):
        again = torch.rand(3)
    with seeded(6):
        other = torch.rand(3)

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_seeded_restores_the_state_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="expand"), seeded(5):
        torch.rand(3).expand(2)

    assert torch.equal(before, torch.get_rng_state())


def test_seeded_leaves_other_generators_alone():
    states = random.getstate(), NUMPY.get_state()[1].tolist()
    with seeded(5):
        torch.rand(3)

    assert (random.getstate(), NUMPY.get_state()[1].tolist()) == states


def test_seeded_tells_whether_anything_was_drawn():
    with seeded(0) as has_drawn:
        assert not has_drawn()
        torch.rand(1)
        assert has_drawn()


def test_seeded_threads_do_not_draw_from_each_other():
    drawn = {}

    def work(seed):
        with seeded(seed):
            drawn[seed] = [torch.rand(20).tolist() for _ in range(20)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    together = dict(drawn)
    for seed in range(4):
        work(seed)
    assert drawn == together
