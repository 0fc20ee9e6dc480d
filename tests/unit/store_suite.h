/* SPDX-License-Identifier: Apache-2.0
 *
 * One suite for all stores: every line of suspend/store.h, over two handles on the same data where a store can have
 * them. A test_store_X.c runs it with its factory, and then what is special about its store. */
#ifndef NX_TESTS_STORE_SUITE_H
#define NX_TESTS_STORE_SUITE_H

#include "suspend/store.h"

/* Both fail the test when they cannot; what they open is closed by the suite. */
struct store_factory {
  /* A store without data: what earlier tests left is gone. */
  struct nx_store *(*open)(void);
  /* Another handle on the data of the last open, as another process has it, also after all handles were closed.
   * NULL: nobody else can see the data. */
  struct nx_store *(*open_again)(void);
};

/* Returns how many tests failed. */
int store_suite_run(const struct store_factory *factory);

#endif
