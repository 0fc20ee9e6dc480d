/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may do what (AUTH_TOKENS_FILE): `Authorization: Bearer TOKEN` against the scopes of a route; RFC 6750. */
#include <stdio.h>
#include <strings.h>

#include "http/app.h"
#include "http/problem.h"

/* The scheme's name in any case, then spaces, then the token. */
static bool take_bearer(struct nx_str header, struct nx_str *token) {
  static const char scheme[] = "Bearer ";
  const size_t bytes = sizeof scheme - 1;
  if (header.len < bytes || strncasecmp(header.data, scheme, bytes)) return false;
  *token = (struct nx_str){header.data + bytes, header.len - bytes};
  while (token->len && *token->data == ' ') token->data++, token->len--;
  return token->len;
}

struct nx__verdict nx__judge(struct nx_app *app, unsigned scopes, struct nx_str authorization) {
  struct nx__verdict verdict = {.kind = NX__ACCESS_GRANTED};
  struct nx_grantee grantee;
  struct nx_str token;
  if (!app->access || scopes == NX_SCOPE_NONE) return verdict;
  if (!take_bearer(authorization, &token))
    verdict.kind = NX__ACCESS_NO_TOKEN;
  else if (!nx_access_find(app->access, token.data, token.len, &grantee))
    verdict.kind = NX__ACCESS_UNKNOWN_TOKEN;
  else if (!(grantee.scopes & scopes))
    verdict.kind = NX__ACCESS_LACKS_SCOPE;
  else
    verdict.tenant = grantee.tenant;
  return verdict;
}

static void refuse_unknown(struct nx_http_response *response, bool has_token) {
  nx_problem_write(response, 401, "UNAUTHORIZED",
                   has_token ? "the access token is not known here; it may have been replaced"
                             : "this needs an access token: Authorization: Bearer TOKEN");
  nx_buf_str(&response->headers, has_token ? "WWW-Authenticate: Bearer realm=\"nexus\", error=\"invalid_token\"\r\n"
                                           : "WWW-Authenticate: Bearer realm=\"nexus\"\r\n");
}

/* Names the scopes of which one is enough; the header has the last of them, which allows least. */
static void refuse_scope(struct nx_http_response *response, unsigned scopes) {
  char detail[128];
  const char *least = "";
  int n = snprintf(detail, sizeof detail, "the access token lacks the scope");
  for (size_t i = 0; i < NX_SCOPE_COUNT; i++) {
    if (!(scopes & nx_scope_words[i].bit)) continue;
    n += snprintf(detail + n, sizeof detail - (size_t)n, "%s %s", *least ? " or" : "", nx_scope_words[i].word);
    least = nx_scope_words[i].word;
  }
  nx_problem_write(response, 403, "FORBIDDEN", detail);
  nx_buf_printf(&response->headers, "WWW-Authenticate: Bearer realm=\"nexus\", error=\"insufficient_scope\", scope=\"%s\"\r\n",
                least);
}

void nx__refuse_access(struct nx_http_response *response, enum nx__access kind, unsigned scopes) {
  if (kind == NX__ACCESS_LACKS_SCOPE)
    refuse_scope(response, scopes);
  else
    refuse_unknown(response, kind == NX__ACCESS_UNKNOWN_TOKEN);
}
