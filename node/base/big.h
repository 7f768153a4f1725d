/*
 * big.h - memory for arrays of many megabytes
 *
 * In large pages where the system has some to spare: a tenth of the page faults' time is left.
 */
#ifndef SPINENODE_BASE_BIG_H
#define SPINENODE_BASE_BIG_H

#include <stddef.h>

/* As malloc(); to be given to free(). NULL: no memory. */
void *big_alloc(size_t bytes);

#endif
