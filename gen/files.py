"""Files that a command reads and writes: all of its outputs, or none of them."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["check_folder", "check_outputs", "load_array", "naming", "write_all"]


def check_outputs(outputs: Mapping[str, Path], inputs: Mapping[str, str]) -> None:
    """Refuses, before any work, an output that is no file in an existing folder, or is used twice."""
    taken: dict[Path, str] = {}
    for name, given in inputs.items():
        with naming(name, given, "read"):
            taken[Path(given).resolve()] = name
    for name, path in outputs.items():
        with naming(name, path, "written"):
            if path == Path() or path.is_dir() or not path.parent.is_dir():
                raise ValueError(f"{name} must be a file in an existing folder, not {str(path)!r}")
            other = taken.setdefault(path.resolve(), name)
        if other != name:
            raise ValueError(f"{name} must be a file of its own, not {str(path)!r}, which is {other}")


def check_folder(out: Path, names: Iterable[str]) -> None:
    """Refuses a folder ``out`` that cannot take the files ``names``, which may have folders of their own."""
    if out == Path():
        raise ValueError("out must be the name of a folder, not ''")
    with naming("out", out, "written"):
        existing = next(path for path in (out, *out.absolute().parents) if path.exists())
        if not existing.is_dir():
            raise ValueError(f"out must be a folder, not {str(out)!r}: {str(existing)!r} is a file")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        files = [out / name for name in names]
        below = {parent for path in files for parent in path.parents if parent.is_relative_to(out)}
        for path in files:
            if path.is_dir():
                raise ValueError(f"out must have no folder in the place of a file, not {str(path)!r}")
        for path in sorted(below):
            if path.exists() and not path.is_dir():
                raise ValueError(f"out must have no file in the place of a folder, not {str(path)!r}")


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Writes the files beside their places first and then moves them there, so that an error alters none.

    What exists and is no regular file, such as a pipe, is written directly, at the end.
    """
    written: dict[Path, Path] = {}
    try:
        for path, data in contents.items():
            with naming("output", path, "written"):
                if not path.exists() or path.is_file():
                    with tempfile.NamedTemporaryFile(
                        dir=path.parent, prefix=".sliceforge-", delete=False
                    ) as file:
                        written[path] = Path(file.name)
                        file.write(data)
                    os.chmod(file.name, 0o666 & ~_umask())
                elif path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                elif not os.access(path, os.W_OK):
                    raise PermissionError(13, "no permission")
        for path, data in contents.items():
            with naming("output", path, "written"):
                if path in written:
                    os.replace(written[path], path)
                    del written[path]
                else:
                    path.write_bytes(data)
    finally:
        for leftover in written.values():
            with suppress(OSError):
                leftover.unlink()


def load_array(name: str, path: str) -> npt.NDArray[Any]:
    """The array in a .npy file; ValueError names the argument where there is none."""
    with naming(name, path, "read"), open(path, "rb") as file:
        try:
            array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        except OSError:
            raise
        except Exception:  # numpy parses the header as Python: a broken one may raise anything
            raise ValueError(f"{name} must be a .npy file of integers, which {path!r} is not") from None
    return array


@contextmanager
def naming(name: str, path: str | Path, done: str) -> Iterator[None]:
    """Turns an OSError into the ValueError "<name> '<path>' cannot be <done>: <reason>"."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{name} {str(path)!r} cannot be {done}: {error.strerror}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
