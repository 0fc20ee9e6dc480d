/* SPDX-License-Identifier: Apache-2.0
 *
 * The tokens that clients may show, as the text of AUTH_TOKENS_FILE has them: one a line, `#` before comments,
 *
 *   TENANT SCOPES HASH
 *
 *   TENANT   1 to 64 letters, digits, '_', '-', '.'; may be on several lines
 *   SCOPES   some of execute, handlers, resume, read, with commas between
 *   HASH     sha256: and 64 hexadecimal digits, of the token's bytes; on one line only
 *
 * Ownership: the caller owns the set; it points to nothing of the text, and holds hashes only.
 * Threads:   constant once it is parsed: any.
 * Errors:    NX_ERR_INVALID with the line and what was expected there, and nothing of what stands there: it may be a token
 *            that somebody put in a wrong place. NX_ERR_NO_MEMORY.
 * Limits:    those below; past them NX_ERR_INVALID. */
#ifndef NX_ACCESS_TOKENS_H
#define NX_ACCESS_TOKENS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/tenant.h"

#define NX_TOKENS_MAX_BYTES (256u << 10)
#define NX_TOKENS_MAX_LINE_BYTES 512u
#define NX_TOKENS_MAX 1000u
#define NX_TENANT_NAME_MAX 64u

/* X(symbol, word, bit) */
#define NX_SCOPES(X)          \
  X(EXECUTE, "execute", 1u)   \
  X(HANDLERS, "handlers", 2u) \
  X(RESUME, "resume", 4u)     \
  X(READ, "read", 8u)

enum nx_scope {
  NX_SCOPE_NONE = 0,
#define X(symbol, word, bit) NX_SCOPE_##symbol = bit,
  NX_SCOPES(X)
#undef X
};

/* All of them, as the file and replies have them. */
struct nx_scope_word {
  const char *word;
  unsigned bit;
};
#define X(symbol, word, bit) +1
enum { NX_SCOPE_COUNT = NX_SCOPES(X) };
#undef X
extern const struct nx_scope_word nx_scope_words[NX_SCOPE_COUNT];

/* What a token stands for. */
struct nx_grantee {
  struct nx_tenant tenant;
  unsigned scopes; /* of enum nx_scope */
};

struct nx_tokens;

/* At least one token; every line must be right. */
int nx_tokens_parse(struct nx_tokens **out, const char *text, size_t bytes, struct nx_error *err);
void nx_tokens_destroy(struct nx_tokens *tokens);
size_t nx_tokens_count(const struct nx_tokens *tokens);
/* False when the token is not among them. Takes as long whichever it is, and whether it is one. */
bool nx_tokens_find(const struct nx_tokens *tokens, const char *token, size_t bytes, struct nx_grantee *out);

/* Zeroes are nobody's name. */
struct nx_tenant nx_tenant_of_name(const char *name, size_t bytes);

#endif
