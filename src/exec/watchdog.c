/* SPDX-License-Identifier: Apache-2.0 */
#include "exec/watchdog.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"

#define TICK_NS NX_NS_PER_MS
/* It computes for microseconds, and must not wait for those that it watches. */
#define SLICE_NS (NX_NS_PER_MS / 10)
/* Ticks without work before it goes to sleep: waking it is a system call for whoever comes next. */
#define IDLE_TICKS 50u

enum { AWAKE = 0, ASLEEP = 1 };

struct nx_watchdog {
  pthread_t thread;
  struct nx_watchdog_work work;
  _Atomic uint32_t state; /* futex word */
  _Atomic bool stop;
};

static void sleep_ns(uint64_t ns) {
  struct timespec t = {.tv_sec = (time_t)(ns / NX_NS_PER_S), .tv_nsec = (long)(ns % NX_NS_PER_S)};
  clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

/* The order is: say that we sleep, look once more, sleep. Whoever begins work does it first and then reads the word,
 * so one of the two sees the other. */
static void sleep_until_kicked(struct nx_watchdog *watchdog) {
  atomic_store(&watchdog->state, ASLEEP);
  uint64_t now = nx_clock_ns(), next = watchdog->work.tick(watchdog->work.self, now);
  if (next > now + TICK_NS && !atomic_load(&watchdog->stop)) {
    uint64_t ns = next - now < NX_NS_PER_S ? next - now : NX_NS_PER_S;
    struct timespec pause = {.tv_sec = (time_t)(ns / NX_NS_PER_S), .tv_nsec = (long)(ns % NX_NS_PER_S)};
    syscall(SYS_futex, &watchdog->state, FUTEX_WAIT_PRIVATE, ASLEEP, &pause, NULL, 0);
  }
  atomic_store(&watchdog->state, AWAKE);
}

static void *run(void *argument) {
  struct nx_watchdog *watchdog = argument;
  uint64_t next_housekeeping = 0;
  unsigned idle = 0;
  nx_thread_set_slice(SLICE_NS);
  while (!atomic_load(&watchdog->stop)) {
    uint64_t now = nx_clock_ns();
    idle = watchdog->work.tick(watchdog->work.self, now) <= now + TICK_NS ? 0 : idle + 1;
    if (now >= next_housekeeping) {
      watchdog->work.housekeeping(watchdog->work.self, now);
      next_housekeeping = now + NX_NS_PER_S;
    }
    if (idle < IDLE_TICKS)
      sleep_ns(TICK_NS);
    else
      sleep_until_kicked(watchdog);
  }
  return NULL;
}

int nx_watchdog_create(struct nx_watchdog **out, const struct nx_watchdog_work *work, struct nx_error *err) {
  struct nx_watchdog *watchdog = calloc(1, sizeof *watchdog);
  if (!watchdog) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the watchdog");
  watchdog->work = *work;
  int status = nx_thread_start(&watchdog->thread, "watchdog", run, watchdog, err);
  if (status) {
    free(watchdog);
    return status;
  }
  *out = watchdog;
  return 0;
}

void nx_watchdog_kick(struct nx_watchdog *watchdog) {
  if (atomic_load(&watchdog->state) == AWAKE) return;
  atomic_store(&watchdog->state, AWAKE);
  syscall(SYS_futex, &watchdog->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void nx_watchdog_stop(struct nx_watchdog *watchdog) {
  if (!watchdog || atomic_exchange(&watchdog->stop, true)) return;
  nx_watchdog_kick(watchdog);
  pthread_join(watchdog->thread, NULL);
}

void nx_watchdog_destroy(struct nx_watchdog *watchdog) {
  nx_watchdog_stop(watchdog);
  free(watchdog);
}
