/* SPDX-License-Identifier: Apache-2.0 */
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STACK_BYTES (256u * 1024u)

struct beginning {
  void *(*run)(void *argument);
  void *argument;
};

static void *begin(void *opaque) {
  struct beginning beginning = *(struct beginning *)opaque;
  free(opaque);
  nx_thread_set_slice(NX_THREAD_SLICE_NORMAL);
  return beginning.run(beginning.argument);
}

int nx_thread_start(pthread_t *thread, const char *name, void *(*run)(void *argument), void *argument,
                    struct nx_error *err) {
  struct beginning *beginning = malloc(sizeof *beginning);
  if (!beginning) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the thread \"%s\"", name);
  *beginning = (struct beginning){run, argument};
  pthread_attr_t attributes;
  sigset_t all, old;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int status = pthread_create(thread, &attributes, begin, beginning);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attributes);
  if (status) {
    free(beginning);
    errno = status;
    return nx_error_sys(err, "cannot start the thread \"%s\"", name);
  }
  pthread_setname_np(*thread, name);
  return 0;
}

#define KEEP_POLICY UINT64_C(0x08)

/* sched_setattr(2). The kernel's header for it cannot be included beside glibc's <sched.h> before glibc 2.41. */
struct sched_attributes {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime_ns, deadline_ns, period_ns;
};

bool nx_thread_set_share(int tid, int nice, uint64_t slice_ns) {
  const struct sched_attributes share = {
    .size = sizeof share,
    .flags = KEEP_POLICY,
    .nice = nice,
    .runtime_ns = slice_ns,
  };
  if (!syscall(SYS_sched_setattr, tid, &share, 0)) return true;
  return !setpriority(PRIO_PROCESS, (id_t)tid, nice); /* where that call is filtered, or not there */
}

void nx_thread_set_slice(uint64_t slice_ns) { nx_thread_set_share(0, getpriority(PRIO_PROCESS, 0), slice_ns); }
