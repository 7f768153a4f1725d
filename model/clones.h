/*
 * clones.h - one function for several instruction sets
 *
 * The best one of a function marked CLONES is taken when the program starts. All give the same
 * bits, because none of them multiplies and adds at once. Under the thread sanitizer there is one:
 * what chooses would run before the sanitizer has begun.
 */
#ifndef SPINENODE_MODEL_CLONES_H
#define SPINENODE_MODEL_CLONES_H

#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CLONES
#endif

#endif
