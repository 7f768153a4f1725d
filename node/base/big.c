/* big.c - see big.h */
#include "node/base/big.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define LARGE_PAGE ((size_t)2 << 20)

void *big_alloc(size_t bytes)
{
    if (bytes < 2 * LARGE_PAGE || bytes > SIZE_MAX - LARGE_PAGE)
        return malloc(bytes);
    size_t whole = (bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    void *p = aligned_alloc(LARGE_PAGE, whole);
    if (p != NULL) /* advice: that it is not taken is no failure */
        madvise(p, whole, MADV_HUGEPAGE);
    return p;
}
