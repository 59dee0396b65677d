"""Clock of a board's SoC: a PLL of the FPGA makes it from the board's oscillator."""

from amaranth import Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BoardClock", "ecp5_dividers", "xc7_dividers"]


def ecp5_dividers(input_hz, output_hz):
    """(CLKI_DIV, CLKFB_DIV, CLKOP_DIV) of an EHXPLLL with feedback from CLKOP: ``output = input * CLKFB_DIV /
    CLKI_DIV`` exactly, its oscillator as near 600 MHz as can be, in 400 to 800 MHz. ValueError if there are
    none. Limits: Lattice, ECP5 family data sheet, sysCLOCK PLL timing.
    """
    found = [
        (abs(output_hz * post - 600e6), divide, feedback, post)
        for divide in range(1, 129)
        for feedback in range(1, 81)
        if input_hz * feedback == output_hz * divide and input_hz / divide >= 8e6
        for post in range(1, 129)
        if 400e6 <= output_hz * post <= 800e6
    ]
    return _best(found, input_hz, output_hz)


def xc7_dividers(input_hz, output_hz):
    """(DIVCLK_DIVIDE, CLKFBOUT_MULT_F, CLKOUT0_DIVIDE_F) of an MMCME2_BASE: ``output = input * mult / (divclk
    * divide)`` exactly, its oscillator as near 800 MHz as can be, in 600 to 1200 MHz. ValueError if there are
    none. Limits: Xilinx DS181, MMCM specification, speed grade -1.
    """
    found = [
        (abs(input_hz * mult / divclk - 800e6), divclk, mult, post)
        for divclk in range(1, 11)
        if input_hz / divclk >= 10e6
        for mult in range(2, 65)
        if 600e6 <= input_hz * mult / divclk <= 1200e6
        for post in range(1, 129)
        if input_hz * mult == output_hz * divclk * post
    ]
    return _best(found, input_hz, output_hz)


def _best(found, input_hz, output_hz):
    if not found:
        raise ValueError(f"clock_hz must be what the PLL can make of {input_hz:,} Hz, not {output_hz:,}")
    return min(found)[1:]


class BoardClock(wiring.Component):
    """``output = input * output_hz / input_hz``, from the PLL of ``family``.

    Parameters
    ----------
    family : "ecp5" or "xc7". input_hz, output_hz : rates of the clocks. delayed : whether ``delayed`` is
        wanted, only on ECP5.

    Members
    -------
    input, output : in, out; the clocks. delayed : out; ``output`` a quarter of a period later, or 0.
    locked : out; high when the output is stable, asynchronous.

    Tested range: the dividers; the PLLs themselves are the makers', and are not simulated.
    """

    def __init__(self, *, family, input_hz, output_hz, delayed=False):
        if delayed and family != "ecp5":
            raise ValueError(f"delayed is only to be had from family ecp5, not {family}")
        self._family, self._delayed = family, delayed
        self._rates = input_hz, output_hz
        super().__init__({"input": In(1), "output": Out(1), "delayed": Out(1), "locked": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.pll = {"ecp5": self._ecp5, "xc7": self._xc7}[self._family](m)
        return m

    def _ecp5(self, m):
        divide, feedback, post = ecp5_dividers(*self._rates)
        second = {}
        if self._delayed:
            # Phases are counted in eighths of the oscillator's period: ``post`` / 4 periods are whole ones.
            cycles, eighths = divmod(2 * post, 8)
            second = {
                "p_CLKOS_DIV": post, "p_CLKOS_ENABLE": "ENABLED", "p_CLKOS_CPHASE": post // 2 + cycles,
                "p_CLKOS_FPHASE": eighths, "o_CLKOS": self.delayed,
            }  # fmt: skip
        return Instance(
            "EHXPLLL",
            p_CLKI_DIV=divide,
            p_CLKFB_DIV=feedback,
            p_CLKOP_DIV=post,
            p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_CPHASE=post // 2,
            p_CLKOP_FPHASE=0,
            p_FEEDBK_PATH="CLKOP",
            p_PLLRST_ENA="DISABLED",
            p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED",
            i_RST=0,
            i_STDBY=0,
            i_CLKI=self.input,
            i_CLKFB=self.output,
            i_PHASESEL0=0,
            i_PHASESEL1=0,
            i_PHASEDIR=1,
            i_PHASESTEP=1,
            i_PHASELOADREG=1,
            i_PLLWAKESYNC=0,
            i_ENCLKOP=0,
            o_CLKOP=self.output,
            o_LOCK=self.locked,
            **second,
        )

    def _xc7(self, m):
        divclk, mult, post = xc7_dividers(*self._rates)
        loop, before = Signal(), Signal()
        m.submodules.buffer = Instance("BUFG", i_I=before, o_O=self.output)
        return Instance(
            "MMCME2_BASE",
            p_CLKIN1_PERIOD=1e9 / self._rates[0],
            p_DIVCLK_DIVIDE=divclk,
            p_CLKFBOUT_MULT_F=float(mult),
            p_CLKOUT0_DIVIDE_F=float(post),
            i_CLKIN1=self.input,
            i_CLKFBIN=loop,
            i_PWRDWN=0,
            i_RST=0,
            o_CLKFBOUT=loop,
            o_CLKOUT0=before,
            o_LOCKED=self.locked,
        )
