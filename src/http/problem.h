/* SPDX-License-Identifier: Apache-2.0
 *
 * Refusals as application/problem+json (RFC 9457): type, title, status, detail, code, and for memory the layer. */
#ifndef NX_HTTP_PROBLEM_H
#define NX_HTTP_PROBLEM_H

#include "exec/exec.h"
#include "http/server.h"

#define NX_PROBLEM_TYPE "application/problem+json"

/* Replaces whatever body the response had. */
void nx_problem_write(struct nx_http_response *response, int status, const char *code, const char *detail);
void nx_problem_from_error(struct nx_http_response *response, const struct nx_error *err);
/* 503 with the layer of memory that refused, its figures, and Retry-After. */
void nx_problem_overloaded(struct nx_http_response *response, const char *detail, const struct nx_refusal *refused,
                           unsigned retry_after_s);
/* What an execution ended with, for the webhook form, whose callers are strangers: no stack, no source. */
void nx_problem_from_job(struct nx_http_response *response, const struct nx_job *job);

#endif
