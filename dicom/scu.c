/*
 * scu.c - one outgoing association: requests, their responses, and reports that come in between
 */
#include "dicom/scu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dicom/convert.h"
#include "dicom/find.h"
#include "dicom/message.h"
#include "dicom/part10.h"
#include "dicom/peek.h"
#include "dicom/status.h"
#include "dicom/wire.h"
#include "node/base/buf.h"
#include "node/base/clock.h"
#include "node/base/err.h"

/* Bytes read from a file at once while sending. */
#define CHUNK 262144

/* A release has nothing to do but to be answered. */
#define RELEASE_MS 5000

/* Reports that came before anybody waited for them. */
#define REPORTS_MAX 16

struct scu {
    struct association *association;
    struct association_context contexts[SCU_CONTEXTS_MAX];
    size_t context_count;
    int64_t response_ms;
    uint16_t last_message;
    bool broken;
    char peer[160]; /* "AE at host:port", for errors */
    struct commitment reports[REPORTS_MAX];
    size_t report_count;
};

static const char *const implicit_only[] = {SYNTAX_IMPLICIT_LE};
const struct scu_offer scu_offer_echo = {SOP_VERIFICATION, implicit_only, 1};
const struct scu_offer scu_offer_find = {SOP_FIND_STUDY_ROOT, implicit_only, 1};
const struct scu_offer scu_offer_commitment = {SOP_COMMITMENT_PUSH, implicit_only, 1};

/* What a peer sends wrong may be right next time: a failure of the network, not of the job. */
static int bad_peer(struct err *e)
{
    if (e != NULL)
        e->code = ERR_NETWORK;
    return ERR_NETWORK;
}

int scu_open(const struct scu_target *target, const struct scu_offer *offers, size_t count,
             struct scu **out, struct err *e)
{
    struct association_offer pairs[SCU_CONTEXTS_MAX];
    size_t n = 0;
    struct scu *s = calloc(1, sizeof *s);
    int rc;

    if (s == NULL)
        return err_set(e, ERR_NOMEM, "no memory for an association");
    s->response_ms = target->response_ms > 0 ? target->response_ms : 60000;
    snprintf(s->peer, sizeof s->peer, "%.16s at %.100s:%u", target->called_ae, target->host,
             target->port);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < offers[i].transfer_syntax_count; k++) {
            if (n == SCU_CONTEXTS_MAX) {
                rc = err_set(e, ERR_LIMIT, "more than %d presentation contexts", SCU_CONTEXTS_MAX);
                goto fail;
            }
            pairs[n++] =
                (struct association_offer){offers[i].sop_class, offers[i].transfer_syntaxes[k]};
        }
    }
    struct association_request rq = {
        .host = target->host,
        .port = target->port,
        .calling_ae = target->calling_ae,
        .called_ae = target->called_ae,
        .offers = pairs,
        .offer_count = n,
        .tls = target->tls,
        .connect_ms = target->connect_ms > 0 ? target->connect_ms : 10000,
        .idle_ms = s->response_ms,
    };
    rc = association_open(&rq, &s->association, e);
    if (rc == ERR_INVALID)
        rc = bad_peer(e);
    if (rc != 0)
        goto fail;
    size_t contexts = association_context_count(s->association);
    for (size_t i = 0; i < contexts && s->context_count < SCU_CONTEXTS_MAX; i++)
        if (association_context(s->association, i, &s->contexts[s->context_count]) == 0)
            s->context_count++;
    *out = s;
    return 0;

fail:
    free(s);
    return rc;
}

void scu_close(struct scu *s)
{
    struct err ignored;

    if (s == NULL)
        return;
    if (s->broken) {
        association_abort(s->association);
    } else {
        association_wire(s->association)->deadline_ms =
            clock_mono_ms() + (s->response_ms < RELEASE_MS ? s->response_ms : RELEASE_MS);
        if (association_release(s->association, &ignored) != 0)
            association_abort(s->association);
    }
    association_free(s->association);
    for (size_t i = 0; i < s->report_count; i++)
        commitment_fini(&s->reports[i]);
    free(s);
}

bool scu_broken(const struct scu *s)
{
    return s->broken;
}

static const struct association_context *context_for(const struct scu *s, const char *sop_class,
                                                     const char *transfer_syntax)
{
    for (size_t i = 0; i < s->context_count; i++)
        if (s->contexts[i].accepted && strcmp(s->contexts[i].abstract_syntax, sop_class) == 0 &&
            strcmp(s->contexts[i].transfer_syntax, transfer_syntax) == 0)
            return &s->contexts[i];
    return NULL;
}

bool scu_accepts(const struct scu *s, const char *sop_class, const char *transfer_syntax)
{
    return context_for(s, sop_class, transfer_syntax) != NULL;
}

static const struct association_context *need_context(const struct scu *s, const char *sop_class,
                                                      const char *transfer_syntax, struct err *e)
{
    const struct association_context *context = context_for(s, sop_class, transfer_syntax);
    if (context == NULL)
        err_set(e, ERR_PEER_REFUSED,
                "%s accepted no presentation context for SOP class %s in transfer syntax %s",
                s->peer, sop_class, transfer_syntax);
    return context;
}

/* Every failure of the association or the protocol comes through here. */
static int broke(struct scu *s, int rc, struct err *e)
{
    s->broken = true;
    if (rc == ERR_INVALID || rc == ERR_LIMIT)
        rc = bad_peer(e);
    err_context(e, "%s", s->peer);
    return rc;
}

static uint16_t next_message(struct scu *s)
{
    if (++s->last_message == 0)
        s->last_message = 1;
    return s->last_message;
}

/* Takes a storage commitment report that came in and acknowledges it. */
static int take_report(struct scu *s, uint8_t context, const struct dimse_command *rq,
                       struct err *e)
{
    struct dimse_command rsp = {
        .field = DIMSE_N_EVENT_REPORT_RSP,
        .responded_id = rq->message_id,
        .event_type = rq->event_type,
        .status = STATUS_SUCCESS,
        .has = DIMSE_HAS_RESPONDED_ID | DIMSE_HAS_STATUS | DIMSE_HAS_EVENT_TYPE,
    };
    struct commitment report;
    struct err why = {0};
    struct buf data;
    const char *syntax = SYNTAX_IMPLICIT_LE;

    memcpy(rsp.affected_class, rq->affected_class, UID_BYTES);
    memcpy(rsp.affected_instance, rq->affected_instance, UID_BYTES);
    for (size_t i = 0; i < s->context_count; i++)
        if (s->contexts[i].id == context && s->contexts[i].accepted)
            syntax = s->contexts[i].transfer_syntax;
    buf_init(&data, COMMITMENT_BYTES_MAX);
    int rc = message_read_buffer(s->association, context, &data, e);
    if (rc == 0) {
        if (s->report_count == REPORTS_MAX)
            rsp.status = STATUS_RESOURCE_LIMITATION;
        else if (commitment_decode(buf_text(&data), data.len, syntax, &report, &why) != 0)
            rsp.status = STATUS_PROCESSING_FAILURE;
        else
            s->reports[s->report_count++] = report;
        rc = message_send(s->association, context, &rsp, NULL, 0, e);
    }
    buf_fini(&data);
    return rc;
}

/* Waits for the response to our last request; reports that come first are kept. */
static int read_response(struct scu *s, uint8_t context, uint16_t field, struct dimse_command *out,
                         struct err *e)
{
    struct wire *wire = association_wire(s->association);
    uint8_t id;

    for (;;) {
        wire->deadline_ms = clock_mono_ms() + s->response_ms;
        int rc = message_read_command(s->association, &id, out, e);
        if (rc == 0 && out->field == DIMSE_N_EVENT_REPORT_RQ && out->data_set) {
            rc = take_report(s, id, out, e);
            if (rc == 0)
                continue;
        } else if (rc == 0 &&
                   (out->field != field || id != context || out->responded_id != s->last_message)) {
            rc = err_set(e, ERR_INVALID, "the peer sent %s where the response to our %s was due",
                         dimse_name(out->field), dimse_name(field & ~DIMSE_RESPONSE));
        }
        wire->deadline_ms = 0;
        return rc == 0 ? 0 : broke(s, rc, e);
    }
}

static int request(struct scu *s, uint8_t context, struct dimse_command *rq, const void *data,
                   size_t n, struct err *e)
{
    rq->message_id = next_message(s);
    rq->has |= DIMSE_HAS_MESSAGE_ID;
    int rc = message_send(s->association, context, rq, data, n, e);
    return rc == 0 ? 0 : broke(s, rc, e);
}

/* A final status as our error, with the peer's comment, in which nothing but plain text is left. */
static int verdict(const struct scu *s, const struct dimse_command *rsp, struct scu_answer *answer,
                   struct err *e)
{
    if (answer != NULL) {
        memset(answer, 0, sizeof *answer);
        answer->status = rsp->status;
        answer->warning = status_kind(rsp->status) == STATUS_KIND_WARNING;
        memcpy(answer->comment, rsp->comment, sizeof answer->comment);
    }
    int rc = status_to_err(rsp->status);
    if (rc != 0)
        err_set(e, rc, "%s answered %s with status %04X (%s)", s->peer,
                dimse_name(rsp->field & ~DIMSE_RESPONSE), rsp->status, status_name(rsp->status));
    return rc;
}

static int usable(const struct scu *s, struct err *e)
{
    return s->broken ? err_set(e, ERR_NETWORK, "the association with %s is over", s->peer) : 0;
}

int scu_echo(struct scu *s, struct err *e)
{
    struct dimse_command rq = {.field = DIMSE_C_ECHO_RQ, .affected_class = SOP_VERIFICATION};
    struct dimse_command rsp;

    int rc = usable(s, e);
    if (rc != 0)
        return rc;
    const struct association_context *context =
        need_context(s, SOP_VERIFICATION, SYNTAX_IMPLICIT_LE, e);
    if (context == NULL)
        return ERR_PEER_REFUSED;
    rc = request(s, context->id, &rq, NULL, 0, e);
    if (rc == 0)
        rc = read_response(s, context->id, DIMSE_C_ECHO_RSP, &rsp, e);
    return rc == 0 ? verdict(s, &rsp, NULL, e) : rc;
}

/* Sends [at, end) of the file as the data set of the request that was just sent. */
static int send_file(struct scu *s, uint8_t context, int fd, uint64_t at, uint64_t end,
                     uint8_t *chunk, struct err *e)
{
    while (at < end) {
        size_t want = end - at < CHUNK ? (size_t)(end - at) : CHUNK;
        ssize_t got = pread(fd, chunk, want, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            /* Half a data set is on its way: only an abort can take it back. */
            s->broken = true;
            return got < 0 ? err_errno(e, errno, "cannot read the file that is being sent")
                           : err_set(e, ERR_IO, "the file that is being sent became shorter");
        }
        at += (uint64_t)got;
        int rc =
            association_write(s->association, context, false, at == end, chunk, (size_t)got, e);
        if (rc != 0)
            return broke(s, rc, e);
    }
    return 0;
}

struct converting {
    struct scu *scu;
    uint8_t context;
};

static int put_converted(void *ctx, const void *bytes, size_t n, int last, struct err *e)
{
    struct converting *c = ctx;
    int rc = association_write(c->scu->association, c->context, false, last != 0, bytes, n, e);
    return rc == 0 ? 0 : broke(c->scu, rc, e);
}

static int send_converted(struct scu *s, uint8_t context, int fd, uint64_t at, uint64_t end,
                          struct err *e)
{
    struct converting c = {s, context};
    int rc = convert_to_implicit(fd, at, end, put_converted, &c, e);
    if (rc != 0)
        s->broken = true; /* half a data set is on its way */
    return rc;
}

static int send_instance(struct scu *s, int fd, const struct part10 *head, uint64_t size,
                         struct scu_answer *answer, struct err *e)
{
    struct dimse_command rq = {
        .field = DIMSE_C_STORE_RQ, .has = DIMSE_HAS_PRIORITY, .data_set = true};
    struct dimse_command rsp;

    const struct association_context *context =
        context_for(s, head->sop_class, head->transfer_syntax);
    bool convert = context == NULL && strcmp(head->transfer_syntax, SYNTAX_EXPLICIT_LE) == 0 &&
                   scu_accepts(s, head->sop_class, SYNTAX_IMPLICIT_LE) &&
                   convert_to_implicit(fd, head->data_set, size, NULL, NULL, NULL) == 0;
    if (context == NULL)
        context = need_context(s, head->sop_class,
                               convert ? SYNTAX_IMPLICIT_LE : head->transfer_syntax, e);
    if (context == NULL)
        return ERR_PEER_REFUSED;
    uint8_t *chunk = malloc(CHUNK);
    if (chunk == NULL)
        return err_set(e, ERR_NOMEM, "no memory to send a file");
    memcpy(rq.affected_class, head->sop_class, UID_BYTES);
    memcpy(rq.affected_instance, head->sop_instance, UID_BYTES);
    rq.message_id = next_message(s);
    rq.has |= DIMSE_HAS_MESSAGE_ID;

    uint8_t command[DIMSE_COMMAND_MAX];
    size_t n = dimse_encode(&rq, command);
    int rc = association_write(s->association, context->id, true, true, command, n, e);
    if (rc != 0)
        rc = broke(s, rc, e);
    else if (convert)
        rc = send_converted(s, context->id, fd, head->data_set, size, e);
    else
        rc = send_file(s, context->id, fd, head->data_set, size, chunk, e);
    free(chunk);
    if (rc == 0)
        rc = read_response(s, context->id, DIMSE_C_STORE_RSP, &rsp, e);
    return rc == 0 ? verdict(s, &rsp, answer, e) : rc;
}

int scu_store(struct scu *s, const char *path, struct scu_answer *answer, struct err *e)
{
    struct part10 head;
    struct peek peek;
    struct stat st;

    if (answer != NULL)
        memset(answer, 0, sizeof *answer);
    int rc = usable(s, e);
    if (rc != 0)
        return rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "cannot open %s", path);
    if (fstat(fd, &st) != 0) {
        rc = err_errno(e, errno, "cannot look at %s", path);
        goto out;
    }
    rc = part10_read(fd, &head, e);
    /* Never begin to send what is broken: the peer would have half of it. */
    if (rc == 0)
        rc = peek_file(fd, head.data_set, (uint64_t)st.st_size, head.transfer_syntax, NULL, &peek,
                       e);
    if (rc != 0) {
        err_context(e, "%s", path);
        goto out;
    }
    memcpy(head.sop_class, peek.sop_class, UID_BYTES);
    memcpy(head.sop_instance, peek.sop_instance, UID_BYTES);
    rc = send_instance(s, fd, &head, (uint64_t)st.st_size, answer, e);
out:
    close(fd);
    return rc;
}

/* One C-FIND; *numbers: what the responses say in all, *matches: how many there were. */
static int find(struct scu *s, const struct find_query *query, struct find_result *result,
                struct err *e)
{
    struct dimse_command rq = {.field = DIMSE_C_FIND_RQ,
                               .affected_class = SOP_FIND_STUDY_ROOT,
                               .has = DIMSE_HAS_PRIORITY,
                               .data_set = true};
    struct dimse_command rsp;
    struct buf data;
    int rc;

    memset(result, 0, sizeof *result);
    const struct association_context *context =
        need_context(s, SOP_FIND_STUDY_ROOT, SYNTAX_IMPLICIT_LE, e);
    if (context == NULL)
        return ERR_PEER_REFUSED;
    buf_init(&data, FIND_BYTES_MAX);
    rc = find_encode(query, &data, e);
    if (rc == 0)
        rc = request(s, context->id, &rq, buf_text(&data), data.len, e);
    while (rc == 0) {
        rc = read_response(s, context->id, DIMSE_C_FIND_RSP, &rsp, e);
        if (rc != 0)
            break;
        buf_clear(&data);
        if (rsp.data_set) {
            rc = message_read_buffer(s->association, context->id, &data, e);
            if (rc != 0) {
                rc = broke(s, rc, e);
                break;
            }
        }
        if (status_kind(rsp.status) != STATUS_KIND_PENDING) {
            rc = verdict(s, &rsp, NULL, e);
            break;
        }
        if (result->matches >= SCU_COUNT_MAX) {
            s->broken = true; /* the rest of the answers is not waited for */
            rc = err_set(e, ERR_LIMIT, "%s answers with more than %d instances", s->peer,
                         SCU_COUNT_MAX);
            break;
        }
        rc = find_decode(query, buf_text(&data), data.len, result, e);
        if (rc != 0)
            rc = broke(s, rc, e);
    }
    buf_fini(&data);
    return rc;
}

int scu_count_series(struct scu *s, const char *study, const char *series, uint32_t *count,
                     struct err *e)
{
    struct find_query query = {.level = FIND_SERIES, .study = study, .series = series};
    struct find_result result;

    int rc = usable(s, e);
    if (rc == 0)
        rc = find(s, &query, &result, e);
    if (rc != 0)
        return rc;
    if (result.matches > 0 && !result.has_number) {
        query.level = FIND_IMAGE;
        rc = find(s, &query, &result, e);
        if (rc != 0)
            return rc;
        *count = result.matches;
        return 0;
    }
    *count = result.number;
    return 0;
}

int scu_commit(struct scu *s, const struct commitment *request_, struct scu_answer *answer,
               struct err *e)
{
    struct dimse_command rq = {
        .field = DIMSE_N_ACTION_RQ,
        .requested_class = SOP_COMMITMENT_PUSH,
        .requested_instance = SOP_COMMITMENT_INSTANCE,
        .action_type = 1, /* request storage commitment (PS3.4 table J.3-1) */
        .has = DIMSE_HAS_ACTION_TYPE,
        .data_set = true,
    };
    struct dimse_command rsp;
    struct buf data;

    if (answer != NULL)
        memset(answer, 0, sizeof *answer);
    int rc = usable(s, e);
    if (rc != 0)
        return rc;
    const struct association_context *context =
        need_context(s, SOP_COMMITMENT_PUSH, SYNTAX_IMPLICIT_LE, e);
    if (context == NULL)
        return ERR_PEER_REFUSED;
    buf_init(&data, COMMITMENT_BYTES_MAX);
    rc = commitment_encode(request_, &data, e);
    if (rc == 0)
        rc = request(s, context->id, &rq, buf_text(&data), data.len, e);
    if (rc == 0)
        rc = read_response(s, context->id, DIMSE_N_ACTION_RSP, &rsp, e);
    if (rc == 0 && rsp.data_set) {
        buf_clear(&data);
        rc = message_read_buffer(s->association, context->id, &data, e);
        if (rc != 0)
            rc = broke(s, rc, e);
    }
    if (rc == 0)
        rc = verdict(s, &rsp, answer, e);
    buf_fini(&data);
    return rc;
}

int scu_wait_report(struct scu *s, int64_t ms, struct commitment *out, struct err *e)
{
    struct wire *wire = association_wire(s->association);
    struct dimse_command rq;
    uint8_t id;

    int rc = usable(s, e);
    if (rc != 0)
        return rc;
    if (s->report_count == 0) {
        int64_t idle_ms = wire->idle_ms;
        wire->idle_ms = 0;
        enum wire_wait waited =
            association_buffered(s->association) ? WIRE_WAIT_READY : wire_wait(wire, ms, -1);
        wire->idle_ms = idle_ms;
        if (waited != WIRE_WAIT_READY)
            return err_set(e, ERR_TIMEOUT, "%s sent no report within %lld ms", s->peer,
                           (long long)ms);
        wire->deadline_ms = clock_mono_ms() + s->response_ms;
        rc = message_read_command(s->association, &id, &rq, e);
        if (rc == 0 && (rq.field != DIMSE_N_EVENT_REPORT_RQ || !rq.data_set))
            rc = err_set(e, ERR_INVALID, "the peer sent %s where a report was due",
                         dimse_name(rq.field));
        if (rc == 0)
            rc = take_report(s, id, &rq, e);
        wire->deadline_ms = 0;
        if (rc != 0)
            return broke(s, rc, e);
        if (s->report_count == 0)
            return err_set(e, ERR_INVALID, "%s sent a report that cannot be read", s->peer);
    }
    *out = s->reports[0];
    s->report_count--;
    memmove(s->reports, s->reports + 1, s->report_count * sizeof s->reports[0]);
    return 0;
}
