// Runs the Verilated accelerator with a memory on its AXI4 master, and gives access to its registers.
// A small C interface for ctypes. A model that was built for waveforms (VM_TRACE) can also write them.
#include <cstdint>
#include <memory>

#include "Vaccelerator.h"
#include "axi_memory.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_fst_c.h"
#endif

namespace {

enum { RUNNING, INTERRUPT, QUIET, BROKEN };  // what a run ended with
constexpr int kAnswerLimit = 1000;           // cycles that a register access may take
constexpr int kNoAnswer = -1;

struct Accelerator {
    VerilatedContext context;
    std::unique_ptr<Vaccelerator> top;
    AxiMemory<Vaccelerator> memory;
    uint64_t cycle = 0;

    Accelerator(uint64_t base, uint64_t size, uint64_t latency, uint64_t bandwidth)
        : memory(base, size, latency, bandwidth) {
#if VM_TRACE
        context.traceEverOn(true);
#endif
        top = std::make_unique<Vaccelerator>(&context);
        context.timeunit(-9);  // the model has set its own
        context.timeprecision(-10);
        top->rst = 1;
        for (int i = 0; i < 2; ++i) {
            settle();
            edge();
        }
        top->rst = 0;
        if (top->m_axi_arvalid || top->m_axi_awvalid || top->m_axi_wvalid || top->s_axi_rvalid || top->s_axi_bvalid) {
            memory.break_rule(cycle, "valid after reset");
        }
    }

    // A cycle: inputs change at the falling edge; when all has settled, transfers are noted; then the rising edge.
    void settle() {
        memory.drive(*top, cycle);
        top->clk = 0;
        top->eval();
        dump(5);
    }
    void edge() {
        if (!top->rst) memory.sample(*top, cycle);
        top->clk = 1;
        top->eval();
        ++cycle;
        dump(0);
    }

    int write(uint32_t offset, uint32_t value) {
        top->s_axi_awaddr = offset;
        top->s_axi_wdata = value;
        top->s_axi_wstrb = 15;
        top->s_axi_awvalid = top->s_axi_wvalid = top->s_axi_bready = 1;
        int answer = kNoAnswer;
        for (int i = 0; answer == kNoAnswer && i < kAnswerLimit; ++i) {
            settle();
            const bool address = top->s_axi_awready, data = top->s_axi_wready;
            if (top->s_axi_bvalid) answer = top->s_axi_bresp;
            edge();
            if (address) top->s_axi_awvalid = 0;
            if (data) top->s_axi_wvalid = 0;
        }
        top->s_axi_bready = 0;
        memory.last_moved = cycle;
        return answer;
    }

    int read(uint32_t offset, uint32_t* value) {
        top->s_axi_araddr = offset;
        top->s_axi_arvalid = top->s_axi_rready = 1;
        int answer = kNoAnswer;
        for (int i = 0; answer == kNoAnswer && i < kAnswerLimit; ++i) {
            settle();
            const bool address = top->s_axi_arready;
            if (top->s_axi_rvalid) {
                answer = top->s_axi_rresp;
                *value = top->s_axi_rdata;
            }
            edge();
            if (address) top->s_axi_arvalid = 0;
        }
        top->s_axi_rready = 0;
        memory.last_moved = cycle;
        return answer;
    }

    // Until the interrupt is high, for `most` cycles at most; QUIET when nothing has moved on the bus for `quiet`
    // cycles and it is not the memory that is slow.
    int run(uint64_t most, uint64_t quiet) {
        const uint64_t end = cycle + most;
        while (memory.broken_rule.empty()) {
            if (top->irq) return INTERRUPT;
            if (cycle == end) return RUNNING;
            if (cycle - memory.last_moved > quiet) return QUIET;
            settle();
            edge();
        }
        return BROKEN;
    }

    // Waveforms, of cycles counted from `origin`, a nanosecond each; the clock rises at the start of a cycle.
#if VM_TRACE
    std::unique_ptr<VerilatedFstC> waves;
    uint64_t origin = 0, first = 0, last = 0;

    void trace(const char* path, uint64_t from, uint64_t to) {
        origin = cycle;
        first = from;
        last = to;
        waves = std::make_unique<VerilatedFstC>();
        top->trace(waves.get(), 99);
        waves->open(path);
        dump(0);
    }
    void dump(uint64_t tenths) {
        if (!waves || cycle - origin < first) return;
        if (cycle - origin <= last) {
            waves->dump((cycle - origin) * 10 + tenths);
        } else {
            waves->close();
            waves.reset();
        }
    }
    ~Accelerator() {
        if (waves) waves->close();
    }
#else
    void dump(uint64_t) {}
#endif
};

}  // namespace

extern "C" {

Accelerator* accelerator_new(uint64_t base, uint64_t size, uint64_t latency, uint64_t bandwidth) {
    return new Accelerator(base, size, latency, bandwidth);
}
void accelerator_free(Accelerator* a) { delete a; }
uint8_t* accelerator_memory(Accelerator* a) { return a->memory.data.data(); }
int accelerator_write(Accelerator* a, uint32_t offset, uint32_t value) { return a->write(offset, value); }
int accelerator_read(Accelerator* a, uint32_t offset, uint32_t* value) { return a->read(offset, value); }
int accelerator_run(Accelerator* a, uint64_t most, uint64_t quiet) { return a->run(most, quiet); }
uint64_t accelerator_cycle(const Accelerator* a) { return a->cycle; }
uint64_t accelerator_bytes_read(const Accelerator* a) { return a->memory.bytes_read; }
uint64_t accelerator_bytes_written(const Accelerator* a) { return a->memory.bytes_written; }
uint64_t accelerator_refused(const Accelerator* a) { return a->memory.refused; }
const char* accelerator_broken_rule(const Accelerator* a) { return a->memory.broken_rule.c_str(); }
#if VM_TRACE
void accelerator_trace(Accelerator* a, const char* path, uint64_t from, uint64_t to) { a->trace(path, from, to); }
#endif
}
