/* SPDX-License-Identifier: Apache-2.0
 *
 * What this process uses, as the kernel counts it; beside memory/cgroup, which has the whole container's figures.
 * Ownership: the caller owns the structs; no descriptor is kept (a child after fork would read its parent's file).
 * Threads:   any.
 * Errors:    NX_ERR_SYSTEM for what cannot be read, NX_ERR_INTERNAL for a text without one of the figures. */
#ifndef NX_MEMORY_PROCESS_MEMORY_H
#define NX_MEMORY_PROCESS_MEMORY_H

#include <stdint.h>

#include "base/error.h"
#include "base/reading.h"

/* Resident pages count once for every mapping of this process that shows them: image pages that many instances share
 * count in each (file and shmem; a memfd is shmem). Only anon_bytes are certainly this process's alone. */
struct nx_process_memory {
  uint64_t anon_bytes;       /* RssAnon: heap, stacks, private copies of image pages */
  uint64_t file_bytes;       /* RssFile */
  uint64_t shmem_bytes;      /* RssShmem */
  uint64_t page_table_bytes; /* VmPTE: all levels of page tables */
  uint32_t threads;
};

/* /proc/self/status. */
int nx_process_memory_read(struct nx_process_memory *out, struct nx_error *err);
/* The same of a text of that form. */
int nx_process_memory_parse(const char *status, struct nx_process_memory *out, struct nx_error *err);

/* Memory of all TCP sockets of the MACHINE: the kernel keeps one counter, which every network namespace shows
 * (sockstat_seq_show; `inuse` on the same line is the namespace's). So it is ours only where nothing else runs, and
 * elsewhere no more than an upper bound. It moves in steps of up to 1 MiB per CPU. On cgroup v2 the container's own is
 * socket_bytes of nx_cgroup_read_memory; v1 does not charge sockets to the container's memory. */
struct nx_reading nx_socket_memory_bytes(void);
/* The same of a text of /proc/net/sockstat. */
struct nx_reading nx_socket_memory_parse(const char *sockstat, uint64_t page_bytes);

#endif
