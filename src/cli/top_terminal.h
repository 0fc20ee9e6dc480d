/* SPDX-License-Identifier: Apache-2.0
 *
 * The terminal of `nexus top`: standard output and input, by plain ANSI escapes (ECMA-48, and xterm's alternate screen).
 * TERM=dumb gets no escape at all: screens follow each other.
 *
 * Ownership: the caller owns the struct. Between enter and leave, which may be repeated, the terminal is ours: alternate
 *            screen, no cursor, keys without echo and without waiting for a line; Ctrl-C and Ctrl-Z stay signals.
 * Threads:   one.
 * Errors:    a terminal that went away is -NX_ERR_SYSTEM. Settings that it does not take are gone without. */
#ifndef NX_CLI_TOP_TERMINAL_H
#define NX_CLI_TOP_TERMINAL_H

#include <stdbool.h>
#include <termios.h>

#include "base/buf.h"
#include "base/error.h"

struct nx_top_terminal {
  bool output_is_terminal, input_is_terminal;
  bool colour;
  unsigned columns, rows; /* rows 0: no limit */
  bool _dumb, _entered, _keys_changed;
  struct termios _keys;
};

void nx_top_terminal_init(struct nx_top_terminal *terminal);
/* Columns and rows as they are now; 80x24 where nobody says. */
void nx_top_terminal_measure(struct nx_top_terminal *terminal);
void nx_top_terminal_enter(struct nx_top_terminal *terminal);
void nx_top_terminal_leave(struct nx_top_terminal *terminal);

/* Shows lines that end with '\n' and fit, instead of those before. Gives the rest up when `interrupt_fd` becomes readable
 * while the terminal takes nothing more (Ctrl-S, a dead line): whoever is waited for then must not wait. */
int nx_top_terminal_show(struct nx_top_terminal *terminal, const struct nx_buf *lines, int interrupt_fd,
                         struct nx_error *err);

#endif
