"""Weight files that somebody hands over: read, or refused in one line, whatever their bytes are."""

import io

import numpy as np
import pytest
import torch

from minima_core.errors import WeightsError
from minima_core.io.weights import read_checkpoint, save_weights

STATE = {"layer.weight": torch.arange(6.0).reshape(2, 3)}


def test_both_forms_are_read(tmp_path):
    save_weights(tmp_path / "w.safetensors", STATE)
    torch.save(STATE, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        assert torch.equal(read_checkpoint(tmp_path / name, "")["layer.weight"], STATE["layer.weight"])


@pytest.mark.parametrize("content", [[torch.zeros(2)], {1: torch.zeros(2)}, torch.zeros(2)])
def test_what_names_no_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"w\.pt cannot be read as weights: it names none; give another"):
        read_checkpoint(tmp_path / "w.pt", "give another")


def test_torch_s_advice_to_run_a_file_is_not_passed_on(tmp_path):
    (tmp_path / "README.md").write_text("# read me")
    torch.save(STATE | {"net": torch.nn.Linear(2, 2)}, tmp_path / "w.pt")
    for name, what in (("README.md", "is no checkpoint"), ("w.pt", "holds Python objects beside weights")):
        with pytest.raises(WeightsError) as error:
            read_checkpoint(tmp_path / name, "give another")
        assert str(error.value) == f"{tmp_path / name} {what}; give another"


def test_any_bytes_are_one_line(tmp_path):
    """Of no form, and of torch's older form with some bytes changed, which its reader trusts."""
    buffer, rng = io.BytesIO(), np.random.default_rng(0)
    torch.save(STATE, buffer, _use_new_zipfile_serialization=False)
    whole, path, refused = np.frombuffer(buffer.getvalue(), np.uint8), tmp_path / "w.pt", []
    for n in range(600):
        found = rng.integers(0, 256, rng.integers(0, 60), dtype=np.uint8)
        if n % 2:
            found = whole.copy()
            found[rng.integers(0, len(whole), 4)] = rng.integers(0, 256, 4, dtype=np.uint8)
        path.write_bytes(found.tobytes())
        try:
            read_checkpoint(path, "give another")
        except WeightsError as error:
            refused.append(str(error))
    assert len(refused) > 400
    assert all("\n" not in line and line.endswith("; give another") for line in refused)


def test_a_file_that_is_not_there_is_named(tmp_path):
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(WeightsError, match=name):
            read_checkpoint(tmp_path / name, "give another")
