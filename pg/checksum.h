#ifndef WALKEEP_CHECKSUM_H
#define WALKEEP_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/*
 * Counts the bad pages among `pages` pages of 8192 bytes at buf, the first of
 * which is block first_block. If bad is not NULL it has room for `pages`
 * numbers and gets the block numbers of the bad ones.
 */
size_t walkeep_verify_pages(const void *buf, size_t pages, uint32_t first_block, uint32_t *bad);

#endif
