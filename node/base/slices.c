/* slices.c - see slices.h */
#include "node/base/slices.h"

#include <limits.h>
#include <pthread.h>

#include "node/base/err.h"
#include "node/base/pool.h"

struct slices {
    slices_fn *fn;
    void *arg;
    unsigned first;
    pthread_mutex_t lock; /* guards what follows */
    unsigned failed;      /* UINT_MAX: none */
    int rc;
    struct err e;
};

static void one(void *arg, int task, int thread)
{
    (void)thread;
    struct slices *s = arg;
    unsigned i = s->first + (unsigned)task;
    struct err e = {0};
    int rc = s->fn(s->arg, i, &e);
    if (rc == 0)
        return;
    pthread_mutex_lock(&s->lock);
    if (i < s->failed) {
        s->failed = i;
        s->rc = rc;
        s->e = e;
    }
    pthread_mutex_unlock(&s->lock);
}

int slices_run(struct pool *pool, unsigned first, unsigned count, slices_fn *fn, void *arg,
               struct err *e)
{
    struct slices s = {.fn = fn, .arg = arg, .first = first, .failed = UINT_MAX};
    pthread_mutex_init(&s.lock, NULL);
    pool_run(pool, (int)count, one, &s);
    pthread_mutex_destroy(&s.lock);
    return s.rc == 0 ? 0 : err_set(e, s.rc, "%s", s.e.text);
}
