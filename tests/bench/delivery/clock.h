/* What both programs of the load share: the clock, and how time is kept in a histogram. */
#ifndef CLOCK_H
#define CLOCK_H

#include <inttypes.h>
#include <stdio.h>
#include <stdint.h>
#include <sys/resource.h>
#include <time.h>

/* CLOCK_MONOTONIC is the same in every process of one machine, and nobody sets it. */
static inline int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static inline double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Log-linear: exact below 256 us, then 128 steps an octave, so no figure is off by 1 %. */
enum { STEPS = 128, OCTAVES = 34, BUCKETS = STEPS * OCTAVES };

typedef struct {
    uint64_t count;
    int64_t max;
    uint64_t buckets[BUCKETS];
} histogram;

static inline void histogram_add(histogram *h, int64_t us) {
    uint64_t v = us < 0 ? 0 : (uint64_t)us;
    int octave = v < STEPS ? 0 : 57 - __builtin_clzll(v); /* 128..255 is octave 1 */
    uint64_t bucket = octave < 1 ? v : (uint64_t)octave * STEPS + ((v >> (octave - 1)) - STEPS);
    if (bucket >= BUCKETS) bucket = BUCKETS - 1;
    h->buckets[bucket]++;
    h->count++;
    if (us > h->max) h->max = us;
}

/* The upper edge of the bucket that holds the value of this rank. */
static inline int64_t histogram_percentile(const histogram *h, double percent) {
    uint64_t wanted = (uint64_t)(h->count * percent / 100.0 + 0.999999);
    uint64_t seen = 0;
    if (wanted < 1) wanted = 1;
    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        seen += h->buckets[bucket];
        if (h->buckets[bucket] && seen >= wanted) {
            if (bucket < STEPS) return bucket;
            int octave = bucket / STEPS;
            int64_t low = (int64_t)(STEPS + bucket % STEPS) << (octave - 1);
            int64_t high = low + ((int64_t)1 << (octave - 1)) - 1;
            return high < h->max ? high : h->max;
        }
    }
    return h->max;
}

static inline void histogram_print(FILE *out, const char *name, const histogram *h) {
    fprintf(out,
            "\"%s\": {\"count\": %" PRIu64 ", \"p50\": %" PRId64 ", \"p90\": %" PRId64
            ", \"p99\": %" PRId64 ", \"p999\": %" PRId64 ", \"max\": %" PRId64 "}",
            name, h->count, histogram_percentile(h, 50), histogram_percentile(h, 90),
            histogram_percentile(h, 99), histogram_percentile(h, 99.9), h->max);
}

#endif
