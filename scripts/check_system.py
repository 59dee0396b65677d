"""Checks what the set-up needs from the system, and names the package that brings what is missing.

Runs with Python 3.6 or newer, so that it can say that a Python is too old. Exit status 1 if something is
missing.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from ctypes.util import find_library

OLDEST_PYTHON = (3, 11)
CPP17_PROGRAM = "#include <optional>\nint main() { if (std::optional<int> x{1}; x) return 0; }\n"


def missing():
    """One line for each thing that is missing."""
    lines = []
    version = "{}.{}".format(*sys.version_info[:2])
    if sys.version_info < OLDEST_PYTHON:
        oldest = "{}.{}".format(*OLDEST_PYTHON)
        lines.append(
            f"Python {oldest} or newer, {sys.executable} is {version}: "
            f"`apt install python{oldest} python{oldest}-venv`, then `make PYTHON=python{oldest} ...`"
        )
    elif not has_venv():
        lines.append(f"Python's venv with pip: `apt install python{version}-venv`")
    if not compiles_cpp17():
        lines.append("a C++17 compiler, as `c++` on the PATH (GCC 8 or newer): `apt install g++`")
    if shutil.which("make") is None:
        lines.append("make, as `make` on the PATH: `apt install make`")
    return lines


def has_venv():
    try:
        import ensurepip  # Debian leaves it out
        import venv
    except ImportError:
        return False
    return bool(ensurepip and venv)


def compiles_cpp17():
    try:
        done = subprocess.run(
            ["c++", "-std=gnu++17", "-fsyntax-only", "-x", "c++", "-"],
            input=CPP17_PROGRAM.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return False
    return done.returncode == 0


def has_python_library():
    """Whether Python's shared library is there, which a simulator loads to run cocotb."""
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")
    version = "{}.{}".format(*sys.version_info[:2])
    return bool(
        (folder and name and ".so" in name and os.path.exists(os.path.join(folder, name)))
        or find_library("python" + version)
    )


def main():
    lines = missing()
    for line in lines:
        print(f"missing: {line}", file=sys.stderr)
    if not lines and not has_python_library():
        version = "{}.{}".format(*sys.version_info[:2])
        print(
            f"note: tests with cocotb need Python's shared library: `apt install libpython{version}`, "
            "or a Python built with --enable-shared",
            file=sys.stderr,
        )
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
