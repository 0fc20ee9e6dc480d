/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net_allow.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NAME_BYTES_MAX 253u
#define LABEL_BYTES_MAX 63u
#define PORT_HTTP 80u
#define PORT_HTTPS 443u

enum kind { ANY, NAME, DOMAIN, ADDRESS, NETWORK };

struct nx_net_allow_entry {
  enum kind kind;
  uint16_t port;                 /* 0: 80 and 443 */
  unsigned bits;                 /* of a network */
  const char *name;              /* of a name or domain (without "*."), lower case */
  struct nx_net_address address; /* of an address or network */
};

/* ---- Names ------------------------------------------------------------------------------------------------------ */

/* Would some resolver or URL parser read it as a spelling of an IPv4 address ("2130706433", "0x7f.1")? Top-level
 * domains are never numbers. */
static bool ends_in_number(const char *name) {
  const char *last = strrchr(name, '.');
  last = last ? last + 1 : name;
  bool hex = last[0] == '0' && (last[1] == 'x' || last[1] == 'X');
  return !last[strspn(last, "0123456789")] || (hex && !last[2 + strspn(last + 2, "0123456789abcdefABCDEF")]);
}

static bool is_name(const char *name) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
  size_t bytes = strlen(name);
  if (!bytes || bytes > NAME_BYTES_MAX || ends_in_number(name)) return false;
  for (const char *label = name;; label++) {
    size_t label_bytes = strspn(label, letters);
    if (!label_bytes || label_bytes > LABEL_BYTES_MAX) return false;
    label += label_bytes;
    if (!*label) return true;
    if (*label != '.') return false;
  }
}

/* ---- Parsing ---------------------------------------------------------------------------------------------------- */

static char *trim(char *text) {
  text += strspn(text, " \t");
  for (size_t bytes = strlen(text); bytes && strchr(" \t", text[bytes - 1]);) text[--bytes] = 0;
  return text;
}

/* A whole number from 1 or 0 to `max`, without sign and blanks. */
static bool parse_number(const char *text, unsigned min, unsigned max, unsigned *out) {
  size_t digits = strspn(text, "0123456789");
  if (!digits || digits > 5 || text[digits]) return false;
  *out = (unsigned)strtoul(text, NULL, 10);
  return *out >= min && *out <= max;
}

/* Cuts ":PORT" off. A bare IPv6 address has colons of its own and cannot have a port. */
static bool take_port(char *text, uint16_t *out) {
  char *colon = strrchr(text, ':');
  bool bare_ipv6 = colon && *text != '[' && strchr(text, ':') != colon;
  if (!colon || bare_ipv6 || strchr(colon, ']')) return true;
  unsigned port;
  if (!parse_number(colon + 1, 1, UINT16_MAX, &port)) return false;
  *colon = 0;
  *out = (uint16_t)port;
  return true;
}

static bool host_bits_are_zero(const struct nx_net_allow_entry *entry) {
  for (unsigned bit = entry->bits; bit < 8 * NX_NET_ADDRESS_BYTES; bit++)
    if (entry->address.bytes[bit / 8] & 0x80 >> bit % 8) return false;
  return true;
}

/* The parsers of an entry change its text, and return what is wrong with it; NULL: nothing. */
static const char *parse_network(struct nx_net_allow_entry *entry, char *text, char *slash) {
  *slash = 0;
  bool is_ipv4 = !strchr(text, ':');
  if (!nx__net_address_parse(&entry->address, text) || !parse_number(slash + 1, 0, is_ipv4 ? 32 : 128, &entry->bits))
    return "not a network such as 10.0.0.0/8 or fd00::/8 (networks take no port)";
  if (is_ipv4) entry->bits += NX_NET_IPV4_PREFIX_BITS;
  entry->kind = NETWORK;
  return host_bits_are_zero(entry) ? NULL : "has bits set behind the prefix";
}

static const char *parse_bracketed(struct nx_net_allow_entry *entry, char *text) {
  text[strlen(text) - 1] = 0;
  entry->kind = ADDRESS;
  bool is_ipv6 = strchr(text, ':') && nx__net_address_parse(&entry->address, text + 1);
  return is_ipv6 ? NULL : "not an IPv6 address in brackets";
}

static const char *parse_name(struct nx_net_allow_entry *entry, const char *text) {
  entry->kind = strncmp(text, "*.", 2) ? NAME : DOMAIN;
  entry->name = entry->kind == DOMAIN ? text + 2 : text;
  return is_name(entry->name) ? NULL : "not a host name, *.DOMAIN, *, address or network (no scheme, no path)";
}

static const char *parse_entry(struct nx_net_allow_entry *entry, char *text) {
  if (!*text) return "an entry is empty";
  if (strstr(text, "://")) return "a URL; expected a host, *.DOMAIN, *, address or network (no scheme, no path)";
  char *slash = strchr(text, '/');
  if (slash) return parse_network(entry, text, slash);
  if (!take_port(text, &entry->port)) return "the port is not a number from 1 to 65535";
  if (*text == '[' && text[strlen(text) - 1] == ']') return parse_bracketed(entry, text);
  bool is_any = !strcmp(text, "*");
  if (!is_any && !nx__net_address_parse(&entry->address, text)) return parse_name(entry, text);
  entry->kind = is_any ? ANY : ADDRESS;
  return NULL;
}

static int parse_entries(struct nx_net_allow *allow, const char *original, struct nx_error *err) {
  char *rest = allow->_text;
  for (char *item; (item = strsep(&rest, ","));) {
    size_t bytes = strlen(item);
    const char *fault = parse_entry(&allow->_entries[allow->_count++], trim(item));
    if (fault)
      return nx_error_set(err, NX_ERR_CONFIG, "NET_ALLOW: \"%.*s\": %s", (int)(bytes < 100 ? bytes : 100),
                          original + (item - allow->_text), fault);
  }
  return 0;
}

int nx__net_allow_init(struct nx_net_allow *allow, const char *text, struct nx_error *err) {
  size_t count = 1;
  for (const char *c = text; *c; c++) count += *c == ',';
  *allow = (struct nx_net_allow){._text = strdup(text), ._entries = calloc(count, sizeof *allow->_entries)};
  bool has_memory = allow->_text && allow->_entries;
  for (char *c = allow->_text; has_memory && *c; c++) *c = (char)tolower((unsigned char)*c);
  int status = has_memory ? parse_entries(allow, text, err)
                          : nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for NET_ALLOW");
  if (status) nx__net_allow_deinit(allow);
  return status;
}

void nx__net_allow_deinit(struct nx_net_allow *allow) {
  free(allow->_entries);
  free(allow->_text);
  *allow = (struct nx_net_allow){0};
}

/* ---- Judging ---------------------------------------------------------------------------------------------------- */

static bool has_port(const struct nx_net_allow_entry *entry, uint16_t port) {
  return entry->port ? entry->port == port : port == PORT_HTTP || port == PORT_HTTPS;
}

static bool lists_address(const struct nx_net_allow_entry *entry, const struct nx_net_address *address) {
  return (entry->kind == ADDRESS && !memcmp(&entry->address, address, sizeof *address)) ||
         (entry->kind == NETWORK && nx__net_address_is_within(address, &entry->address, entry->bits));
}

static bool lists_name(const struct nx_net_allow_entry *entry, const char *name) {
  if (entry->kind == NAME) return !strcasecmp(name, entry->name);
  if (entry->kind != DOMAIN) return false;
  size_t bytes = strlen(name), domain_bytes = strlen(entry->name);
  if (bytes < domain_bytes + 2) return false;
  const char *tail = name + bytes - domain_bytes;
  return tail[-1] == '.' && !strcasecmp(tail, entry->name);
}

bool nx__net_allow_has_host(const struct nx_net_allow *allow, const char *host, uint16_t port) {
  struct nx_net_address address;
  char name[NAME_BYTES_MAX + 1];
  size_t bytes = strlen(host);
  if (bytes && host[bytes - 1] == '.') bytes--; /* the root's dot: the same name */
  if (bytes > NAME_BYTES_MAX) return false;
  memcpy(name, host, bytes);
  name[bytes] = 0;
  bool is_address = nx__net_address_parse(&address, name);
  if (!is_address && !is_name(name)) return false;
  for (size_t i = 0; i < allow->_count; i++) {
    const struct nx_net_allow_entry *entry = &allow->_entries[i];
    if (!has_port(entry, port)) continue;
    if (entry->kind == ANY || (is_address ? lists_address(entry, &address) : lists_name(entry, name))) return true;
  }
  return false;
}

bool nx__net_allow_has_address(const struct nx_net_allow *allow, const struct nx_net_address *address, uint16_t port) {
  if (!nx__net_address_is_special(address)) return true;
  for (size_t i = 0; i < allow->_count; i++) {
    const struct nx_net_allow_entry *entry = &allow->_entries[i];
    /* The port was judged with the host; a network says nothing about ports. */
    if (lists_address(entry, address) && (entry->kind == NETWORK || has_port(entry, port))) return true;
  }
  return false;
}
