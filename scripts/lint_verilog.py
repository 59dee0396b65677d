"""Lints the Verilog of every preset with Verilator's full set of warnings. Exit status 1 if one warns."""

import subprocess
import sys
import tempfile
from pathlib import Path

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.verilog import generate_verilog
from sliceforge.sim.toolchain import verilator_env

WAIVERS = Path(__file__).resolve().parent.parent / "gen" / "verilator.vlt"


def lint(config: AcceleratorConfig, folder: Path, env: dict[str, str]) -> str:
    """Verilator's messages, "" if there is nothing to say."""
    source = folder / f"{config.module}.v"
    source.write_text(generate_verilog(config), encoding="utf-8")
    command = ["verilator", "--lint-only", "-Wall", "--top-module", config.module, WAIVERS, source]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    messages = done.stdout + done.stderr
    return messages or f"verilator exited with status {done.returncode}\n" if done.returncode else ""


def main() -> int:
    env = verilator_env()
    failed = False
    for name in AcceleratorConfig.presets():
        with tempfile.TemporaryDirectory() as folder:
            messages = lint(AcceleratorConfig.preset(name), Path(folder), env)
        print(f"verilator --lint-only {name}: {'warnings' if messages else 'clean'}", flush=True)
        if messages:
            print(messages, file=sys.stderr, end="", flush=True)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
