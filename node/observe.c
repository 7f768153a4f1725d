/*
 * observe.c - the stage that shows what the node does: HTTP, read only
 *
 *   /healthz   200 while this process and the supervisor live
 *   /readyz    200 when every stage works and the spool has room; else 503 and why
 *   /metrics   Prometheus text: queues and states from the store, counters since the node started
 *   /          the same for people; no scripts, nothing about patients
 *
 * Failure modes: more connections than CONNECTIONS_MAX are closed; without the store /metrics and /
 * answer 503, and the other stages do not notice.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "node/base/buf.h"
#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/log.h"

#include "cuda/nvml.h"
#include "node/config.h"
#include "node/http.h"
#include "node/observe_engine.h"
#include "node/stage.h"
#include "node/transport.h"

#define CONNECTIONS_MAX 32
#define IDLE_SECONDS    10
#define PAGE_MAX        (256 * 1024)

struct observe {
    struct stage *st;
    struct store *s;
    struct nvml *gpus; /* NULL: no NVIDIA driver */
    struct http http;
    struct MHD_Daemon *daemon;
};

/* ---- /readyz -------------------------------------------------------------------------------- */

/* Why not ready, one line each; empty: ready. */
static void ready_write(struct observe *o, struct buf *out)
{
    const struct config_limits *l = &o->st->config->limits;
    struct store_stats stats;
    struct err e;
    for (int kind = 0; kind < STAGE_KINDS; kind++)
        if (atomic_load(&o->st->shared->ready[kind]) == 0)
            buf_printf(out, "stage %s does not work\n", stage_word((enum stage_kind)kind));
    if (spool_room(&o->st->spool, l->disk_free_bytes, l->disk_free_percent, &e) != 0)
        buf_printf(out, "%s\n", e.text);
    if (store_stats(o->s, &stats, &e) != 0)
        buf_printf(out, "%s\n", e.text);
    else if (stats.series[SERIES_COMPLETE] + stats.series[SERIES_PLANNING] +
                 stats.jobs[JOB_WAITING] >
             l->queue)
        buf_printf(out, "more than %d series wait to be processed\n", (int)l->queue);
}

/* ---- /metrics ------------------------------------------------------------------------------- */

static void gauge(struct buf *out, const char *name, const char *help, int64_t value)
{
    metric_head(out, name, "gauge", help);
    buf_printf(out, "spinenode_%s %" PRId64 "\n", name, value);
}

static void errors(struct buf *out, const char *name, const char *help,
                   atomic_uint_fast64_t *values)
{
    metric_head(out, name, "counter", help);
    for (int i = 0; i < METRICS_ERRORS; i++) {
        const char *word = i == 0 ? "other" : err_word(-i);
        if (strcmp(word, "unknown") != 0)
            buf_printf(out, "spinenode_%s{class=\"%s\"} %" PRIu64 "\n", name, word,
                       (uint64_t)atomic_load(&values[i]));
    }
}

static void states_write(struct buf *out, const struct store_stats *stats)
{
    metric_head(out, "series", "gauge", "Series by state.");
    for (int i = 0; i < SERIES_STATES; i++)
        buf_printf(out, "spinenode_series{state=\"%s\"} %" PRId64 "\n",
                   series_state_word((enum series_state)i), stats->series[i]);
    metric_head(out, "jobs", "gauge", "Jobs by state.");
    for (int i = 0; i < JOB_STATES; i++)
        buf_printf(out, "spinenode_jobs{state=\"%s\"} %" PRId64 "\n",
                   job_state_word((enum job_state)i), stats->jobs[i]);
    metric_head(out, "deliveries", "gauge", "Deliveries by state.");
    for (int i = 0; i < DELIVERY_STATES; i++)
        buf_printf(out, "spinenode_deliveries{state=\"%s\"} %" PRId64 "\n",
                   delivery_state_word((enum delivery_state)i), stats->deliveries[i]);
    metric_head(out, "queue_depth", "gauge", "What waits for each stage.");
    const struct {
        const char *stage;
        int64_t depth;
    } queues[] = {
        {"plan", stats->series[SERIES_COMPLETE] + stats->series[SERIES_PLANNING]},
        {"work", stats->jobs[JOB_WAITING] + stats->jobs[JOB_LEASED]},
        {"deliver", stats->deliveries[DELIVERY_PENDING] + stats->deliveries[DELIVERY_SENDING]},
    };
    for (size_t i = 0; i < sizeof queues / sizeof *queues; i++)
        buf_printf(out, "spinenode_queue_depth{stage=\"%s\"} %" PRId64 "\n", queues[i].stage,
                   queues[i].depth);
    gauge(out, "instances_held", "Received instances in the store.", stats->instances);
    gauge(out, "oldest_job_age_seconds", "Age of the job that waits longest.",
          stats->oldest_waiting_at ? (clock_wall_ms() - stats->oldest_waiting_at) / 1000 : 0);
}

static void network_write(struct buf *out, struct metrics *m)
{
    static const char *const refusals[REFUSED_KINDS] = {"full", "mismatch", "unreadable", "other"};
    metric_counter(out, "associations_total", "Associations accepted.", &m->associations);
    metric_counter(out, "associations_rejected_total",
                   "Connections that never became associations.", &m->associations_rejected);
    gauge(out, "associations_open", "Associations now.", atomic_load(&m->associations_open));
    metric_counter(out, "echoes_total", "C-ECHO requests answered.", &m->echoes);
    metric_counter(out, "instances_received_total", "Instances made durable.", &m->instances_in);
    metric_counter(out, "bytes_received_total", "Bytes of them.", &m->bytes_in);
    metric_counter(out, "instances_known_total", "Instances that came again.", &m->instances_known);
    metric_head(out, "instances_refused_total", "counter",
                "C-STORE requests refused, by kind of status.");
    for (int i = 0; i < REFUSED_KINDS; i++)
        buf_printf(out, "spinenode_instances_refused_total{status=\"%s\"} %" PRIu64 "\n",
                   refusals[i], (uint64_t)atomic_load(&m->refused[i]));
    metric_counter(out, "instances_sent_total", "Instances acknowledged by destinations.",
                   &m->instances_out);
    metric_counter(out, "bytes_sent_total", "Bytes of them.", &m->bytes_out);
    metric_counter(out, "series_purged_total", "Series removed by age or for want of room.",
                   &m->series_purged);
    metric_counter(out, "instances_purged_total", "Instances and results removed with them.",
                   &m->instances_purged);
    metric_counter(out, "bytes_purged_total", "Bytes of them.", &m->bytes_purged);
    metric_counter(out, "commitment_reports_total", "Storage commitment reports taken.",
                   &m->commitments);
    errors(out, "delivery_failures_total", "Failed attempts to deliver, by class.",
           m->deliveries_failed);
}

static void work_write(struct buf *out, struct metrics *m)
{
    static const double bounds[] = METRICS_BUCKETS;
    uint64_t sum = 0;
    metric_counter(out, "series_planned_total", "Series with jobs made.", &m->series_planned);
    metric_counter(out, "series_refused_total", "Series refused.", &m->series_refused);
    metric_counter(out, "jobs_made_total", "Jobs made.", &m->jobs_made);
    metric_counter(out, "jobs_done_total", "Jobs done.", &m->jobs_done);
    metric_counter(out, "jobs_marked_total", "Results marked UNSURE by the quality gate.",
                   &m->jobs_marked);
    metric_counter(out, "jobs_quality_refused_total", "Jobs refused by the quality gate.",
                   &m->jobs_refused_quality);
    errors(out, "job_failures_total", "Failed attempts at jobs, by class.", m->jobs_failed);
    metric_head(out, "inference_seconds", "histogram",
                "Seconds in the model, one observation per job.");
    for (int i = 0; i <= METRICS_BUCKET_COUNT; i++) {
        sum += atomic_load(&m->inference_buckets[i]);
        if (i < METRICS_BUCKET_COUNT)
            buf_printf(out, "spinenode_inference_seconds_bucket{le=\"%g\"} %" PRIu64 "\n",
                       bounds[i], sum);
        else
            buf_printf(out, "spinenode_inference_seconds_bucket{le=\"+Inf\"} %" PRIu64 "\n", sum);
    }
    buf_printf(out, "spinenode_inference_seconds_sum %.3f\n",
               (double)atomic_load(&m->inference_ms) / 1000.0);
    buf_printf(out, "spinenode_inference_seconds_count %" PRIu64 "\n", sum);
    metric_head(out, "stage_restarts_total", "counter",
                "Stages that ended unasked and were restarted.");
    for (int i = 0; i < STAGE_KINDS; i++)
        buf_printf(out, "spinenode_stage_restarts_total{stage=\"%s\"} %" PRIu64 "\n",
                   stage_word((enum stage_kind)i), (uint64_t)atomic_load(&m->restarts[i]));
}

/* As a time, so that an alert can be written against time(). */
static void certificates_write(struct buf *out, const struct transport *t)
{
    const char *destination;
    int64_t not_after;
    for (uint32_t i = 0; transport_certificate(t, i, &destination, &not_after); i++) {
        if (i == 0)
            metric_head(out, "certificate_not_after_seconds", "gauge",
                        "Until when a certificate of this node is valid, in seconds since 1970.");
        buf_puts(out, "spinenode_certificate_not_after_seconds{side=");
        if (destination != NULL)
            buf_printf(out, "\"destination\",name=\"%s\"", destination);
        else
            buf_puts(out, "\"listener\"");
        buf_printf(out, "} %" PRId64 "\n", not_after);
    }
}

static int metrics_write(struct observe *o, struct buf *out)
{
    struct store_stats stats;
    int rc = store_stats(o->s, &stats, NULL);
    if (rc != 0)
        return rc;
    metric_head(out, "build_info", "gauge", "The program.");
    buf_printf(out, "spinenode_build_info{version=\"%s\"} 1\n", SPINENODE_VERSION);
    metric_head(out, "stage_ready", "gauge", "Processes of each stage that work.");
    for (int i = 0; i < STAGE_KINDS; i++)
        buf_printf(out, "spinenode_stage_ready{stage=\"%s\"} %d\n", stage_word((enum stage_kind)i),
                   atomic_load(&o->st->shared->ready[i]));
    states_write(out, &stats);
    network_write(out, &o->st->shared->metrics);
    work_write(out, &o->st->shared->metrics);
    certificates_write(out, o->st->transport);
    observe_engine_write(out, &o->st->shared->metrics, o->gpus);
    return 0;
}

/* ---- the page ------------------------------------------------------------------------------- */

/* HTML text. */
static void escaped(struct buf *out, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '<':
            buf_puts(out, "&lt;");
            break;
        case '>':
            buf_puts(out, "&gt;");
            break;
        case '&':
            buf_puts(out, "&amp;");
            break;
        case '"':
            buf_puts(out, "&quot;");
            break;
        default:
            buf_add(out, text, 1);
        }
    }
}

static void row(struct buf *out, const char *name, int64_t value)
{
    buf_printf(out, "<tr><td>%s</td><td>%" PRId64 "</td></tr>\n", name, value);
}

static void when_write(struct buf *out, int64_t ms)
{
    char text[32];
    struct tm tm;
    time_t seconds = (time_t)(ms / 1000);
    localtime_r(&seconds, &tm);
    strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
    buf_puts(out, text);
}

static void refused_write(struct observe *o, struct buf *out)
{
    struct store_job *jobs = NULL;
    struct store_series *series = NULL;
    size_t n = 0;
    buf_puts(out, "<h2>Failed, refused, set aside</h2><table><tr><th>what</th><th>when</th>"
                  "<th>why</th></tr>\n");
    static const enum job_state states[] = {JOB_QUARANTINED, JOB_FAILED, JOB_REFUSED};
    for (size_t k = 0; k < 3; k++) {
        if (store_jobs_list(o->s, states[k], 20, &jobs, &n, NULL) != 0)
            continue;
        for (size_t i = 0; i < n; i++) {
            buf_printf(out, "<tr><td>job %" PRId64 " %s</td><td>", jobs[i].id,
                       job_state_word(jobs[i].state));
            when_write(out, jobs[i].changed_at);
            buf_puts(out, "</td><td>");
            escaped(out, jobs[i].reason);
            buf_puts(out, "</td></tr>\n");
        }
        free(jobs);
    }
    if (store_series_recent(o->s, SERIES_REFUSED, 20, &series, &n, NULL) == 0) {
        for (size_t i = 0; i < n; i++) {
            buf_printf(out, "<tr><td>series S%" PRId64 "</td><td>", series[i].id);
            when_write(out, series[i].changed_at);
            buf_puts(out, "</td><td>");
            escaped(out, series[i].reason);
            buf_puts(out, "</td></tr>\n");
        }
        free(series);
    }
    buf_puts(out, "</table>\n");
}

static int page_write(struct observe *o, struct buf *out)
{
    struct store_stats stats;
    struct buf ready;
    int rc = store_stats(o->s, &stats, NULL);
    if (rc != 0)
        return rc;
    buf_puts(out, "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">"
                  "<meta http-equiv=\"refresh\" content=\"10\"><title>Spinenode</title><style>"
                  "body{font:15px system-ui,sans-serif;margin:2em;max-width:70em}"
                  "table{border-collapse:collapse}td,th{padding:.2em 1em .2em 0;"
                  "text-align:left;vertical-align:top;border-bottom:1px solid #ddd}"
                  ".bad{color:#a00}.columns{display:flex;gap:4em;flex-wrap:wrap}</style>\n");
    buf_puts(out, "<h1>Spinenode ");
    escaped(out, o->st->config->node.ae_title);
    buf_printf(out, "</h1><p>version %s, port %d</p>\n", SPINENODE_VERSION,
               (int)o->st->config->node.port);
    buf_init(&ready, 8192);
    ready_write(o, &ready);
    if (ready.len == 0) {
        buf_puts(out, "<p>Ready.</p>\n");
    } else {
        buf_puts(out, "<p class=\"bad\">Not ready: ");
        escaped(out, buf_text(&ready));
        buf_puts(out, "</p>\n");
    }
    buf_fini(&ready);
    buf_puts(out, "<div class=\"columns\"><div><h2>Series</h2><table>\n");
    for (int i = 0; i < SERIES_STATES; i++)
        row(out, series_state_word((enum series_state)i), stats.series[i]);
    buf_puts(out, "</table></div><div><h2>Jobs</h2><table>\n");
    for (int i = 0; i < JOB_STATES; i++)
        row(out, job_state_word((enum job_state)i), stats.jobs[i]);
    buf_puts(out, "</table></div><div><h2>Deliveries</h2><table>\n");
    for (int i = 0; i < DELIVERY_STATES; i++)
        row(out, delivery_state_word((enum delivery_state)i), stats.deliveries[i]);
    buf_puts(out, "</table></div></div>\n");
    refused_write(o, out);
    buf_puts(out, "</html>\n");
    return 0;
}

/* ---- HTTP ----------------------------------------------------------------------------------- */

static enum MHD_Result answer(const struct http *h, struct MHD_Connection *connection,
                              unsigned status, const char *type, const struct buf *body)
{
    const char *text = buf_text(body);
    struct MHD_Response *response = h->create_response_from_buffer(
        strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
    if (response == NULL)
        return MHD_NO;
    h->add_response_header(response, "Content-Type", type);
    h->add_response_header(response, "Cache-Control", "no-store");
    h->add_response_header(response, "X-Content-Type-Options", "nosniff");
    h->add_response_header(response, "Content-Security-Policy",
                           "default-src 'none'; style-src 'unsafe-inline'");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        h->add_response_header(response, "Allow", "GET, HEAD");
    enum MHD_Result rc = h->queue_response(connection, status, response);
    h->destroy_response(response);
    return rc;
}

static enum MHD_Result handle(void *ctx, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **state)
{
    static int seen;
    struct observe *o = ctx;
    struct buf body;
    const char *type = "text/plain; charset=utf-8";
    unsigned status = MHD_HTTP_OK;
    (void)version;
    (void)upload;
    if (*state == NULL) { /* the head only: wait for the whole request */
        *state = &seen;
        return MHD_YES;
    }
    if (*upload_size > 0) { /* nothing is taken */
        *upload_size = 0;
        return MHD_YES;
    }
    buf_init(&body, PAGE_MAX);
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
        status = MHD_HTTP_METHOD_NOT_ALLOWED;
        buf_puts(&body, "read only\n");
    } else if (strcmp(url, "/healthz") == 0) {
        buf_puts(&body, "ok\n");
    } else if (strcmp(url, "/readyz") == 0) {
        ready_write(o, &body);
        if (body.len > 0)
            status = MHD_HTTP_SERVICE_UNAVAILABLE;
        else
            buf_puts(&body, "ready\n");
    } else if (strcmp(url, "/metrics") == 0) {
        type = "text/plain; version=0.0.4; charset=utf-8";
        if (metrics_write(o, &body) != 0)
            status = MHD_HTTP_SERVICE_UNAVAILABLE;
    } else if (strcmp(url, "/") == 0) {
        type = "text/html; charset=utf-8";
        if (page_write(o, &body) != 0)
            status = MHD_HTTP_SERVICE_UNAVAILABLE;
    } else {
        status = MHD_HTTP_NOT_FOUND;
        buf_puts(&body, "not found: / /metrics /healthz /readyz\n");
    }
    if (buf_error(&body))
        status = MHD_HTTP_INTERNAL_SERVER_ERROR;
    enum MHD_Result rc = answer(&o->http, connection, status, type, &body);
    buf_fini(&body);
    return rc;
}

int observe_run(struct stage *st)
{
    struct observe o = {.st = st};
    struct err e = {0};
    int rc = store_open(&o.s, st->config->node.database, &e);
    if (rc == 0)
        rc = http_open(&o.http, &e);
    if (rc == 0)
        nvml_open(NULL, &o.gpus, NULL);
    if (rc == 0) {
        o.daemon = o.http.start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC,
                                       0, NULL, NULL, handle, &o, MHD_OPTION_LISTEN_SOCKET,
                                       st->http_fd, MHD_OPTION_CONNECTION_LIMIT,
                                       (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
                                       (unsigned)IDLE_SECONDS, MHD_OPTION_END);
        if (o.daemon == NULL)
            rc = err_set(&e, ERR_NETWORK, "cannot serve HTTP");
    }
    if (rc == 0) {
        stage_ready(st);
        while (!stage_wait(st, STAGE_POLL_MS))
            ;
        /* Takes the socket back first: it is the supervisor's, and stopping would shut it down. */
        o.http.quiesce_daemon(o.daemon);
        o.http.stop_daemon(o.daemon);
    } else {
        log_failure("observe_failed", e.text);
    }
    http_close(&o.http);
    nvml_close(o.gpus);
    store_close(o.s);
    return rc != 0;
}
