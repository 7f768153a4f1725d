/*
 * store.h - what the stages ask of the database: the one source of truth of the node
 *
 * Instances come in, a series becomes complete, is planned into jobs, a job has outputs, each
 * output is delivered to each destination. Every function below is one transaction: it happened
 * whole and survives power loss once the call returned 0, or it did not happen. No SQL and no
 * database's type leaks from here; store_sqlite*.c stand behind it.
 *
 *   series      receiving ─▶ complete ─▶ planning ─▶ planned | refused
 *                   ▲  an instance that comes later makes a new revision ┘
 *   job         waiting ─▶ leased ─▶ done | failed | refused | cancelled | quarantined
 *   delivery    pending ─▶ sending ─▶ sent [─▶ committed] | failed
 *
 * Who works on a row holds it by a lease (owner and expiry); a row whose holder is gone goes back,
 * and what it does to its holders is counted.
 *
 * A state is moved only from the state that the caller believes in: when somebody else was faster
 * (a new revision, a lost lease, a cancellation) the call does nothing and says ERR_NOT_FOUND.
 *
 * Times are wall clock milliseconds (clock_wall_ms()), given by the caller. Paths are relative to
 * the spool. Functions may be called from several threads; a struct store must not cross a fork.
 * Texts longer than their field are refused (ERR_LIMIT), never cut, reasons excepted.
 * Errors everywhere: ERR_IO, ERR_FULL, ERR_NOMEM, ERR_TIMEOUT (the database stayed locked).
 */
#ifndef SPINENODE_STORE_H
#define SPINENODE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct store;

#define STORE_SCHEMA 2

/* Sizes of texts, terminator included. */
#define STORE_UID    65   /* PS3.5 9.1 */
#define STORE_AE     17   /* PS3.5 table 6.2-1 */
#define STORE_HEX    65   /* SHA-256 in hexadecimal */
#define STORE_NAME   65   /* task, destination, owner of a lease */
#define STORE_PATH   256  /* of one file in the spool */
#define STORE_LONG   1024 /* model file, parameters, list of destinations */
#define STORE_REASON 480

/* Most input series of one job, most destinations of one job. */
#define STORE_JOB_INPUTS       8
#define STORE_JOB_DESTINATIONS 16

/* Who lost it to the machine (power, kill of everything) that often is set aside, too. */
#define STORE_INTERRUPTIONS_MAX 10

#define STORE_SERIES_STATES(X)                                                                     \
    X(SERIES_RECEIVING, "receiving")                                                               \
    X(SERIES_COMPLETE, "complete")                                                                 \
    X(SERIES_PLANNING, "planning")                                                                 \
    X(SERIES_PLANNED, "planned")                                                                   \
    X(SERIES_REFUSED, "refused")

#define STORE_JOB_STATES(X)                                                                        \
    X(JOB_WAITING, "waiting")                                                                      \
    X(JOB_LEASED, "leased")                                                                        \
    X(JOB_DONE, "done")                                                                            \
    X(JOB_FAILED, "failed")                                                                        \
    X(JOB_REFUSED, "refused")                                                                      \
    X(JOB_CANCELLED, "cancelled")                                                                  \
    X(JOB_QUARANTINED, "quarantined")

#define STORE_DELIVERY_STATES(X)                                                                   \
    X(DELIVERY_PENDING, "pending")                                                                 \
    X(DELIVERY_SENDING, "sending")                                                                 \
    X(DELIVERY_SENT, "sent")                                                                       \
    X(DELIVERY_COMMITTED, "committed")                                                             \
    X(DELIVERY_FAILED, "failed")

#define X(name, word) name,
enum series_state { STORE_SERIES_STATES(X) SERIES_STATES };
enum job_state { STORE_JOB_STATES(X) JOB_STATES };
enum delivery_state { STORE_DELIVERY_STATES(X) DELIVERY_STATES };
#undef X

/* The words of the lists above. Static storage. */
const char *series_state_word(enum series_state state);
const char *job_state_word(enum job_state state);
const char *delivery_state_word(enum delivery_state state);

/* ---- the store itself -------------------------------------------------------------------- */

/* Opens the database, making it and its tables if they are not there. One of an older
 * schema is brought up to ours; of a newer one it is ERR_CONFIG and left alone. */
int store_open(struct store **out, const char *path, struct err *e);
void store_close(struct store *s); /* NULL is fine */

/* A number that changes when another connection (another process) changed the database. */
int store_version(struct store *s, int64_t *out, struct err *e);

struct store_recovery {
    int64_t series, jobs, deliveries; /* held by somebody who is gone: back in their queues */
    int64_t set_aside;                /* interrupted too often: refused or quarantined */
};

/* At the start of a node, before its stages: every lease whose owner begins with `node` is void.
 * Unlike a crash of one stage this is not the work's fault (power, kill of all), so it is counted
 * apart and forgiven STORE_INTERRUPTIONS_MAX times. Open associations are gone with it. */
int store_recover(struct store *s, const char *node, int64_t now, struct store_recovery *out,
                  struct err *e);

/* ---- instances ------------------------------------------------------------------------------ */

enum store_outcome {
    STORE_ADDED,
    STORE_SAME,     /* we have this very instance (same bytes, or in another transfer syntax) */
    STORE_CONFLICT, /* we have another one under that SOP Instance UID: the first is kept */
};

struct store_instance {
    char sop_uid[STORE_UID];
    char sop_class[STORE_UID];
    char study_uid[STORE_UID];
    char series_uid[STORE_UID];
    char transfer_syntax[STORE_UID];
    char calling_ae[STORE_AE];
    char path[STORE_PATH];
    char sha256[STORE_HEX]; /* of the data set's bytes */
    int64_t bytes;          /* size of the file */
    int64_t received_at;
    /* out */
    enum store_outcome outcome;
    char kept[STORE_PATH]; /* unless added: the file of the one that we have, */
    int64_t kept_bytes;    /* and its size */
};

/* Adds all of them in one transaction; list[i].outcome says what became of each. An added instance
 * puts its series (made if need be) into the receiving state; a series that was complete or beyond
 * gets its next revision. Two of one list may be the same instance. */
int store_instances_add(struct store *s, struct store_instance *const *list, size_t n,
                        struct err *e);

/* The instances of a series up to and including a revision, in order of arrival. *out is to be
 * freed with free(). */
int store_series_instances(struct store *s, int64_t series_id, int64_t revision,
                           struct store_instance **out, size_t *n, struct err *e);

/* Calls visit for every instance, oldest row first, until it returns non-zero, which is returned.
 * visit must not call the store. */
int store_instances_visit(struct store *s,
                          int (*visit)(void *context, const struct store_instance *instance),
                          void *context, struct err *e);

/* Forgets instances (by SOP Instance UID) whose file is not what the row says. Only for those that
 * can not have been acknowledged, or are lost anyway. */
int store_instances_forget(struct store *s, const char (*sop_uids)[STORE_UID], size_t n,
                           struct err *e);

/* An association that brought instances of these series has ended: their quiet time starts. */
int store_association_ended(struct store *s, const char (*series_uids)[STORE_UID], size_t n,
                            int64_t now, struct err *e);

/* The process that held all associations is gone: so are they, and the quiet time of what they were
 * bringing starts. store_recover() does the same. */
int store_associations_lost(struct store *s, int64_t now, struct err *e);

/* ---- series --------------------------------------------------------------------------------- */

struct store_series {
    int64_t id;
    char study_uid[STORE_UID]; /* of its first instance */
    char series_uid[STORE_UID];
    char calling_ae[STORE_AE]; /* of its first instance */
    enum series_state state;
    int64_t revision; /* 1, 2 … */
    int64_t instances;
    int64_t bytes;
    int64_t first_at, last_at; /* of its first and last instance */
    int64_t ended_at;          /* last end of an association that brought some; 0 = not yet */
    int64_t changed_at;
    int32_t attempts, crashes, interruptions;
    char reason[STORE_REASON]; /* refused: why; planned: what it is, and what was not done */
};

/* Up to `max` series in a state, the longest unchanged first. */
int store_series_list(struct store *s, enum series_state state, struct store_series *out,
                      size_t max, size_t *n, struct err *e);

/* Up to `max` series of a state (SERIES_STATES: of any), newest first. *out is to be freed with
 * free(). */
int store_series_recent(struct store *s, enum series_state state, size_t max,
                        struct store_series **out, size_t *n, struct err *e);

/* ERR_NOT_FOUND: there is none. */
int store_series_get(struct store *s, int64_t id, struct store_series *out, struct err *e);

/* receiving → complete, if it still is at this revision and this number of instances. */
int store_series_complete(struct store *s, int64_t id, int64_t revision, int64_t instances,
                          int64_t now, struct err *e);

/* Takes the next complete series for planning, under a lease. ERR_NOT_FOUND: there is none. */
int store_series_take(struct store *s, const char *owner, int64_t now, int64_t lease_ms,
                      struct store_series *out, struct err *e);

struct store_new_job {
    char key[STORE_HEX]; /* SHA-256 of (inputs, task, model's digest, parameters) */
    char task[STORE_NAME];
    char rule[STORE_NAME];
    char model[STORE_LONG]; /* file name in the models folder */
    char model_digest[STORE_HEX];
    char parameters[STORE_LONG];
    char destinations[STORE_JOB_DESTINATIONS][STORE_NAME];
    uint32_t destinations_count;
    int64_t inputs[STORE_JOB_INPUTS]; /* series ids; the first is the one that was planned */
    int64_t revisions[STORE_JOB_INPUTS];
    uint32_t inputs_count;
};

/* planning → planned, with its jobs. A job whose key is there already is not made again. *made says
 * how many were new. note (what it was recognised as, what was passed over) may be "". */
int store_series_planned(struct store *s, int64_t id, int64_t revision,
                         const struct store_new_job *jobs, size_t n, const char *note, int64_t now,
                         size_t *made, struct err *e);

/* planning → refused. */
int store_series_refused(struct store *s, int64_t id, int64_t revision, const char *reason,
                         int64_t now, struct err *e);

/* planning → complete, to be taken again at `next_try`. */
int store_series_return(struct store *s, int64_t id, int64_t revision, const char *reason,
                        int64_t next_try, int64_t now, struct err *e);

/* planned or refused → complete: plan it again (after a change of the rules). */
int store_series_retry(struct store *s, int64_t id, int64_t now, struct err *e);

/* ---- jobs ----------------------------------------------------------------------------------- */

struct store_job_input {
    int64_t series_id;
    int64_t revision;
    char series_uid[STORE_UID];
    char study_uid[STORE_UID];
};

struct store_job {
    int64_t id;
    char key[STORE_HEX];
    enum job_state state;
    char task[STORE_NAME];
    char rule[STORE_NAME];
    char model[STORE_LONG];
    char model_digest[STORE_HEX];
    char parameters[STORE_LONG];
    char destinations[STORE_JOB_DESTINATIONS][STORE_NAME];
    uint32_t destinations_count;
    struct store_job_input inputs[STORE_JOB_INPUTS];
    uint32_t inputs_count;
    int64_t outputs;
    int64_t created_at, changed_at, started_at, finished_at; /* 0 = not yet */
    int64_t next_try, lease_until;
    int64_t run_ms; /* of the attempt that succeeded */
    char owner[STORE_NAME];
    int32_t attempts, crashes, interruptions;
    bool cancel_asked;
    char reason[STORE_REASON];
};

/* Leases the oldest job that is due: waiting, or held under a lease that ran out (its holder is
 * taken for dead, which counts as a crash; at crashes_max the job is quarantined instead).
 * ERR_NOT_FOUND: there is none. */
int store_job_lease(struct store *s, const char *owner, int64_t now, int64_t lease_ms,
                    int32_t crashes_max, struct store_job *out, struct err *e);

/* The holder is alive. ERR_CANCELLED: somebody asked to stop it. ERR_NOT_FOUND: no longer ours. */
int store_job_renew(struct store *s, int64_t id, const char *owner, int64_t now, int64_t lease_ms,
                    struct err *e);

struct store_output {
    int64_t id; /* out */
    char sop_uid[STORE_UID];
    char sop_class[STORE_UID];
    char series_uid[STORE_UID];
    char study_uid[STORE_UID];
    char transfer_syntax[STORE_UID];
    char path[STORE_PATH];
    char sha256[STORE_HEX]; /* of the file */
    int64_t bytes;
};

/* leased → done, with its outputs and a pending delivery to each of its destinations. ERR_REFUSED:
 * the same work was done, and removed, before with other contents (store_purge_next()). */
int store_job_done(struct store *s, int64_t id, const char *owner, const struct store_output *list,
                   size_t n, int64_t run_ms, int64_t now, struct err *e);

/* A remark on a job that is done, in its reason: "marked UNSURE: ...". */
int store_job_note(struct store *s, int64_t id, const char *note, struct err *e);

/* leased → failed, refused or cancelled. */
int store_job_ended(struct store *s, int64_t id, const char *owner, enum job_state state,
                    const char *reason, int64_t now, struct err *e);

/* leased → waiting, until next_try. Neither a crash nor an interruption. */
int store_job_return(struct store *s, int64_t id, const char *owner, const char *reason,
                     int64_t next_try, int64_t now, struct err *e);

/* The stage that held leases as `owner` died of itself (a signal, an exit that was not asked for).
 * Its series, jobs and deliveries go back; a series or job that has now crashed crashes_max times
 * is refused or quarantined with the cause as its reason. */
int store_owner_died(struct store *s, const char *owner, const char *cause, int32_t crashes_max,
                     int64_t now, struct store_recovery *out, struct err *e);

/* The state of the job of that key, and a whole job. ERR_NOT_FOUND: there is none. */
int store_job_state(struct store *s, const char *key, enum job_state *out, struct err *e);
int store_job_get(struct store *s, int64_t id, struct store_job *out, struct err *e);

/* Up to `max` jobs, newest first; state JOB_STATES means any. *out is to be freed with free(). */
int store_jobs_list(struct store *s, enum job_state state, size_t max, struct store_job **out,
                    size_t *n, struct err *e);

/* A job's outputs, in the order that they were given to store_job_done(). *out is to be freed with
 * free(). */
int store_job_outputs(struct store *s, int64_t id, struct store_output **out, size_t *n,
                      struct err *e);

/* failed, refused, cancelled, quarantined → waiting, counts at zero. Of a job that is done: its
 * failed deliveries → pending. ERR_REFUSED with the reason if there is nothing to try again. */
int store_job_retry(struct store *s, int64_t id, int64_t now, struct err *e);

/* waiting → cancelled at once; leased: its holder is asked to stop. Of a job that is done: its
 * pending deliveries → failed. ERR_REFUSED with the reason if there is nothing to stop. */
int store_job_cancel(struct store *s, int64_t id, int64_t now, struct err *e);

/* ---- deliveries ----------------------------------------------------------------------------- */

struct store_delivery {
    int64_t id;
    int64_t job_id;
    char destination[STORE_NAME];
    enum delivery_state state;
    int32_t attempts; /* to send */
    int64_t due_at;   /* pending: next attempt; sent: request for commitment; 0 = nothing due */
    int64_t items, items_sent, items_committed;
    int32_t commit_asked;            /* how often storage commitment was asked for */
    char transaction_uid[STORE_UID]; /* of the last request; "" = never asked */
    int64_t created_at, changed_at;
    char reason[STORE_REASON]; /* the last error */
};

/* One instance on its way to one destination. */
struct store_item {
    int64_t id;
    bool sent;      /* acknowledged by the destination */
    bool committed; /* confirmed by storage commitment */
    struct store_output output;
};

/* Names of destinations that have something due at `now` (to send, or an overdue commitment), and
 * *next the time when the next will be (INT64_MAX: never). */
int store_deliveries_due(struct store *s, int64_t now, char (*out)[STORE_NAME], size_t max,
                         size_t *n, int64_t *next, struct err *e);

/* Takes the longest due delivery to that destination under a lease: pending → sending, or sent and
 * due for commitment (stays sent). ERR_NOT_FOUND: there is none. */
int store_delivery_take(struct store *s, const char *destination, const char *owner, int64_t now,
                        int64_t lease_ms, struct store_delivery *out, struct err *e);

/* The holder is alive. */
int store_delivery_renew(struct store *s, int64_t id, const char *owner, int64_t now,
                         int64_t lease_ms, struct err *e);

/* Its items, in the order of the job's outputs. *out is to be freed with free(). */
int store_delivery_items(struct store *s, int64_t id, struct store_item **out, size_t *n,
                         struct err *e);

/* The destination acknowledged these. */
int store_items_sent(struct store *s, const int64_t *ids, size_t n, int64_t now, struct err *e);

/* Gives up the lease: → pending (again at due_at), sent (all items are; commitment is to be asked
 * for at due_at, 0 = not at all) or failed. An attempt is counted only if `counts`. */
int store_delivery_ended(struct store *s, int64_t id, const char *owner, enum delivery_state state,
                         const char *reason, int64_t due_at, bool counts, int64_t now,
                         struct err *e);

/* sending (all items are sent) or sent → sent: storage commitment of what we hold is about to be
 * asked for under this transaction UID: to be called before the request leaves, so that an answer
 * always finds it. The lease runs until `until`; once the request is out, store_delivery_ended()
 * gives it up. */
int store_commitment_asked(struct store *s, int64_t id, const char *owner,
                           const char *transaction_uid, int64_t until, int64_t now, struct err *e);

struct store_commitment {
    char sop_uid[STORE_UID];
    uint16_t failure; /* 0 = committed, else the failure reason of PS3.3 C.14.1.1 */
};

/* The peer's answer. All committed: sent → committed. Items that it does not have go back to be
 * sent again (twice; then the delivery fails with the reason). ERR_NOT_FOUND: no such transaction.
 * *delivery_id (may be NULL) is set when it was found. */
int store_commitment_result(struct store *s, const char *transaction_uid,
                            const struct store_commitment *list, size_t n, int64_t now,
                            int64_t *delivery_id, struct err *e);

/* All deliveries of a job. *out is to be freed with free(). */
int store_job_deliveries(struct store *s, int64_t job_id, struct store_delivery **out, size_t *n,
                         struct err *e);

/* ---- retention ------------------------------------------------------------------------------ */

/* A series goes when it and everything that came of it has come to an end, and the last thing that
 * happened to any of it (an instance of it that came again included) lies before the time for its
 * kind; 0 = not this kind. Never, whatever its age: a series that is receiving, complete or
 * planning, that has a job waiting or leased, or a delivery pending, sending, held, or due for
 * (another request for) storage commitment. */
struct store_retention {
    int64_t done_before;      /* all jobs done, all deliveries sent or committed; refused series */
    int64_t failed_before;    /* a job that ended otherwise, or a delivery that failed */
    int64_t delivered_before; /* the first kind, but only planned series that have jobs */
};

struct store_purged {
    int64_t series_id;
    char series_uid[STORE_UID];
    int64_t revision;
    int64_t jobs, instances, outputs;
    int64_t bytes; /* of instances and outputs */
    bool failed;   /* of the second kind */
};

/* Removes the series that has been settled longest, whole, with its jobs, their outputs and their
 * deliveries. ERR_NOT_FOUND: there is none (or it moved just now). The files are still there; their
 * paths stand in the trash, from which spool_trash() removes them, also after a kill in between.
 *
 * Of a job that was done a line stays for ever (its key, when it was created, one digest of its
 * outputs): when the series is sent again later it is work like any other, but its job takes over
 * the old time of creation, so that the same UIDs get the same bytes. Should they not (other images
 * under the same UIDs, another program), store_job_done() refuses. A single instance that comes
 * late is a series of its own then. Ids are not used again. */
int store_purge_next(struct store *s, const struct store_retention *r, struct store_purged *out,
                     struct err *e);

/* Up to `max` paths in the trash, the oldest first: a received file, or "out/<key of a job>". */
int store_trash_list(struct store *s, char (*paths)[STORE_PATH], size_t max, size_t *n,
                     struct err *e);
/* Their files are gone. */
int store_trash_forget(struct store *s, const char (*paths)[STORE_PATH], size_t n, struct err *e);

/* ---- figures -------------------------------------------------------------------------------- */

struct store_stats {
    int64_t instances;
    int64_t series[SERIES_STATES];
    int64_t jobs[JOB_STATES];
    int64_t deliveries[DELIVERY_STATES];
    int64_t oldest_waiting_at; /* change of the job that waits longest; 0 = none waits */
};

int store_stats(struct store *s, struct store_stats *out, struct err *e);

#endif
