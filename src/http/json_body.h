/* SPDX-License-Identifier: Apache-2.0
 *
 * A request's JSON body as a tree, while it is taken apart. Private to src/http.
 * Ownership: nx__json_body_close frees the tree and returns its charge; texts are copied out before. */
#ifndef NX_HTTP_JSON_BODY_H
#define NX_HTTP_JSON_BODY_H

#include <yyjson.h>

#include "http/app.h"

struct nx__json_body {
  yyjson_doc *doc;
  yyjson_val *root;
  size_t _tree_bytes;
};

/* False: the response says what is wrong (400, 503). */
bool nx__json_body_open(struct nx_request *request, struct nx__json_body *out);
void nx__json_body_close(struct nx_request *request, struct nx__json_body *body);

/* The members of an object by the `names`; NULL for those that are not there. NX_ERR_INVALID for others, and for what is
 * given twice. `what` is for people. */
int nx__json_members(yyjson_val *object, const char *what, const char *const *names, size_t count, yyjson_val **out,
                     struct nx_error *err);
/* Appends `value` as JSON. */
void nx__json_add(struct nx_buf *out, yyjson_val *value);

#endif
