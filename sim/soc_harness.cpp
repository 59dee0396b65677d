// Runs the Verilated SoC and is the other end of its serial line, bit by bit. A small C interface for ctypes.
#include <cstdint>
#include <memory>

#include "Vsoc.h"
#include "verilated.h"

namespace {

constexpr int kFrameBits = 10;  // start bit, 8 data bits, the lowest first, stop bit
constexpr int kBroken = -1;     // a stop bit was missing

// What the SoC receives.
struct Sender {
    int clocks = 0, left = 0;  // cycles of a bit, and those that are left of this byte
    unsigned bits = 0;

    void start(uint8_t byte) {
        bits = (1u << 9) | (byte << 1);
        left = kFrameBits * clocks;
    }
    bool level() const { return left == 0 || (bits >> (kFrameBits - 1 - (left - 1) / clocks)) & 1; }
    void step() {
        if (left) --left;
    }
};

// What the SoC sends: each bit is looked at in its middle.
struct Receiver {
    int clocks = 0, elapsed = -1;  // cycles since the start bit's first
    unsigned bits = 0;

    // The byte that is complete with this level, kBroken, or less.
    int step(bool level) {
        constexpr int kNothing = kBroken - 1;
        if (elapsed < 0) {
            if (level) return kNothing;
            elapsed = 0;
            bits = 0;
        }
        const int at = elapsed++;
        if (at % clocks != clocks / 2) return kNothing;
        bits |= static_cast<unsigned>(level) << (at / clocks);
        if (at / clocks < kFrameBits - 1) return kNothing;
        elapsed = -1;
        return bits >> 9 ? (bits >> 1) & 0xff : kBroken;
    }
};

struct Soc {
    VerilatedContext context;
    std::unique_ptr<Vsoc> top = std::make_unique<Vsoc>(&context);
    Sender sender;
    Receiver receiver;

    explicit Soc(int clocks_per_bit) {
        sender.clocks = receiver.clocks = clocks_per_bit;
        top->rst = top->uart_rx = 1;
        cycle();
        cycle();
        top->rst = 0;
    }

    void cycle() {
        top->clk = 0;
        top->eval();
        top->clk = 1;
        top->eval();
    }

    // Sends `count` bytes, for `cycles` cycles at least; returns how many bytes came meanwhile.
    int exchange(const uint8_t* data, int count, uint64_t cycles, uint8_t* answer) {
        int sent = 0, received = 0;
        for (uint64_t i = 0; i < cycles || sender.left || sent < count; ++i) {
            if (!sender.left && sent < count) sender.start(data[sent++]);
            top->uart_rx = sender.level();
            sender.step();
            cycle();
            const int byte = receiver.step(top->uart_tx);
            if (byte == kBroken) return kBroken;
            if (byte >= 0) answer[received++] = static_cast<uint8_t>(byte);
        }
        return received;
    }
};

}  // namespace

extern "C" {

Soc* soc_new(int clocks_per_bit) { return new Soc(clocks_per_bit); }
void soc_free(Soc* s) { delete s; }
int soc_fault(Soc* s) { return s->top->fault; }
int soc_exchange(Soc* s, const uint8_t* data, int count, uint64_t cycles, uint8_t* answer) {
    return s->exchange(data, count, cycles, answer);
}
}
