/* SPDX-License-Identifier: Apache-2.0
 *
 * Small files of /proc and cgroups, and the numbers in them. Used within memory/ only.
 * Ownership: texts are the caller's arrays; nothing here allocates.
 * Threads:   any.
 * Errors:    0 or an errno from what reads; a number that is not exactly one is a reading that is unknown.
 * Limits:    what is larger than the caller's array is cut there. */
#ifndef NX_MEMORY_KERNEL_TEXT_H
#define NX_MEMORY_KERNEL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/reading.h"

enum { NX__KERNEL_TEXT_BYTES = 8192 }; /* memory.stat has about 2 KB, /proc/self/status 1.5 */

/* The whole file, NUL-terminated. */
int nx__kernel_text_read(int dirfd, const char *path, char text[NX__KERNEL_TEXT_BYTES]);
/* A file of one short line that is open already, from its start: the kernel makes the text anew for each read at 0
 * (seq_read_iter). EFBIG when it does not fit. */
int nx__kernel_text_reread(int fd, char *text, size_t size);

/* What is behind `key` at the start of a line; NULL when no line begins with it. */
const char *nx__kernel_text_find(const char *text, const char *key);
/* A decimal number that ends in a blank, a line end or the end of the text; `end`, the next word, may be NULL. */
bool nx__kernel_text_u64(const char *text, uint64_t *value, const char **end);
struct nx_reading nx__kernel_text_number(const char *text);
/* The number behind `key` ("name ") at the start of a line. */
struct nx_reading nx__kernel_text_number_of(const char *text, const char *key);
/* "Name:    123 kB", as /proc/meminfo and /proc/PID/status have it, in bytes; `key` ends in the colon. */
struct nx_reading nx__kernel_text_kib_of(const char *text, const char *key);

#endif
