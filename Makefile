# `make` alone lists the targets.

PYTHON ?= python3
CONFIG ?= panacea
TARGET ?= ecp5
BOARD ?= ulx3s-85f

BIN := .venv/bin
PY := $(BIN)/python
# The files in order, half of them each: what a file's tests share is made once. Who is done takes of the other's.
WORKERS := -n 2 --dist worksteal
# The checkout's path is part of the name: a copied or moved checkout is set up anew, since .venv holds absolute paths.
STAMP := .venv/.set-up-$(shell printf %s '$(CURDIR)' | cksum | cut -d' ' -f1)

.PHONY: help setup demo test regress lint bench verilog synth fpga docs clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(STAMP)  ## a layer of a real network on the simulated RTL, compared with the golden model
	@$(PY) scripts/demo.py

test: $(STAMP)  ## the regression: unit, golden and cocotb tests (under 20 minutes)
	@$(PY) -m pytest $(WORKERS) verif

regress: $(STAMP)  ## the long regression: all of test and what is marked long
	@$(PY) -m pytest $(WORKERS) verif --run-long

lint: $(STAMP) build/mypy/sliceforge  ## format, ruff, mypy, and Verilator's lint of every preset
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) scripts/lint_verilog.py

bench: $(STAMP)  ## the benchmarks
	@$(PY) scripts/bench.py

verilog: $(STAMP)  ## Verilog of CONFIG= (a preset or a .toml file) into build/
	@$(BIN)/sliceforge generate --config $(CONFIG) --out build/$(basename $(notdir $(CONFIG)))

# The preset that is done in minutes; CONFIG= of the command line goes before.
synth: CONFIG = tiny
synth: $(STAMP)  ## area by block of CONFIG= on TARGET= (ecp5, ice40, xc7, osu018) by Yosys
	@$(BIN)/sliceforge synth --config "$(CONFIG)" --target "$(TARGET)" --out build/$(basename $(notdir $(CONFIG)))

fpga: $(STAMP) .venv/.fpga-tools  ## a bitstream for BOARD= (ulx3s-85f and others: `sliceforge fpga --list`) into build/BOARD
	@$(BIN)/sliceforge fpga --board "$(BOARD)" --out "build/$(BOARD)"

docs: $(STAMP)  ## what is generated in docs/
	@$(PY) scripts/block_diagram.py
	@$(PY) scripts/registers_page.py

setup: $(STAMP)  ## .venv, made or brought up to date (the others do it too; PYTHON= chooses the Python)

clean:  ## remove what the others made here, except .venv (cached builds are in ~/.cache/sliceforge)
	@rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find gen hw sim verif scripts -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml scripts/setup_venv.py
	@command -v $(PYTHON) >/dev/null || \
	    { echo "missing: Python 3.11 or newer, as \`$(PYTHON)\`: \`apt install python3 python3-venv\`" >&2; exit 1; }
	@$(PYTHON) scripts/check_system.py
	@$(PYTHON) scripts/setup_venv.py $@

.venv/.fpga-tools: $(STAMP)
	@echo "set-up: installing the tools for FPGAs into .venv"
	@$(PY) -m pip install -qq --disable-pip-version-check --editable '.[fpga]'
	@touch $@

# mypy sees the folders under their package names.
build/mypy/sliceforge:
	@mkdir -p $@
	@ln -sfn ../../../gen ../../../hw ../../../sim ../../../verif $@/
