/* SPDX-License-Identifier: Apache-2.0
 *
 * Work for threads that may wait: for a disk, for a network. Threads are made when there is work and none is idle.
 *
 * Ownership: work is embedded in its owner and borrowed until `run` begins; `run` may free it.
 * Threads:   push from any. Errors: a push fails only when there is no thread at all and none can be made. */
#ifndef NX_BASE_WORK_QUEUE_H
#define NX_BASE_WORK_QUEUE_H

#include <stdbool.h>

#include "base/error.h"

struct nx_work {
  void (*run)(struct nx_work *work);
  struct nx_work *_next;
};

struct nx_work_queue;

int nx_work_queue_create(struct nx_work_queue **out, const char *thread_name, unsigned max_threads,
                         struct nx_error *err);
/* Does what has been pushed, then ends the threads. NULL is allowed. */
void nx_work_queue_destroy(struct nx_work_queue *queue);
bool nx_work_queue_push(struct nx_work_queue *queue, struct nx_work *work);

#endif
