// Stands in for lz4.h and zlib.h when Verilator's FST writer (fstcpp) is compiled, so that waveforms need no library
// of the system. What the writer calls, and no more.
#ifndef SLICEFORGE_FST_COMPRESSION_H
#define SLICEFORGE_FST_COMPRESSION_H

#include <cstdint>
#include <cstring>
#include <vector>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

namespace sliceforge_fst {

// The rest of a length whose first 15 are in the token.
inline uint8_t* put_length(uint8_t* out, int rest) {
    for (; rest >= 255; rest -= 255) *out++ = 255;
    *out++ = uint8_t(rest);
    return out;
}

// A sequence of the LZ4 block format: a token, literals, and a match of `length` bytes `distance` bytes before
// (none if length is 0, which only the last sequence may have).
inline uint8_t* put_sequence(uint8_t* out, const uint8_t* literals, int count, int distance, int length) {
    const int rest = length ? length - 4 : 0;
    *out++ = uint8_t((count < 15 ? count : 15) << 4 | (rest < 15 ? rest : 15));
    if (count >= 15) out = put_length(out, count - 15);
    if (count) std::memcpy(out, literals, count);
    out += count;
    if (!length) return out;
    *out++ = uint8_t(distance);
    *out++ = uint8_t(distance >> 8);
    return rest >= 15 ? put_length(out, rest - 15) : out;
}

inline uint32_t word_at(const uint8_t* data) {
    uint32_t word;
    std::memcpy(&word, data, 4);
    return word;
}

}  // namespace sliceforge_fst

// Greedy: the last place that had the same four bytes. `capacity` must be LZ4_compressBound(size) at least.
inline int LZ4_compress_default(const char* source, char* target, int size, int capacity) {
    using namespace sliceforge_fst;
    if (capacity < LZ4_compressBound(size)) return 0;
    const auto* data = reinterpret_cast<const uint8_t*>(source);
    auto* out = reinterpret_cast<uint8_t*>(target);
    // The format's rules for the end: no match starts in the last 12 bytes or reaches the last 5.
    const int last_start = size - 12, last_end = size - 5;
    std::vector<int> places(1 << 12, -1);
    int done = 0;
    for (int i = 0; i <= last_start;) {
        int& place = places[word_at(data + i) * 2654435761u >> 20];  // multiplicative hashing (Knuth): 2^32 / phi
        const int before = place;
        place = i;
        if (before < 0 || i - before > 65535 || word_at(data + before) != word_at(data + i)) {
            ++i;
            continue;
        }
        int length = 4;
        while (i + length < last_end && data[before + length] == data[i + length]) ++length;
        out = put_sequence(out, data + done, i - done, i - before, length);
        done = i += length;
    }
    out = put_sequence(out, data + done, size - done, 0, 0);
    return int(out - reinterpret_cast<uint8_t*>(target));
}

// Nothing is compressed: where the result is longer than its source, the writer stores the source.
using Bytef = unsigned char;
using uLong = unsigned long;
using uLongf = unsigned long;
constexpr int Z_OK = 0;

inline uLong compressBound(uLong size) { return size + 1; }

inline int compress2(Bytef*, uLongf* target_size, const Bytef*, uLong size, int) {
    *target_size = size + 1;
    return Z_OK;
}

#endif
