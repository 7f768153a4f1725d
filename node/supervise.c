/*
 * supervise.c - see supervise.h
 *
 * The database is opened only for moments, never across a fork: a connection that is inherited
 * would make SQLite believe that the child holds its parent's locks.
 *
 * Failure modes: a stage that cannot start is tried again for ever, at most every RESTART_MAX_MS,
 * and /readyz says no; a reload that is bad in any way changes nothing; a stage that does not stop
 * in time is killed, and its lease goes back at the next start.
 */
#include "node/supervise.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/listen.h"
#include "node/base/log.h"

#include "dicom/dataset.h"
#include "dicom/scp.h"

#include "node/config.h"
#include "node/stage.h"
#include "node/transport.h"

/* Waits before a stage that ended is started again: 0, then from the first to the second. */
#define RESTART_MS     100
#define RESTART_MAX_MS 30000

/* One that ran for so long may start again at once. */
#define SETTLED_MS 10000

#define DAY_S INT64_C(86400)

/* To stop in order; then it is killed. */
static const int64_t stop_ms[STAGE_KINDS] = {
    [STAGE_RECEIVE] = 6000, [STAGE_PLAN] = 3000,    [STAGE_WORK] = 5000,
    [STAGE_DELIVER] = 4000, [STAGE_OBSERVE] = 1000,
};

struct child {
    pid_t pid; /* 0: not running */
    enum stage_kind kind;
    int number;
    int64_t started_at, start_at; /* monotonic; start_at: when it is due again */
    int64_t wait_ms;              /* before the next restart but one */
};

struct supervisor {
    struct config *config;
    struct stage stage; /* the children's, with their own kind and number filled in after fork */
    struct child children[STAGE_KINDS + STAGE_WORKERS_MAX];
    size_t n;
    int signal_fd;
    int64_t began_at;
    int64_t certificates_at; /* monotonic; when to look how long they are valid */
    bool announced;
    bool stop, stop_now, reload;
};

static int child_stop_fd;

static void on_stop(int signal_number)
{
    (void)signal_number;
    int kept = errno;
    uint64_t one = 1;
    ssize_t n = write(child_stop_fd, &one, sizeof one);
    (void)n;
    errno = kept;
}

/* What is needed of the store between two forks. */
static int with_store(struct supervisor *sv,
                      int (*use)(struct supervisor *sv, struct store *s, const void *argument,
                                 struct err *e),
                      const void *argument, struct err *e)
{
    struct store *s;
    int rc = store_open(&s, sv->config->node.database, e);
    if (rc != 0)
        return rc;
    rc = use(sv, s, argument, e);
    store_close(s);
    return rc;
}

/* ---- sockets -------------------------------------------------------------------------------- */

static int http_listen(const struct config_http *http, int *out, struct err *e)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)&address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)&address;
    socklen_t length;
    *out = -1;
    if (http->port == 0)
        return 0;
    if (inet_pton(AF_INET, http->bind, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)http->port);
        length = sizeof *v4;
    } else if (inet_pton(AF_INET6, http->bind, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)http->port);
        length = sizeof *v6;
    } else {
        return err_set(e, ERR_CONFIG, "http.bind is no numeric address: %s", http->bind);
    }
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(e, errno, "cannot make a socket for HTTP");
    if (listen_at(fd, (struct sockaddr *)&address, length, 64) != 0) {
        int rc = err_errno(e, errno, "cannot listen for HTTP on %s port %d", http->bind,
                           (int)http->port);
        close(fd);
        return rc;
    }
    *out = fd;
    return 0;
}

/* Opens what differs from the old configuration (NULL: all). On failure nothing is left open. */
static int sockets_open(const struct config *old, const struct config *c, const struct stage *now,
                        int *dicom, int *http, struct err *e)
{
    bool same_dicom =
        old && old->node.port == c->node.port && strcmp(old->node.bind, c->node.bind) == 0;
    bool same_http =
        old && old->http.port == c->http.port && strcmp(old->http.bind, c->http.bind) == 0;
    *dicom = now->listen_fd;
    *http = now->http_fd;
    if (!same_dicom) {
        *dicom = scp_listen(c->node.bind, (uint16_t)c->node.port, e);
        if (*dicom < 0)
            return *dicom;
    }
    int rc = same_http ? 0 : http_listen(&c->http, http, e);
    if (rc != 0 && !same_dicom)
        close(*dicom);
    return rc;
}

/* ---- children ------------------------------------------------------------------------------- */

static int child_main(struct supervisor *sv, const struct child *child, pid_t parent)
{
    static int (*const runs[STAGE_KINDS])(struct stage *) = {
        [STAGE_RECEIVE] = receive_run, [STAGE_PLAN] = plan_run,       [STAGE_WORK] = work_run,
        [STAGE_DELIVER] = deliver_run, [STAGE_OBSERVE] = observe_run,
    };
    struct stage st = sv->stage;
    char name[16];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        return 1; /* it ended before we could ask */
    snprintf(name, sizeof name, "spn-%s", stage_word(child->kind));
    prctl(PR_SET_NAME, name);
    log_init(stage_word(child->kind), (enum log_level)log_level_parse(sv->config->node.log_level));

    close(sv->signal_fd);
    spool_unlock(&st.spool);
    if (child->kind != STAGE_RECEIVE && st.listen_fd >= 0)
        close(st.listen_fd);
    if (child->kind != STAGE_OBSERVE && st.http_fd >= 0)
        close(st.http_fd);
    transport_keep(st.transport, child->kind == STAGE_RECEIVE,
                   child->kind == STAGE_PLAN || child->kind == STAGE_DELIVER);
    st.kind = child->kind;
    st.number = child->number;
    stage_owner_name(st.owner, st.node, child->kind, child->number);
    st.stop_fd = child_stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (st.stop_fd < 0)
        return 1;

    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &stop, NULL);
    signal(SIGINT, SIG_IGN); /* of a terminal: the supervisor stops us in order */
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    return runs[child->kind](&st);
}

static void child_start(struct supervisor *sv, struct child *child)
{
    pid_t parent = getpid();
    child->started_at = clock_mono_ms();
    child->start_at = 0;
    pid_t pid = fork();
    if (pid == 0)
        _exit(child_main(sv, child, parent));
    if (pid < 0) {
        log_error("stage_not_started", "stage=%s reason=\"%s\"", stage_word(child->kind),
                  strerror(errno));
        child->start_at = child->started_at + RESTART_MAX_MS;
        return;
    }
    child->pid = pid;
    log_debug("stage_started", "stage=%s number=%d child=%d", stage_word(child->kind),
              child->number, (int)pid);
}

static void children_plan(struct supervisor *sv)
{
    sv->n = 0;
    memset(sv->children, 0, sizeof sv->children);
    for (int kind = 0; kind < STAGE_KINDS; kind++) {
        int devices = (int)sv->config->engine.devices_count;
        int count = kind == STAGE_WORK ? sv->config->work.workers : 1;
        if (kind == STAGE_WORK && count < devices)
            count = devices;
        if (kind == STAGE_OBSERVE && sv->stage.http_fd < 0)
            count = 0;
        if (count > STAGE_WORKERS_MAX)
            count = STAGE_WORKERS_MAX;
        for (int i = 0; i < count; i++) {
            struct child *child = &sv->children[sv->n++];
            child->kind = (enum stage_kind)kind;
            child->number = kind == STAGE_WORK ? i + 1 : 0;
        }
        atomic_store(&sv->stage.shared->ready[kind], 0);
    }
}

static void children_start(struct supervisor *sv)
{
    children_plan(sv);
    for (size_t i = 0; i < sv->n; i++)
        child_start(sv, &sv->children[i]);
}

struct death {
    enum stage_kind kind;
    const char *owner;
    char cause[64];
};

static int give_back(struct supervisor *sv, struct store *s, const void *argument, struct err *e)
{
    const struct death *death = argument;
    struct store_recovery gone;
    int rc = store_owner_died(s, death->owner, death->cause, sv->config->work.crashes_max,
                              clock_wall_ms(), &gone, e);
    if (rc == 0 && death->kind == STAGE_RECEIVE)
        rc = store_associations_lost(s, clock_wall_ms(), e);
    if (rc == 0 && gone.series + gone.jobs + gone.deliveries > 0)
        log_warning("leases_back",
                    "owner=%s series=%" PRId64 " jobs=%" PRId64 " deliveries=%" PRId64
                    " set_aside=%" PRId64,
                    death->owner, gone.series, gone.jobs, gone.deliveries, gone.set_aside);
    return rc;
}

/* A child ended without having been told to. */
static void child_ended(struct supervisor *sv, struct child *child, int status)
{
    struct death death;
    struct err e;
    char owner[STORE_NAME], reason[ERR_TEXT_MAX];
    int64_t now = clock_mono_ms();
    if (WIFSIGNALED(status))
        snprintf(death.cause, sizeof death.cause, "signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(death.cause, sizeof death.cause, "exit %d", WEXITSTATUS(status));
    stage_owner_name(owner, sv->stage.node, child->kind, child->number);
    death.owner = owner;
    death.kind = child->kind;
    if (now - child->started_at >= SETTLED_MS)
        child->wait_ms = 0;
    child->start_at = now + child->wait_ms;
    log_error("stage_ended", "stage=%s number=%d child=%d cause=\"%s\" restart_in_ms=%" PRId64,
              stage_word(child->kind), child->number, (int)child->pid, death.cause, child->wait_ms);
    child->wait_ms = child->wait_ms == 0 ? RESTART_MS : child->wait_ms * 2;
    if (child->wait_ms > RESTART_MAX_MS)
        child->wait_ms = RESTART_MAX_MS;
    child->pid = 0;
    atomic_fetch_add(&sv->stage.shared->metrics.restarts[child->kind], 1);
    if (atomic_load(&sv->stage.shared->ready[child->kind]) > 0)
        atomic_fetch_sub(&sv->stage.shared->ready[child->kind], 1);
    if (child->kind == STAGE_RECEIVE)
        atomic_store(&sv->stage.shared->receiving_since, 0);
    if (with_store(sv, give_back, &death, &e) != 0)
        log_error("leases_not_back", "owner=%s reason=%s", owner,
                  log_quote(reason, sizeof reason, e.text));
    for (int kind = 0; kind < STAGE_KINDS; kind++)
        stage_wake(&sv->stage, (enum stage_kind)kind);
}

static struct child *child_find(struct supervisor *sv, pid_t pid)
{
    for (size_t i = 0; i < sv->n; i++)
        if (sv->children[i].pid == pid)
            return &sv->children[i];
    return NULL;
}

/* Takes note of all children that ended. stopping: they were told to. */
static void children_reap(struct supervisor *sv, int stopping)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct child *child = child_find(sv, pid);
        if (child == NULL)
            continue;
        if (stopping < 0 || (int)child->kind > stopping) {
            child_ended(sv, child, status);
            continue;
        }
        child->pid = 0;
        if (status != 0)
            log_warning("stage_stopped", "stage=%s number=%d status=%d", stage_word(child->kind),
                        child->number, status);
    }
}

/* ---- signals and the stop ------------------------------------------------------------------- */

/* Reads what signals came. */
static void signals_read(struct supervisor *sv)
{
    struct signalfd_siginfo info;
    while (read(sv->signal_fd, &info, sizeof info) == sizeof info) {
        switch (info.ssi_signo) {
        case SIGTERM:
        case SIGINT:
            sv->stop_now = sv->stop;
            sv->stop = true;
            break;
        case SIGHUP:
            sv->reload = true;
            break;
        default: /* SIGCHLD: the caller reaps */
            break;
        }
    }
}

static bool kind_runs(const struct supervisor *sv, enum stage_kind kind)
{
    for (size_t i = 0; i < sv->n; i++)
        if (sv->children[i].kind == kind && sv->children[i].pid != 0)
            return true;
    return false;
}

static void kind_signal(const struct supervisor *sv, enum stage_kind kind, int signal_number)
{
    for (size_t i = 0; i < sv->n; i++)
        if (sv->children[i].kind == kind && sv->children[i].pid != 0)
            kill(sv->children[i].pid, signal_number);
}

/* In order: first nothing new comes in, then what is there is put down. */
static void children_stop(struct supervisor *sv)
{
    for (int kind = 0; kind < STAGE_KINDS; kind++) {
        int64_t deadline = clock_mono_ms() + stop_ms[kind];
        bool killed = false;
        kind_signal(sv, (enum stage_kind)kind, SIGTERM);
        while (kind_runs(sv, (enum stage_kind)kind)) {
            int64_t left = deadline - clock_mono_ms();
            if ((left <= 0 || sv->stop_now) && !killed) {
                log_warning("stage_killed", "stage=%s reason=\"did not stop in %" PRId64 " ms\"",
                            stage_word((enum stage_kind)kind), stop_ms[kind]);
                kind_signal(sv, (enum stage_kind)kind, SIGKILL);
                killed = true;
            }
            struct pollfd p = {.fd = sv->signal_fd, .events = POLLIN};
            poll(&p, 1, killed ? 1000 : left > 0 ? (int)left : 0);
            signals_read(sv);
            children_reap(sv, kind);
        }
    }
}

/* ---- certificates --------------------------------------------------------------------------- */

/* Peers refuse a certificate from one second to the next; who can renew it should know before. */
static void certificates_look(struct supervisor *sv)
{
    const char *destination;
    int64_t not_after, now = clock_wall_ms() / 1000;
    for (uint32_t i = 0; transport_certificate(sv->stage.transport, i, &destination, &not_after);
         i++) {
        const char *key = destination != NULL ? "destinations" : "node";
        const char *dot = destination != NULL ? "." : "", *name = destination ? destination : "";
        if (not_after <= now)
            log_error("certificate_expired",
                      "key=%s%s%s.tls.certificate reason=\"renew it, then "
                      "reload\"",
                      key, dot, name);
        else if (not_after - now < TRANSPORT_WARN_DAYS * DAY_S)
            log_warning("certificate_expires",
                        "key=%s%s%s.tls.certificate days=%" PRId64 " reason=\"renew it, then "
                        "reload\"",
                        key, dot, name, (not_after - now) / DAY_S);
    }
    sv->certificates_at = clock_mono_ms() + DAY_S * 1000;
}

/* ---- start, reload -------------------------------------------------------------------------- */

static int recover(struct supervisor *sv, struct store *s, const void *argument, struct err *e)
{
    struct store_recovery back;
    struct spool_swept swept;
    (void)argument;
    int rc = store_recover(s, sv->stage.node, clock_wall_ms(), &back, e);
    if (rc == 0)
        rc = spool_sweep(&sv->stage.spool, s, &swept, e);
    if (rc != 0)
        return rc;
    if (back.series + back.jobs + back.deliveries > 0)
        log_info("recovered",
                 "series=%" PRId64 " jobs=%" PRId64 " deliveries=%" PRId64 " set_aside=%" PRId64,
                 back.series, back.jobs, back.deliveries, back.set_aside);
    if (swept.files + swept.folders + swept.rows > 0)
        log_info("swept", "files=%" PRId64 " folders=%" PRId64 " rows=%" PRId64, swept.files,
                 swept.folders, swept.rows);
    return 0;
}

static int return_leases(struct supervisor *sv, struct store *s, const void *argument,
                         struct err *e)
{
    struct store_recovery back;
    (void)argument;
    return store_recover(s, sv->stage.node, clock_wall_ms(), &back, e);
}

static int reload_check(const struct config *old, const struct config *c, struct err *e)
{
    if (strcmp(old->node.spool, c->node.spool) != 0)
        return err_set(e, ERR_CONFIG, "node.spool changed: stop the node and start it again");
    if (strcmp(old->node.database, c->node.database) != 0)
        return err_set(e, ERR_CONFIG, "node.database changed: stop the node and start it again");
    return 0;
}

static void reload(struct supervisor *sv)
{
    struct config *c = NULL;
    struct transport *transport = NULL;
    struct err e = {0};
    char reason[ERR_TEXT_MAX];
    int dicom = -1, http = -1;
    int rc = config_load_to_run(sv->config->path, &c, &transport, &e);
    if (rc == 0)
        rc = reload_check(sv->config, c, &e);
    if (rc == 0)
        rc = sockets_open(sv->config, c, &sv->stage, &dicom, &http, &e);
    if (rc != 0) {
        log_error("reload_failed", "kept=old reason=%s", log_quote(reason, sizeof reason, e.text));
        transport_free(transport);
        config_free(c);
        return;
    }
    children_stop(sv);
    if (dicom != sv->stage.listen_fd)
        close(sv->stage.listen_fd);
    if (http != sv->stage.http_fd && sv->stage.http_fd >= 0)
        close(sv->stage.http_fd);
    sv->stage.listen_fd = dicom;
    sv->stage.http_fd = http;
    transport_free(sv->stage.transport);
    config_free(sv->config);
    sv->config = c;
    sv->stage.config = c;
    sv->stage.transport = transport;
    log_init("supervise", (enum log_level)log_level_parse(c->node.log_level));
    if (with_store(sv, return_leases, NULL, &e) != 0)
        log_failure("leases_not_back", e.text);
    sv->announced = false;
    sv->began_at = clock_mono_ms();
    log_info("reloaded", "file=%s", c->path);
    certificates_look(sv);
    if (!sv->stop)
        children_start(sv);
}

static int descriptors_make(struct supervisor *sv, struct err *e)
{
    struct stage *st = &sv->stage;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sv->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    st->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bool good = sv->signal_fd >= 0 && st->ready_fd >= 0;
    for (int i = 0; i < STAGE_KINDS; i++) {
        st->wake_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        good = good && st->wake_fd[i] >= 0;
    }
    if (!good)
        return err_errno(e, errno, "cannot make event descriptors");
    st->shared =
        mmap(NULL, sizeof *st->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (st->shared == MAP_FAILED) {
        st->shared = NULL;
        return err_errno(e, errno, "cannot share memory between the stages");
    }
    return 0;
}

static bool all_ready(const struct supervisor *sv)
{
    for (size_t i = 0; i < sv->n; i++)
        if (atomic_load(&sv->stage.shared->ready[sv->children[i].kind]) == 0)
            return false;
    return true;
}

static void loop(struct supervisor *sv)
{
    while (!sv->stop) {
        int64_t now = clock_mono_ms(), wait = 60000;
        if (now >= sv->certificates_at)
            certificates_look(sv);
        for (size_t i = 0; i < sv->n; i++) {
            struct child *child = &sv->children[i];
            if (child->pid != 0)
                continue;
            if (child->start_at <= now)
                child_start(sv, child);
            else if (child->start_at - now < wait)
                wait = child->start_at - now;
        }
        struct pollfd p[] = {{.fd = sv->signal_fd, .events = POLLIN},
                             {.fd = sv->stage.ready_fd, .events = POLLIN}};
        poll(p, 2, (int)wait);
        uint64_t count;
        if (read(sv->stage.ready_fd, &count, sizeof count) > 0 && !sv->announced && all_ready(sv)) {
            sv->announced = true;
            log_info("ready", "ae=%s bind=%s port=%d http=%d ms=%" PRId64,
                     sv->config->node.ae_title, sv->config->node.bind, (int)sv->config->node.port,
                     (int)sv->config->http.port, clock_mono_ms() - sv->began_at);
        }
        signals_read(sv);
        children_reap(sv, -1);
        if (sv->reload && !sv->stop)
            reload(sv);
        sv->reload = false;
    }
}

int supervise(struct config *config, struct transport *transport, struct err *e)
{
    struct supervisor *sv = calloc(1, sizeof *sv);
    if (sv == NULL) {
        transport_free(transport);
        config_free(config);
        return err_set(e, ERR_NOMEM, "no memory");
    }
    sv->config = config;
    sv->began_at = clock_mono_ms();
    sv->signal_fd = -1;
    sv->stage.config = config;
    sv->stage.transport = transport;
    sv->stage.listen_fd = sv->stage.http_fd = sv->stage.spool.lock = sv->stage.ready_fd = -1;
    for (int i = 0; i < STAGE_KINDS; i++)
        sv->stage.wake_fd[i] = -1;
    log_init("supervise", (enum log_level)log_level_parse(config->node.log_level));
    stage_node_name(sv->stage.node);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    /* Few threads run at once in any stage; arenas of their own would only cost memory. */
    mallopt(M_ARENA_MAX, 2);
    signal(SIGPIPE, SIG_IGN);

    int rc = spool_open(&sv->stage.spool, config->node.spool, e);
    if (rc == 0)
        rc = spool_lock(&sv->stage.spool, e);
    if (rc == 0)
        rc = sockets_open(NULL, config, &sv->stage, &sv->stage.listen_fd, &sv->stage.http_fd, e);
    if (rc == 0)
        rc = descriptors_make(sv, e);
    if (rc == 0)
        rc = with_store(sv, recover, NULL, e);
    /* Before the forks, so that all stages share the pages of the dictionary. */
    if (rc == 0)
        rc = dicom_init(e);
    if (rc == 0) {
        children_start(sv);
        loop(sv);
        log_info("stopping", "stages=%zu", sv->n);
        children_stop(sv);
        log_info("stopped", "ran_ms=%" PRId64, clock_mono_ms() - sv->began_at);
    }
    if (sv->stage.shared != NULL)
        munmap(sv->stage.shared, sizeof *sv->stage.shared);
    int *const descriptors[] = {&sv->signal_fd, &sv->stage.ready_fd, &sv->stage.listen_fd,
                                &sv->stage.http_fd};
    for (size_t i = 0; i < sizeof descriptors / sizeof *descriptors; i++)
        if (*descriptors[i] >= 0)
            close(*descriptors[i]);
    for (int i = 0; i < STAGE_KINDS; i++)
        if (sv->stage.wake_fd[i] >= 0)
            close(sv->stage.wake_fd[i]);
    spool_unlock(&sv->stage.spool);
    transport_free(sv->stage.transport);
    config_free(sv->config);
    free(sv);
    return rc;
}
