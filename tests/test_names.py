import pytest

from sktune.names import check_name, did_you_mean


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("droput", "; did you mean 'dropout'?"),
        ("dropout", "; did you mean 'dropout'?"),
        ("zzz", ""),
        (3, ""),
    ],
)
def test_did_you_mean(name, answer):
    assert did_you_mean(name, ["dropout", "hidden"]) == answer


def test_check_name_accepts_known():
    assert check_name("activation", "relu", {"relu": 1, "tanh": 2}) is None


def test_check_name_states_requirement_and_fact():
    with pytest.raises(
        ValueError, match=r"^activation must be one of \['relu', 'tanh'\], got 'than'; did you mean 'tanh'\?$"
    ):
        check_name("activation", "than", ["tanh", "relu"])
