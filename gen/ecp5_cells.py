"""Blocks in cells of ECP5, where synthesis finds no way to use what a cell can do."""

from __future__ import annotations

import re

__all__ = ["ecp5_accumulators"]

# Half of a CCU2C: its LUT's four inputs are A = a bit of the sum, B = shift, C = of the addend, D = of what
# stands above. The LUT gives D if B else A ^ C; the carry chain takes the sum from it, and A & ~B as the
# carry where the LUT is 0. Synthesis leaves C and D unused, and builds the choice behind the adder.
_HALF = """\
      .A{half}(augend[i{plus}]), .B{half}(shift), .C{half}(extended[i{plus}]), .D{half}(over[i{plus}]), \
.S{half}(following[i{plus}]),"""

_ACCUMULATOR = """\
module {name}(clk, rst, addend, carry, shift, above, sum);
  input clk, rst, carry, shift;
  input signed [{addend_bits}-1:0] addend;
  input [{bits}-1:0] above;
  output reg [{bits}-1:0] sum = 0;
  // The chain has whole cells. Half a cell below the sum begins it with the carry: its LUT is 0, and so the
  // carry is A & ~B whatever comes in. (place and route spends a cell on each end that has a net)
  wire [{width}-1:0] augend = {{sum, 1'b1}}, over = {{above, 1'b0}}, following;
  wire signed [{width}-1:0] extended = $signed({{addend, carry}});
  wire [{width}-2:0] chain;
  genvar i;
  generate for (i = 0; i < {width}; i = i + 2) begin : cells
    if (i == 0)
      CCU2C #(.INIT0(16'h0002), .INIT1(16'hDE12), .INJECT1_0("NO"), .INJECT1_1("NO")) slice (
        .A0(carry), .B0(shift), .C0(1'b1), .D0(1'b1),
{high}
        .COUT(chain[2]));
    else if (i + 2 < {width})
      CCU2C #(.INIT0(16'hDE12), .INIT1(16'hDE12), .INJECT1_0("NO"), .INJECT1_1("NO")) slice (
{low}
{high}
        .CIN(chain[i]), .COUT(chain[i + 2]));
    else
      CCU2C #(.INIT0(16'hDE12), .INIT1(16'hDE12), .INJECT1_0("NO"), .INJECT1_1("NO")) slice (
{low}
{high}
        .CIN(chain[i]));
  end endgenerate
  always @(posedge clk) sum <= rst ? {bits}'d0 : following[{bits}:1];
endmodule
"""


def ecp5_accumulators(verilog: str) -> str:
    """Verilog that is to replace the modules of hw/accumulator.py in ``verilog``: a CCU2C for two bits, where
    synthesis takes one and two LUTs more. verif/test_ecp5_cells.py proves that they do the same.
    """
    modules = []
    for name, bits, addend_bits in sorted(
        set(re.findall(r"^module (\w+_accumulator_(\d+)x(\d+))\b", verilog, re.M))
    ):
        modules.append(
            _ACCUMULATOR.format(
                name=name, bits=bits, addend_bits=addend_bits, width=(int(bits) + 2) // 2 * 2,
                low=_HALF.format(half=0, plus=""), high=_HALF.format(half=1, plus=" + 1"),
            )
        )  # fmt: skip
    return "\n".join(modules)
