/* clock.h - time in milliseconds; monotonic for intervals, wall for what people and files see */
#ifndef SPINENODE_BASE_CLOCK_H
#define SPINENODE_BASE_CLOCK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

int64_t clock_mono_ms(void); /* since an arbitrary start; never goes back */
double clock_exact_ms(void); /* clock_mono_ms() with its fractions, to measure with */
double clock_cpu_ms(void);   /* CPU time of all threads of the process so far */
int64_t clock_wall_ms(void); /* since 1970-01-01T00:00:00Z */
void clock_sleep_ms(int64_t ms);

#ifdef __cplusplus
}
#endif

#endif
