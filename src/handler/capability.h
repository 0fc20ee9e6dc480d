/* SPDX-License-Identifier: Apache-2.0
 *
 * What an execution may do: sets of capability tokens and extension methods, and the rights that follow from them.
 *
 * Tokens: state:read:KEY, state:write:KEY, events:emit:NAME, view:update:COMPONENT, ext:NAME. A trailing '*' matches
 * any suffix, the empty one included. An extension method is permitted by ext:NAME together with the extensions map
 * {NAME: [methods]}, where a method may end in '*' too. The extension "time" is always permitted.
 * Ownership: a set owns copies of all its texts (one heap block); zero-initialised it is valid and permits nothing.
 * Threads:   a set is immutable once made; any thread may ask. Asking allocates nothing and takes O(log tokens).
 * Errors:    NX_ERR_INVALID with the place in the text ("capabilities[2]: …", "extensions.http[0]: …").
 * Limits:    NX_CAPABILITY_MAX_TOKENS tokens, as many extension names, as many methods in all; each at most
 *            NX_CAPABILITY_MAX_BYTES long. */
#ifndef NX_HANDLER_CAPABILITY_H
#define NX_HANDLER_CAPABILITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

#define NX_CAPABILITY_MAX_TOKENS 256
#define NX_CAPABILITY_MAX_BYTES 256

enum nx_capability_kind {
  NX_CAP_STATE_READ,
  NX_CAP_STATE_WRITE,
  NX_CAP_EVENTS_EMIT,
  NX_CAP_VIEW_UPDATE,
  NX_CAP_EXT,
  NX_CAP_KINDS
};

struct yyjson_val;
struct nx__capability;

struct nx_capabilities {
  bool has_tokens;     /* a list of tokens was given, perhaps an empty one */
  bool has_extensions; /* a map of extensions was given, perhaps an empty one */
  uint16_t _count;                       /* items as they were given, for writing them back */
  struct nx__capability *_items;         /* start of the block */
  struct nx__capability *_sorted;        /* by kind and text, none inside another's pattern */
  uint16_t _first[NX_CAP_KINDS + 2];     /* where each kind begins in _sorted; the last kind is extension methods */
};

/* Both arguments are borrowed and may be NULL: that part is then absent. On error `out` is untouched. */
int nx_capabilities_parse(struct nx_capabilities *out, struct yyjson_val *tokens, struct yyjson_val *extensions,
                          struct nx_error *err);
void nx_capabilities_deinit(struct nx_capabilities *set);

/* Of this set alone: is `name` covered by a token of this kind? */
bool nx_capability_allows(const struct nx_capabilities *set, enum nx_capability_kind kind, const char *name,
                          size_t name_bytes);
/* Of this set alone: does the extensions map name this method? */
bool nx_capability_names_method(const struct nx_capabilities *set, const char *extension, size_t extension_bytes,
                                const char *method, size_t method_bytes);

/* Appends the parts that are present as JSON members, without braces: "capabilities":[…],"extensions":{…}.
 * Returns whether it appended anything. nx_capabilities_parse takes it back. */
bool nx_capabilities_write(const struct nx_capabilities *set, struct nx_buf *out);

/* The rights of one execution. Both sets are borrowed and must outlive it.
 * /run: {grants, NULL}. /v1/execute: {grants or NULL, request}. Where there are grants, a part that the request does
 * not name leaves the grants as they are and a part that it names (an empty one too) narrows them. Without grants the
 * request alone counts, and what it does not name is not permitted. */
struct nx_rights {
  const struct nx_capabilities *grants;  /* NULL: the handler has none */
  const struct nx_capabilities *request; /* NULL: there is none */
};

bool nx_rights_allow(const struct nx_rights *rights, enum nx_capability_kind kind, const char *name,
                     size_t name_bytes);
/* Every name of this kind: saves asking one by one. */
bool nx_rights_allow_all(const struct nx_rights *rights, enum nx_capability_kind kind);
bool nx_rights_allow_method(const struct nx_rights *rights, const char *extension, size_t extension_bytes,
                            const char *method, size_t method_bytes);

#endif
