/*
 * net_probe.c - lets the tests drive dicom/scp.h and dicom/scu.h from outside
 *
 *     net_probe scp FOLDER [key=value …]         serves until standard input ends; one JSON object
 *                                                per event on standard output, "listening" first
 *     net_probe scu HOST PORT CALLED CALLING VERB [ARGUMENT …] [key=value …]
 *         echo | store FILE … | count STUDY SERIES | commit CLASS INSTANCE …
 *     net_probe bench HOST PORT CALLED FILE COUNT ASSOCIATIONS
 *                                                sends the file COUNT times over each association
 *                                                and says how many instances per second went
 *     net_probe peek FILE …                      one object per file
 *
 * Exit status: 0, or 1 when something failed (said in the object), 2 for usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dicom/scp.h"
#include "dicom/scu.h"
#include "dicom/status.h"
#include "dicom/tls.h"
#include "node/base/buf.h"
#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/json.h"

/* key=value arguments, wherever they stand behind the fixed ones. */
static const char *option(int argc, char **argv, const char *key, const char *otherwise)
{
    size_t n = strlen(key);
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], key, n) == 0 && argv[i][n] == '=')
            return argv[i] + n + 1;
    return otherwise;
}

static int64_t number(int argc, char **argv, const char *key)
{
    return strtoll(option(argc, argv, key, "0"), NULL, 10);
}

static pthread_mutex_t print_mutex = PTHREAD_MUTEX_INITIALIZER;

/* Prints {"event": event, name: value …}; all are texts. */
static void print_pairs(const char *event, const char *const *pairs)
{
    struct buf b;

    buf_init(&b, 1 << 20);
    json_open(&b, NULL, '{');
    json_text(&b, "event", event);
    for (; *pairs != NULL; pairs += 2)
        json_text(&b, pairs[0], pairs[1]);
    json_close(&b, '}');
    buf_puts(&b, "\n");
    pthread_mutex_lock(&print_mutex);
    fputs(buf_text(&b), stdout);
    fflush(stdout);
    pthread_mutex_unlock(&print_mutex);
    buf_fini(&b);
}
#define print(event, ...) print_pairs(event, (const char *const[]){__VA_ARGS__, NULL})

struct text {
    char s[24];
};

static struct text decimal(uint64_t v)
{
    struct text t;
    snprintf(t.s, sizeof t.s, "%llu", (unsigned long long)v);
    return t;
}

static struct text hexadecimal(uint16_t v)
{
    struct text t;
    snprintf(t.s, sizeof t.s, "%04X", v);
    return t;
}

/* ---- scp ---------------------------------------------------------------------------------- */

struct receiver {
    const char *folder;
    const char *caller; /* the only one that may call; "" any */
    const char *sink;   /* a file that all data go to, such as /dev/full; "" one per instance */
    uint16_t open_status, done_status;
    int64_t done_ms; /* how long store_done() takes */
    pthread_mutex_t mutex;
    unsigned files;
};

static int authorise(void *ctx, struct scp_peer *peer, enum scp_reject *why)
{
    struct receiver *r = ctx;
    if (r->caller[0] != '\0' && strcmp(r->caller, peer->calling_ae) != 0) {
        *why = SCP_REJECT_CALLING_AE;
        return ERR_REFUSED;
    }
    print("association", "calling", peer->calling_ae, "called", peer->called_ae, "address",
          peer->address, "implementation", peer->implementation, "fingerprint", peer->fingerprint);
    return 0;
}

static uint16_t store_open(void *ctx, struct scp_peer *peer, const struct scp_store_rq *rq,
                           struct scp_sink *sink, char comment[COMMENT_BYTES])
{
    struct receiver *r = ctx;

    (void)peer;
    (void)rq;
    if (r->open_status != 0) {
        snprintf(comment, COMMENT_BYTES, "as told");
        return r->open_status;
    }
    pthread_mutex_lock(&r->mutex);
    unsigned n = ++r->files;
    pthread_mutex_unlock(&r->mutex);
    if (r->sink[0] != '\0')
        snprintf(sink->path, sizeof sink->path, "%s", r->sink);
    else
        snprintf(sink->path, sizeof sink->path, "%s/%u.part", r->folder, n);
    sink->fd = open(sink->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (sink->fd < 0)
        return STATUS_OUT_OF_RESOURCES;
    return STATUS_SUCCESS;
}

static uint16_t store_done(void *ctx, struct scp_peer *peer, struct scp_sink *sink,
                           const struct instance *instance, char comment[COMMENT_BYTES])
{
    struct receiver *r = ctx;
    char path[PATH_BYTES];

    (void)peer;
    close(sink->fd);
    clock_sleep_ms(r->done_ms);
    snprintf(path, sizeof path, "%s/%s.dcm", r->folder, instance->sop_instance);
    if (rename(sink->path, path) != 0)
        return STATUS_OUT_OF_RESOURCES;
    print("stored", "class", instance->sop_class, "instance", instance->sop_instance, "study",
          instance->study, "series", instance->series, "syntax", instance->transfer_syntax,
          "calling", instance->calling_ae, "address", instance->address, "path", path, "bytes",
          decimal(instance->bytes).s, "sha256", instance->sha256);
    if (r->done_status != 0)
        snprintf(comment, COMMENT_BYTES, "as told");
    return r->done_status;
}

static void store_abort(void *ctx, struct scp_peer *peer, struct scp_sink *sink,
                        const struct scp_store_rq *rq, uint16_t status, const char *comment)
{
    struct receiver *r = ctx;

    (void)peer;
    close(sink->fd);
    if (r->sink[0] == '\0')
        unlink(sink->path);
    print("not_stored", "instance", rq->sop_instance, "status", hexadecimal(status).s, "comment",
          comment);
}

static uint16_t commitment(void *ctx, struct scp_peer *peer, const struct commitment *report)
{
    size_t failed = 0;

    (void)ctx;
    (void)peer;
    for (size_t i = 0; i < report->count; i++)
        failed += report->items[i].failed;
    print("commitment", "transaction", report->transaction, "committed",
          decimal(report->count - failed).s, "failed", decimal(failed).s);
    return STATUS_SUCCESS;
}

static void echo(void *ctx, struct scp_peer *peer)
{
    (void)ctx;
    print("echo", "calling", peer->calling_ae);
}

static void association_end(void *ctx, struct scp_peer *peer, const struct scp_counts *counts)
{
    (void)ctx;
    print("end", "calling", peer->calling_ae, "stored", decimal(counts->stored).s, "failed",
          decimal(counts->failed).s, "bytes", decimal(counts->bytes).s, "end", counts->end);
}

static void connection_refused(void *ctx, const char *address, const char *calling_ae,
                               const char *why)
{
    (void)ctx;
    print("refused", "address", address, "calling", calling_ae, "why", why);
}

static int run_scp(const char *folder, int argc, char **argv)
{
    struct receiver r = {
        .folder = folder,
        .caller = option(argc, argv, "caller", ""),
        .sink = option(argc, argv, "sink", ""),
        .open_status = (uint16_t)number(argc, argv, "open_status"),
        .done_status = (uint16_t)number(argc, argv, "done_status"),
        .done_ms = number(argc, argv, "done_ms"),
        .mutex = PTHREAD_MUTEX_INITIALIZER,
    };
    struct scp_config config = {
        .ae_title = option(argc, argv, "ae", "PROBE"),
        .associations = (unsigned)number(argc, argv, "associations"),
        .negotiation_ms = number(argc, argv, "negotiation_ms"),
        .idle_ms = number(argc, argv, "idle_ms"),
        .message_ms = number(argc, argv, "message_ms"),
        .grace_ms = number(argc, argv, "grace_ms"),
        .instance_bytes = (uint64_t)number(argc, argv, "instance_bytes"),
        .digest = number(argc, argv, "digest") != 0,
    };
    struct scp_handler handler = {
        .ctx = &r,
        .authorise = authorise,
        .store_open = store_open,
        .store_done = store_done,
        .store_abort = store_abort,
        .commitment = commitment,
        .echo = echo,
        .association_end = association_end,
        .connection_refused = connection_refused,
    };
    struct tls_config certificates = {
        .certificate = option(argc, argv, "certificate", ""),
        .key = option(argc, argv, "key", ""),
        .authorities = option(argc, argv, "authorities", ""),
    };
    struct err e = {0};

    if (certificates.certificate[0] != '\0' &&
        tls_new_server(&certificates, &config.tls, NULL, &e) != 0) {
        print("failed", "why", e.text);
        return 1;
    }
    int fd = scp_listen(option(argc, argv, "address", "127.0.0.1"), 0, &e);
    if (fd < 0) {
        print("failed", "why", e.text);
        return 1;
    }
    print("listening", "port", decimal(scp_listen_port(fd)).s);
    int rc = scp_run(fd, &config, &handler, STDIN_FILENO, &e);
    close(fd);
    tls_free(config.tls);
    print(rc == 0 ? "stopped" : "failed", "why", e.text);
    return rc != 0;
}

/* ---- scu ---------------------------------------------------------------------------------- */

static int report(const char *what, int rc, const struct scu_answer *answer, const struct err *e)
{
    print("result", "what", what, "error", err_word(rc), "transient",
          err_is_transient(rc) ? "yes" : "no", "status", hexadecimal(answer->status).s, "warning",
          answer->warning ? "yes" : "no", "comment", answer->comment, "why",
          rc != 0 ? e->text : "");
    return rc != 0;
}

static int scu_verb(struct scu *s, const char *verb, int argc, char **argv)
{
    struct scu_answer answer = {0};
    struct err e = {0};
    int failed = 0;

    if (strcmp(verb, "echo") == 0) {
        int repeat = (int)strtol(option(argc, argv, "repeat", "1"), NULL, 10);
        for (int i = 0; i < repeat; i++)
            failed |= report("echo", scu_echo(s, &e), &answer, &e);
    } else if (strcmp(verb, "store") == 0) {
        for (int i = 0; i < argc; i++)
            if (strchr(argv[i], '=') == NULL)
                failed |= report(argv[i], scu_store(s, argv[i], &answer, &e), &answer, &e);
    } else if (strcmp(verb, "count") == 0 && argc >= 2) {
        uint32_t count = 0;
        int rc = scu_count_series(s, argv[0], argv[1], &count, &e);
        failed = report(decimal(count).s, rc, &answer, &e);
    } else if (strcmp(verb, "commit") == 0 && argc >= 2) {
        struct commitment_item items[64];
        struct commitment request = {.items = items}, got;
        for (int i = 0; i + 1 < argc && request.count < 64; i += 2) {
            if (strchr(argv[i], '=') != NULL)
                break;
            memset(&items[request.count], 0, sizeof items[0]);
            snprintf(items[request.count].sop_class, UID_BYTES, "%s", argv[i]);
            snprintf(items[request.count].sop_instance, UID_BYTES, "%s", argv[i + 1]);
            request.count++;
        }
        snprintf(request.transaction, UID_BYTES, "%s",
                 option(argc, argv, "transaction", "2.25.1234567890"));
        failed = report("commit", scu_commit(s, &request, &answer, &e), &answer, &e);
        int64_t wait_ms = number(argc, argv, "wait_ms");
        if (!failed && wait_ms > 0) {
            int rc = scu_wait_report(s, wait_ms, &got, &e);
            failed = report("report", rc, &answer, &e);
            if (rc == 0) {
                commitment(NULL, NULL, &got);
                commitment_fini(&got);
            }
        }
    } else {
        fprintf(stderr, "unknown verb %s\n", verb);
        return 2;
    }
    return failed;
}

static int run_scu(int argc, char **argv)
{
    const char *verb = argv[4];
    struct scu_target target = {
        .host = argv[0],
        .port = (uint16_t)strtol(argv[1], NULL, 10),
        .called_ae = argv[2],
        .calling_ae = argv[3],
        .connect_ms = number(argc, argv, "connect_ms"),
        .response_ms = number(argc, argv, "response_ms"),
    };
    struct scu_offer storage[16];
    const struct scu_offer *offers = storage;
    size_t count = 0;
    struct scu_answer none = {0};
    struct err e = {0};
    struct scu *s;
    struct tls_config certificates = {
        .certificate = option(argc, argv, "certificate", ""),
        .key = option(argc, argv, "key", ""),
        .authorities = option(argc, argv, "authorities", ""),
    };

    if (certificates.authorities[0] != '\0' &&
        tls_new_client(&certificates, &target.tls, NULL, &e) != 0)
        return report("tls", ERR_CONFIG, &none, &e);
    if (strcmp(verb, "echo") == 0) {
        offers = &scu_offer_echo;
        count = 1;
    } else if (strcmp(verb, "count") == 0) {
        offers = &scu_offer_find;
        count = 1;
    } else if (strcmp(verb, "commit") == 0) {
        offers = &scu_offer_commitment;
        count = 1;
    } else {
        for (; count < sop_storage_default_count; count++)
            storage[count] = (struct scu_offer){sop_storage_default[count], sop_syntax_uncompressed,
                                                sop_syntax_uncompressed_count};
    }
    int rc = scu_open(&target, offers, count, &s, &e);
    if (rc == 0) {
        rc = scu_verb(s, verb, argc - 5, argv + 5);
        scu_close(s);
    } else {
        rc = report("open", rc, &none, &e);
    }
    tls_free(target.tls);
    return rc;
}

static int run_peek(int argc, char **argv)
{
    int failed = 0;

    for (int i = 0; i < argc; i++) {
        struct peek peek;
        struct err e = {0};
        int rc = peek_part10(argv[i], NULL, &peek, &e);
        print("peek", "error", err_word(rc), "status", hexadecimal((uint16_t)peek.status).s,
              "class", peek.sop_class, "instance", peek.sop_instance, "study", peek.study, "series",
              peek.series, "depth", decimal(peek.depth).s, "why", e.text);
        failed |= rc != 0;
    }
    return failed;
}

/* ---- bench -------------------------------------------------------------------------------- */

struct sender {
    pthread_t thread;
    struct scu *scu;
    const char *path;
    long count;
    int rc;
    struct err e;
};

static void *sender_main(void *arg)
{
    struct sender *s = arg;
    for (long i = 0; i < s->count && s->rc == 0; i++)
        s->rc = scu_store(s->scu, s->path, NULL, &s->e);
    return NULL;
}

static int run_bench(char **argv)
{
    static struct sender senders[64];
    static const char *const syntaxes[] = {SYNTAX_EXPLICIT_LE};
    struct scu_offer offer = {SOP_MR, syntaxes, 1};
    struct scu_target target = {
        .host = argv[0],
        .port = (uint16_t)strtol(argv[1], NULL, 10),
        .called_ae = argv[2],
        .calling_ae = "BENCH",
    };
    long associations = strtol(argv[5], NULL, 10);
    struct err e = {0};
    int rc = 0;

    if (associations < 1 || associations > 64)
        return 2;
    for (long i = 0; i < associations && rc == 0; i++) {
        senders[i].path = argv[3];
        senders[i].count = strtol(argv[4], NULL, 10);
        rc = scu_open(&target, &offer, 1, &senders[i].scu, &e);
    }
    if (rc != 0) {
        print("failed", "why", e.text);
        return 1;
    }
    int64_t start = clock_mono_ms();
    for (long i = 0; i < associations; i++)
        if (pthread_create(&senders[i].thread, NULL, sender_main, &senders[i]) != 0)
            return 1;
    for (long i = 0; i < associations; i++)
        pthread_join(senders[i].thread, NULL);
    int64_t ms = clock_mono_ms() - start;
    long sent = 0;
    for (long i = 0; i < associations; i++) {
        if (senders[i].rc != 0) {
            print("failed", "why", senders[i].e.text);
            rc = 1;
        }
        sent += senders[i].count;
        scu_close(senders[i].scu);
    }
    if (rc == 0)
        print("bench", "instances", decimal((uint64_t)sent).s, "ms", decimal((uint64_t)ms).s,
              "per_second", decimal((uint64_t)(sent * 1000 / (ms > 0 ? ms : 1))).s);
    return rc;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc >= 3 && strcmp(argv[1], "scp") == 0)
        return run_scp(argv[2], argc - 3, argv + 3);
    if (argc >= 7 && strcmp(argv[1], "scu") == 0)
        return run_scu(argc - 2, argv + 2);
    if (argc == 8 && strcmp(argv[1], "bench") == 0)
        return run_bench(argv + 2);
    if (argc >= 3 && strcmp(argv[1], "peek") == 0)
        return run_peek(argc - 2, argv + 2);
    fprintf(stderr, "usage: see the head of tests/net/net_probe.c\n");
    return 2;
}
