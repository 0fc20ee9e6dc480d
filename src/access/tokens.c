/* SPDX-License-Identifier: Apache-2.0 */
#include "access/tokens.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#define HASH_BYTES crypto_hash_sha256_BYTES
#define HASH_PREFIX "sha256:"

const struct nx_scope_word nx_scope_words[NX_SCOPE_COUNT] = {
#define X(symbol, word, bit) {word, bit},
  NX_SCOPES(X)
#undef X
};

struct token {
  uint8_t hash[HASH_BYTES];
  struct nx_grantee grantee;
  unsigned line;
};

struct nx_tokens {
  size_t count;
  struct token list[NX_TOKENS_MAX];
};

/* ---- Reading a line ------------------------------------------------------------------------------------------------- */

/* A piece of the text that is not NUL-terminated. */
struct word {
  const char *at;
  size_t bytes;
};

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

/* Takes the next word off the line; empty at its end. */
static struct word next_word(struct word *line) {
  while (line->bytes && is_blank(*line->at)) line->at++, line->bytes--;
  struct word word = {line->at, 0};
  while (line->bytes && !is_blank(*line->at)) line->at++, line->bytes--, word.bytes++;
  return word;
}

static bool is_tenant(struct word word) {
  static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
  for (size_t i = 0; i < word.bytes; i++)
    if (!memchr(allowed, word.at[i], sizeof allowed - 1)) return false;
  return word.bytes && word.bytes <= NX_TENANT_NAME_MAX;
}

static unsigned scope_of(struct word word) {
  for (size_t i = 0; i < NX_SCOPE_COUNT; i++) {
    const struct nx_scope_word *scope = &nx_scope_words[i];
    if (word.bytes == strlen(scope->word) && !memcmp(word.at, scope->word, word.bytes)) return scope->bit;
  }
  return NX_SCOPE_NONE;
}

/* 0 when one of them is none. */
static unsigned parse_scopes(struct word word) {
  unsigned scopes = 0;
  for (;;) {
    const char *comma = memchr(word.at, ',', word.bytes);
    struct word one = {word.at, comma ? (size_t)(comma - word.at) : word.bytes};
    unsigned scope = scope_of(one);
    if (!scope) return NX_SCOPE_NONE;
    scopes |= scope;
    if (!comma) return scopes;
    word = (struct word){comma + 1, word.bytes - one.bytes - 1};
  }
}

static bool parse_hash(struct word word, uint8_t hash[HASH_BYTES]) {
  const size_t prefix = sizeof HASH_PREFIX - 1;
  size_t got;
  return word.bytes == prefix + 2 * HASH_BYTES && !memcmp(word.at, HASH_PREFIX, prefix) &&
         !sodium_hex2bin(hash, HASH_BYTES, word.at + prefix, 2 * HASH_BYTES, NULL, &got, NULL) && got == HASH_BYTES;
}

static int refuse(struct nx_error *err, unsigned line, const char *why) {
  return nx_error_set(err, NX_ERR_INVALID, "line %u: %s", line, why);
}

static int check_new(const struct nx_tokens *tokens, const struct token *token, struct nx_error *err) {
  for (size_t i = 0; i < tokens->count; i++)
    if (!memcmp(tokens->list[i].hash, token->hash, HASH_BYTES))
      return nx_error_set(err, NX_ERR_INVALID, "line %u: HASH is that of line %u: a token has one line", token->line,
                          tokens->list[i].line);
  return 0;
}

static int parse_token(struct nx_tokens *tokens, unsigned number, struct word line, struct nx_error *err) {
  struct word tenant = next_word(&line), scopes = next_word(&line), hash = next_word(&line);
  struct token token = {.grantee.scopes = parse_scopes(scopes), .line = number};
  if (!is_tenant(tenant)) return refuse(err, number, "TENANT: expected 1 to 64 letters, digits, '_', '-' or '.'");
  if (!token.grantee.scopes)
    return refuse(err, number, "SCOPES: expected some of execute, handlers, resume, read, with commas and no blanks between");
  if (!parse_hash(hash, token.hash)) return refuse(err, number, "HASH: expected sha256: and 64 hexadecimal digits");
  if (next_word(&line).bytes) return refuse(err, number, "expected the end of the line after TENANT SCOPES HASH");
  if (tokens->count == NX_TOKENS_MAX) return refuse(err, number, "more than 1000 tokens");
  int status = check_new(tokens, &token, err);
  if (status) return status;
  token.grantee.tenant = nx_tenant_of_name(tenant.at, tenant.bytes);
  tokens->list[tokens->count++] = token;
  return 0;
}

/* ---- Reading the text ----------------------------------------------------------------------------------------------- */

static bool has_controls(struct word line) {
  for (size_t i = 0; i < line.bytes; i++)
    if ((unsigned char)line.at[i] < ' ' && line.at[i] != '\t') return true;
  return false;
}

static int parse_line(struct nx_tokens *tokens, unsigned number, struct word line, struct nx_error *err) {
  if (line.bytes && line.at[line.bytes - 1] == '\r') line.bytes--;
  if (line.bytes > NX_TOKENS_MAX_LINE_BYTES) return refuse(err, number, "longer than 512 bytes");
  if (has_controls(line)) return refuse(err, number, "expected text, and not control characters");
  struct word rest = line, first = next_word(&rest);
  return first.bytes && *first.at != '#' ? parse_token(tokens, number, line, err) : 0;
}

static int parse_text(struct nx_tokens *tokens, const char *text, size_t bytes, struct nx_error *err) {
  const char *at = text, *end = text + bytes;
  if (bytes > NX_TOKENS_MAX_BYTES) return nx_error_set(err, NX_ERR_INVALID, "larger than 256 KiB");
  for (unsigned number = 1; at < end; number++) {
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    struct word line = {at, (size_t)((newline ? newline : end) - at)};
    int status = parse_line(tokens, number, line, err);
    if (status) return status;
    at = newline ? newline + 1 : end;
  }
  if (!tokens->count) return nx_error_set(err, NX_ERR_INVALID, "no token in it: expected lines TENANT SCOPES HASH");
  return 0;
}

int nx_tokens_parse(struct nx_tokens **out, const char *text, size_t bytes, struct nx_error *err) {
  struct nx_tokens *tokens = calloc(1, sizeof *tokens);
  if (!tokens) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the access tokens");
  int status = parse_text(tokens, text, bytes, err);
  if (status)
    nx_tokens_destroy(tokens);
  else
    *out = tokens;
  return status;
}

void nx_tokens_destroy(struct nx_tokens *tokens) { free(tokens); }
size_t nx_tokens_count(const struct nx_tokens *tokens) { return tokens->count; }

/* ---- Asking --------------------------------------------------------------------------------------------------------- */

bool nx_tokens_find(const struct nx_tokens *tokens, const char *token, size_t bytes, struct nx_grantee *out) {
  uint8_t hash[HASH_BYTES];
  const struct token *found = NULL;
  crypto_hash_sha256(hash, (const unsigned char *)token, bytes);
  for (size_t i = 0; i < tokens->count; i++) { /* all of them, always */
    bool is_it = !sodium_memcmp(tokens->list[i].hash, hash, HASH_BYTES);
    found = is_it ? &tokens->list[i] : found;
  }
  sodium_memzero(hash, sizeof hash);
  if (!found) return false;
  *out = found->grantee;
  return true;
}

struct nx_tenant nx_tenant_of_name(const char *name, size_t bytes) {
  struct nx_tenant tenant;
  crypto_generichash(tenant.bytes, sizeof tenant.bytes, (const unsigned char *)name, bytes, NULL, 0);
  return tenant;
}
