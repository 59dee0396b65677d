"""The build cache, and where Verilator comes from (sliceforge.sim.toolchain)."""

import multiprocessing
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from sliceforge.sim import toolchain

OBJCACHE = Path(toolchain.__file__).with_name("objcache.sh")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "sliceforge"


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def tools_only(folder, *tools):
    """A folder for the PATH that holds nothing but ``tools``."""
    folder.mkdir()
    for tool in tools:
        (folder / tool).symlink_to(shutil.which(tool))
    return str(folder)


class TestCacheDir:
    def test_follows_xdg(self, cache):
        assert toolchain.cache_dir() == cache

    @pytest.mark.parametrize("value", [None, "", "relative"])
    def test_default_is_in_home(self, value, monkeypatch):
        monkeypatch.setenv("HOME", "/home/somebody")
        if value is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert toolchain.cache_dir() == Path("/home/somebody/.cache/sliceforge")


class Recorder:
    """A build that counts its runs."""

    def __init__(self):
        self.runs = 0

    def __call__(self, folder):
        assert list(folder.iterdir()) == []
        self.runs += 1
        (folder / "result").write_text(str(self.runs))


class TestCachedBuild:
    def test_builds_once_for_a_key(self, cache):
        build = Recorder()
        first = toolchain.cached_build(["a", b"b"], build, "model")
        second = toolchain.cached_build(["a", b"b"], build, "model")
        assert build.runs == 1
        assert first == second
        assert first.parent == cache / "builds"
        assert first.name.startswith("model-")
        assert (first / "result").read_text() == "1"

    @pytest.mark.parametrize("parts", [["a", "c"], ["ab"], ["b", "a"], ["a", "b", ""], ["1:a", "b"], []])
    def test_builds_again_for_another_key(self, parts):
        build = Recorder()
        first = toolchain.cached_build(["a", "b"], build, "model")
        assert toolchain.cached_build(parts, build, "model") != first
        assert build.runs == 2

    def test_failed_build_leaves_nothing(self, cache):
        def fail(folder):
            (folder / "half").write_text("")
            raise RuntimeError("compiler says no")

        with pytest.raises(RuntimeError, match="compiler says no"):
            toolchain.cached_build(["a"], fail, "model")
        assert [path for path in (cache / "builds").iterdir() if path.is_dir()] == []
        assert (toolchain.cached_build(["a"], Recorder(), "model") / "result").exists()

    def test_leftover_of_a_killed_build_is_replaced(self):
        entry = toolchain.cached_build(["a"], Recorder(), "model")
        partial = entry.rename(f"{entry}.partial")
        assert toolchain.cached_build(["a"], Recorder(), "model") == entry
        assert not partial.exists()

    def test_drops_intermediate_files(self):
        def build(folder):
            (folder / "sub").mkdir()
            for name in ("a.o", "b.a", "c.d", "sub/d.gch", "model", "lib.so", "sub/e.cpp"):
                (folder / name).write_text("")

        entry = toolchain.cached_build([], build, "model")
        files = {str(path.relative_to(entry)) for path in entry.rglob("*") if path.is_file()}
        assert files == {"model", "lib.so", "sub/e.cpp"}

    @pytest.mark.parametrize("name", ["", "../model", "a/b", ".hidden", "a b"])
    def test_refuses_a_name_that_is_no_file_name(self, name):
        with pytest.raises(ValueError, match="name must be letters"):
            toolchain.cached_build([], Recorder(), name)

    def test_concurrent_processes_build_once(self, tmp_path):
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=_slow_build, args=(tmp_path / "log",)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 4
        assert (tmp_path / "log").read_text() == "built\n"

    def test_removes_least_recently_used_beyond_the_limit(self, monkeypatch):
        monkeypatch.setattr(toolchain, "KEPT_BUILDS", 2)
        days_ago = [5, 2, 4]
        old = [toolchain.cached_build([str(days)], Recorder(), "model") for days in days_ago]
        for entry, days in zip(old, days_ago, strict=True):
            os.utime(entry, (time.time() - days * toolchain.DAY,) * 2)
        new = toolchain.cached_build(["new"], Recorder(), "model")
        assert [entry.exists() for entry in (*old, new)] == [False, True, False, True]

    def test_keeps_what_was_used_in_the_last_day(self, monkeypatch):
        monkeypatch.setattr(toolchain, "KEPT_BUILDS", 1)
        entries = [toolchain.cached_build([str(i)], Recorder(), "model") for i in range(3)]
        assert all(entry.exists() for entry in entries)


def _slow_build(log):
    def build(folder):
        time.sleep(0.3)
        with open(log, "a") as file:
            file.write("built\n")
        (folder / "result").write_text("done")

    entry = toolchain.cached_build(["shared"], build, "model")
    assert (entry / "result").read_text() == "done"


class TestVerilatorEnv:
    @pytest.mark.parametrize(
        "version", ["5.036 2025-04-27", "5.048 2026-01-01 rev v5.048", "6.000 2030-01-01"]
    )
    def test_takes_a_new_enough_system_verilator(self, version, tmp_path, monkeypatch):
        executable(tmp_path / "bin" / "verilator", f"echo 'Verilator {version}'")
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.delenv("VERILATOR_ROOT", raising=False)
        env = toolchain.verilator_env()
        assert shutil.which("verilator", path=env["PATH"]) == str(tmp_path / "bin" / "verilator")
        assert "VERILATOR_ROOT" not in env
        assert "MAKEFLAGS" not in env

    @pytest.mark.parametrize("text", ["echo 'Verilator 5.006 2023-01-22 rev (Debian 5.006-3)'", "exit 1", ""])
    def test_takes_the_package_over_an_old_or_broken_one(self, text, tmp_path, monkeypatch, cache):
        executable(tmp_path / "bin" / "verilator", text)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
        env = toolchain.verilator_env()
        assert Path(shutil.which("verilator", path=env["PATH"])).is_relative_to(cache)
        assert (Path(env["VERILATOR_ROOT"]) / "include" / "verilated.h").is_file()

    def test_drops_variables_that_would_change_the_build(self, monkeypatch):
        for name in ("OPT", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
            monkeypatch.setenv(name, "-j8 --jobserver-auth=3,4")
        env = toolchain.verilator_env()
        assert not {"OPT", "MFLAGS", "MAKELEVEL"} & env.keys()
        assert "jobserver" not in env.get("MAKEFLAGS", "")

    @pytest.mark.parametrize(
        ("present", "message"),
        [((), "c\\+\\+ is not on the PATH.*apt install g\\+\\+"), (("c++",), "make is.*apt install make")],
    )
    def test_names_the_package_of_a_missing_tool(self, present, message, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", tools_only(tmp_path / "bin", *present))
        with pytest.raises(toolchain.ToolError, match=message):
            toolchain.verilator_env()

    def test_says_how_to_get_verilator(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", tools_only(tmp_path / "bin", "c++", "make"))
        monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(toolchain.ToolError, match=r"no Verilator 5\.036 or newer: run `make setup`"):
            toolchain.verilator_env()

    def test_refuses_a_cache_path_with_a_space(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "my cache"))
        with pytest.raises(toolchain.ToolError, match=r"space in a path: '.*/my cache/sliceforge/objects'"):
            toolchain.verilator_env()

    def test_use_verilator_sets_and_restores_the_environment(self, monkeypatch):
        monkeypatch.setenv("OPT", "-O3")
        before = dict(os.environ)
        with toolchain.use_verilator():
            assert dict(os.environ) == toolchain.verilator_env() | {"PATH": os.environ["PATH"]}
            assert "OPT" not in os.environ
        assert dict(os.environ) == before

    def test_build_identity_names_both_tools(self):
        verilator, compiler, *rest = toolchain.build_identity()
        assert verilator.strip() and compiler.strip() and len(rest) == 3


class TestObjcache:
    """objcache.sh, with a compiler that notes its runs and copies source to object."""

    @pytest.fixture
    def include(self, tmp_path):
        folder = tmp_path / "include"
        folder.mkdir()
        texts = {
            "verilated.cpp": "runtime", "verilated.h": "header", "verilated_vpi.h": "header",
            "top.cpp": "design", "top__ALL.cpp": "design",
        }  # fmt: skip
        for name, text in texts.items():
            (folder / name).write_text(text)
        return folder

    @pytest.fixture
    def compile(self, tmp_path, include, cache):
        runs, output = tmp_path / "runs", tmp_path / "out.o"
        executable(
            tmp_path / "c++",
            f"""if [ "$1" = --version ]; then echo 1.0; exit; fi
            echo "$*" >> {runs}
            for source; do test "$previous" = -o && output=$source; previous=$source; done
            grep -q "${{BAD-bad}}" "$source" && exit 3
            cp "$source" "$output\"""",
        )

        def run(source="verilated.cpp", *flags, **variables):
            """(exit status, whether the compiler ran, the object)"""
            runs.unlink(missing_ok=True)
            output.unlink(missing_ok=True)
            command = ["sh", OBJCACHE, tmp_path / "c++", "-o", output, *flags, "-c", include / source]
            env = os.environ | {"SLICEFORGE_OBJCACHE": str(cache / "objects")} | variables
            status = subprocess.run(command, env=env, check=False).returncode
            return status, runs.exists(), output.read_text() if output.exists() else None

        return run

    def test_compiles_the_runtime_once(self, compile, cache):
        assert compile() == (0, True, "runtime")
        assert compile() == (0, False, "runtime")
        assert [path.suffix for path in (cache / "objects").iterdir()] == [".o"]

    def test_compiles_again_for_another_flag_header_or_installation(self, compile, include):
        compile()
        assert compile("verilated.cpp", "-O3") == (0, True, "runtime")
        assert compile(VERILATOR_ROOT="/elsewhere") == (0, True, "runtime")
        (include / "verilated.h").write_text("newer header")
        assert compile() == (0, True, "runtime")

    def test_keeps_no_other_source(self, compile):
        assert compile("top.cpp") == compile("top.cpp") == (0, True, "design")

    def test_precompiles_the_headers_of_a_design_once(self, compile, include, cache, tmp_path):
        for runs in (2, 1, 1):
            assert compile("top__ALL.cpp", f"-I{include}", "-O1") == (0, True, "design")
            commands = (tmp_path / "runs").read_text().splitlines()
            assert len(commands) == runs
            (header,) = (cache / "objects").glob("headers-*/verilated_all.h")
            assert commands[-1].startswith(f"-I{include} -O1 -include {header} -c -o ")
            assert Path(f"{header}.gch").read_text().startswith('#include "verilated.h"\n')
            assert sorted(path.name for path in tmp_path.glob("out.o*")) == ["out.o"]
        compile("top__ALL.cpp", f"-I{include}", "-O2")
        (include / "verilated.h").write_text("newer header")
        compile("top__ALL.cpp", f"-I{include}", "-O1")
        assert len(list((cache / "objects").iterdir())) == 3

    def test_compiles_without_headers_that_cannot_be_precompiled(self, compile, include, tmp_path):
        for _ in range(2):
            run = compile("top__ALL.cpp", f"-I{include}", BAD="#include")
            assert run == (0, True, "design")
            assert "-include" not in (tmp_path / "runs").read_text().splitlines()[-1]

    def test_passes_a_failure_on_and_keeps_nothing(self, compile, include, cache):
        (include / "verilated.cpp").write_text("bad")
        assert compile() == compile() == (3, True, None)
        assert not (cache / "objects").exists()

    def test_without_a_folder_just_compiles(self, compile):
        assert compile(SLICEFORGE_OBJCACHE="") == compile(SLICEFORGE_OBJCACHE="") == (0, True, "runtime")

    def test_compiles_where_the_folder_cannot_be_made(self, compile, tmp_path):
        (tmp_path / "file").write_text("")
        assert compile(SLICEFORGE_OBJCACHE=str(tmp_path / "file")) == (0, True, "runtime")


def test_verilator_builds_and_runs_a_model(tmp_path):
    """With an empty cache: the mended makefile, the runtime's objects, a build that is moved when done."""
    (tmp_path / "top.v").write_text("module top(input a, output y); assign y = !a; endmodule\n")
    (tmp_path / "main.cpp").write_text(
        '#include "Vtop.h"\nint main() { Vtop top; top.a = 0; top.eval(); return top.y ? 0 : 1; }\n'
    )

    def build(folder):
        command = ["verilator", "--cc", "--exe", "--build", "--no-timing", "-o", "model", "--Mdir", folder]
        command += [tmp_path / "top.v", tmp_path / "main.cpp"]
        subprocess.run(command, env=toolchain.verilator_env(), check=True)

    entry = toolchain.cached_build(toolchain.build_identity(), build, "top")
    assert subprocess.run([entry / "model"], check=False).returncode == 0
