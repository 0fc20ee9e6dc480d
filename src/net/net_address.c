/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>

struct prefix {
  uint8_t bytes[NX_NET_ADDRESS_BYTES];
  unsigned bits;
};

static const struct prefix mapped = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, NX_NET_IPV4_PREFIX_BITS};

/* The registries of special-purpose addresses (RFC 6890 and its successors). */
static const struct {
  uint8_t bytes[4];
  unsigned bits;
} special_ipv4[] = {
  {{0}, 8},             /* this network; Linux takes 0.0.0.0 for itself */
  {{10}, 8},            /* private */
  {{100, 64}, 10},      /* shared by the customers of a carrier */
  {{127}, 8},           /* loopback */
  {{169, 254}, 16},     /* link-local, metadata of clouds */
  {{172, 16}, 12},      /* private */
  {{192, 0, 0}, 24},    /* protocol assignments */
  {{192, 0, 2}, 24},    /* documentation */
  {{192, 88, 99}, 24},  /* relays of 6to4 */
  {{192, 168}, 16},     /* private */
  {{198, 18}, 15},      /* benchmarking */
  {{198, 51, 100}, 24}, /* documentation */
  {{203, 0, 113}, 24},  /* documentation */
  {{224}, 4},           /* multicast */
  {{240}, 4},           /* reserved, broadcast */
};

/* All but global unicast is special in IPv6, and these parts of it. */
static const struct prefix global_unicast = {{0x20}, 3};
static const struct prefix special_ipv6[] = {
  {{0x20, 0x01}, 23},             /* protocol assignments; Teredo is judged before */
  {{0x20, 0x01, 0x0d, 0xb8}, 32}, /* documentation */
  {{0x3f, 0xff}, 20},             /* documentation */
};

/* Where IPv6 addresses carry the IPv4 address that packets end up at. */
static const struct {
  struct prefix prefix;
  size_t offset;
  uint8_t mask; /* each byte is carried xor this */
} carriers[] = {
  {{{0}, 96}, 12, 0},                                           /* IPv4-compatible; also :: and ::1, as 0.0.0.0/8 */
  {{{0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 96}, 12, 0},          /* IPv4-translated */
  {{{0x00, 0x64, 0xff, 0x9b}, 96}, 12, 0},                      /* NAT64 */
  {{{0x20, 0x02}, 16}, 2, 0},                                   /* 6to4 */
  {{{0x20, 0x01, 0x00, 0x00}, 32}, 12, 0xff},                   /* Teredo: the client… */
  {{{0x20, 0x01, 0x00, 0x00}, 32}, 4, 0},                       /* …and its server */
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool bits_are_equal(const uint8_t *a, const uint8_t *b, unsigned bits) {
  unsigned whole = bits / 8, rest = bits % 8;
  return !memcmp(a, b, whole) && (!rest || !((a[whole] ^ b[whole]) >> (8 - rest)));
}

static bool has_prefix(const struct nx_net_address *address, const struct prefix *prefix) {
  return bits_are_equal(address->bytes, prefix->bytes, prefix->bits);
}

static void from_ipv4(struct nx_net_address *out, const void *four_bytes) {
  memcpy(out->bytes, mapped.bytes, sizeof out->bytes);
  memcpy(out->bytes + 12, four_bytes, 4);
}

bool nx__net_address_parse(struct nx_net_address *out, const char *text) {
  struct in_addr ipv4;
  if (inet_pton(AF_INET6, text, out->bytes) == 1) return true;
  if (inet_pton(AF_INET, text, &ipv4) != 1) return false;
  from_ipv4(out, &ipv4);
  return true;
}

bool nx__net_address_from_socket(struct nx_net_address *out, const struct sockaddr *from, socklen_t bytes) {
  if (from->sa_family == AF_INET && bytes >= sizeof(struct sockaddr_in)) {
    from_ipv4(out, &((const struct sockaddr_in *)(const void *)from)->sin_addr);
    return true;
  }
  if (from->sa_family == AF_INET6 && bytes >= sizeof(struct sockaddr_in6)) {
    memcpy(out->bytes, &((const struct sockaddr_in6 *)(const void *)from)->sin6_addr, sizeof out->bytes);
    return true;
  }
  return false;
}

bool nx__net_address_is_ipv4(const struct nx_net_address *address) { return has_prefix(address, &mapped); }

bool nx__net_address_is_within(const struct nx_net_address *address, const struct nx_net_address *network, unsigned bits) {
  return bits_are_equal(address->bytes, network->bytes, bits);
}

static bool ipv4_is_special(const uint8_t bytes[4]) {
  for (size_t i = 0; i < COUNT(special_ipv4); i++)
    if (bits_are_equal(bytes, special_ipv4[i].bytes, special_ipv4[i].bits)) return true;
  return false;
}

/* Sets `special` when one of the IPv4 addresses that it carries is; false when it carries none. */
static bool carries_ipv4(const struct nx_net_address *address, bool *special) {
  bool any = false;
  *special = false;
  for (size_t i = 0; i < COUNT(carriers); i++) {
    if (!has_prefix(address, &carriers[i].prefix)) continue;
    uint8_t ipv4[4];
    for (size_t j = 0; j < sizeof ipv4; j++) ipv4[j] = address->bytes[carriers[i].offset + j] ^ carriers[i].mask;
    *special |= ipv4_is_special(ipv4);
    any = true;
  }
  return any;
}

bool nx__net_address_is_special(const struct nx_net_address *address) {
  bool special;
  if (nx__net_address_is_ipv4(address)) return ipv4_is_special(address->bytes + 12);
  if (carries_ipv4(address, &special)) return special;
  if (!has_prefix(address, &global_unicast)) return true;
  for (size_t i = 0; i < COUNT(special_ipv6); i++)
    if (has_prefix(address, &special_ipv6[i])) return true;
  return false;
}
