// The memory behind the accelerator's AXI4 master: latency, bandwidth, bounds, and the rules of the bus.
//
// It answers in order, accepts addresses at once and any number of them, and moves a beat a cycle in each direction
// at full bandwidth. What it shows in a cycle follows from earlier cycles alone, so it is as good as registers.
#pragma once

#include <cinttypes>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

// Bandwidths in beats a cycle are counted in units of 2^-32.
constexpr uint64_t kFullBandwidth = uint64_t(1) << 32;

// A beat moves for a whole unit of credit; a fraction more is kept, so that any share comes out exact over time.
class Credit {
public:
    explicit Credit(uint64_t share) : share_(share) {}
    void earn() {
        level_ += share_;
        if (level_ >= kFullBandwidth + share_) level_ = kFullBandwidth + share_ - 1;
    }
    bool enough() const { return level_ >= kFullBandwidth; }
    void spend() { level_ -= kFullBandwidth; }

private:
    uint64_t share_, level_ = 0;
};

// latency: cycles between the one that accepts a read's address, or the last of a write's address and data, and the
// one with its first beat or its answer.
template <class Top>
class AxiMemory {
public:
    static constexpr unsigned kBytes = sizeof(Top::m_axi_rdata);  // of a beat

    AxiMemory(uint64_t base, uint64_t size, uint64_t latency, uint64_t bandwidth)
        : data(size, kFresh), base_(base), latency_(latency), read_credit_(bandwidth), write_credit_(bandwidth) {}

    std::vector<uint8_t> data;
    uint64_t bytes_read = 0, bytes_written = 0;
    uint64_t refused = 0;      // bursts past the memory
    uint64_t last_moved = 0;   // latest cycle in which something moved, or the memory held something back
    std::string broken_rule;   // the first; empty if none

    // What the memory shows in cycle `now`.
    void drive(Top& top, uint64_t now) {
        read_credit_.earn();
        write_credit_.earn();
        if (read_moved_) top.m_axi_rvalid = 0;
        if (answer_moved_) top.m_axi_bvalid = 0;
        if (!top.m_axi_rvalid && !reads_.empty() && reads_.front().due <= now && read_credit_.enough()) {
            const Burst& burst = reads_.front();
            if (burst.refused) {
                std::memset(&top.m_axi_rdata, 0, kBytes);
            } else {
                std::memcpy(&top.m_axi_rdata, &data[burst.offset + uint64_t(beats_read_) * kBytes], kBytes);
            }
            top.m_axi_rresp = burst.refused ? kDecodeError : kOkay;
            top.m_axi_rlast = beats_read_ + 1 == burst.beats;
            top.m_axi_rvalid = 1;
        }
        if (!top.m_axi_bvalid && !answers_.empty() && answers_.front().due <= now) {
            top.m_axi_bresp = answers_.front().refused ? kDecodeError : kOkay;
            top.m_axi_bvalid = 1;
        }
        top.m_axi_arready = top.m_axi_awready = 1;
        top.m_axi_wready = write_credit_.enough();
        if ((!top.m_axi_rvalid && !reads_.empty()) || (!top.m_axi_bvalid && !answers_.empty())) last_moved = now;
    }

    // What has moved in cycle `now`, when all signals have settled.
    void sample(const Top& top, uint64_t now) {
        read_moved_ = top.m_axi_rvalid && top.m_axi_rready;
        answer_moved_ = top.m_axi_bvalid && top.m_axi_bready;
        if (read_moved_) take_read(now);
        if (answer_moved_) {
            answers_.pop_front();
            last_moved = now;
        }
        if (top.m_axi_arvalid) {
            reads_.push_back(burst(top.m_axi_araddr, top.m_axi_arlen, top.m_axi_arsize, top.m_axi_arburst, "ar", now));
            last_moved = now;
        }
        if (top.m_axi_awvalid) {
            filling_.push_back(burst(top.m_axi_awaddr, top.m_axi_awlen, top.m_axi_awsize, top.m_axi_awburst, "aw", now));
            last_moved = now;
            while (!early_.empty() && !filling_.empty()) {
                const Beat beat = std::move(early_.front());
                early_.pop_front();
                write(beat.data.data(), beat.strobes, beat.last, now);
            }
        }
        if (top.m_axi_wvalid || offer_.waits) take_write(top, now);
    }

    void break_rule(uint64_t now, const char* format, ...) {
        if (!broken_rule.empty()) return;
        char text[200];
        va_list arguments;
        va_start(arguments, format);
        const int length = std::vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        std::snprintf(text + length, sizeof text - length, ", cycle %" PRIu64, now);
        broken_rule = text;
    }

private:
    static constexpr uint8_t kFresh = 0xA5;  // of memory that nobody has written
    enum { kOkay = 0, kDecodeError = 3 };

    struct Burst {
        uint64_t offset;
        uint32_t beats;
        bool refused;
        uint64_t due;
    };
    struct Beat {
        std::vector<uint8_t> data;
        uint64_t strobes;
        bool last;
    };

    uint64_t base_, latency_;
    Credit read_credit_, write_credit_;
    std::deque<Burst> reads_;    // to be answered
    std::deque<Burst> filling_;  // writes whose data is not complete
    std::deque<Burst> answers_;  // writes to be answered
    std::deque<Beat> early_;     // data that came before its address
    uint32_t beats_read_ = 0, beats_written_ = 0;  // of the oldest burst
    bool read_moved_ = false, answer_moved_ = false;  // in the cycle before
    struct {
        bool waits = false, last = false;
        uint64_t strobes = 0;
        uint8_t data[kBytes];
    } offer_;  // a beat of data that waited in the cycle before

    Burst burst(uint64_t address, uint32_t length, uint32_t size, uint32_t kind, const char* channel, uint64_t now) {
        const uint64_t beats = uint64_t(length) + 1, bytes = beats * kBytes;
        if (1u << size != kBytes || kind != 1) {
            break_rule(now, "m_axi_%s: size %u, burst %u, where whole beats of incrementing bursts were due", channel,
                       size, kind);
        }
        if (address % kBytes) break_rule(now, "m_axi_%s: address %#" PRIx64 " is not aligned", channel, address);
        if (address % 4096 + bytes > 4096) {
            break_rule(now, "m_axi_%s: %" PRIu64 " beats at %#" PRIx64 " cross 4 KiB", channel, beats, address);
        }
        const bool inside = address >= base_ && address - base_ <= data.size() && bytes <= data.size() - (address - base_);
        refused += !inside;
        return {address - base_, uint32_t(beats), !inside, now + 1 + latency_};
    }

    void take_read(uint64_t now) {
        read_credit_.spend();
        bytes_read += kBytes;
        last_moved = now;
        if (++beats_read_ == reads_.front().beats) {
            beats_read_ = 0;
            reads_.pop_front();
        }
    }

    void take_write(const Top& top, uint64_t now) {
        const auto* beat = reinterpret_cast<const uint8_t*>(&top.m_axi_wdata);
        if (offer_.waits) {
            if (!top.m_axi_wvalid) {
                offer_.waits = false;
                return break_rule(now, "m_axi_w: valid fell before ready");
            }
            if (offer_.last != top.m_axi_wlast || offer_.strobes != top.m_axi_wstrb ||
                std::memcmp(offer_.data, beat, kBytes)) {
                break_rule(now, "m_axi_w: the payload changed before ready");
            }
        }
        last_moved = now;
        offer_.waits = !top.m_axi_wready;
        if (offer_.waits) {
            offer_.last = top.m_axi_wlast;
            offer_.strobes = top.m_axi_wstrb;
            std::memcpy(offer_.data, beat, kBytes);
            return;
        }
        write_credit_.spend();
        if (filling_.empty()) {
            early_.push_back({{beat, beat + kBytes}, top.m_axi_wstrb, bool(top.m_axi_wlast)});
        } else {
            write(beat, top.m_axi_wstrb, top.m_axi_wlast, now);
        }
    }

    void write(const uint8_t* beat, uint64_t strobes, bool last, uint64_t now) {
        Burst& burst = filling_.front();
        if (!burst.refused) {
            uint8_t* target = &data[burst.offset + uint64_t(beats_written_) * kBytes];
            for (unsigned i = 0; i < kBytes; ++i) {
                if (strobes >> i & 1) target[i] = beat[i];
            }
        }
        bytes_written += __builtin_popcountll(strobes);
        ++beats_written_;
        const bool due = beats_written_ == burst.beats;
        if (last != due) {
            break_rule(now, "m_axi_w: last is %d on beat %u of %u", int(last), unsigned(beats_written_),
                       unsigned(burst.beats));
        }
        if (due) {
            beats_written_ = 0;
            burst.due = now + 1 + latency_;
            answers_.push_back(burst);
            filling_.pop_front();
        }
    }
};
