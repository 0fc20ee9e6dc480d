/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/top_terminal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { COLUMNS_USUAL = 80, ROWS_USUAL = 24, COLUMNS_MOST = 500, ROWS_MOST = 500, LEAVE_PATIENCE_MS = 500 };

#define ALTERNATE_SCREEN "\x1b[?1049h"
#define MAIN_SCREEN "\x1b[?1049l"
#define HIDE_CURSOR "\x1b[?25l"
#define SHOW_CURSOR "\x1b[?25h"
#define PLAIN_STYLE "\x1b[0m"
#define HOME "\x1b[H"
#define ERASE_LINE "\x1b[K"
#define ERASE_BELOW "\x1b[J"

static bool has_variable(const char *name) {
  const char *value = getenv(name);
  return value && *value;
}

void nx_top_terminal_init(struct nx_top_terminal *terminal) {
  const char *kind = getenv("TERM");
  *terminal = (struct nx_top_terminal){
    .output_is_terminal = isatty(STDOUT_FILENO),
    .input_is_terminal = isatty(STDIN_FILENO),
    ._dumb = kind && !strcmp(kind, "dumb"),
  };
  terminal->colour = terminal->output_is_terminal && !terminal->_dumb && !has_variable("NO_COLOR");
  nx_top_terminal_measure(terminal);
}

void nx_top_terminal_measure(struct nx_top_terminal *terminal) {
  struct winsize size = {0};
  if (terminal->output_is_terminal) ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
  terminal->columns = !size.ws_col ? COLUMNS_USUAL : size.ws_col > COLUMNS_MOST ? COLUMNS_MOST : size.ws_col;
  terminal->rows = !size.ws_row ? ROWS_USUAL : size.ws_row > ROWS_MOST ? ROWS_MOST : size.ws_row;
  if (terminal->_dumb || !terminal->output_is_terminal) terminal->rows = 0; /* nothing to stay within */
}

/* In pieces that a terminal with room takes at once, so that the waiting is done in poll. */
static int write_all(const char *data, size_t bytes, int interrupt_fd, int patience_ms, struct nx_error *err) {
  enum { PIECE = 256 };
  while (bytes) {
    struct pollfd wait[] = {{.fd = STDOUT_FILENO, .events = POLLOUT}, {.fd = interrupt_fd, .events = POLLIN}};
    int ready = poll(wait, 2, patience_ms);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0 || !wait[0].revents) return 0;
    ssize_t n = write(STDOUT_FILENO, data, bytes < PIECE ? bytes : PIECE);
    if (n < 0 && errno != EINTR && errno != EAGAIN) return nx_error_sys(err, "write to the terminal");
    if (n < 0) continue;
    data += n;
    bytes -= (size_t)n;
  }
  return 0;
}

void nx_top_terminal_enter(struct nx_top_terminal *terminal) {
  static const char escapes[] = ALTERNATE_SCREEN HIDE_CURSOR;
  if (terminal->_entered) nx_top_terminal_leave(terminal);
  terminal->_entered = true;
  if (!tcgetattr(STDIN_FILENO, &terminal->_keys)) {
    struct termios keys = terminal->_keys;
    keys.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    keys.c_cc[VMIN] = 1;
    keys.c_cc[VTIME] = 0;
    terminal->_keys_changed = !tcsetattr(STDIN_FILENO, TCSANOW, &keys);
  }
  if (!terminal->_dumb) write_all(escapes, sizeof escapes - 1, -1, LEAVE_PATIENCE_MS, NULL);
}

void nx_top_terminal_leave(struct nx_top_terminal *terminal) {
  static const char escapes[] = PLAIN_STYLE SHOW_CURSOR MAIN_SCREEN;
  if (!terminal->_entered) return;
  if (!terminal->_dumb) write_all(escapes, sizeof escapes - 1, -1, LEAVE_PATIENCE_MS, NULL);
  if (terminal->_keys_changed) tcsetattr(STDIN_FILENO, TCSANOW, &terminal->_keys);
  terminal->_entered = terminal->_keys_changed = false;
}

/* Each line is erased before it is written: after a character in the last column the cursor is still on it, and erasing
 * from there would take that character. For the same reason what is below is erased from the beginning of a line. */
static void make_frame(const struct nx_top_terminal *terminal, const struct nx_buf *lines, struct nx_buf *frame) {
  const char *at = lines->data, *end = at + lines->len;
  nx_buf_lit(frame, HOME);
  for (unsigned row = 0; at < end; row++) {
    const char *line_end = memchr(at, '\n', (size_t)(end - at));
    if (row) nx_buf_lit(frame, "\r\n");
    nx_buf_lit(frame, ERASE_LINE);
    nx_buf_add(frame, at, (size_t)(line_end - at));
    at = line_end + 1;
    if (at == end && row + 1 < terminal->rows) nx_buf_lit(frame, "\r\n" ERASE_BELOW);
  }
}

int nx_top_terminal_show(struct nx_top_terminal *terminal, const struct nx_buf *lines, int interrupt_fd,
                         struct nx_error *err) {
  NX_BUF_AUTO frame = {0};
  if (lines->failed || !lines->len) return 0;
  if (terminal->_dumb) {
    nx_buf_add(&frame, lines->data, lines->len);
    nx_buf_char(&frame, '\n');
  } else {
    make_frame(terminal, lines, &frame);
  }
  if (frame.failed) return 0; /* the next one may find memory */
  return write_all(frame.data, frame.len, interrupt_fd, -1, err);
}
