/* SPDX-License-Identifier: Apache-2.0
 *
 * NET_ALLOW and the judgement of addresses: pure functions, in tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>

#include "net/net.h"
#include "net/net_address.h"
#include "net/net_allow.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static struct nx_net_address address_of(const char *text) {
  struct nx_net_address address;
  if (!nx__net_address_parse(&address, text)) fail_msg("%s is no address", text);
  return address;
}

static void test_special_addresses(void **state) {
  (void)state;
  static const char *const special[] = {
    "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.1",
    "127.255.255.255", "169.254.0.0", "169.254.169.254", "172.16.0.0", "172.31.255.255", "192.0.0.8", "192.0.2.1",
    "192.88.99.1", "192.168.0.0", "192.168.255.255", "198.18.0.0", "198.19.255.255", "198.51.100.7", "203.0.113.9",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::2", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.1.2.3", "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "fe80::1",
    "febf::1", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1", "ff0e::1", "2001:db8::1", "3fff::1", "3fff:fff::1",
    "2001:2::1", "2001:10::1", "2001:20::1", "2002:7f00:1::1", "2002:a9fe:a9fe::", "2002:c0a8:101::1",
    "2001:0:808:808::f5ff:fffe", /* Teredo; the client is 10.0.0.1 */
    "2001:0:a00:1::f7f7:f7f7",   /* Teredo; the server is 10.0.0.1 */
    "4000::1", "1fff::1",
  };
  static const char *const ordinary[] = {
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1",
    "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.1", "192.167.255.255", "192.169.0.0",
    "198.17.255.255", "198.20.0.0", "223.255.255.255",
    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2606:4700::1111", "2001:4860:4860::8888", "2a00::1", "2002:808:808::1",
    "2001:0:808:808::f7f7:f7f7",
  };
  for (size_t i = 0; i < COUNT(special); i++) {
    struct nx_net_address address = address_of(special[i]);
    if (!nx__net_address_is_special(&address)) fail_msg("%s is special", special[i]);
  }
  for (size_t i = 0; i < COUNT(ordinary); i++) {
    struct nx_net_address address = address_of(ordinary[i]);
    if (nx__net_address_is_special(&address)) fail_msg("%s is not special", ordinary[i]);
  }
}

static void test_address_spellings(void **state) {
  (void)state;
  static const char *const wrong[] = {"", "1", "2130706433", "0x7f.1", "127.1", "0177.0.0.1", "1.2.3.4.5", "1.2.3.256",
                                      "[::1]", "fe80::1%eth0", ":::", "localhost", "1.2.3.4 "};
  for (size_t i = 0; i < COUNT(wrong); i++) {
    struct nx_net_address address;
    if (nx__net_address_parse(&address, wrong[i])) fail_msg("%s was taken for an address", wrong[i]);
  }
  struct nx_net_address mapped = address_of("::ffff:1.2.3.4"), plain = address_of("1.2.3.4");
  assert_memory_equal(&mapped, &plain, sizeof mapped);
}

static void test_socket_addresses(void **state) {
  (void)state;
  struct sockaddr_in ipv4 = {.sin_family = AF_INET};
  struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6};
  struct sockaddr other = {.sa_family = AF_UNIX};
  struct nx_net_address got, want = address_of("10.1.2.3");
  inet_pton(AF_INET, "10.1.2.3", &ipv4.sin_addr);
  inet_pton(AF_INET6, "::ffff:10.1.2.3", &ipv6.sin6_addr);
  assert_true(nx__net_address_from_socket(&got, (struct sockaddr *)&ipv4, sizeof ipv4));
  assert_memory_equal(&got, &want, sizeof got);
  assert_true(nx__net_address_from_socket(&got, (struct sockaddr *)&ipv6, sizeof ipv6));
  assert_memory_equal(&got, &want, sizeof got);
  assert_false(nx__net_address_from_socket(&got, &other, sizeof other));
  assert_false(nx__net_address_from_socket(&got, (struct sockaddr *)&ipv6, sizeof ipv4));
}

static void test_lists_that_do_not_parse(void **state) {
  (void)state;
  static const struct { const char *list, *named; } rows[] = {
    {"", "\"\""}, {",", "\"\""}, {"a.test,,b.test", "\"\""}, {"a.test,", "\"\""},
    {"http://a.test", "http://a.test"}, {"a.test/path", "a.test/path"}, {"a.test:0", "a.test"},
    {"a.test:65536", "a.test:65536"}, {"a.test:", "a.test:"}, {"a.test:x", "a.test:x"}, {"a.test:80:81", "a.test:80:81"},
    {"user@a.test", "user@a.test"}, {"*a.test", "*a.test"}, {"a.*.test", "a.*.test"}, {"*.", "*."}, {"*.*", "*.*"},
    {".a.test", ".a.test"}, {"a..test", "a..test"}, {"a.test.", "a.test."}, {"b\xc3\xbc.test", "b\xc3\xbc.test"},
    {"10.0.0", "10.0.0"}, {"2130706433", "2130706433"}, {"0x7f.1", "0x7f.1"}, {"1.2.3.256", "1.2.3.256"},
    {"10.0.0.0/33", "10.0.0.0/33"}, {"10.0.0.0/", "10.0.0.0/"}, {"10.0.0.0/8:80", "10.0.0.0/8:80"}, {"10.0.0.1/8", "10.0.0.1/8"},
    {"10.0.0.0/-1", "10.0.0.0/-1"}, {"fd00::/129", "fd00::/129"}, {"fd00::1/8", "fd00::1/8"}, {"[::1", "[::1"},
    {"[1.2.3.4]", "[1.2.3.4]"}, {"[::1]x", "[::1]x"}, {"::1::", "::1::"}, {"[::1]:0", "[::1]:0"}, {"ok.test, bad host", "bad host"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct nx_error err = {0};
    if (nx_net_check_allow(rows[i].list, &err) != -NX_ERR_CONFIG) fail_msg("\"%s\" was taken", rows[i].list);
    if (!strstr(err.text, rows[i].named)) fail_msg("\"%s\" does not name %s", err.text, rows[i].named);
  }
}

static void test_hosts(void **state) {
  (void)state;
  static const struct { const char *list, *host; uint16_t port; bool allowed; } rows[] = {
    {"a.test", "a.test", 80, true}, {"a.test", "a.test", 443, true}, {"a.test", "a.test", 8080, false},
    {"a.test", "A.TEST", 80, true}, {"A.Test", "a.test", 80, true}, {"a.test", "a.test.", 80, true},
    {"a.test", "a.test..", 80, false}, {"a.test", "b.a.test", 80, false}, {"a.test", "xa.test", 80, false}, {"a.test", "", 80, false},
    {"a.test:81", "a.test", 81, true}, {"a.test:81", "a.test", 80, false}, {"a.test:81", "a.test", 443, false},
    {" a.test:81 ,\tb.test ", "b.test", 443, true}, {"a.test:81,a.test", "a.test", 80, true},
    {"*.a.test", "b.a.test", 80, true}, {"*.a.test", "c.b.a.test", 443, true}, {"*.a.test", "a.test", 80, false},
    {"*.a.test", ".a.test", 80, false}, {"*.a.test", "ba.test", 80, false}, {"*.a.test:81", "b.a.test", 81, true},
    {"*", "a.test", 80, true}, {"*", "a.test", 81, false}, {"*:81", "a.test", 81, true}, {"*", "8.8.8.8", 80, true},
    {"*", "2130706433", 80, false}, {"*", "0x7f.1", 80, false}, {"*", "0177.1", 80, false}, {"*", "a.1", 80, false},
    {"*", "a b", 80, false}, {"*", "a.test\n", 80, false}, {"*", "a%2etest", 80, false}, {"*", "fe80::1%25lo", 80, false},
    {"127.0.0.1", "127.0.0.1", 80, true}, {"127.0.0.1", "::ffff:127.0.0.1", 80, true}, {"127.0.0.1", "localhost", 80, false},
    {"127.0.0.1:81", "127.0.0.1", 81, true}, {"127.0.0.1:81", "127.0.0.1", 80, false}, {"127.0.0.1", "127.0.0.2", 80, false},
    {"::1", "::1", 80, true}, {"[::1]", "0:0::1", 443, true}, {"[::1]:81", "::1", 81, true}, {"[::1]:81", "::1", 80, false},
    {"10.0.0.0/8", "10.200.1.2", 80, true}, {"10.0.0.0/8", "11.0.0.0", 80, false}, {"10.0.0.0/8", "10.1.1.1", 81, false},
    {"10.128.0.0/9", "10.127.0.1", 80, false}, {"10.128.0.0/9", "10.128.0.1", 80, true}, {"0.0.0.0/0", "8.8.8.8", 80, true},
    {"0.0.0.0/0", "::1", 80, false}, {"::/0", "::1", 80, true}, {"fd00::/8", "fd12::1", 443, true}, {"fd00::/8", "fe00::1", 443, false},
    {"10.0.0.0/8", "db.internal", 80, false},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct nx_net_allow allow;
    assert_int_equal(nx__net_allow_init(&allow, rows[i].list, NULL), 0);
    if (nx__net_allow_has_host(&allow, rows[i].host, rows[i].port) != rows[i].allowed)
      fail_msg("%s: %s:%u", rows[i].list, rows[i].host, rows[i].port);
    nx__net_allow_deinit(&allow);
  }
}

static void test_addresses_of_hosts(void **state) {
  (void)state;
  static const struct { const char *list, *address; uint16_t port; bool allowed; } rows[] = {
    {"*", "8.8.8.8", 80, true}, {"*", "127.0.0.1", 80, false}, {"*", "::1", 80, false}, {"*", "::ffff:10.0.0.1", 80, false},
    {"a.test", "8.8.8.8", 80, true}, {"a.test", "169.254.169.254", 80, false},
    {"a.test,127.0.0.1", "127.0.0.1", 80, true}, {"a.test,127.0.0.1", "::ffff:127.0.0.1", 80, true},
    {"a.test,127.0.0.1", "127.0.0.1", 81, false}, {"a.test,127.0.0.1:81", "127.0.0.1", 81, true},
    {"a.test,127.0.0.1:81", "127.0.0.1", 80, false}, {"a.test,127.0.0.1", "127.0.0.2", 80, false},
    {"a.test:81,10.0.0.0/8", "10.1.2.3", 81, true}, {"a.test,10.0.0.0/8", "192.168.0.1", 80, false},
    {"a.test,fd00::/8", "fd00::1", 80, true}, {"a.test,fd00::/8", "fe80::1", 80, false},
    {"a.test,127.0.0.1", "64:ff9b::127.0.0.1", 80, false},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct nx_net_allow allow;
    assert_int_equal(nx__net_allow_init(&allow, rows[i].list, NULL), 0);
    struct nx_net_address address = address_of(rows[i].address);
    if (nx__net_allow_has_address(&allow, &address, rows[i].port) != rows[i].allowed)
      fail_msg("%s: %s:%u", rows[i].list, rows[i].address, rows[i].port);
    nx__net_allow_deinit(&allow);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_special_addresses), cmocka_unit_test(test_address_spellings),
    cmocka_unit_test(test_socket_addresses),  cmocka_unit_test(test_lists_that_do_not_parse),
    cmocka_unit_test(test_hosts),             cmocka_unit_test(test_addresses_of_hosts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
