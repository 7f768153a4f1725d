/*
 * pool.c - see pool.h
 *
 * Steps of a small network last tens of microseconds, and waking a thread that sleeps takes as
 * long, in a virtual machine longer. So a worker spins for a short while before it sleeps, and the
 * caller does the same while the last tasks end. Under a loaded machine the spin is bounded: it
 * then costs at most that while per step.
 */
#include "node/base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "node/base/clock.h"
#include "node/base/err.h"

/* Longer than nearly all of a network's steps leave one thread waiting for another. */
#define SPIN_MS 0.1
/* Pauses between two looks at the clock: 1 to 3 µs, by processor. */
#define PAUSES 64

struct worker {
    struct pool *pool;
    int index;
    pthread_t thread;
};

struct pool {
    int threads;
    int started; /* workers that exist, to be joined */
    pool_fn *fn;
    void *arg;
    int tasks;
    atomic_int next;  /* task to take */
    atomic_int idle;  /* workers that are done with the present step */
    atomic_uint step; /* counts steps: a change wakes the workers */
    atomic_bool stop;
    pthread_mutex_t lock;  /* guards sleeping on step and idle */
    pthread_cond_t wake;   /* step changed */
    pthread_cond_t rested; /* idle reached its goal */
    pthread_mutex_t turn;  /* one pool_run() at a time */
    struct worker workers[];
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static bool step_is(struct pool *p, unsigned seen)
{
    return atomic_load(&p->step) == seen;
}

static bool others_work(struct pool *p, unsigned goal)
{
    return (unsigned)atomic_load(&p->idle) < goal;
}

/* Returns when waits(p, value) no longer holds, or after SPIN_MS. */
static void spin_while(bool (*waits)(struct pool *, unsigned), struct pool *p, unsigned value)
{
    double start = 0;
    while (waits(p, value)) {
        for (int i = 0; i < PAUSES && waits(p, value); i++)
            relax();
        double now = clock_exact_ms();
        if (start == 0)
            start = now;
        else if (now - start > SPIN_MS)
            return;
    }
}

static void take_tasks(struct pool *p, int thread)
{
    int tasks = p->tasks;
    for (;;) {
        int task = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (task >= tasks)
            return;
        p->fn(p->arg, task, thread);
    }
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    unsigned seen = 0;
    for (;;) {
        spin_while(step_is, p, seen);
        if (step_is(p, seen)) {
            pthread_mutex_lock(&p->lock);
            while (step_is(p, seen))
                pthread_cond_wait(&p->wake, &p->lock);
            pthread_mutex_unlock(&p->lock);
        }
        seen = atomic_load(&p->step);
        if (atomic_load(&p->stop))
            return NULL;
        take_tasks(p, w->index);
        if (atomic_fetch_add(&p->idle, 1) + 1 == p->threads - 1) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->rested);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

static void pin_to(pthread_t thread, int index)
{
    cpu_set_t may, one;
    if (sched_getaffinity(0, sizeof may, &may) != 0 || CPU_COUNT(&may) == 0)
        return;
    int want = index % CPU_COUNT(&may);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &may) && want-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            pthread_setaffinity_np(thread, sizeof one, &one);
            return;
        }
    }
}

int pool_new(struct pool **out, int threads, bool pin, struct err *e)
{
    if (threads < 1 || threads > POOL_THREADS_MAX)
        return err_set(e, ERR_LIMIT, "%d threads: give 1 to %d", threads, POOL_THREADS_MAX);
    struct pool *p = calloc(1, sizeof *p + (size_t)threads * sizeof p->workers[0]);
    if (!p)
        return err_set(e, ERR_NOMEM, "no memory for a pool of %d threads", threads);
    p->threads = threads;
    pthread_mutex_init(&p->lock, NULL);
    pthread_mutex_init(&p->turn, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->rested, NULL);
    for (int i = 1; i < threads; i++) {
        struct worker *w = &p->workers[i];
        w->pool = p;
        w->index = i;
        int rc = pthread_create(&w->thread, NULL, work, w);
        if (rc != 0) {
            pool_free(p);
            return err_errno(e, rc, "cannot start thread %d of %d", i + 1, threads);
        }
        p->started = i;
        if (pin)
            pin_to(w->thread, i);
    }
    *out = p;
    return 0;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->step, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i <= p->started; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->rested);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->turn);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

int pool_threads(const struct pool *p)
{
    return p ? p->threads : 1;
}

void pool_run(struct pool *p, int tasks, pool_fn *fn, void *arg)
{
    if (!p || p->threads == 1 || tasks <= 1) {
        /* A pool of one still serialises its callers: scratch memory is per thread index. */
        if (p)
            pthread_mutex_lock(&p->turn);
        for (int i = 0; i < tasks; i++)
            fn(arg, i, 0);
        if (p)
            pthread_mutex_unlock(&p->turn);
        return;
    }
    pthread_mutex_lock(&p->turn);
    p->fn = fn;
    p->arg = arg;
    p->tasks = tasks;
    atomic_store(&p->next, 0);
    atomic_store(&p->idle, 0);
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->step, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    take_tasks(p, 0);
    unsigned workers = (unsigned)p->threads - 1;
    spin_while(others_work, p, workers);
    if (others_work(p, workers)) {
        pthread_mutex_lock(&p->lock);
        while (others_work(p, workers))
            pthread_cond_wait(&p->rested, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
    pthread_mutex_unlock(&p->turn);
}
