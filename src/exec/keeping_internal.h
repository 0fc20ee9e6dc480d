/* SPDX-License-Identifier: Apache-2.0
 *
 * Internal to exec/: what the steps of keeping.c, keeping_begin.c and keeping_own.c have in common. */
#ifndef NX_EXEC_KEEPING_INTERNAL_H
#define NX_EXEC_KEEPING_INTERNAL_H

#include "base/clock.h"
#include "exec/keeping.h"

typedef enum nx_job_state nx__step(struct nx__keeper *keeper, struct nx_job *job);

/* The step, here or on a thread that may wait. */
enum nx_job_state nx__keeper_take(struct nx__keeper *keeper, struct nx_job *job, nx__step *step);
/* Ends the job with a refusal. */
enum nx_job_state nx__keeper_refuse(struct nx_job *job, enum nx_error_code code, const char *text);
/* The same, with the lease given back. */
enum nx_job_state nx__keeper_fail(struct nx__keeper *keeper, struct nx_job *job, const struct nx_error *err);
/* The lease, if the job has one. */
void nx__keeper_release(struct nx__keeper *keeper, struct nx_job *job);
/* For the queue and the run. */
uint64_t nx__keeper_lease_ms(const struct nx__keeper *keeper);

#endif
