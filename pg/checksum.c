// Page checksums for checksum_cgo.go: the same as checksum.go, on vectors of
// eight columns. Compiled twice on x86-64, because AVX2 makes it several times
// faster and may not be there.

#include "checksum.h"

#include <string.h>

enum { PAGE = 8192 };

static const uint32_t base[32] = {
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
};

/* Eight columns; GCC and Clang turn it into whatever vectors the target has. */
typedef uint32_t columns __attribute__((vector_size(32)));

#define inlined static inline __attribute__((always_inline))

inlined void mix(columns *sum, const unsigned char *value)
{
	columns t;

	memcpy(&t, value, sizeof t);
	t ^= *sum;
	*sum = t * 16777619u ^ t >> 17;
}

inlined void mix_zero(columns *sum)
{
	*sum = *sum * 16777619u ^ *sum >> 17;
}

/* The checksum of a page whose pd_checksum counts as 0. */
inlined uint32_t page_sum(const unsigned char *page)
{
	columns s0, s1, s2, s3;
	unsigned char first[32];
	uint32_t result = 0;

	memcpy(&s0, base, 32);
	memcpy(&s1, base + 8, 32);
	memcpy(&s2, base + 16, 32);
	memcpy(&s3, base + 24, 32);
	memcpy(first, page, 32);
	first[8] = first[9] = 0;
	mix(&s0, first);
	mix(&s1, page + 32);
	mix(&s2, page + 64);
	mix(&s3, page + 96);
	for (const unsigned char *row = page + 128; row < page + PAGE; row += 128) {
		mix(&s0, row);
		mix(&s1, row + 32);
		mix(&s2, row + 64);
		mix(&s3, row + 96);
	}
	for (int i = 0; i < 2; i++) {
		mix_zero(&s0);
		mix_zero(&s1);
		mix_zero(&s2);
		mix_zero(&s3);
	}
	s0 ^= s1 ^ s2 ^ s3;
	for (int i = 0; i < 8; i++)
		result ^= s0[i];
	return result;
}

static int all_zero(const unsigned char *page)
{
	return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

inlined size_t verify(const unsigned char *page, size_t pages, uint32_t block, uint32_t *bad)
{
	size_t n = 0;

	for (; pages > 0; pages--, page += PAGE, block++) {
		int good;

		if (page[14] == 0 && page[15] == 0) /* pd_upper 0: never initialized */
			good = all_zero(page);
		else
			good = (page_sum(page) ^ block) % 65535 + 1 == (uint32_t)(page[8] | page[9] << 8);
		if (!good) {
			if (bad != NULL)
				bad[n] = block;
			n++;
		}
	}
	return n;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static size_t verify_avx2(const unsigned char *page, size_t pages, uint32_t block, uint32_t *bad)
{
	return verify(page, pages, block, bad);
}
#endif

size_t walkeep_verify_pages(const void *buf, size_t pages, uint32_t first_block, uint32_t *bad)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2"))
		return verify_avx2(buf, pages, first_block, bad);
#endif
	return verify(buf, pages, first_block, bad);
}
