/* SPDX-License-Identifier: Apache-2.0 */
#include "base/work_queue.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/thread.h"

#define THREADS_MAX 8u

struct nx_work_queue {
  const char *thread_name;
  unsigned max_threads;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  /* Synchronization: mutex. */
  struct nx_work *head, **tail;
  pthread_t threads[THREADS_MAX];
  unsigned count, idle, waiting; /* waiting: pieces of work, also for idle ones that have yet to wake up */
  bool stops;
};

static void *run(void *argument) {
  struct nx_work_queue *queue = argument;
  pthread_mutex_lock(&queue->mutex);
  for (;;) {
    struct nx_work *work = queue->head;
    if (!work && queue->stops) break;
    if (!work) {
      queue->idle++;
      pthread_cond_wait(&queue->changed, &queue->mutex);
      queue->idle--;
      continue;
    }
    queue->head = work->_next;
    queue->waiting--;
    if (!queue->head) queue->tail = &queue->head;
    pthread_mutex_unlock(&queue->mutex);
    work->run(work);
    pthread_mutex_lock(&queue->mutex);
  }
  pthread_mutex_unlock(&queue->mutex);
  return NULL;
}

int nx_work_queue_create(struct nx_work_queue **out, const char *thread_name, unsigned max_threads,
                         struct nx_error *err) {
  struct nx_work_queue *queue = calloc(1, sizeof *queue);
  if (!queue) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a queue of work");
  queue->thread_name = thread_name;
  queue->max_threads = max_threads < THREADS_MAX ? max_threads : THREADS_MAX;
  queue->tail = &queue->head;
  pthread_mutex_init(&queue->mutex, NULL);
  pthread_cond_init(&queue->changed, NULL);
  *out = queue;
  return 0;
}

void nx_work_queue_destroy(struct nx_work_queue *queue) {
  if (!queue) return;
  pthread_mutex_lock(&queue->mutex);
  queue->stops = true;
  pthread_cond_broadcast(&queue->changed);
  pthread_mutex_unlock(&queue->mutex);
  for (unsigned i = 0; i < queue->count; i++) pthread_join(queue->threads[i], NULL);
  pthread_cond_destroy(&queue->changed);
  pthread_mutex_destroy(&queue->mutex);
  free(queue);
}

/* Under the mutex. */
static void add_thread(struct nx_work_queue *queue) {
  if (queue->idle > queue->waiting || queue->count == queue->max_threads) return;
  if (!nx_thread_start(&queue->threads[queue->count], queue->thread_name, run, queue, NULL)) queue->count++;
}

bool nx_work_queue_push(struct nx_work_queue *queue, struct nx_work *work) {
  pthread_mutex_lock(&queue->mutex);
  add_thread(queue);
  bool has_thread = queue->count > 0;
  if (has_thread) {
    work->_next = NULL;
    *queue->tail = work;
    queue->tail = &work->_next;
    queue->waiting++;
    pthread_cond_signal(&queue->changed);
  }
  pthread_mutex_unlock(&queue->mutex);
  return has_thread;
}
