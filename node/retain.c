/*
 * retain.c - see retain.h
 *
 * Failure modes: killed between the rows and the files, the trash is emptied when this stage is
 * started again; a file that cannot be removed is logged and left to the sweep of the next start;
 * without the store it waits for the next turn.
 */
#include "node/retain.h"

#include <inttypes.h>

#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/log.h"

#include "node/config.h"
#include "node/stage.h"

/* Between two looks at what is old; more often when what is kept is kept for a shorter time. */
#define LOOK_MS     60000
#define LOOK_MIN_MS 100

/* Between two looks at the disk. */
#define ROOM_MS 1000

/* While it is too full and nothing could be removed. */
#define FULL_MS 5000

/* Series removed in one step; each is one transaction of a few milliseconds. */
#define STEP_MAX 4

static int64_t look_ms(const struct config_retention *c)
{
    int64_t ms = LOOK_MS;
    if (c->done_ms > 0 && c->done_ms / 4 < ms)
        ms = c->done_ms / 4;
    if (c->failed_ms > 0 && c->failed_ms / 4 < ms)
        ms = c->failed_ms / 4;
    return ms > LOOK_MIN_MS ? ms : LOOK_MIN_MS;
}

/* False: nothing was removed. */
static bool purge_one(struct retain *r, const struct store_retention *what, bool early)
{
    struct store_purged gone;
    struct err e;
    struct metrics *m = &r->st->shared->metrics;
    int rc = store_purge_next(r->s, what, &gone, &e);
    if (rc == ERR_NOT_FOUND)
        return false;
    if (rc != 0) {
        log_failure("store_failed", e.text);
        return false;
    }
    r->draining = true;
    atomic_fetch_add(&m->series_purged, 1);
    atomic_fetch_add(&m->instances_purged, (uint64_t)(gone.instances + gone.outputs));
    atomic_fetch_add(&m->bytes_purged, (uint64_t)gone.bytes);
    log_info("series_purged",
             "series=%s revision=%" PRId64 " jobs=%" PRId64 " instances=%" PRId64
             " outputs=%" PRId64 " bytes=%" PRId64 " why=%s",
             gone.series_uid, gone.revision, gone.jobs, gone.instances, gone.outputs, gone.bytes,
             early         ? "disk_full"
             : gone.failed ? "failed_ms"
                           : "done_ms");
    return true;
}

/* Files of what was removed. */
static void drain(struct retain *r)
{
    struct spool_emptied emptied;
    struct err e;
    char reason[ERR_TEXT_MAX];
    int rc = spool_trash(&r->st->spool, r->s, SPOOL_TRASH_MAX, &emptied, &e);
    if (rc != 0)
        log_failure("store_failed", e.text);
    else if (emptied.problems > 0)
        log_warning("files_not_removed", "files=%zu reason=%s", emptied.problems,
                    log_quote(reason, sizeof reason, emptied.problem.text));
    r->draining = rc == 0 && emptied.paths == SPOOL_TRASH_MAX;
}

/* Too full: what is delivered goes before its time. True: something went. */
static bool relieve(struct retain *r, int64_t now)
{
    const struct config *c = r->st->config;
    const struct config_limits *l = &c->limits;
    struct err e;
    char reason[ERR_TEXT_MAX];
    bool was_full = r->full;
    r->room_at = now + ROOM_MS;
    r->full = spool_room(&r->st->spool, l->disk_free_bytes, l->disk_free_percent, &e) == ERR_FULL;
    if (!r->full || c->retention.done_ms == 0)
        return false;
    /* A series that is just being sent again is not cut in two. */
    int64_t quiet = l->idle_ms + c->completeness.quiet_ms;
    const struct store_retention what = {.delivered_before = now - quiet};
    if (!was_full)
        log_warning("disk_full", "reason=%s action=\"delivered series are removed early\"",
                    log_quote(reason, sizeof reason, e.text));
    if (purge_one(r, &what, true)) {
        r->room_at = now; /* was it enough? */
        return true;
    }
    r->room_at = now + FULL_MS;
    return false;
}

static void look(struct retain *r, int64_t now)
{
    const struct config_retention *c = &r->st->config->retention;
    const struct store_retention what = {
        .done_before = c->done_ms > 0 ? now - c->done_ms : 0,
        .failed_before = c->failed_ms > 0 ? now - c->failed_ms : 0,
    };
    int n = 0;
    while (n < STEP_MAX && !stage_stopping(r->st) && purge_one(r, &what, false))
        n++;
    r->next_at = n < STEP_MAX ? now + look_ms(c) : now;
}

int64_t retain_round(struct retain *r)
{
    int64_t now = clock_wall_ms();
    const struct config_retention *c = &r->st->config->retention;
    bool keeps_all = c->done_ms == 0 && c->failed_ms == 0;
    if (!r->started)
        r->draining = r->started = true;
    if (keeps_all)
        r->next_at = INT64_MAX;
    if (r->draining)
        drain(r);
    /* The trash first: what is in it is room that is to be had, too. */
    if (!r->draining && now >= r->room_at)
        relieve(r, now);
    if (!r->draining && now >= r->next_at)
        look(r, now);
    if (r->draining)
        return now;
    int64_t next = r->next_at < r->room_at ? r->next_at : r->room_at;
    return next > now ? next : now + LOOK_MIN_MS;
}
