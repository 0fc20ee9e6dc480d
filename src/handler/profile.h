/* SPDX-License-Identifier: Apache-2.0
 *
 * What is remembered of a handler's executions, to say before the next one how much memory to set aside for it, whether
 * it will be short and small ("light"), and whether it will be long.
 *
 * Light handlers are let through when others hold everything, so the word is not given lightly. A score says it: one up
 * for each execution that is short and small, far down for each that is not. Code that came with a request begins below
 * zero and has to prove itself; a registered handler is believed at first. One that was slow once on a busy machine is
 * forgiven; one that ran for long, or grew, is not for NX_PROFILE_WORST executions.
 *
 * What a good score says outlives the handler's image, which may be dropped when memory is short, just when it matters: a
 * table of fixed size remembers it by the source's hash. Bad scores only take the handler's own word away there, so that
 * an attacker who brings ever new code cannot push the good ones out.
 *
 * Ownership: a part of struct nx_handler; the table is the process's. Threads: any. Synchronization: relaxed atomics; of two executions that end at
 * once one may be forgotten. */
#ifndef NX_HANDLER_PROFILE_H
#define NX_HANDLER_PROFILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

#define NX_PROFILE_TRIAL (-4)
#define NX_PROFILE_TRUSTED 8
#define NX_PROFILE_BEST 16
#define NX_PROFILE_WORST (-32)
#define NX_PROFILE_SLOW_COSTS 8
/* CPU time from which on an execution was long: the watchdog lowers its priority then, and the next one begins with that.
 * 30 ms gave nothing beside eight handlers of 200 ms (docs/architecture.md). */
#define NX_PROFILE_LONG_NS (10 * NX_NS_PER_MS)
/* Input from which on an execution is judged by that. */
#define NX_PROFILE_MUCH_INPUT_BYTES (32u << 10)
/* Growth beyond the handler's image that still counts as small. */
#define NX_PROFILE_SMALL_BYTES (4u << 20)

struct nx_profile {
  _Atomic uint32_t peak_bytes; /* of linear memory, recently; 0: never executed */
  _Atomic int score;           /* light from 0 on */
  _Atomic bool was_long;       /* the last execution */
};

void nx_profile_init(struct nx_profile *profile);
/* The same with what is remembered of that source; and remembers it. */
void nx_profile_recall(struct nx_profile *profile, const uint8_t *source_hash);
void nx_profile_remember(const struct nx_profile *profile, const uint8_t *source_hash);
/* A registered handler is light until it shows otherwise. */
void nx_profile_trust(struct nx_profile *profile);
/* `slow_ns`: how long it took if it was slow, else 0; `computed_ns`: its CPU time, as far as it is known.
 * `input_bytes`: JSON that the execution had to parse. One with much of it says little about those with little, and is
 * not remembered. Of an execution that waits between, each lease of an instance is recorded by itself. */
void nx_profile_record(struct nx_profile *profile, uint32_t image_bytes, uint64_t input_bytes, uint32_t peak_bytes,
                       uint64_t slow_ns, uint64_t computed_ns);
/* The next execution is expected to compute for long, as the last one did. */
bool nx_profile_is_long(const struct nx_profile *profile, uint64_t input_bytes);
bool nx_profile_is_light(const struct nx_profile *profile, uint64_t input_bytes);

/* Linear memory that the next execution is expected to reach. Of a handler that never ran: its image and a quarter of
 * what is left to the limit; of a light one little more than its image. Much input comes on top, as the engine holds it. */
uint32_t nx_profile_expected_bytes(const struct nx_profile *profile, uint32_t image_bytes, uint64_t input_bytes,
                                   uint32_t limit_bytes);

#endif
