/*
 * stage.h - what every stage has in common: its place in the node, its wake-ups, its figures
 *
 * A stage is one process, forked by supervise.c. It meets the others in the store and the spool
 * only. What they share besides is harmless to lose: hints that there may be something to do
 * (eventfds; the store is asked anyway, once a second), and counters for /metrics.
 */
#ifndef SPINENODE_STAGE_H
#define SPINENODE_STAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "node/spool.h"
#include "node/store.h"

struct config;
struct err;
struct transport;

#define STAGES(X)                                                                                  \
    X(STAGE_RECEIVE, "receive")                                                                    \
    X(STAGE_PLAN, "plan")                                                                          \
    X(STAGE_WORK, "work")                                                                          \
    X(STAGE_DELIVER, "deliver")                                                                    \
    X(STAGE_OBSERVE, "observe")

#define X(name, word) name,
enum stage_kind { STAGES(X) STAGE_KINDS };
#undef X

const char *stage_word(enum stage_kind kind);

/* Most worker processes. */
#define STAGE_WORKERS_MAX 64

/* The store is asked at least this often, for what other machines and `spinenode jobs` did. */
#define STAGE_POLL_MS 1000

/* Upper bounds of the histogram of inference seconds; the last is +Inf. */
#define METRICS_BUCKETS                                                                            \
    {                                                                                              \
        0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300                                                 \
    }
#define METRICS_BUCKET_COUNT 10

/* Statuses answered to C-STORE, failures by class. */
enum metrics_refusal {
    REFUSED_FULL,       /* A7xx */
    REFUSED_MISMATCH,   /* A9xx */
    REFUSED_UNREADABLE, /* Cxxx */
    REFUSED_OTHER,
    REFUSED_KINDS
};

/* One struct per error code of err.h: index is -code. */
#define METRICS_ERRORS 24

/* Engines, for figures of their own: index of engine_figures. */
#define METRICS_ENGINES 3
int metrics_engine(const char *name); /* "ref", "cpu", "cuda" */
const char *metrics_engine_word(int i);

struct engine_figures {
    atomic_uint_fast64_t images, busy_us; /* images made, time that the engine worked for them */
    atomic_uint_fast64_t last_images, last_us; /* of the last job */
};

/* In memory that all stages share; from the start of the supervisor. */
struct metrics {
    atomic_uint_fast64_t associations, associations_rejected, echoes;
    atomic_int_fast64_t associations_open;
    atomic_uint_fast64_t instances_in, bytes_in, instances_known, instances_conflicting;
    atomic_uint_fast64_t refused[REFUSED_KINDS];
    atomic_uint_fast64_t series_planned, series_refused, series_late, jobs_made;
    atomic_uint_fast64_t jobs_marked, jobs_refused_quality; /* by the quality gate */
    atomic_uint_fast64_t jobs_done, jobs_failed[METRICS_ERRORS];
    struct engine_figures engine[METRICS_ENGINES];
    atomic_uint_fast64_t tuned_kept, tuned_made, fallbacks;
    atomic_uint_fast64_t inference_buckets[METRICS_BUCKET_COUNT + 1], inference_ms;
    atomic_uint_fast64_t instances_out, bytes_out, deliveries_failed[METRICS_ERRORS];
    atomic_uint_fast64_t commitments;
    atomic_uint_fast64_t series_purged, instances_purged, bytes_purged;
    atomic_uint_fast64_t restarts[STAGE_KINDS];
};

struct stage_shared {
    struct metrics metrics;
    atomic_int ready[STAGE_KINDS]; /* how many processes of the kind are */
    /* Since when (wall clock, ms) senders can reach us without a break; 0 = they can not. */
    atomic_int_fast64_t receiving_since;
};

/* A stage's view; also the supervisor's. */
struct stage {
    enum stage_kind kind;
    int number; /* of the worker, from 1; 0 for the others */
    const struct config *config;
    struct transport *transport; /* after fork: what this stage needs of it */
    struct spool spool;
    char node[STORE_NAME];  /* begins the owner of every lease of this node */
    char owner[STORE_NAME]; /* "<node>work-1" */
    struct stage_shared *shared;
    int listen_fd, http_fd; /* -1: none */
    int wake_fd[STAGE_KINDS];
    int ready_fd; /* tells the supervisor that somebody became ready */
    int stop_fd;  /* readable once this process is to stop */
};

/* "<host>/": what the owner of a lease begins with. */
void stage_node_name(char out[STORE_NAME]);
void stage_owner_name(char out[STORE_NAME], const char *node, enum stage_kind kind, int number);

/* There may be something to do for that stage. */
void stage_wake(const struct stage *st, enum stage_kind kind);

/* Waits until there may be something to do, or ms (at most STAGE_POLL_MS) passed. True: stop. */
bool stage_wait(const struct stage *st, int64_t ms);
bool stage_stopping(const struct stage *st);

/* It does its work now. Called once by each process. */
void stage_ready(const struct stage *st);

/* What work_run() returns when its GPU failed: the job went back, a new process may go on. */
#define STAGE_EXIT_DEVICE 3

/* A failure counted by its code. */
void metrics_error(atomic_uint_fast64_t *errors, int code);

/* The five. Each returns the exit status of its process: 0 when it was told to stop. */
int receive_run(struct stage *st);
int plan_run(struct stage *st);
int work_run(struct stage *st);
int deliver_run(struct stage *st);
int observe_run(struct stage *st);

#endif
