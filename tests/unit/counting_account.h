/* SPDX-License-Identifier: Apache-2.0
 * An account that counts, for tests: refuses past `limit`, and fails the test when more is released than was charged. */
#ifndef NX_TESTS_COUNTING_ACCOUNT_H
#define NX_TESTS_COUNTING_ACCOUNT_H

#include <stdatomic.h>
#include <stdlib.h>

#include "base/account.h"

struct counting_account {
  struct nx_account as_account; /* first */
  _Atomic size_t charged, limit;
};

static inline bool counting_charge(struct nx_account *account, size_t bytes) {
  struct counting_account *self = (struct counting_account *)account;
  size_t sum = atomic_fetch_add(&self->charged, bytes) + bytes;
  if (sum <= self->limit) return true;
  atomic_fetch_sub(&self->charged, bytes);
  return false;
}

static inline void counting_release(struct nx_account *account, size_t bytes) {
  struct counting_account *self = (struct counting_account *)account;
  if (atomic_fetch_sub(&self->charged, bytes) < bytes) abort();
}

#define COUNTING_ACCOUNT {.as_account = {counting_charge, counting_release}, .limit = (size_t)-1}

#endif
