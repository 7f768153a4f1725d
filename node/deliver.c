/*
 * deliver.c - the stage that sends outputs to their destinations
 *
 * Each destination has a thread of its own while something is due for it, so a slow or dead one
 * holds up nobody else. The association is kept from one delivery to the next. What was
 * acknowledged is noted per instance, so a broken delivery goes on where it stopped; the note may
 * lag behind by a few, which are then sent twice: the same object under the same UID, which a PACS
 * takes as what it has.
 *
 *   can pass   network, time-out, A7xx, busy: pending again, after a wait that doubles up to the
 *              destination's cap, with jitter so that many nodes do not come back at once
 *   for good   A9xx, Cxxx, 0122, 0124, no accepted context, rejected: failed at once, with the
 * reason
 *
 * Storage commitment, if the destination is to give it, is asked for after the last instance. Its
 * answer is taken here if it comes at once on the same association, else by receive.c.
 *
 * Failure modes: killed at any moment, deliveries go back and resume.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/log.h"

#include "dicom/dataset.h"
#include "dicom/scu.h"
#include "dicom/uid.h"

#include "node/config.h"
#include "node/stage.h"
#include "node/transport.h"

/* Destinations served at once. */
#define LINES_MAX 32

/* Acknowledgements noted in one step. */
#define NOTE_EVERY 8

/* Most different SOP classes in one delivery. */
#define CLASSES_MAX 8

/* A report that comes on the association that asked is waited for so long. */
#define REPORT_MS 300

/* Storage commitment is asked for so often; the wait for an answer doubles from the first to the
 * second. */
#define COMMIT_ASKS_MAX    5
#define COMMIT_WAIT_MS     60000
#define COMMIT_WAIT_MAX_MS 3600000

struct deliver;

/* One destination at work. */
struct line {
    struct deliver *d;
    const struct config_destination *to; /* NULL: no longer in the configuration */
    char name[STORE_NAME];
    pthread_t thread;
    bool used, done; /* done: to be joined; under d->lock */
    int64_t not_before;
    struct scu *scu;
};

struct deliver {
    struct stage *st;
    struct store *s;
    pthread_mutex_t lock;
    struct line lines[LINES_MAX];
};

static int64_t lease_ms(const struct config_destination *to)
{
    return 60000 + 3 * (int64_t)to->timeout_ms;
}

static int64_t backoff_ms(const struct config_retry *retry, int32_t attempts)
{
    int64_t wait = retry->first_ms;
    uint16_t chance = 0;
    for (int32_t i = 0; i < attempts && wait < retry->longest_ms; i++)
        wait *= 2;
    if (wait > retry->longest_ms)
        wait = retry->longest_ms;
    if (getrandom(&chance, sizeof chance, 0) != sizeof chance)
        chance = 32768;
    return wait - wait / 4 + (wait / 2) * chance / 65536;
}

static void line_close(struct line *l)
{
    scu_close(l->scu);
    l->scu = NULL;
}

/* An association that takes every class of the items (and commitment requests, if wanted). */
static int line_open(struct line *l, const struct store_item *items, size_t n, struct err *e)
{
    static const char *const syntaxes[] = {SYNTAX_EXPLICIT_LE, SYNTAX_IMPLICIT_LE};
    struct scu_offer offers[CLASSES_MAX + 1];
    size_t count = 0;
    bool fits = l->scu != NULL && !scu_broken(l->scu);
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        const char *class = items[i].output.sop_class;
        while (k < count && strcmp(offers[k].sop_class, class) != 0)
            k++;
        if (k < count)
            continue;
        if (count == CLASSES_MAX)
            return err_set(e, ERR_LIMIT, "more than %d SOP classes in one delivery", CLASSES_MAX);
        offers[count++] = (struct scu_offer){class, syntaxes, 2};
        fits = fits && (scu_accepts(l->scu, class, SYNTAX_EXPLICIT_LE) ||
                        scu_accepts(l->scu, class, SYNTAX_IMPLICIT_LE));
    }
    if (fits)
        return 0;
    line_close(l);
    if (l->to->commitment)
        offers[count++] = scu_offer_commitment;
    struct scu_target target;
    transport_target(l->d->st->transport, l->to, l->to->timeout_ms, &target);
    return scu_open(&target, offers, count, &l->scu, e);
}

/* Acknowledged instances that are not noted yet. */
struct noted {
    int64_t ids[NOTE_EVERY];
    size_t n;
};

static int note(struct line *l, struct noted *noted, struct err *e)
{
    int rc = noted->n > 0 ? store_items_sent(l->d->s, noted->ids, noted->n, clock_wall_ms(), e) : 0;
    if (rc == 0)
        noted->n = 0;
    return rc;
}

static int item_send(struct line *l, const struct store_item *item, struct err *e)
{
    char path[PATH_BYTES], comment[160];
    struct scu_answer answer = {0};
    struct metrics *m = &l->d->st->shared->metrics;
    int rc = spool_path(&l->d->st->spool, item->output.path, path, e);
    if (rc == 0)
        rc = scu_store(l->scu, path, &answer, e);
    if (rc != 0)
        return rc;
    atomic_fetch_add(&m->instances_out, 1);
    atomic_fetch_add(&m->bytes_out, (uint64_t)item->output.bytes);
    if (answer.warning)
        log_warning("sent_with_warning", "destination=%s sop=%s status=%04X comment=%s", l->name,
                    item->output.sop_uid, answer.status,
                    log_quote(comment, sizeof comment, answer.comment));
    return 0;
}

/* Sends what is not sent yet. ERR_CANCELLED: told to stop. */
static int items_send(struct line *l, const struct store_delivery *delivery,
                      const struct store_item *items, size_t n, size_t *sent, struct err *e)
{
    struct noted noted = {.n = 0};
    struct stage *st = l->d->st;
    int64_t renewed = clock_mono_ms();
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (items[i].sent)
            continue;
        if (stage_stopping(st)) {
            rc = err_set(e, ERR_CANCELLED, "the node stops");
            break;
        }
        if (clock_mono_ms() - renewed > lease_ms(l->to) / 3) {
            rc = store_delivery_renew(l->d->s, delivery->id, st->owner, clock_wall_ms(),
                                      lease_ms(l->to), e);
            renewed = clock_mono_ms();
        }
        if (rc == 0)
            rc = item_send(l, &items[i], e);
        if (rc == 0) {
            ++*sent;
            noted.ids[noted.n++] = items[i].id;
            if (noted.n == NOTE_EVERY)
                rc = note(l, &noted, e);
        }
    }
    struct err note_e;
    int note_rc = note(l, &noted, &note_e);
    if (rc == 0 && note_rc != 0) {
        *e = note_e;
        rc = note_rc;
    }
    return rc;
}

/* What becomes of a delivery that did not go through. */
static void delivery_failed(struct line *l, const struct store_delivery *delivery, int rc,
                            const struct err *e)
{
    struct deliver *d = l->d;
    const struct config_retry *retry = &l->to->retry;
    int64_t now = clock_wall_ms();
    char reason[ERR_TEXT_MAX], text[STORE_REASON];
    log_quote(reason, sizeof reason, e->text);
    if (rc == ERR_CANCELLED) {
        store_delivery_ended(d->s, delivery->id, d->st->owner, DELIVERY_PENDING, delivery->reason,
                             now, false, now, NULL);
        return;
    }
    metrics_error(d->st->shared->metrics.deliveries_failed, rc);
    bool gave_up = retry->attempts > 0 && delivery->attempts + 1 >= retry->attempts;
    if (err_is_transient(rc) && !gave_up) {
        int64_t wait = backoff_ms(retry, delivery->attempts);
        log_warning("delivery_put_off",
                    "delivery=%" PRId64 " job=%" PRId64 " destination=%s attempt=%d "
                    "again_in_ms=%" PRId64 " reason=%s",
                    delivery->id, delivery->job_id, l->name, (int)delivery->attempts + 1, wait,
                    reason);
        store_delivery_ended(d->s, delivery->id, d->st->owner, DELIVERY_PENDING, e->text,
                             now + wait, true, now, NULL);
        return;
    }
    if (err_is_transient(rc))
        snprintf(text, sizeof text, "gave up after %d attempts: %.400s",
                 (int)delivery->attempts + 1, e->text);
    else
        snprintf(text, sizeof text, "%s", e->text);
    log_error("delivery_failed",
              "delivery=%" PRId64 " job=%" PRId64 " destination=%s class=%s reason=%s",
              delivery->id, delivery->job_id, l->name, err_word(rc),
              log_quote(reason, sizeof reason, text));
    store_delivery_ended(d->s, delivery->id, d->st->owner, DELIVERY_FAILED, text, 0, true, now,
                         NULL);
}

/* The answer to a commitment request that came on our own association. */
static void report_take(struct line *l, const struct commitment *report)
{
    struct err e;
    char reason[ERR_TEXT_MAX];
    struct store_commitment *list = calloc(report->count + 1, sizeof *list);
    if (list == NULL)
        return; /* it is asked for again */
    for (size_t i = 0; i < report->count; i++) {
        const struct commitment_item *item = &report->items[i];
        snprintf(list[i].sop_uid, STORE_UID, "%s", item->sop_instance);
        list[i].failure = item->failed ? (item->reason ? item->reason : 0x0110) : 0;
    }
    if (store_commitment_result(l->d->s, report->transaction, list, report->count, clock_wall_ms(),
                                NULL, &e) == 0)
        atomic_fetch_add(&l->d->st->shared->metrics.commitments, 1);
    else
        log_warning("commitment_report_refused", "destination=%s reason=%s", l->name,
                    log_quote(reason, sizeof reason, e.text));
    free(list);
}

static int transaction_uid(const struct store_delivery *delivery, char out[UID_BYTES],
                           struct err *e)
{
    char id[32], chance_text[40];
    uint64_t chance[2];
    if (getrandom(chance, sizeof chance, 0) != sizeof chance)
        return err_set(e, ERR_IO, "cannot get random bytes");
    snprintf(id, sizeof id, "%" PRId64, delivery->id);
    snprintf(chance_text, sizeof chance_text, "%016" PRIx64 "%016" PRIx64, chance[0], chance[1]);
    const char *const parts[] = {"storage commitment", id, chance_text};
    return uid_derive(out, "", parts, 3, e);
}

/* Asks for commitment of a delivery that is sent. */
static int commitment_ask(struct line *l, const struct store_delivery *delivery,
                          const struct store_item *items, size_t n, int64_t *due, struct err *e)
{
    struct deliver *d = l->d;
    struct commitment request = {.count = n}, report;
    int64_t now = clock_wall_ms(), wait = COMMIT_WAIT_MS;
    if (delivery->commit_asked >= COMMIT_ASKS_MAX)
        return err_set(e, ERR_PEER_REFUSED,
                       "sent and acknowledged, but storage commitment was asked for %d times and "
                       "never confirmed: does the destination know this node's address and port?",
                       (int)delivery->commit_asked);
    for (int32_t i = 0; i < delivery->commit_asked && wait < COMMIT_WAIT_MAX_MS; i++)
        wait *= 2;
    *due = now + wait;
    int rc = transaction_uid(delivery, request.transaction, e);
    request.items = calloc(n + 1, sizeof *request.items);
    if (rc == 0 && request.items == NULL)
        rc = err_set(e, ERR_NOMEM, "no memory for a commitment request");
    for (size_t i = 0; i < n && rc == 0; i++) {
        snprintf(request.items[i].sop_class, UID_BYTES, "%s", items[i].output.sop_class);
        snprintf(request.items[i].sop_instance, UID_BYTES, "%s", items[i].output.sop_uid);
    }
    if (rc == 0)
        rc = store_commitment_asked(d->s, delivery->id, d->st->owner, request.transaction, *due,
                                    now, e);
    if (rc == 0)
        rc = scu_commit(l->scu, &request, NULL, e);
    if (rc == 0) {
        log_info("commitment_asked", "delivery=%" PRId64 " destination=%s instances=%zu",
                 delivery->id, l->name, n);
        if (scu_wait_report(l->scu, REPORT_MS, &report, NULL) == 0) {
            report_take(l, &report);
            commitment_fini(&report);
        }
    }
    commitment_fini(&request);
    return rc;
}

/* One delivery, as far as it goes now. False: the destination needs a rest. */
static bool delivery_do(struct line *l, struct store_delivery *delivery)
{
    struct deliver *d = l->d;
    struct store_item *items = NULL;
    struct err e = {0};
    size_t n = 0, sent = 0;
    int64_t now, due = 0;
    bool fresh = delivery->state == DELIVERY_SENDING;
    if (l->to == NULL) {
        now = clock_wall_ms();
        log_error("delivery_failed",
                  "delivery=%" PRId64 " destination=%s reason=\"no longer in "
                  "the configuration\"",
                  delivery->id, l->name);
        store_delivery_ended(d->s, delivery->id, d->st->owner, DELIVERY_FAILED,
                             "the destination is no longer in the configuration", 0, false, now,
                             NULL);
        return true;
    }
    int rc = store_delivery_items(d->s, delivery->id, &items, &n, &e);
    if (rc == 0)
        rc = line_open(l, items, n, &e);
    bool opened = rc == 0;
    if (rc == 0 && fresh)
        rc = items_send(l, delivery, items, n, &sent, &e);
    if (rc == 0 && fresh) {
        log_info("delivery_sent",
                 "delivery=%" PRId64 " job=%" PRId64 " destination=%s instances=%zu", delivery->id,
                 delivery->job_id, l->name, sent);
        delivery->state = DELIVERY_SENT;
    }
    if (rc == 0 && l->to->commitment)
        rc = commitment_ask(l, delivery, items, n, &due, &e);
    free(items);
    now = clock_wall_ms();
    if (rc == 0) {
        store_delivery_ended(d->s, delivery->id, d->st->owner, DELIVERY_SENT, "", due, fresh, now,
                             NULL);
        return true;
    }
    if (rc == ERR_NOT_FOUND && opened && !fresh)
        return true; /* the answer was faster */
    if (delivery->state == DELIVERY_SENT && err_is_transient(rc) && rc != ERR_CANCELLED) {
        /* All is there; only commitment has to be asked for again. */
        int64_t wait = backoff_ms(&l->to->retry, delivery->commit_asked);
        store_delivery_ended(d->s, delivery->id, d->st->owner, DELIVERY_SENT, e.text, now + wait,
                             fresh, now, NULL);
    } else {
        delivery_failed(l, delivery, rc, &e);
    }
    if (l->scu != NULL && scu_broken(l->scu))
        line_close(l);
    return opened;
}

static void *line_run(void *argument)
{
    struct line *l = argument;
    struct deliver *d = l->d;
    struct store_delivery delivery;
    struct err e = {0};
    while (!stage_stopping(d->st)) {
        int rc = store_delivery_take(d->s, l->name, d->st->owner, clock_wall_ms(),
                                     l->to != NULL ? lease_ms(l->to) : 60000, &delivery, &e);
        if (rc != 0) {
            if (rc != ERR_NOT_FOUND)
                log_failure("store_failed", e.text);
            break;
        }
        if (!delivery_do(l, &delivery)) {
            l->not_before = clock_wall_ms() + (l->to != NULL ? l->to->retry.first_ms : 0);
            break;
        }
    }
    line_close(l);
    pthread_mutex_lock(&d->lock);
    l->done = true;
    pthread_mutex_unlock(&d->lock);
    stage_wake(d->st, STAGE_DELIVER);
    return NULL;
}

/* Joins lines that are done; all: waits for the others, too. */
static void lines_join(struct deliver *d, bool all)
{
    for (size_t i = 0; i < LINES_MAX; i++) {
        struct line *l = &d->lines[i];
        pthread_mutex_lock(&d->lock);
        bool join = l->used && (l->done || all);
        pthread_mutex_unlock(&d->lock);
        if (!join)
            continue;
        pthread_join(l->thread, NULL);
        l->used = false;
    }
}

/* The line of a destination: its own, or a free one. NULL: it is at work, or rests, or none is
 * free. *when: when to look again. */
static struct line *line_find(struct deliver *d, const char *name, int64_t now, int64_t *when)
{
    struct line *vacant = NULL;
    for (size_t i = 0; i < LINES_MAX; i++) {
        struct line *l = &d->lines[i];
        if (strcmp(l->name, name) == 0) {
            if (l->used)
                return NULL;
            if (l->not_before > now) {
                *when = l->not_before < *when ? l->not_before : *when;
                return NULL;
            }
            return l;
        }
        if (!l->used && (vacant == NULL || l->not_before < vacant->not_before))
            vacant = l;
    }
    return vacant;
}

/* Starts a line for each destination with something due. Returns when to look again. */
static int64_t lines_start(struct deliver *d)
{
    char names[LINES_MAX][STORE_NAME];
    size_t n = 0;
    int64_t now = clock_wall_ms(), next = INT64_MAX;
    struct err e;
    if (store_deliveries_due(d->s, now, names, LINES_MAX, &n, &next, &e) != 0) {
        log_failure("store_failed", e.text);
        return now + STAGE_POLL_MS;
    }
    for (size_t i = 0; i < n; i++) {
        struct line *l = line_find(d, names[i], now, &next);
        if (l == NULL)
            continue;
        memset(l, 0, sizeof *l);
        l->d = d;
        memcpy(l->name, names[i], STORE_NAME);
        l->to = config_destination_find(d->st->config, l->name);
        l->used = true;
        int error = pthread_create(&l->thread, NULL, line_run, l);
        if (error != 0) {
            l->used = false;
            log_error("line_not_started", "destination=%s reason=\"%s\"", l->name, strerror(error));
            next = now + STAGE_POLL_MS;
        }
    }
    return next;
}

int deliver_run(struct stage *st)
{
    struct deliver *d = calloc(1, sizeof *d);
    struct err e = {0};
    int rc = d != NULL ? dicom_init(&e) : err_set(&e, ERR_NOMEM, "no memory");
    if (rc == 0) {
        d->st = st;
        pthread_mutex_init(&d->lock, NULL);
        rc = store_open(&d->s, st->config->node.database, &e);
    }
    if (rc == 0) {
        stage_ready(st);
        for (bool stop = false; !stop;) {
            lines_join(d, false);
            int64_t next = lines_start(d);
            stop = stage_wait(st, next == INT64_MAX ? STAGE_POLL_MS : next - clock_wall_ms());
        }
        lines_join(d, true);
    } else {
        log_failure("deliver_failed", e.text);
    }
    if (d != NULL)
        store_close(d->s);
    free(d);
    return rc != 0;
}
