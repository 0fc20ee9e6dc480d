/* SPDX-License-Identifier: Apache-2.0 */
#include "sha.h"

#include <stdbool.h>
#include <string.h>

/* Round constants of SHA-512; the upper halves of the first 64 are those of SHA-256. */
static const uint64_t sha2_k[80] = {
  0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc, 0x3956c25bf348b538,
  0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118, 0xd807aa98a3030242, 0x12835b0145706fbe,
  0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2, 0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235,
  0xc19bf174cf692694, 0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
  0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5, 0x983e5152ee66dfab,
  0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4, 0xc6e00bf33da88fc2, 0xd5a79147930aa725,
  0x06ca6351e003826f, 0x142929670a0e6e70, 0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed,
  0x53380d139d95b3df, 0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
  0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30, 0xd192e819d6ef5218,
  0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8, 0x19a4c116b8d2d0c8, 0x1e376c085141ab53,
  0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8, 0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373,
  0x682e6ff3d6b2b8a3, 0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
  0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b, 0xca273eceea26619c,
  0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178, 0x06f067aa72176fba, 0x0a637dc5a2c898a6,
  0x113f9804bef90dae, 0x1b710b35131c471b, 0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc,
  0x431d67c49c100d4c, 0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817,
};

#define ROTR(x, n) ((x) >> (n) | (x) << (sizeof(x) * 8 - (n)))
#define SIGMA(x, a, b, c) (ROTR(x, a) ^ ROTR(x, b) ^ ROTR(x, c))
#define SIGMA_SHIFT(x, a, b, c) (ROTR(x, a) ^ ROTR(x, b) ^ (x) >> (c))

/* One block of SHA-2 (FIPS 180-4 section 6): the 32-bit and the 64-bit kind differ in word, rounds and rotations. */
#define DEFINE_SHA2_BLOCK(name, word, rounds, k_shift, A, B, C, D)                                        \
  static void name(word h[8], const uint8_t *p) {                                                         \
    word w[rounds], v[8];                                                                                 \
    for (size_t t = 0; t < 16; t++) {                                                                     \
      w[t] = 0;                                                                                           \
      for (size_t i = 0; i < sizeof(word); i++) w[t] = (word)(w[t] << 8 | *p++);                          \
    }                                                                                                     \
    for (size_t t = 16; t < rounds; t++) w[t] = w[t - 16] + w[t - 7] + C(w[t - 15]) + D(w[t - 2]);        \
    memcpy(v, h, sizeof v);                                                                               \
    for (size_t t = 0; t < rounds; t++) {                                                                 \
      word one = v[7] + B(v[4]) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + (word)(sha2_k[t] >> k_shift) + w[t]; \
      word two = A(v[0]) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));                               \
      memmove(v + 1, v, 7 * sizeof *v);                                                                   \
      v[4] += one;                                                                                        \
      v[0] = one + two;                                                                                   \
    }                                                                                                     \
    for (size_t i = 0; i < 8; i++) h[i] += v[i];                                                          \
  }
#define A256(x) SIGMA(x, 2, 13, 22)
#define B256(x) SIGMA(x, 6, 11, 25)
#define C256(x) SIGMA_SHIFT(x, 7, 18, 3)
#define D256(x) SIGMA_SHIFT(x, 17, 19, 10)
#define A512(x) SIGMA(x, 28, 34, 39)
#define B512(x) SIGMA(x, 14, 18, 41)
#define C512(x) SIGMA_SHIFT(x, 1, 8, 7)
#define D512(x) SIGMA_SHIFT(x, 19, 61, 6)
DEFINE_SHA2_BLOCK(sha256_block, uint32_t, 64, 32, A256, B256, C256, D256)
DEFINE_SHA2_BLOCK(sha512_block, uint64_t, 80, 0, A512, B512, C512, D512)

static void sha1_block(uint32_t h[5], const uint8_t *p) {
  uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
  for (size_t t = 0; t < 16; t++, p += 4)
    w[t] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
  for (size_t t = 16; t < 80; t++) w[t] = ROTR(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 31);
  for (size_t t = 0; t < 80; t++) {
    uint32_t mix = t < 20   ? ((b & c) | (~b & d)) + 0x5a827999u
                   : t < 40 ? (b ^ c ^ d) + 0x6ed9eba1u
                   : t < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdcu
                            : (b ^ c ^ d) + 0xca62c1d6u;
    uint32_t next = ROTR(a, 27) + mix + e + w[t];
    e = d, d = c, c = ROTR(b, 2), b = a, a = next;
  }
  h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

struct sha {
  int32_t bits; /* of the digest; 1 stands for SHA-1 */
  union { uint32_t narrow[8]; uint64_t wide[8]; } h;
};

static bool sha_is_wide(const struct sha *s) { return s->bits > 256; }

static void sha_block(struct sha *s, const uint8_t *p) {
  if (s->bits == 1)
    sha1_block(s->h.narrow, p);
  else if (s->bits == 256)
    sha256_block(s->h.narrow, p);
  else
    sha512_block(s->h.wide, p);
}

static bool sha_init(struct sha *s, int32_t bits) {
  static const uint32_t start1[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
  static const uint64_t start512[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
  };
  static const uint64_t start384[8] = {
    0xcbbb9d5dc1059ed8, 0x629a292a367cd507, 0x9159015a3070dd17, 0x152fecd8f70e5939,
    0x67332667ffc00b31, 0x8eb44a8768581511, 0xdb0c2e0d64f98fa7, 0x47b5481dbefa4fa4,
  };
  s->bits = bits;
  switch (bits) {
  case 1: memcpy(s->h.narrow, start1, sizeof start1); return true;
  case 256: for (size_t i = 0; i < 8; i++) s->h.narrow[i] = (uint32_t)(start512[i] >> 32); return true;
  case 384: memcpy(s->h.wide, start384, sizeof start384); return true;
  case 512: memcpy(s->h.wide, start512, sizeof start512); return true;
  default: return false;
  }
}

/* The last one or two blocks: what is left of the message, a one bit, zeros, the length in bits. */
static void sha_finish(struct sha *s, const uint8_t *rest, size_t rest_bytes, size_t total_bytes) {
  size_t block = sha_is_wide(s) ? 128 : 64;
  uint8_t last[256] = {0};
  memcpy(last, rest, rest_bytes);
  last[rest_bytes] = 0x80;
  size_t padded = rest_bytes + 1 + block / 8 <= block ? block : 2 * block;
  uint64_t bits = (uint64_t)total_bytes * 8;
  for (size_t i = 0; i < 8; i++) last[padded - 1 - i] = (uint8_t)(bits >> (8 * i));
  for (size_t at = 0; at < padded; at += block) sha_block(s, last + at);
}

size_t nx_sha(int32_t bits, const uint8_t *data, size_t bytes, uint8_t digest[NX_SHA_MAX_BYTES]) {
  struct sha s;
  if (!sha_init(&s, bits)) return 0;
  size_t block = sha_is_wide(&s) ? 128 : 64, word = block / 16, length = bits == 1 ? 20 : (size_t)bits / 8;
  size_t at = 0;
  for (; bytes - at >= block; at += block) sha_block(&s, data + at);
  sha_finish(&s, data + at, bytes - at, bytes);
  for (size_t i = 0; i < length; i++) {
    uint64_t value = sha_is_wide(&s) ? s.h.wide[i / word] : s.h.narrow[i / word];
    digest[i] = (uint8_t)(value >> (8 * (word - 1 - i % word)));
  }
  return length;
}
