"""What augmentations do to rows, and the random numbers that they draw."""

import math

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sktune import ImageAugmentation, TableAugmentation
from sktune.training.augmentation.augmenter import Augmenter
from sktune.training.augmentation.base import mix_rows
from sktune.training.augmentation.callables import CallableAugmentation
from sktune.training.augmentation.draws import Draws
from sktune.training.augmentation.pixels import move

CPU = torch.device("cpu")
MANY = 4000


def draws(sizes=(8,), seed=0, epoch=0, first_batch=0):
    return Draws(seed, epoch, first_batch, list(sizes), torch.float64, CPU)


def images(n=8, channels=1, height=8, width=8):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, channels, height, width, generator=generator, dtype=torch.float64)


class Given:
    """Draws that are given: the numbers of a movement."""

    def __init__(self, *numbers):
        self.numbers = torch.tensor([numbers], dtype=torch.float64)

    def around_zero(self, operation, n):
        return self.numbers


def moved(image, degrees=0.0, shift=0.0, scale=0.0, fill=0.0, numbers=(1, 1, 1, 1)):
    return move(image, degrees, shift, scale, fill, Given(*numbers))


def test_numbers_of_a_batch_do_not_depend_on_the_batches_beside_it():
    block = draws((5, 5, 5, 6), first_batch=2).integers(3, 7)
    parts = [draws((n,), first_batch=2 + k).integers(3, 7) for k, n in enumerate((5, 5, 5, 6))]

    assert torch.equal(block, torch.cat(parts))
    partners = draws((5, 5, 5, 6), first_batch=2).partners()
    assert sorted(partners.tolist()) == list(range(21))
    assert [p // 5 for p in partners[:15].tolist()] == [n // 5 for n in range(15)]


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"first_batch": 1}])
def test_numbers_depend_on_seed_epoch_batch_operation_and_row(other):
    numbers = draws().uniform(0, 3)

    assert not torch.equal(numbers, draws(**other).uniform(0, 3))
    assert not torch.equal(numbers, draws().uniform(1, 3))
    assert len(numbers.unique()) == numbers.numel()
    assert torch.equal(numbers, draws().uniform(0, 3))


def test_numbers_have_their_distributions():
    uniform = draws((MANY,)).uniform(0, 1)
    normal = draws((MANY,)).normal(1, 2)

    assert 0 < uniform.min() < 0.01
    assert 0.99 < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.02
    assert abs(normal.mean()) < 0.05
    assert abs(normal.std() - 1) < 0.03
    # a third of the numbers is beyond one standard deviation
    assert abs((normal.abs() > 1).double().mean() - 0.317) < 0.02
    for alpha in (0.2, 1.0, 5.0):
        share = draws((MANY,)).beta(2, alpha)
        assert abs(share.mean() - 0.5) < 0.03
        assert abs(share.var() * 4 * (2 * alpha + 1) - 1) < 0.1


def test_flips_are_exact():
    X = images(MANY, height=4, width=6)

    always = ImageAugmentation(p_flip=1.0).change(X, draws((MANY,)))
    down = ImageAugmentation(p_flip_vertical=1.0).change(X, draws((MANY,)))
    sometimes = ImageAugmentation(p_flip=0.3).change(X, draws((MANY,)))

    assert torch.equal(always, X.flip(3))
    assert torch.equal(down, X.flip(2))
    is_flipped = (sometimes == X.flip(3)).flatten(1).all(1)
    is_same = (sometimes == X).flatten(1).all(1)
    assert (is_flipped ^ is_same).all()
    assert abs(is_flipped.double().mean() - 0.3) < 0.03


def test_rotation_by_a_right_angle_is_exact():
    X = images(1)

    left, right = (moved(X, degrees=90, numbers=(sign, 0, 0, 0)) for sign in (1, -1))

    found = {k: [torch.allclose(a, X.rot90(k, (2, 3))) for a in (left, right)] for k in (1, 3)}
    assert sorted(map(tuple, found.values())) == [(False, True), (True, False)]


def test_rotation_keeps_lengths_where_an_image_is_no_square():
    X = torch.zeros(1, 1, 5, 9, dtype=torch.float64)
    # two pixels to the right of the middle
    X[0, 0, 2, 6] = 1.0

    turned = moved(X, degrees=90, numbers=(1, 0, 0, 0))

    row, column = divmod(int(turned.flatten().argmax()), 9)
    assert (abs(row - 2), column) == (2, 4)
    assert math.isclose(turned.sum(), 1.0)


def test_shift_is_a_share_of_the_sides():
    X = images(1, height=8, width=4)

    shifted = moved(X, shift=0.25, numbers=(0, 0, 1, -1), fill=7.0)

    # one column and two rows
    assert torch.allclose(shifted[..., 2:, :-1], X[..., :-2, 1:])
    assert torch.allclose(shifted[..., :2, :], torch.tensor(7.0, dtype=torch.float64))
    assert torch.allclose(shifted[..., -1], torch.tensor(7.0, dtype=torch.float64))


def test_scale_is_a_factor_on_the_size():
    X = torch.ones(1, 1, 8, 8, dtype=torch.float64)

    smaller = moved(X, scale=0.5, numbers=(0, -1, 0, 0))
    larger = moved(X, scale=0.5, numbers=(0, 1, 0, 0))

    assert torch.allclose(smaller[0, 0, 2:6, 2:6], X[0, 0, 2:6, 2:6])
    assert smaller[0, 0, 0].abs().max() == 0
    assert torch.allclose(larger, X)


def test_contrast_and_brightness_are_factors_of_each_image():
    X = images(50, channels=3)
    mean = X.mean((1, 2, 3), keepdim=True)

    contrast = ImageAugmentation(contrast=0.4).change(X, draws((50,)))
    brightness = ImageAugmentation(brightness=0.4).change(X, draws((50,)))

    for factors in ((contrast - mean) / (X - mean), brightness / X):
        factors = factors.flatten(1)
        assert torch.allclose(factors, factors[:, :1])
        assert 0.6 < factors.min() < 0.7 < 1.3 < factors.max() < 1.4


def test_cutout_replaces_one_rectangle():
    X = images(200, channels=2, height=8, width=12) + 1

    cut = ImageAugmentation(cutout=0.5, fill=-1.0).change(X, draws((200,)))

    is_cut = cut == -1
    assert torch.equal(is_cut[:, 0], is_cut[:, 1])
    assert torch.equal(cut[~is_cut], X[~is_cut])
    n_rows, n_columns = (is_cut[:, 0].any(axis).sum(1) for axis in (2, 1))
    assert torch.equal(is_cut[:, 0].sum((1, 2)), n_rows * n_columns)
    assert (n_rows.min(), n_rows.max()) == (2, 4)
    assert (n_columns.min(), n_columns.max()) == (3, 6)


def test_rows_may_hold_images():
    augmentation = ImageAugmentation(degrees=20, shift=0.1, p_flip=0.5, cutout=0.2)
    X = images(channels=2, height=4, width=6)

    expected = augmentation.change(X.clone(), draws())
    flat = clone(augmentation).set_params(image_shape=(2, 4, 6)).change(X.flatten(1), draws())
    one_channel = clone(augmentation).set_params(image_shape=(4, 6))

    assert torch.equal(flat, expected.flatten(1))
    assert one_channel.change(X[:, 0].flatten(1), draws()).shape == (8, 24)


def test_an_operation_draws_the_same_numbers_whatever_others_there_are():
    X = images()
    alone = ImageAugmentation(cutout=0.4, fill=9.0).change(X, draws())
    beside = ImageAugmentation(cutout=0.4, fill=9.0, degrees=30, brightness=0.2, p_flip=0.5)

    assert torch.equal(beside.change(X, draws()) == 9, alone == 9)


def test_noise_and_masks_of_a_table():
    X = torch.zeros(MANY, 5, dtype=torch.float64)

    noisy = TableAugmentation(noise=0.3).change(X.clone(), draws((MANY,)))
    masked = TableAugmentation(mask=0.2, fill=-1.0).change(X.clone(), draws((MANY,)))
    some = TableAugmentation(noise=0.3, mask=0.5, columns=[1, 3]).change(X.clone(), draws((MANY,)))

    assert abs(noisy.std() - 0.3) < 0.01
    assert abs((masked == -1).double().mean() - 0.2) < 0.02
    assert set(masked.unique().tolist()) == {-1.0, 0.0}
    assert some[:, [0, 2, 4]].abs().max() == 0
    assert some[:, [1, 3]].std(0).min() > 0.1


def test_mixup_mixes_the_numbers_of_a_regression():
    X = torch.arange(8.0).view(8, 1)
    target = 10 * X
    weight = X[:, 0] + 1
    augmentation = TableAugmentation(mixup=1.0)

    mixed, y, w = mix_rows(X, [target, weight], augmentation, draws(), mixes_targets=True)

    assert torch.allclose(y, 10 * mixed)
    assert torch.allclose(w, mixed[:, 0] + 1)
    assert not torch.equal(mixed, X)


@pytest.mark.parametrize("weights", [[], [torch.arange(1.0, 9.0)]])
def test_mixup_gives_a_row_two_labels(weights):
    X = torch.arange(8.0).view(8, 1)
    target = torch.arange(8)
    augmentation = TableAugmentation(mixup=1.0)

    mixed, own, weight, other, other_weight = mix_rows(
        X, [target, *weights], augmentation, draws(), mixes_targets=False
    )

    assert torch.equal(own, target)
    (row_weights,) = weights or [torch.ones(8)]
    share = weight / row_weights
    assert torch.allclose(other_weight / row_weights[other], 1 - share)
    assert torch.allclose(mixed[:, 0], share * own + (1 - share) * other)


@pytest.mark.parametrize("kind", [ImageAugmentation, TableAugmentation])
def test_augmentation_is_off_at_strength_zero(kind):
    augmentation = kind()

    assert augmentation.is_off
    for name in augmentation._STRENGTHS:
        assert not clone(augmentation).set_params(**{name: 0.1}).is_off, name
    assert set(augmentation._RANGES) <= set(augmentation.get_params())
    assert augmentation.key() == kind().key() != kind(mixup=0.1).key()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_rows_keep_their_type(dtype):
    block = (images().to(dtype), torch.arange(8.0).to(dtype))
    everything = {name: 0.5 for name in ImageAugmentation._STRENGTHS}
    augmenter = Augmenter(ImageAugmentation(**everything), 0, mixes_targets=True)

    X, y = augmenter.change(block, 0, 0, [4, 4])

    assert (X.dtype, y.dtype) == (dtype, dtype)
    assert X.isfinite().all()
    assert X.shape == (8, 1, 8, 8)


@pytest.mark.parametrize("function", [None, lambda X: torch.rand_like(X)])
def test_rows_depend_on_seed_epoch_and_batch(function):
    augmentation = TableAugmentation(noise=0.5) if function is None else None
    augmentation = augmentation or CallableAugmentation(function)

    def change(seed, epoch, first_batch):
        augmenter = Augmenter(augmentation, seed, mixes_targets=True)
        return augmenter.change((torch.zeros(4, 2), torch.zeros(4)), epoch, first_batch, [4])[0]

    first = change(0, 0, 0)
    assert torch.equal(first, change(0, 0, 0))
    for other in [(1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        assert not torch.equal(first, change(*other)), other


def test_function_of_the_users_gets_what_it_takes():
    def with_all(X, y, generator):
        return X + torch.rand(len(X), 1, generator=generator), y + 1

    block = torch.zeros(8, 2), torch.zeros(8)

    def change(function, epoch=0):
        augmenter = Augmenter(CallableAugmentation(function), 0, mixes_targets=True)
        return augmenter.change(block, epoch, 0, [4, 4])

    X, y = change(with_all)
    again, _ = change(with_all)
    later, _ = change(with_all, epoch=1)
    before = torch.get_rng_state()
    dropped, same = change(torch.nn.Dropout(0.5))
    ones, _ = change(lambda X: torch.randn_like(X))

    assert torch.equal(X, again)
    assert not torch.equal(X, later)
    assert len(X[:, 0].unique()) == 8
    assert torch.equal(y, torch.ones(8))
    assert (dropped.shape, same) == ((8, 2), pytest.approx(block[1]))
    assert torch.equal(ones, change(lambda X: torch.randn_like(X))[0])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda X: None, "must return a tensor of 4 rows, got NoneType from <lambda>"),
        (lambda X: X[:1], r"must return a tensor of 4 rows, got shape \(1, 2\)"),
        (lambda X, y: X, "must return a pair of rows and targets where it takes y, got Tensor"),
        (lambda X, y: (X, y[1:]), r"must return a tensor of 4 targets, got shape \(3,\)"),
    ],
)
def test_function_that_returns_something_else(function, message):
    augmenter = Augmenter(CallableAugmentation(function), 0, mixes_targets=True)

    with pytest.raises(ValueError, match=message):
        augmenter.change((torch.zeros(4, 2), torch.zeros(4)), 0, 0, [4])


def test_numbers_are_what_they_have_always_been():
    numbers = draws((3,), seed=5, epoch=2, first_batch=1).integers(6, 2)

    assert numbers.dtype == torch.int32
    np.testing.assert_array_equal(numbers, FIRST_NUMBERS)


# results that were stored go on from the same numbers
FIRST_NUMBERS = [[63788, 33510], [33887, 40432], [30867, 29453]]
