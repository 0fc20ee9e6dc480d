/* SPDX-License-Identifier: Apache-2.0
 *
 * NET_ALLOW as a list; what its entries mean is said in net/net.h.
 * Ownership: the list owns a copy of the text.
 * Threads:   any, once parsed. */
#ifndef NX_NET_ALLOW_H
#define NX_NET_ALLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "net/net_address.h"

struct nx_net_allow_entry;

struct nx_net_allow {
  char *_text; /* the entries' names are in it */
  struct nx_net_allow_entry *_entries;
  size_t _count;
};

/* NX_ERR_CONFIG names the entry. */
int nx__net_allow_init(struct nx_net_allow *allow, const char *text, struct nx_error *err);
void nx__net_allow_deinit(struct nx_net_allow *allow);
/* `host` as in a URL, without brackets: a name or an address. False also for what is neither. */
bool nx__net_allow_has_host(const struct nx_net_allow *allow, const char *host, uint16_t port);
/* May a host that the list has be connected to at this address? */
bool nx__net_allow_has_address(const struct nx_net_allow *allow, const struct nx_net_address *address, uint16_t port);

#endif
