/* stage.c - see stage.h */
#include "node/stage.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "node/base/clock.h"

#define X(name, word) word,
static const char *const words[] = {STAGES(X)};
#undef X

const char *stage_word(enum stage_kind kind)
{
    return (unsigned)kind < STAGE_KINDS ? words[kind] : "unknown";
}

void stage_node_name(char out[STORE_NAME])
{
    char host[40] = "";
    if (gethostname(host, sizeof host - 1) != 0 || host[0] == '\0')
        memcpy(host, "node", sizeof "node");
    host[sizeof host - 1] = '\0';
    snprintf(out, STORE_NAME, "%.38s/", host);
}

void stage_owner_name(char out[STORE_NAME], const char *node, enum stage_kind kind, int number)
{
    if (number > 0)
        snprintf(out, STORE_NAME, "%.40s%.8s-%d", node, stage_word(kind), number);
    else
        snprintf(out, STORE_NAME, "%.40s%.8s", node, stage_word(kind));
}

void stage_wake(const struct stage *st, enum stage_kind kind)
{
    uint64_t one = 1;
    ssize_t n = write(st->wake_fd[kind], &one, sizeof one);
    (void)n; /* full: it is awake already */
}

bool stage_stopping(const struct stage *st)
{
    struct pollfd p = {.fd = st->stop_fd, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

bool stage_wait(const struct stage *st, int64_t ms)
{
    struct pollfd p[] = {{.fd = st->stop_fd, .events = POLLIN},
                         {.fd = st->wake_fd[st->kind], .events = POLLIN}};
    if (ms > STAGE_POLL_MS)
        ms = STAGE_POLL_MS;
    int n = poll(p, 2, ms > 0 ? (int)ms : 0);
    if (n > 0 && p[1].revents) {
        uint64_t count;
        ssize_t got = read(p[1].fd, &count, sizeof count);
        (void)got; /* another process of this kind was faster */
    }
    return n > 0 && p[0].revents != 0;
}

void stage_ready(const struct stage *st)
{
    uint64_t one = 1;
    atomic_fetch_add(&st->shared->ready[st->kind], 1);
    if (st->kind == STAGE_RECEIVE)
        atomic_store(&st->shared->receiving_since, clock_wall_ms());
    ssize_t n = write(st->ready_fd, &one, sizeof one);
    (void)n;
}

void metrics_error(atomic_uint_fast64_t *errors, int code)
{
    int i = -code;
    atomic_fetch_add(&errors[i > 0 && i < METRICS_ERRORS ? i : 0], 1);
}

static const char *const engine_names[METRICS_ENGINES] = {"cpu", "cuda", "ref"};

int metrics_engine(const char *name)
{
    int i = 0;
    while (i < METRICS_ENGINES - 1 && strcmp(engine_names[i], name) != 0)
        i++;
    return i;
}

const char *metrics_engine_word(int i)
{
    return engine_names[i];
}
