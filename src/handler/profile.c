/* SPDX-License-Identifier: Apache-2.0 */
#include "handler/profile.h"

/* The growth of an execution that nothing is known of, and of one that is believed to be small. */
#define UNKNOWN_PART 4u
#define TRUSTED_BYTES (1u << 20)
/* Bytes of linear memory for a byte of JSON: the text, and for values as short as "0," an element of an array that grew
 * by half when it was full. */
#define INPUT_FACTOR 12u
/* Between the two it may be the machine's fault. What the watchdog calls slow but takes less is neither short nor long. */
#define SLOW_NS (10 * NX_NS_PER_MS)
#define VERY_SLOW_NS (100 * NX_NS_PER_MS)
/* A peak that is not reached again fades by an eighth each time. */
#define FADE_PART 8u

static uint32_t load(const _Atomic uint32_t *value) { return atomic_load_explicit(value, memory_order_relaxed); }
static int score(const struct nx_profile *profile) {
  return atomic_load_explicit(&profile->score, memory_order_relaxed);
}

static bool is_long(const struct nx_profile *profile) {
  return atomic_load_explicit(&profile->was_long, memory_order_relaxed);
}

void nx_profile_init(struct nx_profile *profile) { *profile = (struct nx_profile){.score = NX_PROFILE_TRIAL}; }

/* ---- What is remembered without the handler ------------------------------------------------------------------------ */

/* One word each, so that no lock is needed: 40 bits of the hash, the score + 1 (0: free), the peak in WebAssembly pages. */
#define SLOTS 4096u
#define WASM_PAGE_BYTES 65536u
static _Atomic uint64_t remembered[SLOTS];

static _Atomic uint64_t *slot_of(const uint8_t *hash) { return &remembered[((unsigned)hash[0] | (unsigned)hash[1] << 8) % SLOTS]; }

static uint64_t tag_of(const uint8_t *hash) {
  uint64_t tag = 0;
  for (int i = 2; i < 7; i++) tag = tag << 8 | hash[i];
  return tag << 24;
}

void nx_profile_recall(struct nx_profile *profile, const uint8_t *source_hash) {
  nx_profile_init(profile);
  uint64_t word = atomic_load_explicit(slot_of(source_hash), memory_order_relaxed);
  if (word >> 24 << 24 != tag_of(source_hash) || !(word & 0xff)) return;
  *profile = (struct nx_profile){.peak_bytes = (uint32_t)(word >> 8 & 0xffff) * WASM_PAGE_BYTES,
                                 .score = (int)(word & 0xff) - 1};
}

void nx_profile_remember(const struct nx_profile *profile, const uint8_t *source_hash) {
  uint32_t peak_bytes = load(&profile->peak_bytes);
  uint64_t seen = atomic_load_explicit(slot_of(source_hash), memory_order_relaxed);
  if (!peak_bytes) return;
  if (score(profile) < 0) { /* its own good word must not outlive it */
    if (seen >> 24 << 24 == tag_of(source_hash))
      atomic_compare_exchange_strong_explicit(slot_of(source_hash), &seen, 0, memory_order_relaxed, memory_order_relaxed);
    return;
  }
  uint64_t pages = (peak_bytes + (uint64_t)WASM_PAGE_BYTES - 1) / WASM_PAGE_BYTES;
  uint64_t word = tag_of(source_hash) | (pages < 0xffff ? pages : 0xffff) << 8 | (unsigned)(score(profile) + 1);
  atomic_store_explicit(slot_of(source_hash), word, memory_order_relaxed);
}

/* ---- Keeping it up ------------------------------------------------------------------------------------------------- */

void nx_profile_trust(struct nx_profile *profile) {
  int now = score(profile);
  if (now >= NX_PROFILE_TRUSTED || now < NX_PROFILE_TRIAL) return;
  atomic_compare_exchange_strong_explicit(&profile->score, &now, NX_PROFILE_TRUSTED, memory_order_relaxed,
                                          memory_order_relaxed);
}

static void fade_peak(struct nx_profile *profile, uint32_t peak_bytes) {
  uint32_t before = load(&profile->peak_bytes);
  if (before == peak_bytes) return;
  uint32_t after = peak_bytes > before ? peak_bytes : before - (before - peak_bytes) / FADE_PART;
  atomic_store_explicit(&profile->peak_bytes, after, memory_order_relaxed);
}

void nx_profile_record(struct nx_profile *profile, uint32_t image_bytes, uint64_t input_bytes, uint32_t peak_bytes,
                       uint64_t slow_ns, uint64_t computed_ns) {
  if (input_bytes > NX_PROFILE_MUCH_INPUT_BYTES) return;
  fade_peak(profile, peak_bytes);
  bool was_long = computed_ns >= NX_PROFILE_LONG_NS;
  if (was_long != is_long(profile)) atomic_store_explicit(&profile->was_long, was_long, memory_order_relaxed);
  int before = score(profile), after = slow_ns ? before : before + 1;
  if (slow_ns > SLOW_NS) after = before - NX_PROFILE_SLOW_COSTS;
  if (slow_ns > VERY_SLOW_NS || peak_bytes > image_bytes + NX_PROFILE_SMALL_BYTES) after = NX_PROFILE_WORST;
  if (after < NX_PROFILE_WORST) after = NX_PROFILE_WORST;
  if (after > NX_PROFILE_BEST) after = NX_PROFILE_BEST;
  if (after != before) atomic_store_explicit(&profile->score, after, memory_order_relaxed);
}

bool nx_profile_is_long(const struct nx_profile *profile, uint64_t input_bytes) {
  return is_long(profile) && input_bytes <= NX_PROFILE_MUCH_INPUT_BYTES;
}

bool nx_profile_is_light(const struct nx_profile *profile, uint64_t input_bytes) {
  return score(profile) >= 0 && input_bytes <= NX_PROFILE_MUCH_INPUT_BYTES;
}

uint32_t nx_profile_expected_bytes(const struct nx_profile *profile, uint32_t image_bytes, uint64_t input_bytes,
                                   uint32_t limit_bytes) {
  if (limit_bytes <= image_bytes) return image_bytes;
  uint64_t expected = load(&profile->peak_bytes), room = limit_bytes - image_bytes;
  if (expected < image_bytes) { /* never ran, or ran with another image */
    uint64_t growth = room / UNKNOWN_PART;
    if (score(profile) >= 0 && growth > TRUSTED_BYTES) growth = TRUSTED_BYTES;
    expected = image_bytes + growth;
  }
  if (input_bytes > NX_PROFILE_MUCH_INPUT_BYTES) expected += INPUT_FACTOR * input_bytes;
  return expected < limit_bytes ? (uint32_t)expected : limit_bytes;
}
