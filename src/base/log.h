/* SPDX-License-Identifier: Apache-2.0
 *
 * The process log: one line per event on stdout, text (key=value) or JSON.
 * Threads:   any thread; a line is one write(2), so lines never mix. Request paths must not block on a slow reader:
 *            a line that the pipe does not take at once is dropped and counted, and the next line says how many.
 * Limits:    a line is at most 4 KiB, and a value that does not fit is cut and ends in an ellipsis; values are escaped,
 *            so nothing a guest or client sends can forge a line. errno is kept.
 * Use:       nx_log(NX_LOG_WARN, "cache file rejected", "file", path, "reason", why, NULL) */
#ifndef NX_BASE_LOG_H
#define NX_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum nx_log_level { NX_LOG_ERROR, NX_LOG_WARN, NX_LOG_INFO, NX_LOG_DEBUG };

/* Before any thread is started. The defaults are INFO and text. `fd` is borrowed. */
void nx_log_init(int fd, enum nx_log_level level, bool json);
bool nx_log_enabled(enum nx_log_level level);
/* `message` is a constant; then pairs of key and value, both strings, ended by NULL. A NULL value is left out
 * only as the terminator: pass "" for an empty one. */
void nx_log(enum nx_log_level level, const char *message, ...) __attribute__((sentinel));
uint64_t nx_log_dropped(void);
/* Moderation for events that come with every request: true at most NX_LOG_EVENTS_PER_SECOND times a second, over the
 * whole process. What it refused is counted, and the next line says how many. Costs an atomic addition. */
#define NX_LOG_EVENTS_PER_SECOND 1000u
bool nx_log_take(void);

#endif
