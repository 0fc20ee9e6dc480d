/* SPDX-License-Identifier: Apache-2.0 */
#include "base/thread.h"

#include <errno.h>
#include <signal.h>

#define STACK_BYTES (256u * 1024u)

int nx_thread_start(pthread_t *thread, const char *name, void *(*run)(void *argument), void *argument,
                    struct nx_error *err) {
  pthread_attr_t attributes;
  sigset_t all, old;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int status = pthread_create(thread, &attributes, run, argument);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attributes);
  if (status) {
    errno = status;
    return nx_error_sys(err, "cannot start the thread \"%s\"", name);
  }
  pthread_setname_np(*thread, name);
  return 0;
}
