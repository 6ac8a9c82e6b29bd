"""HDF5 files are whole or absent, even where the disk ends in the middle of one."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from minima_core.data.index import Scene, read_scene, write_scene
from minima_core.errors import DataError
from minima_core.io.hdf5 import new_hdf5

LIMITED = """
import resource
from pathlib import Path
import numpy as np
import torch
from minima_core.errors import DataError
from minima_core.training.checkpoint import Progress, save, save_weights
from minima_core.data.shards import write_shard
from minima_core.io.depth import write_depth

noise = np.random.default_rng(0)
weights = torch.nn.Linear(300, 300)
optimiser = torch.optim.Adam(weights.parameters())
weights(torch.ones(300)).sum().backward()
optimiser.step()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for write in (
    lambda: write_depth(Path("a.h5"), noise.random((300, 300))),
    lambda: write_shard(Path("a.h5"), [("a", noise.bytes(300_000), "")]),
    lambda: save_weights(Path("a.safetensors"), weights.state_dict()),
    lambda: save(Path("s"), Progress(), {"a": torch.zeros(3)}, optimiser),
):
    try:
        write()
    except DataError as error:
        print(error)
"""


def test_a_file_that_grows_too_large_is_one_line_and_leaves_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIMITED], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 4  # one a writer
    assert all(line.startswith("cannot write ") and "File too large; free some space" in line for line in lines)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} <= {"model.safetensors"}  # of an unfinished checkpoint


def fill(file):
    file.attrs["version"] = 1
    file.create_dataset("name", data=np.array(["a", "ä"], dtype=h5py.string_dtype()))
    file.create_dataset("depth", data=np.eye(500, dtype=np.float32), compression="gzip", shuffle=True)
    file.create_dataset("empty", data=np.zeros((0, 2)))


def test_the_bytes_are_those_that_the_library_itself_writes(tmp_path):
    with h5py.File(tmp_path / "disk.h5", "w") as file:
        fill(file)
    for name in ("memory.h5", "again.h5"):
        with new_hdf5(tmp_path / name) as file:
            fill(file)
        assert (tmp_path / name).read_bytes() == (tmp_path / "disk.h5").read_bytes()


def test_an_error_leaves_the_older_file(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), new_hdf5(tmp_path / "a.h5"):
        raise KeyboardInterrupt
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_threads_may_write_files_of_one_name(tmp_path):
    def write(k):
        with new_hdf5(tmp_path / str(k) / "a.h5") as file:
            file.create_dataset("k", data=np.full(10_000, k))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(40)))
    for k in range(40):
        with h5py.File(tmp_path / str(k) / "a.h5") as file:
            assert (file["k"][:] == k).all()


def test_a_scene_whose_text_is_none_is_told_as_a_damaged_file(tmp_path):
    none = np.zeros((0, 2), int), np.zeros(0)
    cameras = np.eye(3)[None], np.eye(4)[None]
    write_scene(tmp_path, Scene("alley", "train", ["a/b.jpg"], [""], [""], np.array([[4, 3]]), *cameras, *none))
    path = tmp_path / "alley.h5"
    path.write_bytes(path.read_bytes().replace(b"a/b.jpg", b"a/\xff.jpg"))
    with pytest.raises(DataError, match=r"cannot read .*alley\.h5: .*decode.*; make the index again"):
        read_scene(tmp_path, "alley")
