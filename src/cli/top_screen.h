/* SPDX-License-Identifier: Apache-2.0
 *
 * What `nexus top` shows: two looks at the metrics → lines of text. Knows no terminal and no clock.
 *
 * Ownership: everything in the view is borrowed for the call; the lines are appended to the caller's buffer.
 * Threads:   any; no state.
 * Errors:    the buffer's `failed`. What the metrics do not have, and NaN, shows as "–"; of label values only printable
 *            ASCII is shown, the rest as "?", and no more than fits.
 * Limits:    no line is wider than `columns`, and there are no more than `rows`. 80x24 has room for all; what is less
 *            important is further down. */
#ifndef NX_CLI_TOP_SCREEN_H
#define NX_CLI_TOP_SCREEN_H

#include <stdbool.h>

#include "base/buf.h"
#include "cli/top_metrics.h"

struct nx_top_view {
  const char *server;                  /* where it was asked */
  const struct nx_top_metrics *now;    /* NULL: no answer yet */
  const struct nx_top_metrics *before; /* an earlier look, for the rates; NULL: none */
  double interval_s;                   /* between the two */
  double now_s;                        /* real time of `now`, seconds since 1970 */
  const char *trouble;                 /* why the last look failed; NULL when it did not */
  const char *since;                   /* time of the last answer, or of the start; with `trouble` */
  unsigned columns, rows;              /* rows 0: no limit */
  bool colour;                         /* with SGR escapes, the only ones that are ever written */
};

/* Each line ends with '\n'. */
void nx_top_draw(const struct nx_top_view *view, struct nx_buf *out);

/* Numbers as they are shown, three digits of them; NaN is "–". */
enum { NX_TOP_NUMBER_BYTES = 32 };
const char *nx_top_format_bytes(char text[NX_TOP_NUMBER_BYTES], double bytes);
const char *nx_top_format_number(char text[NX_TOP_NUMBER_BYTES], double number);
const char *nx_top_format_seconds(char text[NX_TOP_NUMBER_BYTES], double seconds);

#endif
