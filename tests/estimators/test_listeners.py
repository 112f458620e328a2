import copy
import pickle
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from skorch.callbacks import Callback, EpochScoring, PrintLog
from torch import nn

from sktune import NeuralNetClassifier
from sktune.engine.compiled import program as compiled
from sktune.estimators.overrides import QuietLog, has_own, hears_batches
from sktune.modules.dropout import HashedDropout

X, y = make_classification(200, 6, random_state=0)
LABELS = np.array(["no", "yes"])[y]


def make_net(cls=NeuralNetClassifier, **params):
    return cls(
        module__hidden=8, max_epochs=2, batch_size=50, random_state=0, device="cpu", **params
    )


class Recorder(Callback):
    def on_batch_end(self, net, batch, training, loss, **kwargs):
        self.seen = getattr(self, "seen", [])
        self.seen.append((batch[1], net.history[-1, "batches", -1, "train_loss"], loss.item()))


def test_plain_net_has_no_listener_to_batches():
    net = make_net().fit(X, LABELS)
    assert not hears_batches(net, training=True)
    # skorch's callback `valid_acc` scores the validation rows.
    assert hears_batches(net, training=False)


def test_callback_sees_labels_and_recorded_loss():
    recorder = Recorder()
    make_net(callbacks=[recorder]).fit(X, LABELS)

    assert len(recorder.seen) == 8
    for labels, recorded, loss in recorder.seen:
        assert set(labels) <= {"no", "yes"}
        assert recorded == loss


def test_net_with_a_hook_of_its_own_sees_labels():
    class Listening(NeuralNetClassifier):
        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            super().on_batch_begin(net, batch=batch, training=training, **kwargs)
            seen.extend(batch[1])

    seen = []
    make_net(Listening).fit(X, LABELS)
    assert sorted(seen) == sorted([*LABELS, *LABELS])


def test_hook_set_on_an_instance_is_called():
    callback = Callback()
    callback.on_grad_computed = mock.Mock()
    assert has_own("on_grad_computed", callback)
    make_net(callbacks=[callback]).fit(X, LABELS)
    assert callback.on_grad_computed.call_count == 8


def test_training_score_is_recorded():
    score = EpochScoring("accuracy", on_train=True, name="train_acc", lower_is_better=False)
    net = make_net(callbacks=[score]).fit(X, LABELS)
    assert all(0 <= value <= 1 for value in net.history[:, "train_acc"])


def test_log_is_quiet_unless_somebody_reads_it(capsys):
    rows = []
    make_net(callbacks__print_log__sink=rows.append).fit(X, LABELS)
    # Two rows of the head, and one for each epoch.
    assert len(rows) == 4
    assert capsys.readouterr().out == ""
    with mock.patch.object(PrintLog, "table") as table:
        make_net().fit(X, LABELS)
    table.assert_not_called()
    make_net(verbose=1).fit(X, LABELS)
    assert "train_loss" in capsys.readouterr().out


def test_log_takes_the_place_of_skorchs():
    net = make_net().fit(X, LABELS)
    assert type(net.get_params()["callbacks__print_log"]) is QuietLog
    assert net.callbacks_[-1][0] == "print_log"


class OwnTrain(nn.Module):
    """A module whose `train` leaves its normalisation in evaluation mode, as is often done."""

    def __init__(self):
        super().__init__()
        self.norm, self.out = nn.BatchNorm1d(6), nn.Linear(6, 2)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, X):
        return self.out(self.norm(X))


def test_a_modules_own_train_is_called_in_the_first_epoch():
    net = NeuralNetClassifier(OwnTrain, max_epochs=1, random_state=0, device="cpu").fit(X, LABELS)
    assert torch.equal(net.module_.norm.running_mean, torch.zeros(6))


def test_mode_returns_after_a_prediction_between_batches():
    class Predicting(Callback):
        def on_batch_end(self, net, **kwargs):
            modes.append(net.module_.training)
            net.predict(X[:3])

    modes = []
    make_net(callbacks=[Predicting()]).fit(X, LABELS)
    assert modes == [True] * 8


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_dropout_made_ahead_is_not_copied(copied, monkeypatch):
    monkeypatch.setattr(compiled, "enabled", False)
    net = make_net(module__dropout=0.5).fit(X, LABELS)
    layers = [layer for layer in net.module_.modules() if isinstance(layer, HashedDropout)]
    assert [len(made) for layer in layers for _, _, made in layer.own_masks.ahead.values()] == [8]
    assert copied(layers[0]).own_masks is None


def test_dropout_made_ahead_is_what_each_step_makes_alone(monkeypatch):
    monkeypatch.setattr(compiled, "enabled", False)
    weights = []
    for ahead in (1 << 17, 1):
        monkeypatch.setattr("sktune.modules.dropout._AHEAD", ahead)
        # The last of the 4 batches is shorter.
        net = make_net(module__dropout=0.5).fit(X[:170], LABELS[:170])
        weights.append(net.module_.state_dict())
    for ours, alone in zip(weights[0].values(), weights[1].values(), strict=True):
        assert torch.equal(ours, alone)
