/* SPDX-License-Identifier: Apache-2.0
 * Exact: a mantissa of 128 bits, powers of ten and two, one division at the end. */
#include "manifest/quantity.h"

#include <string.h>

#define VALUE_MAX ((UINT64_C(1) << 56) - 1)

typedef unsigned __int128 wide;

/* [+]DIGITS[.DIGITS], where either side of the point may be missing; *exponent is 0 or less. */
static bool parse_mantissa(const char **text, wide *mantissa, int *exponent) {
  bool point = false, digits = false;
  const char *c = *text + (**text == '+');
  for (*mantissa = 0, *exponent = 0;; c++) {
    if (*c == '.' && !point) {
      point = true;
      continue;
    }
    if (*c < '0' || *c > '9') break;
    digits = true;
    if (__builtin_mul_overflow(*mantissa, (wide)10, mantissa) ||
        __builtin_add_overflow(*mantissa, (wide)(*c - '0'), mantissa))
      return false;
    *exponent -= point;
  }
  *text = c;
  return digits;
}

/* e and E with a number behind: "e9", "E-3". */
static bool parse_exponent(const char *text, int *exponent) {
  bool minus = text[1] == '-';
  const char *digits = text + 1 + (minus || text[1] == '+');
  size_t count = strspn(digits, "0123456789");
  if ((*text != 'e' && *text != 'E') || !count || count > 4 || digits[count]) return false;
  int number = 0;
  for (; *digits; digits++) number = number * 10 + (*digits - '0');
  *exponent += minus ? -number : number;
  return true;
}

static bool parse_suffix(const char *text, int *exponent, unsigned *shift) {
  static const struct { char text[3]; int exponent; unsigned shift; } suffixes[] = {
    {"", 0, 0},    {"n", -9, 0},  {"u", -6, 0},  {"m", -3, 0},  {"k", 3, 0},   {"M", 6, 0},   {"G", 9, 0},  {"T", 12, 0},
    {"P", 15, 0},  {"E", 18, 0},  {"Ki", 0, 10}, {"Mi", 0, 20}, {"Gi", 0, 30}, {"Ti", 0, 40}, {"Pi", 0, 50}, {"Ei", 0, 60}};
  *shift = 0;
  for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
    if (strcmp(text, suffixes[i].text)) continue;
    *exponent += suffixes[i].exponent;
    *shift = suffixes[i].shift;
    return true;
  }
  return parse_exponent(text, exponent);
}

bool nx_quantity_parse(const char *text, unsigned scale, uint64_t *value) {
  wide number, divisor = 1;
  int exponent;
  unsigned shift;
  if (!parse_mantissa(&text, &number, &exponent) || !parse_suffix(text, &exponent, &shift)) return false;
  if (__builtin_mul_overflow(number, (wide)scale << shift, &number)) return false;
  for (; exponent > 0 && number; exponent--)
    if (__builtin_mul_overflow(number, (wide)10, &number)) return false;
  for (; exponent < 0 && divisor < number; exponent++) /* from there on the result is 1 or 0 */
    if (__builtin_mul_overflow(divisor, (wide)10, &divisor)) divisor = number;
  number = number / divisor + (number % divisor != 0);
  *value = (uint64_t)number;
  return number <= VALUE_MAX;
}
