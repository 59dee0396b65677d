"""Configuration: every illegal value is refused with its sentence; derived values, presets, TOML, --set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from sliceforge.gen import AcceleratorConfig
from sliceforge.gen.verilog import core_parameters

PRESETS = ("panacea", "edge", "tiny")
INTEGERS = (
    "pea_count", "lanes", "vector", "weight_slices", "run_bits", "tile_k", "fifo_depth", "wmem_kib",
    "amem_kib", "omem_kib", "bus_bits", "address_bits", "load_buffer",
    "packed_products", "packing", "table_products", "max_k",
)  # fmt: skip
RANGES = {
    "pea_count": (1, 64),
    "lanes": (1, 64),
    "run_bits": (1, 8),
    "tile_k": (4, 128),
    "fifo_depth": (2, 64),
    "wmem_kib": (1, 65536),
    "amem_kib": (1, 65536),
    "omem_kib": (1, 65536),
    "address_bits": (32, 64),
    "packed_products": (0, 64),
    "table_products": (0, 64),
    "max_k": (1, 1048576),
}
CHOICES = {
    "vector": ("2, 4, 8", (0, 1, 3, 5, 6, 16)),
    "weight_slices": ("1, 2, 3", (0, 4, -1)),
    "bus_bits": ("32, 64, 128, 256, 512", (0, 16, 96, 1024)),
    "packing": ("2, 4", (0, 1, 3, 8)),
    "load_buffer": ("16, 32, 64, 128, 256, 512", (0, 8, 100, 1024)),
}


def config(**fields: Any) -> AcceleratorConfig:
    return AcceleratorConfig(**{"name": "machine", **fields})


def refused(error: type[Exception], sentence: str, **fields: Any) -> None:
    with pytest.raises(error) as found:
        config(**fields)
    assert str(found.value) == sentence
    assert found.type is error


class TestFields:
    def test_the_tables_name_every_field(self) -> None:
        names = [field.name for field in dataclasses.fields(AcceleratorConfig)]
        assert names == ["name", *INTEGERS]
        assert {*RANGES, *CHOICES} == set(INTEGERS)

    @pytest.mark.parametrize(
        ("field", "value"),
        [(field, value) for field, (low, high) in RANGES.items() for value in (low - 1, high + 1, -5)],
    )
    def test_outside_the_range(self, field: str, value: int) -> None:
        low, high = RANGES[field]
        refused(ValueError, f"{field} must be {low}..{high}, not {value}", **{field: value})

    @pytest.mark.parametrize(
        ("field", "value"), [(field, value) for field, (_, wrong) in CHOICES.items() for value in wrong]
    )
    def test_not_among_the_choices(self, field: str, value: int) -> None:
        refused(ValueError, f"{field} must be one of {CHOICES[field][0]}, not {value}", **{field: value})

    @pytest.mark.parametrize("value", [True, 4.0, "4", None, [4]], ids=repr)
    @pytest.mark.parametrize("field", INTEGERS)
    def test_of_another_type(self, field: str, value: Any) -> None:
        refused(TypeError, f"{field} must be an integer, not {value!r}", **{field: value})

    @pytest.mark.parametrize("value", [5, 30, 31, 33, 126])
    def test_tile_k_is_a_multiple_of_four(self, value: int) -> None:
        refused(ValueError, f"tile_k must be a multiple of 4, not {value}", tile_k=value)

    @pytest.mark.parametrize(
        "name", ["", "A", "aB", "1a", "_a", "a-b", "a.b", "a b", "a\n", "ä", "a" * 33, "../a", "a;b"]
    )
    def test_bad_names(self, name: str) -> None:
        rule = "name must be 1 to 32 lower-case letters, digits or _, a letter first"
        refused(ValueError, f"{rule}, not {name!r}", name=name)

    @pytest.mark.parametrize("name", [None, 5, True, b"a"], ids=repr)
    def test_names_of_another_type(self, name: Any) -> None:
        refused(TypeError, f"name must be a string, not {name!r}", name=name)

    @pytest.mark.parametrize("name", ["a", "a" * 32, "tiny_2", "x9"])
    def test_good_names(self, name: str) -> None:
        assert config(name=name).module == f"sliceforge_{name}"

    def test_the_ends_of_the_ranges_are_legal(self) -> None:
        largest = {"pea_count": 64, "lanes": 64, "vector": 8, "weight_slices": 1, "bus_bits": 512}
        # Of OMEM no machine can have more: 64 x 64 operators, v = 8 and 512 bits of bus.
        ranges = RANGES | {"omem_kib": (1, 10240)}
        for field, (low, high) in ranges.items():
            for value in (low, high):
                fields: dict[str, Any] = {"weight_slices": 1, "omem_kib": 256, field: value}
                if field.endswith("_products"):
                    fields["vector"] = 8
                if field.endswith("_kib"):  # the least and the most that a machine can be built with
                    fields |= {"pea_count": 1, "lanes": 1} if value == low else {**largest, field: value}
                    fields |= {"omem_kib": 4096} if value == high and field != "omem_kib" else {}
                assert getattr(config(**fields), field) == value

    @pytest.mark.parametrize(
        ("field", "banks", "bits", "most"),
        [("wmem_kib", 2, 64, 1024), ("amem_kib", 2, 64, 1024)],
    )
    def test_a_bank_has_at_most_65536_words(self, field: str, banks: int, bits: int, most: int) -> None:
        assert getattr(AcceleratorConfig.preset("tiny", **{field: most}), field) == most
        with pytest.raises(ValueError) as error:
            AcceleratorConfig.preset("tiny", **{field: 2 * most})
        assert str(error.value) == (
            f"{field} must give each of {banks} banks at most 65536 words of {bits} bits, "
            f"{most} KiB or less, not {2 * most}"
        )

    def test_partial_sums_have_at_most_65536_words(self) -> None:
        """Two of its 4096 tiles are on their way out of the array, and have memories of their own."""
        assert AcceleratorConfig.preset("tiny", omem_kib=1024).psum_slots == 4094
        sentence = (
            "omem_kib must give partial sums at most 65536 words of 128 bits, 1024 KiB or less, not 1025"
        )
        with pytest.raises(ValueError, match=sentence):
            AcceleratorConfig.preset("tiny", omem_kib=1025)

    def test_is_frozen(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            AcceleratorConfig.preset("tiny").lanes = 3  # type: ignore[misc]
        with pytest.raises(ValueError, match=r"^lanes must be 1\.\.64, not 65$"):
            dataclasses.replace(AcceleratorConfig.preset("tiny"), lanes=65)

    def test_takes_no_positional_or_unknown_argument(self) -> None:
        with pytest.raises(TypeError):
            AcceleratorConfig("machine")  # type: ignore[misc]
        with pytest.raises(TypeError):
            config(pea_cuont=4)


class TestCombinations:
    @pytest.mark.parametrize(
        ("weight_slices", "most"), [(1, 1 << 20), (2, 1 << 17), (3, 1 << 14)], ids=["1", "2", "3"]
    )
    def test_accumulator_within_32_bits(self, weight_slices: int, most: int) -> None:
        assert config(weight_slices=weight_slices, max_k=most).accumulator_bits <= 32
        if weight_slices > 1:
            refused(
                ValueError,
                f"max_k must keep the accumulator within 32 bits: max_k = {most + 1} with "
                f"weight_slices = {weight_slices} needs 33",
                weight_slices=weight_slices,
                max_k=most + 1,
            )

    # Two slots of each of 16 banks: 2 * 16 * 20 granules * 8 bytes = 5 KiB; and so on, by hand.
    @pytest.mark.parametrize(
        ("field", "fields", "banks", "needed"),
        [
            ("wmem_kib", {}, 16, 5),
            ("amem_kib", {}, 16, 5),
            ("wmem_kib", {"pea_count": 64, "omem_kib": 256}, 64, 20),
            ("amem_kib", {"lanes": 64, "omem_kib": 256}, 64, 20),
            # Two LO slices a position: 1 + 16 + 11 granules of 8 bytes, 2 * 16 of them are 7 KiB.
            ("wmem_kib", {"weight_slices": 3}, 16, 7),
            # 1 + 32 + 43 granules of 8 bytes in each of 2 * 16 slots: 19 KiB.
            ("amem_kib", {"tile_k": 128}, 16, 19),
        ],
    )
    def test_two_tiles_in_each_bank(
        self, field: str, fields: dict[str, int], banks: int, needed: int
    ) -> None:
        assert getattr(config(**fields, **{field: needed}), field) == needed
        refused(
            ValueError,
            f"{field} must hold two tiles in each of {banks} banks (double buffering), "
            f"{needed} KiB or more, not {needed - 1}",
            **fields,
            **{field: needed - 1},
        )

    @pytest.mark.parametrize(
        ("fields", "shape", "needed"),
        [
            ({}, "64 x 64", 48),
            ({"pea_count": 4, "lanes": 8}, "16 x 32", 6),
            ({"vector": 8}, "128 x 128", 192),
        ],
    )
    def test_three_output_tiles(self, fields: dict[str, int], shape: str, needed: int) -> None:
        assert config(**fields, omem_kib=needed).psum_slots == 1
        refused(
            ValueError,
            f"omem_kib must hold three output tiles of {shape} sums, {needed} KiB or more, not {needed - 1}",
            **fields,
            omem_kib=needed - 1,
        )


class TestDerivedValues:
    # By hand from the field's meanings, not by the code's formulas.
    @pytest.mark.parametrize(
        ("preset", "values"),
        [
            (
                "panacea",
                {
                    "operators": 256, "multipliers": 4096, "tile_m": 64, "tile_n": 64, "max_weight_bits": 7,
                    "accumulator_bits": 27, "load_ways": 4, "load_beat_bytes": 32, "weight_slots": 102,
                    "activation_slots": 102, "psum_slots": 2, "result_lanes": 4, "drain_lanes": 2,
                    "psum_words": 1024,
                },
            ),
            (
                "edge",
                {
                    "operators": 32, "multipliers": 512, "tile_m": 16, "tile_n": 32, "max_weight_bits": 7,
                    "accumulator_bits": 27, "load_ways": 1, "load_beat_bytes": 8, "weight_slots": 51,
                    "activation_slots": 25, "psum_slots": 2, "result_lanes": 1, "drain_lanes": 1,
                    "psum_words": 128,
                },
            ),
            (
                "tiny",
                {
                    "operators": 4, "multipliers": 64, "tile_m": 8, "tile_n": 8, "max_weight_bits": 7,
                    "accumulator_bits": 27, "load_ways": 1, "load_beat_bytes": 8, "weight_slots": 23,
                    "activation_slots": 23, "psum_slots": 2, "result_lanes": 1, "drain_lanes": 1,
                    "psum_words": 16,
                },
            ),
        ],
    )  # fmt: skip
    def test_of_the_presets(self, preset: str, values: dict[str, int]) -> None:
        machine = AcceleratorConfig.preset(preset)
        assert {name: getattr(machine, name) for name in values} == values

    @pytest.mark.parametrize(
        ("fields", "granule", "entry", "per_granule", "weight_slot", "activation_slot"),
        [
            # granule = 16 v bits; entry = run_bits + 4 v; slot = header + LO + HO granules
            ({}, 64, 20, 3, 1 + 8 + 11, 1 + 8 + 11),
            ({"weight_slices": 1}, 64, 20, 3, 1 + 8 + 11, 1 + 8 + 11),
            ({"weight_slices": 3}, 64, 20, 3, 1 + 16 + 11, 1 + 8 + 11),
            ({"vector": 2}, 32, 12, 2, 1 + 8 + 16, 1 + 8 + 16),
            ({"vector": 8, "omem_kib": 192}, 128, 36, 3, 1 + 8 + 11, 1 + 8 + 11),
            ({"vector": 2, "run_bits": 2}, 32, 10, 3, 1 + 8 + 11, 1 + 8 + 11),
            ({"tile_k": 12}, 64, 20, 3, 1 + 3 + 4, 1 + 3 + 4),
        ],
    )
    def test_of_the_layouts(
        self,
        fields: dict[str, int],
        granule: int,
        entry: int,
        per_granule: int,
        weight_slot: int,
        activation_slot: int,
    ) -> None:
        machine = config(**fields)
        for layout, slot in (
            (machine.weight_layout, weight_slot),
            (machine.activation_layout, activation_slot),
        ):
            assert layout.granule_bits == granule
            assert layout.entry_bits == entry
            assert layout.entries_per_granule == per_granule
            assert layout.slot_granules == slot
            assert layout.ho_base == slot - -(-machine.tile_k // per_granule)

    @pytest.mark.parametrize("weight_slices", [1, 2, 3])
    @pytest.mark.parametrize("max_k", [1, 2, 3, 4095, 4096, 4097])
    def test_the_accumulator_holds_the_largest_sum_and_no_bit_more(
        self, weight_slices: int, max_k: int
    ) -> None:
        machine = config(weight_slices=weight_slices, max_k=max_k)
        assert machine.max_weight_bits == {1: 4, 2: 7, 3: 10}[weight_slices]
        largest = 2 ** (machine.max_weight_bits - 1) * 255 * max_k
        assert largest < 2 ** (machine.accumulator_bits - 1)
        assert largest >= 2 ** (machine.accumulator_bits - 3)  # max_k is rounded up to a power of two

    @pytest.mark.parametrize(
        ("fields", "ways", "beat", "result_lanes"),
        [
            # A beat of the bus, but a granule of 16 v bits at least.
            ({"bus_bits": 32}, 1, 8, 1),
            ({"bus_bits": 512}, 8, 64, 8),
            ({"bus_bits": 512, "lanes": 6}, 8, 64, 2),
            ({"bus_bits": 512, "lanes": 5}, 8, 64, 1),
            ({"bus_bits": 256, "vector": 2}, 8, 32, 8),
            ({"bus_bits": 64, "vector": 8, "omem_kib": 192}, 1, 16, 1),
        ],
    )
    def test_of_the_streams(self, fields: dict[str, int], ways: int, beat: int, result_lanes: int) -> None:
        machine = config(**fields)
        assert (machine.load_ways, machine.load_beat_bytes, machine.result_lanes) == (
            ways,
            beat,
            result_lanes,
        )

    def test_the_cores_parameters_come_from_them(self) -> None:
        machine = AcceleratorConfig.preset("edge", fifo_depth=5)
        parameters = core_parameters(machine)
        assert parameters["fifo_depth"] == 5
        for name, value in parameters.items():
            assert value == getattr(machine, {"output_slots": "transit_slots"}.get(name, name))


class TestPresets:
    def test_names(self) -> None:
        assert AcceleratorConfig.presets() == PRESETS

    @pytest.mark.parametrize("name", PRESETS)
    def test_takes_long_k(self, name: str) -> None:
        machine = AcceleratorConfig.preset(name)
        assert machine.name == name
        assert machine.max_k >= 4096

    def test_published_size(self) -> None:
        machine = AcceleratorConfig.preset("panacea")
        assert (machine.pea_count, machine.lanes, machine.vector) == (16, 16, 4)

    def test_overrides(self) -> None:
        machine = AcceleratorConfig.preset("tiny", weight_slices=3, name="tiny3", wmem_kib=8)
        assert (machine.name, machine.weight_slices, machine.wmem_kib) == ("tiny3", 3, 8)
        assert machine.lanes == 2
        changes = {"name": "tiny3", "weight_slices": 3, "wmem_kib": 8}
        assert machine.parameters() == AcceleratorConfig.preset("tiny").parameters() | changes

    @pytest.mark.parametrize("name", ["huge", "Tiny", "", None, ["tiny"], 4], ids=repr)
    def test_unknown(self, name: Any) -> None:
        with pytest.raises(ValueError) as found:
            AcceleratorConfig.preset(name)
        assert str(found.value) == f"config must be one of the presets panacea, edge, tiny, not {name!r}"

    def test_unknown_override(self) -> None:
        with pytest.raises(ValueError) as found:
            AcceleratorConfig.preset("tiny", pea_cuont=4)
        listed = ", ".join(["name", *INTEGERS])
        assert str(found.value) == f"configuration field must be one of {listed}, not 'pea_cuont'"


class TestFilesAndSettings:
    @pytest.fixture
    def write(self, tmp_path: Path) -> Any:
        def write_file(text: str | bytes, name: str = "machine.toml") -> Path:
            path = tmp_path / name
            path.write_bytes(text.encode() if isinstance(text, str) else text)
            return path

        return write_file

    def load_error(self, source: Any, *settings: str) -> str:
        with pytest.raises(ValueError) as found:
            AcceleratorConfig.load(source, settings)
        assert "\n" not in str(found.value)
        return str(found.value)

    def test_a_presets_name(self) -> None:
        assert AcceleratorConfig.load("edge") == AcceleratorConfig.preset("edge")

    def test_an_empty_file_is_the_defaults(self, write: Any) -> None:
        assert AcceleratorConfig.load(write("")) == config()

    def test_a_file_sets_fields_and_the_name(self, write: Any) -> None:
        path = write("pea_count = 8\nlanes = 4\n", "eight_by_four.toml")
        assert AcceleratorConfig.load(path) == config(name="eight_by_four", pea_count=8, lanes=4)
        assert AcceleratorConfig.load(str(path)) == AcceleratorConfig.load(path)
        named = write('name = "other"\n')
        assert AcceleratorConfig.load(named).name == "other"

    def test_a_file_starts_from_a_preset(self, write: Any) -> None:
        path = write('preset = "tiny"\nfifo_depth = 4\n')
        assert AcceleratorConfig.load(path) == AcceleratorConfig.preset("tiny", fifo_depth=4, name="machine")

    def test_settings_win_over_the_file_and_the_file_over_the_preset(self, write: Any) -> None:
        path = write('preset = "tiny"\nfifo_depth = 4\nlanes = 1\n')
        machine = AcceleratorConfig.load(path, ["fifo_depth=16", "name=third"])
        assert (machine.fifo_depth, machine.lanes, machine.pea_count) == (16, 1, 2)
        assert machine.name == "third"

    def test_the_last_setting_of_a_key_wins(self) -> None:
        assert AcceleratorConfig.load("tiny", ["fifo_depth=4", "fifo_depth=5"]).fifo_depth == 5

    @pytest.mark.parametrize(
        ("setting", "value"), [("max_k=5000", 5000), (" max_k = 5000 ", 5000), ("max_k=0x2000", 8192)]
    )
    def test_forms_of_a_setting(self, setting: str, value: int) -> None:
        assert AcceleratorConfig.load("tiny", [setting]).max_k == value

    @pytest.mark.parametrize("setting", ["", "=", "max_k", "max_k=", "=5000", "max_k 5000"])
    def test_a_setting_of_another_form(self, setting: str) -> None:
        assert self.load_error("tiny", setting) == f"set must be key=value, not {setting!r}"

    @pytest.mark.parametrize("text", ["many", "4.0", "1e3", "True", "4 5"])
    def test_a_setting_that_is_no_integer(self, text: str) -> None:
        assert self.load_error("tiny", f"max_k={text}") == f"max_k must be an integer, not {text!r}"

    def test_a_setting_out_of_range(self) -> None:
        assert self.load_error("tiny", "lanes=65") == "lanes must be 1..64, not 65"
        assert "name must be 1 to 32" in self.load_error("tiny", "name=Big")
        assert "configuration field must be one of name, " in self.load_error("tiny", "lane=3")

    def test_an_unknown_preset_or_file(self, tmp_path: Path) -> None:
        allowed = "config must be a preset (panacea, edge, tiny) or a .toml file"
        for source in ("huge", "tiny.json", "", str(tmp_path)):
            assert self.load_error(source) == f"{allowed}, not {source!r}"

    def test_a_file_that_cannot_be_read(self, tmp_path: Path, write: Any) -> None:
        missing = str(tmp_path / "missing.toml")
        assert self.load_error(missing) == f"config {missing!r} cannot be read: No such file or directory"
        folder = tmp_path / "folder.toml"
        folder.mkdir()
        assert self.load_error(folder) == f"config {str(folder)!r} cannot be read: Is a directory"
        binary = write(b"\xff\xfe")
        assert self.load_error(binary) == f"config {str(binary)!r} cannot be read: not UTF-8 text"

    @pytest.mark.parametrize("text", ["lanes 4", "lanes = ", "lanes = 4\nlanes = 5", "[lanes"])
    def test_bad_toml(self, text: str, write: Any) -> None:
        path = write(text)
        assert self.load_error(path).startswith(f"config {str(path)!r} must be valid TOML: ")

    @pytest.mark.parametrize(
        ("text", "shown"), [('"huge"', "'huge'"), ("4", "4"), ('["tiny"]', "['tiny']"), ("{}", "{}")]
    )
    def test_a_file_with_an_unknown_preset(self, text: str, shown: str, write: Any) -> None:
        path = write(f"preset = {text}\n")
        assert self.load_error(path) == f"preset must be one of panacea, edge, tiny, not {shown}"

    def test_a_file_with_an_unknown_key(self, write: Any) -> None:
        assert self.load_error(write("pea_cuont = 4\n")).endswith(", not 'pea_cuont'")
        assert self.load_error(write("[machine]\nlanes = 4\n")).endswith(", not 'machine'")

    @pytest.mark.parametrize("text", ["4.0", '"4"', "true", "[4]", "{}"])
    def test_a_file_with_another_type(self, text: str, write: Any) -> None:
        with pytest.raises(TypeError, match=r"^lanes must be an integer, not "):
            AcceleratorConfig.load(write(f"lanes = {text}\n"))

    def test_a_file_whose_stem_is_no_name(self, write: Any) -> None:
        assert self.load_error(write("", "My-Machine.toml")).endswith(", not 'My-Machine'")
        assert AcceleratorConfig.load(write('name = "mine"', "My-Machine.toml")).name == "mine"
