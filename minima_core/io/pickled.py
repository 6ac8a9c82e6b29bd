"""Arrays out of published ``.npz`` and ``.npy`` files and into them, pickles of arrays, scalars and containers only.

Opening a pickle lets it call any function there is. Here it reaches a handful of names, and behind none of them lies
numpy's own code for restoring arrays, which believes what a file says of a type and of a length.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy

from minima_core.errors import DataError

MAX_BYTES = 4 * 2**30  # of a file, or of one array in an archive
SUSPECT_BYTES, SUSPECT_RATIO = 64 * 2**20, 100  # what unpacks to more, and that many times its size, is a bomb
_CODE = re.compile(r"(b1|[iu][1248]|f(2|4|8|16)|c(8|16|32)|[SU]\d{1,6}|O8?)")


_DAMAGED = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error),
)


class _Refused(Exception):
    """What a file asks for is not given."""


def read_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, Any]:
    """Return what a published index file maps names to: arrays, lists of them, or plain values.

    Reads an archive of arrays (``np.savez``), a pickled dict (LoFTR's files, which only look like archives), and a
    dict in a 0-d array (``np.save``, RoMa's). Of an archive only the arrays in ``names`` are read.

    Raises:
        DataError: if the file is missing, damaged or too large, unpacks to far more than its size, or its pickle asks
            for anything but arrays, scalars and containers.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _Refused(f"it has {path.stat().st_size} bytes, more than {MAX_BYTES}")
        with path.open("rb") as file:
            head = file.read(6)
            file.seek(0)
            if head[:4] == b"PK\x03\x04":
                return _archive(file, names)
            if head == npy.MAGIC_PREFIX:
                found = _array(file, path.stat().st_size)
                found = found.item() if found.ndim == 0 else found
            else:
                found = _Unpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise DataError(f"no file {path}; give the path of a .npz or .npy file") from None
    except _Refused as refused:
        raise DataError(f"{path} is refused: {refused}; get the file from its publisher again") from None
    except MemoryError:
        raise DataError(f"{path} is refused: it asks for more memory than there is; get it again") from None
    except RecursionError:
        raise DataError(f"{path} is refused: it is nested too deeply; get it again") from None
    except _DAMAGED as error:
        raise DataError(f"cannot read {path}: {error}; the file is damaged, get it again") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise DataError(
            f"{path} holds no mapping from names to arrays; give an index file of LoFTR, glue-factory or RoMa"
        )
    return found


def _archive(file: BinaryIO, names: Collection[str] | None) -> dict[str, Any]:
    found, total = {}, 0
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename or (names is not None and name not in names):
                continue
            size, packed = member.file_size, max(member.compress_size, 1)
            total += size
            if total > MAX_BYTES or (size > SUSPECT_BYTES and size / packed > SUSPECT_RATIO):
                raise _Refused(f"{member.filename} in it unpacks from {packed} to {size} bytes, as a zip bomb does")
            with archive.open(member) as entry:
                found[name] = _array(cast(BinaryIO, entry), size)
    return found


def _array(file: BinaryIO, size: int) -> np.ndarray:
    """Return the array of an ``.npy`` stream of ``size`` bytes, whose header is checked before memory is taken."""
    version = npy.read_magic(file)
    if version not in {(1, 0), (2, 0)}:
        raise _Refused(f"its .npy version is {version}")
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = header(file)
    order = "F" if fortran else "C"
    count = math.prod(shape)
    if dtype.hasobject:
        if dtype != np.dtype(object):
            raise _Refused("it holds records of objects")
        values = _Unpickler(file, encoding="latin1").load()
        if not isinstance(values, np.ndarray) or values.shape != shape or values.dtype != dtype:
            raise _Refused("its pickle is not the array that its header promises")
        return values
    if count * dtype.itemsize > size:
        raise _Refused(f"its header promises {count * dtype.itemsize} bytes, it has {size}")
    return np.frombuffer(file.read(count * dtype.itemsize), dtype).reshape(shape, order=order)  # type: ignore[call-overload]


class _Type:
    """Stands for ``numpy.dtype`` while a pickle is read: a code and a byte order, which numpy's own would not check."""

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise _Refused(f"it holds values of type {code!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in {"<", ">", "|", "="} or any(field is not None for field in state[2:5]):
            raise _Refused("it holds records")
        self.order = state[1]

    def real(self) -> np.dtype[Any]:
        return np.dtype("O") if self.code[0] == "O" else np.dtype(self.order + self.code)


class _Array(np.ndarray):
    """An array whose restored state is checked; numpy's own reads beyond a list that is shorter than its shape says."""

    def __setstate__(self, state: Any) -> None:
        version, shape, kind, fortran, data = state
        if not isinstance(shape, tuple) or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise _Refused(f"it holds an array of shape {shape}")
        dtype, count = _real(kind), math.prod(shape)
        if dtype.hasobject:
            if not isinstance(data, list) or len(data) != count:
                raise _Refused("it holds an array of objects whose number is not its shape's")
        else:
            data = _bytes(data)
            if len(data) != count * dtype.itemsize:
                raise _Refused("it holds an array whose bytes are not its shape's")
        super().__setstate__((version, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]


def _real(kind: object) -> np.dtype[Any]:
    if not isinstance(kind, _Type):
        raise _Refused("it holds an array without a type")
    return kind.real()


def _bytes(data: object) -> bytes:
    if isinstance(data, str):  # written by Python 2
        return data.encode("latin1")
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    raise _Refused(f"it holds {type(data).__name__} where bytes are expected")


def _reconstruct(kind: object, *_: object) -> np.ndarray:
    if kind is not _KIND:
        raise _Refused("it makes arrays of a kind of its own")
    return _Array((0,))


def _frombuffer(data: object, kind: object, shape: tuple[int, ...], order: str) -> np.ndarray:
    dtype = _real(kind)
    if dtype.hasobject:
        raise _Refused("it takes objects from bytes")
    values = np.frombuffer(_bytes(data), dtype).reshape(shape, order="F" if order == "F" else "C")
    return values.view(_Array)


def _scalar(kind: object, data: object) -> Any:
    dtype = _real(kind)
    if dtype.hasobject:
        raise _Refused("it takes an object from bytes")
    return np.frombuffer(_bytes(data), dtype, count=1)[0]


def _encode(text: object, codec: object = "latin1") -> bytes:
    if not isinstance(text, str) or codec not in {"latin1", "latin-1"}:
        raise _Refused("it encodes text")
    return text.encode("latin1")


def _collection(kind: type) -> Any:
    def make(values: object = ()) -> Any:
        if not isinstance(values, list | tuple):  # range(10**12) would be counted out
            raise _Refused(f"it makes a {kind.__name__} of {type(values).__name__}")
        return kind(values)

    return make


_KIND = object()  # stands for ``numpy.ndarray``: called, it would make an array of any size
_NUMPY = {
    ("multiarray", "_reconstruct"): _reconstruct,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _frombuffer,
}
_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _KIND,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.{module}", name): it for core in ("core", "_core") for (module, name), it in _NUMPY.items()},
    **{(b, k.__name__): _collection(k) for b in ("builtins", "__builtin__") for k in (set, frozenset, list, tuple)},
    **{(b, "complex"): complex for b in ("builtins", "__builtin__")},
}


class _Unpickler(pickle.Unpickler):
    """Finds the names above and no other."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _NAMES[module, name]
        except KeyError:
            raise _Refused(
                f"its pickle asks for {module}.{name}; only arrays, scalars and containers are read"
            ) from None

    def persistent_load(self, pid: Any) -> Any:  # noqa: ARG002
        raise _Refused("its pickle points outside the file")


def pickle_bytes(values: Any) -> bytes:
    """Return a pickle of arrays and containers as LoFTR's files are; numpy of any version reads it."""
    data = pickle.dumps(values, protocol=3)
    for name in ("_reconstruct", "scalar"):
        # numpy 2's module, unknown to 1.25; the name stands there once, then in the memo
        new, old = (f"cnumpy.{core}.multiarray\n{name}\n".encode() for core in ("_core", "core"))
        data = data.replace(new, old, 1)
    return data


def npy_bytes(values: np.ndarray) -> bytes:
    """Return an array as the bytes of an ``.npy`` file; objects in it are pickled as above."""
    buffer = io.BytesIO()
    if values.dtype.hasobject:
        npy.write_array_header_1_0(buffer, npy.header_data_from_array_1_0(values))
        buffer.write(pickle_bytes(values))
    else:
        npy.write_array(buffer, np.ascontiguousarray(values))
    return buffer.getvalue()


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """Return arrays as the bytes of an ``.npz`` file; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, values in arrays.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), npy_bytes(values))  # its date is 1980 and not now
    return buffer.getvalue()
