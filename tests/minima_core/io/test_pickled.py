"""Published index files are read; what asks for more than arrays is refused, and so is what unpacks to too much."""

from __future__ import annotations

import io
import os
import pickle
import struct
import warnings
import zipfile

import numpy as np
import pytest

from minima_core.errors import DataError
from minima_core.io import pickled
from minima_core.io.pickled import npy_bytes, npz_bytes, pickle_bytes, read_arrays


def contents() -> dict:
    paths = np.array(["a/b.jpg", None, "ü.jpg"], dtype=object)
    poses = np.empty(3, dtype=object)
    poses[0], poses[2] = np.eye(4), np.arange(16.0).reshape(4, 4).T
    return {"image_paths": paths, "poses": poses, "pair_infos": [(np.array([0, 2]), np.float64(0.5), np.ones(4))]}


def same(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and all(
            same(x, y) for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_pickle_is_read(tmp_path, protocol):
    path = tmp_path / "0000.npz"
    path.write_bytes(pickle.dumps(contents(), protocol=protocol))
    assert all(same(read_arrays(path)[key], value) for key, value in contents().items())


def test_numpys_own_files_are_read(tmp_path):
    values = {**contents(), "K": np.arange(6, dtype=">f4").reshape(2, 3), "f": np.asfortranarray(np.eye(3)[:2])}
    values["pair_infos"] = np.array(values["pair_infos"], dtype=object)
    np.savez(tmp_path / "a.npz", **values)
    np.savez_compressed(tmp_path / "b.npz", **values)
    np.save(tmp_path / "c.npy", values, allow_pickle=True)
    for name in ("a.npz", "b.npz", "c.npy"):
        found = read_arrays(tmp_path / name)
        assert set(found) == set(values) and all(same(found[key], values[key]) for key in values)
    assert set(read_arrays(tmp_path / "a.npz", {"K"})) == {"K"}


def test_what_is_written_numpy_reads(tmp_path):
    values = contents()
    (tmp_path / "a.npz").write_bytes(pickle_bytes(values))
    box = np.empty((), dtype=object)
    box[()] = values
    (tmp_path / "b.npy").write_bytes(npy_bytes(box))
    (tmp_path / "c.npz").write_bytes(npz_bytes({"poses": values["poses"], "n": np.arange(3)}))
    assert b"numpy._core" not in (tmp_path / "a.npz").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy.core: numpy 1 knows no other name
        assert same(np.load(tmp_path / "a.npz", allow_pickle=True)["poses"], values["poses"])
        assert same(np.load(tmp_path / "b.npy", allow_pickle=True).item()["pair_infos"], values["pair_infos"])
        with np.load(tmp_path / "c.npz", allow_pickle=True) as archive:
            assert same(archive["poses"], values["poses"]) and same(archive["n"], np.arange(3))
    for name in ("a.npz", "b.npy", "c.npz"):
        assert same(read_arrays(tmp_path / name)["poses"], values["poses"])
    assert npz_bytes({"n": np.arange(3)}) == npz_bytes({"n": np.arange(3)})


class Runs:
    """What a hostile file holds: a command."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("form", ["pickle", "npy", "npz"])
def test_a_command_in_a_file_is_not_run(tmp_path, form):
    mark, path = tmp_path / "mark", tmp_path / "0000.npz"
    value = np.array([Runs(mark)], dtype=object)
    if form == "pickle":
        path.write_bytes(pickle.dumps({"poses": value}))
    elif form == "npy":
        with path.open("wb") as file:
            np.save(file, np.array({"poses": value}, dtype=object), allow_pickle=True)
    else:
        np.savez(path, poses=value)
    with pytest.raises(DataError, match=r"0000\.npz is refused: its pickle asks for posix\.system"):
        read_arrays(path)
    assert not mark.exists()


GLOBALS = [
    "builtins eval",
    "builtins getattr",
    "numpy.core.multiarray fromfile",
    "numpy load",
    "builtins range",
    "os x",
]


@pytest.mark.parametrize("asked", GLOBALS)
def test_only_the_listed_names_are_found(tmp_path, asked):
    path = tmp_path / "x.npz"
    path.write_bytes(b"\x80\x02c" + asked.replace(" ", "\n").encode() + b"\n.")
    with pytest.raises(DataError, match="asks for"):
        read_arrays(path)


def restored(shape: bytes, code: bytes, order: bytes, data: bytes) -> bytes:
    """Return a pickle of one array whose state is as given."""
    make = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    kind = b"cnumpy\ndtype\n(U" + bytes([len(code)]) + code + b"K\x00K\x01tR"
    kind += b"(K\x03U\x01" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return b"\x80\x02}U\x01a" + make + b"(K\x01" + shape + kind + b"\x89" + data + b"tbs."


def test_arrays_that_are_not_what_they_say_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(restored(b"K\x02\x85", b"f8", b"<", b"U\x10" + bytes(16)))
    assert read_arrays(path)["a"].tolist() == [0, 0]
    objects = restored(b"K\x02\x85", b"O8", b"|", b"]NaNa")
    path.write_bytes(objects)
    assert read_arrays(path)["a"].tolist() == [None, None]
    hostile = {
        "a list shorter than the shape": restored(b"M\xe8\x03\x85", b"O8", b"|", b"]Na"),
        "bytes for objects": restored(b"K\x02\x85", b"O8", b"|", b"U\x10" + b"A" * 16),
        "fewer bytes than the shape": restored(b"J\x00\x00\x00\x40\x85", b"f8", b"<", b"U\x10" + bytes(16)),
        "a negative side": restored(b"J\xff\xff\xff\xff\x85", b"f8", b"<", b"U\x08" + bytes(8)),
        "a record": restored(b"K\x02\x85", b"V8", b"|", b"U\x10" + bytes(16)),
        "a type that is no type": restored(b"K\x02\x85", b"f8,f8", b"<", b"U\x20" + bytes(32)),
        "an array made by its class": b"\x80\x02}U\x01acnumpy\nndarray\n(J\x00\x00\x00\x7ftRs.",
    }
    for what, data in hostile.items():
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"x\.npz"):
            assert read_arrays(path) is None, what


def test_zip_bombs_are_refused_before_they_unpack(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, poses=np.zeros(10 << 20))
    monkeypatch.setattr(pickled, "_array", lambda *_: pytest.fail("was unpacked"))
    with pytest.raises(DataError, match=r"bomb\.npz is refused: poses\.npy in it unpacks from \d+ to \d+ bytes"):
        read_arrays(path)


def test_headers_that_promise_more_than_there_is_are_refused(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("poses.npy", buffer.getvalue() + bytes(64))
    with pytest.raises(DataError, match="promises"):
        read_arrays(tmp_path / "x.npz")


def test_an_archive_that_lies_about_a_length_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, poses=np.zeros(1 << 16))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 256)  # the directory says that the array is small
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.npz"):
        read_arrays(path)


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04 cut off", b"\x93NUMPY\x01", b"\x93NUMPY\x09\x00", b"hello", b"\x80\x04N."]
)
def test_damaged_files_are_named(tmp_path, data):
    path = tmp_path / "0001.npz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"0001\.npz"):
        read_arrays(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no file .*0001\.npz"):
        read_arrays(tmp_path / "0001.npz")
