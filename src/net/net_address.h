/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses and networks, and which addresses are special: not for handlers unless the operator lists them.
 * Pure functions: any thread, nothing is allocated. */
#ifndef NX_NET_ADDRESS_H
#define NX_NET_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define NX_NET_ADDRESS_BYTES 16u
#define NX_NET_IPV4_PREFIX_BITS 96u

/* IPv4 is kept as ::ffff:a.b.c.d, because that is the same address, whichever way it was written. */
struct nx_net_address {
  uint8_t bytes[NX_NET_ADDRESS_BYTES];
};

/* a.b.c.d in decimal, or IPv6 without brackets and zone. */
bool nx__net_address_parse(struct nx_net_address *out, const char *text);
/* False for other families than IPv4 and IPv6. */
bool nx__net_address_from_socket(struct nx_net_address *out, const struct sockaddr *from, socklen_t bytes);
bool nx__net_address_is_ipv4(const struct nx_net_address *address);
/* `bits` counts from the start of the 16 bytes, also for IPv4. */
bool nx__net_address_is_within(const struct nx_net_address *address, const struct nx_net_address *network, unsigned bits);
/* Not a public unicast address: private, loopback, link-local (where clouds keep their credentials), multicast,
 * reserved and the like. Forms of IPv6 that lead to an IPv4 address are judged by that one. */
bool nx__net_address_is_special(const struct nx_net_address *address);

#endif
