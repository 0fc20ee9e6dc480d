/* SPDX-License-Identifier: Apache-2.0
 *
 * Work for threads that may wait: each piece runs once, whoever pushes it, and before the end of the queue. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/work_queue.h"

enum { PUSHERS = 4, PIECES = 2000, THREADS_OF_QUEUE = 3 };

static _Atomic unsigned done;

struct piece {
  struct nx_work work; /* first */
  struct nx_work_queue *queue;
  bool pushes_another;
};

static void push(struct nx_work_queue *queue, bool pushes_another);

static void run_piece(struct nx_work *work) {
  struct piece *piece = (struct piece *)work;
  if (piece->pushes_another) push(piece->queue, false);
  free(piece);
  atomic_fetch_add(&done, 1);
}

static void push(struct nx_work_queue *queue, bool pushes_another) {
  struct piece *piece = malloc(sizeof *piece);
  *piece = (struct piece){.work.run = run_piece, .queue = queue, .pushes_another = pushes_another};
  assert_true(nx_work_queue_push(queue, &piece->work));
}

static void *push_many(void *queue) {
  for (unsigned i = 0; i < PIECES; i++) push(queue, i % 2);
  return NULL;
}

static struct nx_work_queue *open_queue(unsigned max_threads) {
  struct nx_work_queue *queue;
  struct nx_error err;
  done = 0;
  assert_int_equal(nx_work_queue_create(&queue, "work", max_threads, &err), 0);
  return queue;
}

static void every_piece_runs_once(void **state) {
  struct nx_work_queue *queue = open_queue(THREADS_OF_QUEUE);
  pthread_t pushers[PUSHERS];
  for (unsigned i = 0; i < PUSHERS; i++) assert_int_equal(pthread_create(&pushers[i], NULL, push_many, queue), 0);
  for (unsigned i = 0; i < PUSHERS; i++) pthread_join(pushers[i], NULL);
  nx_work_queue_destroy(queue); /* with some of it still to do */
  assert_int_equal(done, PUSHERS * (PIECES + PIECES / 2));
}

/* Each piece waits until all of them run. */
struct meeting {
  struct nx_work work; /* first */
  pthread_barrier_t *all;
};

static void meet(struct nx_work *work) {
  pthread_barrier_wait(((struct meeting *)work)->all);
  atomic_fetch_add(&done, 1);
}

static void pieces_that_wait_do_not_hold_up_others(void **state) {
  struct nx_work_queue *queue = open_queue(THREADS_OF_QUEUE);
  struct meeting meetings[THREADS_OF_QUEUE];
  pthread_barrier_t all;
  pthread_barrier_init(&all, NULL, THREADS_OF_QUEUE);
  for (unsigned i = 0; i < THREADS_OF_QUEUE; i++) {
    meetings[i] = (struct meeting){.work.run = meet, .all = &all};
    assert_true(nx_work_queue_push(queue, &meetings[i].work));
  }
  nx_work_queue_destroy(queue);
  assert_int_equal(done, THREADS_OF_QUEUE);
  pthread_barrier_destroy(&all);
}

/* An idle thread that has yet to wake up for the first piece is not there for the second. */
static void a_second_piece_gets_a_thread_of_its_own(void **state) {
  for (unsigned i = 0; i < 200; i++) {
    struct nx_work_queue *queue = open_queue(2);
    struct meeting meetings[2];
    pthread_barrier_t all;
    pthread_barrier_init(&all, NULL, 2);
    push(queue, false);
    while (!done) sched_yield();
    for (unsigned j = 0; j < 100; j++) sched_yield(); /* most often the thread is idle now */
    for (unsigned j = 0; j < 2; j++) {
      meetings[j] = (struct meeting){.work.run = meet, .all = &all};
      assert_true(nx_work_queue_push(queue, &meetings[j].work));
    }
    nx_work_queue_destroy(queue);
    pthread_barrier_destroy(&all);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_piece_runs_once),
    cmocka_unit_test(pieces_that_wait_do_not_hold_up_others),
    cmocka_unit_test(a_second_piece_gets_a_thread_of_its_own),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
