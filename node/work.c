/*
 * work.c - the stage that does the jobs, one at a time in each worker process
 *
 * Leases a job, reads its series, lets node/synthesise.h make the outputs in a folder of its own,
 * makes them durable, moves them to their place and enters job, outputs and deliveries in one
 * step. A second thread renews the lease and hears of cancellation. A repeat gives the same UIDs
 * and the same bytes, so work that was lost can be done again without harm.
 *
 * Failure modes: killed at any moment, the job goes back (the third time it is set aside); what
 * can pass (memory, disk, device) is tried again later, a limited number of times; all else fails
 * with its reason. When the GPU fails, the job goes back and this process ends, since nothing but a
 * new one can use the GPU again. When told to stop it gives the job back after the slice that it is
 * at.
 */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "node/base/clock.h"
#include "node/base/digest.h"
#include "node/base/err.h"
#include "node/base/log.h"

#include "dicom/dataset.h"
#include "dicom/sop.h"
#include "dicom/series.h"

#include "node/config.h"
#include "node/load.h"
#include "node/parameters.h"
#include "node/stage.h"
#include "node/synthesise.h"

/* A compiled model is kept in memory for so long after its last job. */
#define KEEP_MODEL_MS 60000

/* What can pass is tried so often; waits double from the first to the second. */
#define RETRIES_MAX  6
#define RETRY_MS     5000
#define RETRY_MAX_MS 300000

/* A job is left to the engine's fallback, where there is one, when it is tried so often. */
#define FALLBACK_ATTEMPT 3

struct work {
    struct stage *st;
    struct store *s;
    struct synthesiser *synthesiser; /* NULL until the first job, and when idle for long */
    int64_t used_at;
    /* the heart beat's */
    pthread_mutex_t lock;
    pthread_cond_t woken;
    int64_t job; /* 0: none to renew */
    bool quit;
    atomic_bool cancelled, lost;
    bool device_failed; /* this process can use the GPU no more */
};

static void *heart_beat(void *argument)
{
    struct work *w = argument;
    const struct config_work *c = &w->st->config->work;
    pthread_mutex_lock(&w->lock);
    while (!w->quit) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        int64_t ms = w->job != 0 ? c->lease_ms / 3 : 3600000;
        if (w->job != 0 && ms > STAGE_POLL_MS)
            ms = STAGE_POLL_MS; /* so that a cancellation is heard soon */
        until.tv_sec += ms / 1000;
        until.tv_nsec += ms % 1000 * 1000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        pthread_cond_timedwait(&w->woken, &w->lock, &until);
        int64_t job = w->job;
        if (job == 0 || w->quit)
            continue;
        pthread_mutex_unlock(&w->lock);
        int rc = store_job_renew(w->s, job, w->st->owner, clock_wall_ms(), c->lease_ms, NULL);
        pthread_mutex_lock(&w->lock);
        if (w->job == job && rc == ERR_CANCELLED)
            atomic_store(&w->cancelled, true);
        if (w->job == job && rc == ERR_NOT_FOUND)
            atomic_store(&w->lost, true);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void heart_set(struct work *w, int64_t job)
{
    pthread_mutex_lock(&w->lock);
    w->job = job;
    if (job != 0) {
        atomic_store(&w->cancelled, false);
        atomic_store(&w->lost, false);
    }
    pthread_cond_signal(&w->woken);
    pthread_mutex_unlock(&w->lock);
}

static bool stopped(void *closure)
{
    struct work *w = closure;
    return atomic_load(&w->cancelled) || atomic_load(&w->lost) || stage_stopping(w->st);
}

static int progress(void *closure, unsigned done, unsigned total)
{
    (void)done;
    (void)total;
    return stopped(closure);
}

/* The outputs as the store wants them. Their files are in `folder` and will be in out/<key>. */
static int outputs_list(const struct store_job *job, const struct synthesis_result *result,
                        const char *folder, const char *study, struct store_output **out,
                        struct err *e)
{
    struct store_output *list = calloc(result->count + 1, sizeof *list);
    int rc = list != NULL ? 0 : err_set(e, ERR_NOMEM, "no memory for %u outputs", result->count);
    for (unsigned i = 0; i < result->count && rc == 0; i++) {
        const struct synthesis_output *from = &result->output[i];
        char path[PATH_BYTES];
        struct stat st;
        snprintf(list[i].sop_uid, STORE_UID, "%s", from->sop_instance_uid);
        snprintf(list[i].sop_class, STORE_UID, "%s", from->sop_class_uid);
        snprintf(list[i].series_uid, STORE_UID, "%s", result->series_uid);
        snprintf(list[i].study_uid, STORE_UID, "%s", study);
        snprintf(list[i].transfer_syntax, STORE_UID, "%s", SYNTAX_EXPLICIT_LE);
        snprintf(list[i].path, STORE_PATH, "out/%s/%s", job->key, from->file);
        rc = file_join(path, folder, from->file, e);
        if (rc == 0)
            rc = digest_file(path, list[i].sha256, e);
        if (rc == 0 && stat(path, &st) != 0)
            rc = err_errno(e, errno, "cannot see %s", path);
        if (rc == 0)
            list[i].bytes = st.st_size;
    }
    if (rc != 0) {
        free(list);
        return rc;
    }
    *out = list;
    return 0;
}

static int synthesise_job(struct work *w, const struct store_job *job, const struct series *series,
                          const char *folder, struct synthesis_result *result, struct err *e)
{
    const struct config *c = w->st->config;
    struct parameters parameters;
    struct config_gate quality;
    char model[PATH_BYTES], created[32];
    struct tm when;
    time_t seconds = (time_t)(job->created_at / 1000);
    localtime_r(&seconds, &when);
    strftime(created, sizeof created, "%Y%m%d%H%M%S", &when);
    int rc = parameters_decode(job->parameters, &parameters, e);
    if (rc == 0)
        rc = parameters_gate_read(&parameters, &quality, e);
    if (rc == 0)
        rc = file_join(model, c->models.folder, job->model, e);
    if (rc == 0 && w->synthesiser == NULL)
        rc = synthesiser_new(&c->engine, w->st->number, &w->synthesiser, e);
    if (rc != 0)
        return rc;
    const struct synthesis what = {
        .series = series,
        .contrast = parameters.contrast,
        .model_path = model,
        .model_digest = job->model_digest,
        .key = job->key,
        .type = parameters.mr_image ? SECONDARY_MR : SECONDARY_CAPTURE,
        .description = parameters.description,
        .qualification = parameters.qualification,
        .salt = c->node.site_salt,
        .created = created,
        .quality = &quality,
        .folder = folder,
        .by_fallback = job->attempts >= FALLBACK_ATTEMPT,
        .progress = progress,
        .stop = stopped,
        .closure = w,
    };
    return synthesise(w->synthesiser, &what, result, e);
}

static void seconds_count(struct metrics *m, double ms)
{
    static const double bounds[] = METRICS_BUCKETS;
    size_t i = 0;
    while (i < METRICS_BUCKET_COUNT && ms / 1000.0 > bounds[i])
        i++;
    atomic_fetch_add(&m->inference_buckets[i], 1);
    atomic_fetch_add(&m->inference_ms, (uint64_t)ms);
}

/* What the engine did, for /metrics and the log. */
static void engine_count(struct work *w, const struct store_job *job,
                         const struct synthesis_result *r)
{
    struct metrics *m = &w->st->shared->metrics;
    struct engine_figures *f = &m->engine[metrics_engine(r->engine_name)];
    char reason[ERR_TEXT_MAX];
    uint64_t us = (uint64_t)(r->run_ms * 1e3);
    atomic_fetch_add(&f->images, r->count);
    atomic_fetch_add(&f->busy_us, us);
    atomic_store(&f->last_images, r->count);
    atomic_store(&f->last_us, us);
    atomic_fetch_add(&m->tuned_kept, (uint64_t)r->tuned.kept);
    atomic_fetch_add(&m->tuned_made, (uint64_t)r->tuned.made);
    seconds_count(m, r->run_ms);
    if (!r->fell_back)
        return;
    atomic_fetch_add(&m->fallbacks, 1);
    log_warning("engine_fallback", "job=%" PRId64 " engine=%s reason=%s", job->id, r->engine_name,
                log_quote(reason, sizeof reason,
                          r->fallback_reason[0] ? r->fallback_reason : "it failed on the GPU"));
}

static const char *quality_word(const struct synthesis_result *r)
{
    return !r->input.calibrated && r->outcome == QUALITY_PASS ? "not-calibrated"
                                                              : quality_outcome_name(r->outcome);
}

/* What the images themselves say, also where the admin looks. */
static void note_doubt(struct work *w, const struct store_job *job,
                       const struct synthesis_result *r)
{
    char text[ERR_TEXT_MAX + 16], quoted[ERR_TEXT_MAX];
    struct err e;
    snprintf(text, sizeof text, "marked UNSURE: %s", r->doubt);
    atomic_fetch_add(&w->st->shared->metrics.jobs_marked, 1);
    log_warning("job_marked", "job=%" PRId64 " task=%s reason=%s", job->id, job->task,
                log_quote(quoted, sizeof quoted, r->doubt));
    if (store_job_note(w->s, job->id, text, &e) != 0)
        log_warning("store_failed", "reason=%s", log_quote(quoted, sizeof quoted, e.text));
}

/* Everything up to the entry into the store. */
static int job_do(struct work *w, const struct store_job *job, struct err *e)
{
    struct series *series = NULL;
    struct synthesis_result result = {0};
    struct store_output *outputs = NULL;
    bool made = false, published = false;
    char folder[PATH_BYTES];
    int64_t began = clock_mono_ms();
    int rc = load_spooled(&w->st->spool, w->s, &w->st->config->limits, job->inputs[0].series_id,
                          job->inputs[0].revision, &series, e);
    if (rc == 0)
        rc = spool_work_begin(&w->st->spool, job->key, w->st->number, folder, e);
    if (rc == 0) {
        rc = synthesise_job(w, job, series, folder, &result, e);
        made = rc == 0;
    }
    if (rc == 0)
        rc = outputs_list(job, &result, folder, series->study_uid, &outputs, e);
    /* Nobody else may hold the job when its folder is put into place. */
    if (rc == 0)
        rc = store_job_renew(w->s, job->id, w->st->owner, clock_wall_ms(),
                             w->st->config->work.lease_ms, e);
    if (rc == 0)
        rc = spool_work_publish(&w->st->spool, job->key, w->st->number, e);
    if (rc == 0) {
        published = true;
        rc = store_job_done(w->s, job->id, w->st->owner, outputs, result.count,
                            clock_mono_ms() - began, clock_wall_ms(), e);
    }
    if (rc == 0) {
        atomic_fetch_add(&w->st->shared->metrics.jobs_done, 1);
        engine_count(w, job, &result);
        log_info("job_done",
                 "job=%" PRId64 " task=%s outputs=%u quality=%s engine=%s batch=%u load_ms=%.0f "
                 "compile_ms=%.0f read_ms=%.0f run_ms=%.0f gate_ms=%.0f write_ms=%.0f "
                 "total_ms=%" PRId64,
                 job->id, job->task, result.count, quality_word(&result), result.engine_name,
                 result.batch, result.load_ms, result.compile_ms, result.read_ms, result.run_ms,
                 result.gate_ms, result.write_ms, clock_mono_ms() - began);
        if (result.outcome == QUALITY_MARK)
            note_doubt(w, job, &result);
        synthesiser_settle(w->synthesiser);
    } else {
        spool_work_drop(&w->st->spool, job->key, w->st->number);
        if (published && (rc == ERR_CANCELLED || rc == ERR_REFUSED))
            spool_output_drop(&w->st->spool, job->key);
    }
    free(outputs);
    if (made)
        synthesis_result_fini(&result);
    series_free(series);
    return rc;
}

/* What becomes of a job that was not done. */
static void job_end(struct work *w, const struct store_job *job, int rc, const struct err *e)
{
    char reason[ERR_TEXT_MAX];
    struct metrics *m = &w->st->shared->metrics;
    int64_t now = clock_wall_ms();
    log_quote(reason, sizeof reason, e->text);
    if (atomic_load(&w->lost)) {
        log_warning("job_lost", "job=%" PRId64 " reason=\"the lease ran out\"", job->id);
        return;
    }
    if (rc == ERR_CANCELLED && !atomic_load(&w->cancelled) && stage_stopping(w->st)) {
        log_info("job_given_back", "job=%" PRId64 " reason=\"the node stops\"", job->id);
        store_job_return(w->s, job->id, w->st->owner, "", now, now, NULL);
        return;
    }
    if (rc == ERR_CANCELLED) {
        log_info("job_cancelled", "job=%" PRId64 " task=%s", job->id, job->task);
        store_job_ended(w->s, job->id, w->st->owner, JOB_CANCELLED, "cancelled", now, NULL);
        return;
    }
    metrics_error(m->jobs_failed, rc);
    if (rc == ERR_REFUSED && strncmp(e->text, "quality: ", 9) == 0)
        atomic_fetch_add(&m->jobs_refused_quality, 1);
    if (err_is_transient(rc) && job->attempts < RETRIES_MAX) {
        /* A new process finds out at once whether the GPU is still there, or the CPU may help. */
        bool at_once = rc == ERR_DEVICE && synthesiser_may_fall_back(w->synthesiser);
        int64_t wait = (int64_t)RETRY_MS << (job->attempts > 0 ? job->attempts - 1 : 0);
        wait = at_once ? 0 : wait < RETRY_MAX_MS ? wait : RETRY_MAX_MS;
        log_warning("job_put_off", "job=%" PRId64 " attempt=%d again_in_ms=%" PRId64 " reason=%s",
                    job->id, (int)job->attempts, wait, reason);
        store_job_return(w->s, job->id, w->st->owner, e->text, now + wait, now, NULL);
        return;
    }
    enum job_state state = rc == ERR_REFUSED ? JOB_REFUSED : JOB_FAILED;
    log_error("job_failed", "job=%" PRId64 " task=%s state=%s class=%s reason=%s", job->id,
              job->task, job_state_word(state), err_word(rc), reason);
    store_job_ended(w->s, job->id, w->st->owner, state, e->text, now, NULL);
}

/* Does one job. False: none is due. */
static bool work_next(struct work *w, struct store_job *job)
{
    const struct config_work *c = &w->st->config->work;
    struct err e = {0};
    int rc =
        store_job_lease(w->s, w->st->owner, clock_wall_ms(), c->lease_ms, c->crashes_max, job, &e);
    if (rc == ERR_NOT_FOUND)
        return false;
    if (rc != 0) {
        log_failure("store_failed", e.text);
        return false;
    }
    /* Another worker may sleep beside a second job that waits. */
    stage_wake(w->st, STAGE_WORK);
    heart_set(w, job->id);
    log_info("job_leased",
             "job=%" PRId64 " task=%s rule=%s series=%s revision=%" PRId64 " attempt=%d", job->id,
             job->task, job->rule, job->inputs[0].series_uid, job->inputs[0].revision,
             (int)job->attempts);
    rc = job_do(w, job, &e);
    heart_set(w, 0);
    w->device_failed = rc == ERR_DEVICE && w->synthesiser != NULL; /* else nobody touched it */
    w->used_at = clock_mono_ms();
    if (rc == 0)
        stage_wake(w->st, STAGE_DELIVER);
    else
        job_end(w, job, rc, &e);
    return true;
}

static void memory_give_back(struct work *w)
{
    if (w->synthesiser == NULL || clock_mono_ms() - w->used_at < KEEP_MODEL_MS)
        return;
    synthesiser_free(w->synthesiser);
    w->synthesiser = NULL;
    malloc_trim(0);
}

int work_run(struct stage *st)
{
    struct work w = {.st = st};
    struct store_job *job = malloc(sizeof *job);
    struct err e = {0};
    pthread_t heart;
    bool beats = false;
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.woken, NULL);
    int rc = job != NULL ? dicom_init(&e) : err_set(&e, ERR_NOMEM, "no memory");
    if (rc == 0)
        rc = store_open(&w.s, st->config->node.database, &e);
    if (rc == 0) {
        int error = pthread_create(&heart, NULL, heart_beat, &w);
        beats = error == 0;
        rc = beats ? 0 : err_errno(&e, error, "cannot start a thread");
    }
    if (rc == 0) {
        stage_ready(st);
        for (bool stop = false; !stop;) {
            while (!w.device_failed && !stage_stopping(st) && work_next(&w, job))
                ;
            memory_give_back(&w);
            stop = w.device_failed || stage_wait(st, STAGE_POLL_MS);
        }
        if (w.device_failed)
            log_error("device_failed", "number=%d reason=\"the GPU failed; this worker ends\"",
                      st->number);
    } else {
        log_failure("work_failed", e.text);
    }
    if (beats) {
        pthread_mutex_lock(&w.lock);
        w.quit = true;
        pthread_cond_signal(&w.woken);
        pthread_mutex_unlock(&w.lock);
        pthread_join(heart, NULL);
    }
    synthesiser_free(w.synthesiser);
    store_close(w.s);
    pthread_mutex_destroy(&w.lock);
    pthread_cond_destroy(&w.woken);
    free(job);
    return rc != 0 ? 1 : w.device_failed ? STAGE_EXIT_DEVICE : 0;
}
