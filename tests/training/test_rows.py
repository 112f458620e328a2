import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from torch.utils.data import Subset

from sktune import NeuralNetClassifier
from sktune.runtime.seeds import permutation
from sktune.training.batches import Batches, batch_sizes, evaluation_batch_size
from sktune.training.rows import Rows, convert_table, rows_of


def make_rows(n=10, make_table=np.asarray, **options):
    X = make_table(np.arange(2.0 * n, dtype=np.float32).reshape(n, 2))
    table = convert_table(X, torch.float32, "cpu")
    return Rows(table, np.arange(n), np.arange(n), dtype=torch.float32, **options)


def targets(batches):
    return [target.tolist() for _, target in batches]


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5), st.booleans())
def test_epoch_holds_each_row_once(n, batch_size, epoch, shuffle):
    batches = Batches(make_rows(n), None, batch_size, seed=3 if shuffle else None)
    found = targets(batches.epoch(epoch))

    # A single last row is part of the batch before it.
    is_joined = n % batch_size == 1 and 1 < batch_size < n
    assert len(batches) == len(found) == -(-n // batch_size) - is_joined
    assert {len(batch) for batch in found[:-1]} <= {batch_size}
    assert sum(found, []) == (permutation(n, 3, epoch).tolist() if shuffle else list(range(n)))


def test_columns_belong_to_their_targets():
    for X, target in Batches(make_rows(), None, 4, seed=0).epoch(1):
        assert X[:, 0].tolist() == (2 * target).tolist()


def test_blocks_leave_the_batches_as_they_are(monkeypatch):
    whole = targets(Batches(make_rows(23), None, 4, seed=0).epoch(2))
    monkeypatch.setattr("sktune.training.batches._BLOCK_BYTES", 1)

    assert targets(Batches(make_rows(23), None, 4, seed=0).epoch(2)) == whole


@pytest.mark.parametrize("n", [9, 33])
def test_last_row_on_its_own_joins_the_batch_before(n):
    batches = Batches(make_rows(n), None, 8, seed=0)
    sizes = [len(target) for _, target in batches.epoch(0)]

    assert sizes == batches.sizes == [8] * (n // 8 - 1) + [9]
    # There is no batch before it.
    assert batch_sizes(1, 8) == [1]


def test_batch_normalisation_with_a_last_row_on_its_own():
    X = np.random.RandomState(0).randn(33, 3)
    net = NeuralNetClassifier(
        module__batch_norm=True, batch_size=8, max_epochs=2, random_state=0
    ).fit(X, X[:, 0] > 0)

    assert net.history[:, "batches", -1, "train_batch_size"] == [9, 9]


def test_drop_last():
    batches = Batches(make_rows(10), None, 4, drop_last=True)

    assert targets(batches) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(batches) == 2


@pytest.mark.parametrize("make_table", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_subset_of_a_subset(make_table):
    rows = make_rows(10, make_table)
    found, indices = rows_of(Subset(Subset(rows, [9, 7, 5, 3]), [2, 0]))

    assert found is rows
    assert [X.tolist() for X, _ in Batches(rows, indices, 5)] == [[[10.0, 11.0], [18.0, 19.0]]]


def test_other_datasets_have_no_rows():
    assert rows_of(Subset(torch.utils.data.TensorDataset(torch.zeros(3)), [0])) == (None, None)


@pytest.mark.parametrize("make_table", [np.asarray, sparse.csr_array])
def test_row_is_what_a_data_loader_collates(make_table):
    X, target = make_rows(10, make_table)[3]

    assert X.tolist() == [6.0, 7.0]
    assert target == 3


def test_batch_has_memory_of_its_own():
    table = np.zeros((4, 2), dtype=np.float32)
    rows = Rows(convert_table(table, torch.float32, "cpu"), dtype=torch.float32)
    for (X,) in Batches(rows, None, 2):
        X += 1

    assert not table.any()


def test_weights_come_third():
    rows = make_rows(5, weight=np.array([1.0, 2.0, 3.0, 4.0, 5.0]))

    assert [weight.tolist() for *_, weight in Batches(rows, None, 3)] == [
        [1.0, 2.0, 3.0],
        [4.0, 5.0],
    ]


@pytest.mark.parametrize("make_table", [np.asarray, sparse.csr_array])
def test_number_too_large_for_the_type(make_table):
    with pytest.raises(
        ValueError, match="X must fit the module's type torch.float32, got a value too large for it"
    ):
        convert_table(make_table(np.array([[1.0], [1e39]])), torch.float32, "cpu")


def test_read_only_and_fortran_order():
    X = np.asfortranarray(np.arange(6.0).reshape(3, 2))
    X.flags.writeable = False

    assert convert_table(X, torch.float64, "cpu").tolist() == X.tolist()


def test_evaluation_takes_many_rows_but_not_too_many():
    wide = Rows(torch.zeros(2, 1 << 20), dtype=torch.float32)

    assert evaluation_batch_size(make_rows(), 64, width=10) == 8192
    assert evaluation_batch_size(make_rows(), 64, width=1 << 16) == 64
    assert evaluation_batch_size(wide, 64, width=10) == 64
    assert evaluation_batch_size(make_rows(), 10_000, width=10) == 10_000


def test_batch_size_bounds_the_evaluation_of_a_module_whose_layers_are_not_known():
    assert evaluation_batch_size(make_rows(), 16, width=None) == 16
