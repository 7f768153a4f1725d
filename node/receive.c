/*
 * receive.c - the stage that takes instances from the network
 *
 * Answers a C-STORE with success only when the instance is durable (intake.h). Callers are known
 * by AE title and address; whoever is not in the configuration is rejected.
 *
 *   0000  durable; also for an instance that we have already: nothing changes then
 *   A700  disk full, or the database does not answer; queue full, and it is of a series that this
 *         association has not begun to bring: send it again later
 *   A900  another instance came under this SOP Instance UID before: that one is kept. To answer
 *         success would hide that the sender's object is not the one that is processed
 *   0110  anything else that went wrong here
 *
 * Also takes storage commitment reports for what deliver.c sent.
 *
 * Failure modes: killed at any moment, what was acknowledged is there, what was not is swept; a
 * failing listening socket or database ends the process, and the supervisor starts it again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/log.h"

#include "dicom/dataset.h"
#include "dicom/scp.h"
#include "dicom/status.h"

#include "node/config.h"
#include "node/intake.h"
#include "node/network.h"
#include "node/stage.h"
#include "node/transport.h"

/* How long the count of what waits is good for. */
#define QUEUE_CHECK_MS 500

/* How long messages that are under way may take when the node stops. */
#define GRACE_MS 4000

/* Most series that one association is remembered for; with more, the oldest are told at once. */
#define TOUCHED_MAX 64

struct receive {
    struct stage *st;
    struct store *s;
    struct intake *in;
    atomic_int_fast64_t checked_at, waiting; /* the queue, as it was then */
};

/* The series that an association brought instances of. */
struct touched {
    char series[TOUCHED_MAX][STORE_UID];
    size_t n;
    bool refused_full; /* one was refused for the full queue: all of its series shall wait */
};

static void comment_set(char comment[COMMENT_BYTES], const char *text)
{
    snprintf(comment, COMMENT_BYTES, "%s", text);
}

static bool calls_from(const struct config_caller *caller, const char *address)
{
    for (uint32_t i = 0; i < caller->addresses_count; i++) {
        struct network network;
        if (network_parse(caller->addresses[i], &network, NULL) == 0 &&
            network_holds(&network, address))
            return true;
    }
    return false;
}

static int authorise(void *ctx, struct scp_peer *peer, enum scp_reject *why)
{
    struct receive *r = ctx;
    const struct config *c = r->st->config;
    bool known = false;
    for (uint32_t i = 0; i < c->callers_count; i++) {
        const struct config_caller *caller = &c->callers[i];
        if (strcmp(caller->ae_title, peer->calling_ae) != 0)
            continue;
        known = true;
        if (!calls_from(caller, peer->address))
            continue;
        peer->user = calloc(1, sizeof(struct touched));
        if (peer->user == NULL) {
            *why = SCP_REJECT_CONGESTION;
            return ERR_NOMEM;
        }
        atomic_fetch_add(&r->st->shared->metrics.associations, 1);
        atomic_fetch_add(&r->st->shared->metrics.associations_open, 1);
        return 0;
    }
    char calling[64];
    log_warning("association_refused", "calling=%s address=%s reason=%s",
                log_quote(calling, sizeof calling, peer->calling_ae), peer->address,
                known ? "\"this AE title may not call from this address (callers)\""
                      : "\"this AE title is not among callers\"");
    *why = SCP_REJECT_CALLING_AE;
    return ERR_REFUSED;
}

static void connection_refused(void *ctx, const char *address, const char *calling_ae,
                               const char *why)
{
    struct receive *r = ctx;
    char calling[64], reason[256];
    atomic_fetch_add(&r->st->shared->metrics.associations_rejected, 1);
    log_info("connection_ended", "address=%s calling=%s reason=%s", address,
             log_quote(calling, sizeof calling, calling_ae), log_quote(reason, sizeof reason, why));
}

static void echo(void *ctx, struct scp_peer *peer)
{
    struct receive *r = ctx;
    atomic_fetch_add(&r->st->shared->metrics.echoes, 1);
    log_debug("echo", "association=%llu", (unsigned long long)peer->id);
}

/* Counts the refusal and passes the status on. */
static uint16_t refuse(struct receive *r, uint16_t status)
{
    enum metrics_refusal kind = (status & 0xff00) == 0xa700   ? REFUSED_FULL
                                : (status & 0xff00) == 0xa900 ? REFUSED_MISMATCH
                                : (status & 0xf000) == 0xc000 ? REFUSED_UNREADABLE
                                                              : REFUSED_OTHER;
    atomic_fetch_add(&r->st->shared->metrics.refused[kind], 1);
    return status;
}

/* Is there more to do than the configuration wants to have waiting? A series that an association
 * has begun to bring is let in to its end all the same: cut in two it would be processed as half
 * of itself. */
static bool queue_full(struct receive *r)
{
    int64_t now = clock_mono_ms();
    if (now - atomic_load(&r->checked_at) >= QUEUE_CHECK_MS) {
        struct store_stats stats;
        atomic_store(&r->checked_at, now);
        if (store_stats(r->s, &stats, NULL) == 0)
            atomic_store(&r->waiting, stats.series[SERIES_COMPLETE] +
                                          stats.series[SERIES_PLANNING] + stats.jobs[JOB_WAITING]);
    }
    return atomic_load(&r->waiting) > r->st->config->limits.queue;
}

/* Says no to an instance for now. */
static uint16_t refuse_full(struct receive *r, const struct scp_peer *peer, const char *sop_uid,
                            const struct err *e, char comment[COMMENT_BYTES])
{
    char reason[ERR_TEXT_MAX];
    log_warning("instance_refused", "association=%llu sop=%s status=A700 reason=%s",
                (unsigned long long)peer->id, sop_uid, log_quote(reason, sizeof reason, e->text));
    comment_set(comment, e->code == ERR_FULL ? "disk or queue full, send it again later"
                                             : "cannot store now, send it again later");
    return refuse(r, STATUS_OUT_OF_RESOURCES);
}

static int queue_error(const struct receive *r, struct err *e)
{
    return err_set(e, ERR_FULL, "more than %d series wait to be processed (limits.queue)",
                   (int)r->st->config->limits.queue);
}

static uint16_t store_open_file(void *ctx, struct scp_peer *peer, const struct scp_store_rq *rq,
                                struct scp_sink *sink, char comment[COMMENT_BYTES])
{
    struct receive *r = ctx;
    const struct config_limits *limits = &r->st->config->limits;
    struct touched *t = peer->user;
    struct err e = {0};
    char relative[STORE_PATH];
    int rc = spool_room(&r->st->spool, limits->disk_free_bytes, limits->disk_free_percent, &e);
    /* Of which series it is, is known when it is here; store_done() asks again. */
    if (rc == 0 && t->n == 0 && (t->refused_full || queue_full(r))) {
        t->refused_full = true;
        rc = queue_error(r, &e);
    }
    if (rc == 0 && (rc = spool_incoming(&r->st->spool, rq->sop_instance, relative, &e)) >= 0) {
        sink->fd = rc;
        rc = spool_path(&r->st->spool, relative, sink->path, &e);
        if (rc == 0 && (sink->token = strdup(relative)) != NULL)
            return STATUS_SUCCESS;
        close(sink->fd);
        unlink(sink->path);
        rc = rc != 0 ? rc : err_set(&e, ERR_NOMEM, "no memory");
    }
    return refuse_full(r, peer, rq->sop_instance, &e, comment);
}

static void sink_close(struct scp_sink *sink, bool drop)
{
    close(sink->fd);
    if (drop)
        unlink(sink->path);
    free(sink->token);
    sink->token = NULL;
}

static void store_abort(void *ctx, struct scp_peer *peer, struct scp_sink *sink,
                        const struct scp_store_rq *rq, uint16_t status, const char *comment)
{
    struct receive *r = ctx;
    char reason[256];
    sink_close(sink, true);
    if (status == 0) {
        log_info("instance_broken_off", "association=%llu sop=%s", (unsigned long long)peer->id,
                 rq->sop_instance);
        return;
    }
    refuse(r, status);
    log_warning("instance_refused", "association=%llu sop=%s status=%04X reason=%s",
                (unsigned long long)peer->id, rq->sop_instance, status,
                log_quote(reason, sizeof reason, comment != NULL ? comment : ""));
}

static bool is_touched(const struct touched *t, const char *series)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->series[i], series) == 0)
            return true;
    return false;
}

static void touch(struct receive *r, struct touched *t, const char *series)
{
    if (is_touched(t, series))
        return;
    if (t->n == TOUCHED_MAX) {
        store_association_ended(r->s, (const char(*)[STORE_UID])t->series, t->n, clock_wall_ms(),
                                NULL);
        t->n = 0;
    }
    snprintf(t->series[t->n++], STORE_UID, "%s", series);
}

/* The sizes on both sides follow from the same standard; a mismatch shows as ERR_LIMIT. */
static int row_fill(struct store_instance *row, const struct instance *in, const char *relative,
                    struct err *e)
{
    memset(row, 0, sizeof *row);
    int rc = 0;
#define COPY(to, from)                                                                             \
    if (rc == 0 && strlen(from) < sizeof(to))                                                      \
        memcpy(to, from, strlen(from) + 1);                                                        \
    else if (rc == 0)                                                                              \
    rc = err_set(e, ERR_LIMIT, "a value is longer than %zu characters", sizeof(to) - 1)
    COPY(row->sop_uid, in->sop_instance);
    COPY(row->sop_class, in->sop_class);
    COPY(row->study_uid, in->study);
    COPY(row->series_uid, in->series);
    COPY(row->transfer_syntax, in->transfer_syntax);
    COPY(row->calling_ae, in->calling_ae);
    COPY(row->sha256, in->sha256);
    COPY(row->path, relative);
#undef COPY
    row->bytes = (int64_t)in->bytes;
    row->received_at = clock_wall_ms();
    return rc;
}

static uint16_t stored(struct receive *r, struct scp_peer *peer, const struct store_instance *row,
                       char comment[COMMENT_BYTES])
{
    struct metrics *m = &r->st->shared->metrics;
    switch (row->outcome) {
    case STORE_ADDED:
        atomic_fetch_add(&m->instances_in, 1);
        atomic_fetch_add(&m->bytes_in, (uint64_t)row->bytes);
        touch(r, peer->user, row->series_uid);
        log_debug("instance_stored", "association=%llu series=%s sop=%s bytes=%lld",
                  (unsigned long long)peer->id, row->series_uid, row->sop_uid,
                  (long long)row->bytes);
        return STATUS_SUCCESS;
    case STORE_SAME:
        atomic_fetch_add(&m->instances_known, 1);
        touch(r, peer->user, row->series_uid);
        log_debug("instance_known", "association=%llu series=%s sop=%s",
                  (unsigned long long)peer->id, row->series_uid, row->sop_uid);
        return STATUS_SUCCESS;
    case STORE_CONFLICT:
        break;
    }
    atomic_fetch_add(&m->instances_conflicting, 1);
    log_warning("instance_refused",
                "association=%llu series=%s sop=%s status=A900 reason=\"another instance came "
                "under this SOP Instance UID before; the first is kept\"",
                (unsigned long long)peer->id, row->series_uid, row->sop_uid);
    comment_set(comment, "another instance came under this SOP Instance UID before");
    return refuse(r, STATUS_DATA_SET_MISMATCH);
}

static uint16_t store_done(void *ctx, struct scp_peer *peer, struct scp_sink *sink,
                           const struct instance *instance, char comment[COMMENT_BYTES])
{
    struct receive *r = ctx;
    struct store_instance row;
    struct err e = {0};
    char reason[ERR_TEXT_MAX];
    struct touched *t = peer->user;
    if (!is_touched(t, instance->series) && (t->refused_full || queue_full(r))) {
        t->refused_full = true;
        sink_close(sink, true);
        queue_error(r, &e);
        return refuse_full(r, peer, instance->sop_instance, &e, comment);
    }
    int rc = row_fill(&row, instance, sink->token, &e);
    if (rc != 0) {
        sink_close(sink, true);
    } else {
        rc = intake_commit(r->in, sink->fd, &row, &e);
        sink_close(sink, false); /* intake removed it if it was not needed */
    }
    if (rc == 0)
        return stored(r, peer, &row, comment);
    uint16_t status = err_is_transient(rc) ? STATUS_OUT_OF_RESOURCES : STATUS_PROCESSING_FAILURE;
    log_error("instance_not_stored", "association=%llu sop=%s status=%04X reason=%s",
              (unsigned long long)peer->id, instance->sop_instance, status,
              log_quote(reason, sizeof reason, e.text));
    comment_set(comment, "could not be made durable, send it again later");
    return refuse(r, status);
}

static uint16_t commitment(void *ctx, struct scp_peer *peer, const struct commitment *report)
{
    struct receive *r = ctx;
    struct err e = {0};
    char reason[ERR_TEXT_MAX];
    int64_t delivery = 0;
    size_t failed = 0;
    struct store_commitment *list = calloc(report->count + 1, sizeof *list);
    int rc = list != NULL ? 0 : err_set(&e, ERR_NOMEM, "no memory for a report");
    for (size_t i = 0; i < report->count && rc == 0; i++) {
        const struct commitment_item *item = &report->items[i];
        snprintf(list[i].sop_uid, STORE_UID, "%s", item->sop_instance);
        list[i].failure = item->failed ? (item->reason ? item->reason : 0x0110) : 0;
        failed += item->failed;
    }
    if (rc == 0)
        rc = store_commitment_result(r->s, report->transaction, list, report->count,
                                     clock_wall_ms(), &delivery, &e);
    free(list);
    if (rc == 0) {
        atomic_fetch_add(&r->st->shared->metrics.commitments, 1);
        log_info("commitment_report", "association=%llu delivery=%lld committed=%zu failed=%zu",
                 (unsigned long long)peer->id, (long long)delivery, report->count - failed, failed);
        stage_wake(r->st, STAGE_DELIVER);
        return STATUS_SUCCESS;
    }
    log_warning("commitment_report_refused", "association=%llu reason=%s",
                (unsigned long long)peer->id, log_quote(reason, sizeof reason, e.text));
    return rc == ERR_NOT_FOUND ? STATUS_NO_SUCH_INSTANCE : STATUS_PROCESSING_FAILURE;
}

static void association_end(void *ctx, struct scp_peer *peer, const struct scp_counts *counts)
{
    struct receive *r = ctx;
    struct touched *t = peer->user;
    struct err e = {0};
    char reason[ERR_TEXT_MAX];
    if (t != NULL && t->n > 0 &&
        store_association_ended(r->s, (const char(*)[STORE_UID])t->series, t->n, clock_wall_ms(),
                                &e) != 0)
        log_failure("association_end_not_stored", e.text);
    if (t != NULL && t->n > 0)
        stage_wake(r->st, STAGE_PLAN);
    free(t);
    peer->user = NULL;
    atomic_fetch_sub(&r->st->shared->metrics.associations_open, 1);
    char calling[64];
    log_info("association_end",
             "association=%llu calling=%s address=%s stored=%u failed=%u "
             "bytes=%llu end=%s",
             (unsigned long long)peer->id, log_quote(calling, sizeof calling, peer->calling_ae),
             peer->address, counts->stored, counts->failed, (unsigned long long)counts->bytes,
             log_quote(reason, sizeof reason, counts->end != NULL ? counts->end : ""));
}

int receive_run(struct stage *st)
{
    struct receive r = {.st = st};
    const struct config *c = st->config;
    struct err e = {0};
    atomic_init(&r.checked_at, -QUEUE_CHECK_MS);
    atomic_store(&st->shared->metrics.associations_open, 0);
    const struct scp_handler handler = {.ctx = &r,
                                        .authorise = authorise,
                                        .store_open = store_open_file,
                                        .store_done = store_done,
                                        .store_abort = store_abort,
                                        .commitment = commitment,
                                        .echo = echo,
                                        .association_end = association_end,
                                        .connection_refused = connection_refused};
    const struct scp_config scp = {.ae_title = c->node.ae_title,
                                   .tls = transport_listener(st->transport),
                                   .associations = (unsigned)c->limits.associations,
                                   .negotiation_ms = c->limits.negotiation_ms,
                                   .idle_ms = c->limits.idle_ms,
                                   .grace_ms = GRACE_MS,
                                   .instance_bytes = (uint64_t)c->limits.instance_bytes,
                                   .digest = true};
    int rc = store_open(&r.s, c->node.database, &e);
    if (rc == 0)
        rc = intake_new(&r.in, r.s, &st->spool, &e);
    if (rc == 0) {
        stage_ready(st);
        rc = scp_run(st->listen_fd, &scp, &handler, st->stop_fd, &e);
    }
    if (rc != 0)
        log_failure("receive_failed", e.text);
    intake_free(r.in);
    store_close(r.s);
    return rc != 0;
}
