/* SPDX-License-Identifier: Apache-2.0
 *
 * Whoever takes memory on behalf of a client asks an account first and tells it when the memory is given back: charge
 * before touch. The ledger's accounts are made by memory/governor.h; a NULL account is one that is never refused.
 *
 * Ownership: borrowed by those who charge; it must outlive all that was charged.
 * Threads:   any.
 * Errors:    a refused charge is an ordinary answer: nothing was taken. */
#ifndef NX_BASE_ACCOUNT_H
#define NX_BASE_ACCOUNT_H

#include <stdbool.h>
#include <stddef.h>

struct nx_account {
  bool (*charge)(struct nx_account *account, size_t bytes);
  void (*release)(struct nx_account *account, size_t bytes);
};

static inline bool nx_account_charge(struct nx_account *account, size_t bytes) {
  return !account || account->charge(account, bytes);
}

static inline void nx_account_release(struct nx_account *account, size_t bytes) {
  if (account) account->release(account, bytes);
}

#endif
