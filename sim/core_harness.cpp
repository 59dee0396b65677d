// Drives the Verilated core: plays arrays of payloads into its input streams, records its output streams.
// A small C interface for ctypes; payloads are packed into 32-bit words, least significant first.
#include <cstdint>
#include <cstring>
#include <memory>

#include "Vcore.h"
#include "verilated.h"

namespace {

// A port of up to 64 bits is an integer, a wider one an array of words.
template <class Port>
void put(Port& port, const uint32_t* words) {
    if constexpr (std::is_integral_v<Port>) {
        uint64_t value = words[0];
        if constexpr (sizeof(Port) > 4) value |= uint64_t(words[1]) << 32;
        port = static_cast<Port>(value);
    } else {
        std::memcpy(&port[0], words, sizeof(port));
    }
}

template <class Port>
void get(const Port& port, uint32_t* words) {
    if constexpr (std::is_integral_v<Port>) {
        words[0] = uint32_t(port);
        if constexpr (sizeof(Port) > 4) words[1] = uint32_t(uint64_t(port) >> 32);
    } else {
        std::memcpy(words, &port[0], sizeof(port));
    }
}

template <class Port>
constexpr size_t words_of = sizeof(Port) <= 4 ? 1 : sizeof(Port) / 4;

struct Input {
    const uint32_t* data = nullptr;
    uint64_t count = 0, position = 0;
};

struct Output {
    uint32_t* data = nullptr;
    uint64_t capacity = 0, count = 0;
};

enum { LAYERS, WEIGHTS, ACTIVATIONS, BIASES, EXPONENTS, INPUTS };
enum { RESULTS, STATUS, OUTPUTS };

struct Core {
    VerilatedContext context;
    std::unique_ptr<Vcore> top = std::make_unique<Vcore>(&context);
    Input in[INPUTS];
    Output out[OUTPUTS];
    uint64_t cycles = 0;

    template <class Payload>
    void offer(int i, Payload& payload, uint8_t& valid) {
        Input& s = in[i];
        valid = s.position < s.count;
        if (valid) put(payload, s.data + s.position * words_of<Payload>);
    }

    template <class Payload>
    bool take(int i, const Payload& payload, uint8_t valid) {
        Output& s = out[i];
        if (!valid || s.count >= s.capacity) return false;
        get(payload, s.data + s.count++ * words_of<Payload>);
        return true;
    }

    // A cycle: inputs change at the falling edge; when all has settled, transfers are noted; then the rising edge.
    void settle() {
        top->clk = 0;
        top->eval();
    }
    void edge() {
        top->clk = 1;
        top->eval();
        ++cycles;
    }
};

}  // namespace

#define PORT(stream, member) top.stream##___05F##member

extern "C" {

Core* core_new() {
    auto* core = new Core;
    core->top->rst = 1;
    core->settle();
    core->edge();
    core->top->rst = 0;
    return core;
}

void core_free(Core* core) { delete core; }

void core_input(Core* core, int stream, const uint32_t* data, uint64_t count) {
    core->in[stream] = Input{data, count, 0};
}

void core_output(Core* core, int stream, uint32_t* data, uint64_t capacity) {
    core->out[stream] = Output{data, capacity, 0};
}

uint64_t core_taken(const Core* core, int stream) { return core->in[stream].position; }
uint64_t core_given(const Core* core, int stream) { return core->out[stream].count; }

// Runs until a status has come out, or for max_cycles; returns the cycles run.
uint64_t core_run(Core* core, uint64_t max_cycles) {
    Vcore& top = *core->top;
    const uint64_t start = core->cycles;
    while (core->cycles - start < max_cycles) {
        core->offer(LAYERS, PORT(layers, payload), PORT(layers, valid));
        core->offer(WEIGHTS, PORT(weights, payload), PORT(weights, valid));
        core->offer(ACTIVATIONS, PORT(activations, payload), PORT(activations, valid));
        core->offer(BIASES, PORT(biases, payload), PORT(biases, valid));
        core->offer(EXPONENTS, PORT(exponents, payload), PORT(exponents, valid));
        PORT(results, ready) = 1;
        PORT(status, ready) = 1;
        core->settle();
        core->in[LAYERS].position += PORT(layers, valid) && PORT(layers, ready);
        core->in[WEIGHTS].position += PORT(weights, valid) && PORT(weights, ready);
        core->in[ACTIVATIONS].position += PORT(activations, valid) && PORT(activations, ready);
        core->in[BIASES].position += PORT(biases, valid) && PORT(biases, ready);
        core->in[EXPONENTS].position += PORT(exponents, valid) && PORT(exponents, ready);
        core->take(RESULTS, PORT(results, payload), PORT(results, valid));
        const bool done = core->take(STATUS, PORT(status, payload), PORT(status, valid));
        core->edge();
        if (done) break;
    }
    return core->cycles - start;
}
}
