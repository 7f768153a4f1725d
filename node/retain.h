/*
 * retain.h - keeps the spool from filling up with what is over
 *
 * Removes what is older than config_retention says; and, when less is free than config_limits
 * demands, what is wholly delivered, oldest first. Done in small steps between the planner's other
 * work: in its process, because it is the one that makes jobs (spool_trash()).
 */
#ifndef SPINENODE_RETAIN_H
#define SPINENODE_RETAIN_H

#include <stdbool.h>
#include <stdint.h>

struct stage;
struct store;

/* The caller sets the first two, the rest is zero. */
struct retain {
    struct stage *st;
    struct store *s;
    int64_t next_at; /* the next look at what is old */
    int64_t room_at; /* ... at the disk */
    bool full;       /* it was too full at the last */
    bool draining;   /* there is (or may be, after a start) something in the trash */
    bool started;
};

/* One step, if it is time for one. Returns when (wall clock) the next is due. */
int64_t retain_round(struct retain *r);

#endif
