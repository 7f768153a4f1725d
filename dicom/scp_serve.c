/*
 * scp_serve.c - one association: negotiation, then message after message
 *
 * Nothing is answered to a C-STORE before the handler said how it ended. A data set that is refused
 * is still read to its end, so that the sender gets its status instead of a broken connection.
 */
#include "dicom/scp_serve.h"

#include <stdio.h>
#include <string.h>

#include "dicom/message.h"
#include "dicom/part10.h"
#include "dicom/status.h"
#include "dicom/wire.h"
#include "node/base/buf.h"
#include "node/base/clock.h"
#include "node/base/digest.h"
#include "node/base/err.h"

struct session {
    struct scp_serve *serve;
    const struct scp_handler *handler;
    struct association *association;
    struct scp_peer peer;
    struct scp_counts counts;
    struct association_context contexts[ASSOCIATION_CONTEXTS_MAX];
    size_t context_count;
};

/* A data set on its way to the file. */
struct receiving {
    struct scp_sink sink;
    struct digest *digest;
    uint64_t bytes;
    uint64_t most;
    uint16_t status; /* not 0: refused, the rest is read and dropped */
    char comment[COMMENT_BYTES];
};

static void comment(char out[COMMENT_BYTES], const char *text)
{
    size_t n = strlen(text);
    if (n >= COMMENT_BYTES)
        n = COMMENT_BYTES - 1;
    memcpy(out, text, n);
    out[n] = '\0';
}

static const struct association_context *context_of(const struct session *s, uint8_t id)
{
    for (size_t i = 0; i < s->context_count; i++)
        if (s->contexts[i].id == id && s->contexts[i].accepted)
            return &s->contexts[i];
    return NULL;
}

static bool listed(const char *const *list, size_t n, const char *uid)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], uid) == 0)
            return true;
    return false;
}

static bool is_storage(const struct session *s, const char *uid)
{
    return listed(s->serve->config.storage_classes, s->serve->config.storage_class_count, uid);
}

/* Answers one proposed context: the first of our syntaxes that is among the proposed ones. */
static int negotiate_context(struct session *s, size_t i, struct err *e)
{
    static const char *const command_syntaxes[] = {SYNTAX_IMPLICIT_LE, SYNTAX_EXPLICIT_LE};
    char proposed[ASSOCIATION_SYNTAXES_MAX][UID_BYTES];
    struct association_context context;
    const char *const *ours = command_syntaxes;
    size_t our_count = sizeof command_syntaxes / sizeof command_syntaxes[0];
    enum association_role role = ASSOCIATION_ROLE_DEFAULT;

    int rc = association_context(s->association, i, &context);
    if (rc != 0)
        return err_set(e, ERR_BUG, "a presentation context vanished");
    if (is_storage(s, context.abstract_syntax)) {
        ours = s->serve->config.transfer_syntaxes;
        our_count = s->serve->config.transfer_syntax_count;
    } else if (strcmp(context.abstract_syntax, SOP_COMMITMENT_PUSH) == 0 &&
               s->handler->commitment != NULL) {
        /* The peer is the SCP and connects to us to report: it proposes its role. */
        role = context.role;
    } else if (strcmp(context.abstract_syntax, SOP_VERIFICATION) != 0) {
        return association_refuse_context(s->association, context.id, true, e);
    }
    size_t n = association_proposed(s->association, i, proposed);
    for (size_t k = 0; k < our_count; k++)
        for (size_t j = 0; j < n; j++)
            if (strcmp(ours[k], proposed[j]) == 0)
                return association_accept_context(s->association, context.id, ours[k], role, e);
    return association_refuse_context(s->association, context.id, false, e);
}

static int negotiate(struct session *s, struct err *e)
{
    size_t n = association_context_count(s->association);

    for (size_t i = 0; i < n; i++) {
        int rc = negotiate_context(s, i, e);
        if (rc != 0)
            return rc;
    }
    int rc = association_acknowledge(s->association, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < n && s->context_count < ASSOCIATION_CONTEXTS_MAX; i++)
        if (association_context(s->association, i, &s->contexts[s->context_count]) == 0)
            s->context_count++;
    return 0;
}

static void reject(struct session *s, enum scp_reject why)
{
    static const struct {
        int result, source, reason;
        const char *text;
    } answers[] = {
        [SCP_REJECT_NO_REASON] = {1, 1, 1, "not authorised"},
        [SCP_REJECT_CALLING_AE] = {1, 1, 3, "calling AE title not recognised"},
        [SCP_REJECT_CALLED_AE] = {1, 1, 7, "called AE title not recognised"},
        [SCP_REJECT_CONGESTION] = {2, 3, 1, "temporary congestion"},
        [SCP_REJECT_LOCAL_LIMIT] = {2, 3, 2, "local limit of associations exceeded"},
    };

    association_reject(s->association, answers[why].result, answers[why].source,
                       answers[why].reason);
    if (s->handler->connection_refused != NULL)
        s->handler->connection_refused(s->handler->ctx, s->peer.address, s->peer.calling_ae,
                                       answers[why].text);
}

static int respond(struct session *s, uint8_t context, const struct dimse_command *rq,
                   uint16_t status, const char *text, struct err *e)
{
    struct dimse_command rsp = {
        .field = rq->field | DIMSE_RESPONSE,
        .responded_id = rq->message_id,
        .status = status,
        .event_type = rq->event_type,
        .has = DIMSE_HAS_RESPONDED_ID | DIMSE_HAS_STATUS | (rq->has & DIMSE_HAS_EVENT_TYPE),
    };
    memcpy(rsp.affected_class,
           rq->affected_class[0] != '\0' ? rq->affected_class : rq->requested_class, UID_BYTES);
    memcpy(rsp.affected_instance,
           rq->affected_instance[0] != '\0' ? rq->affected_instance : rq->requested_instance,
           UID_BYTES);
    if (text != NULL && status != STATUS_SUCCESS)
        comment(rsp.comment, text);
    return message_send(s->association, context, &rsp, NULL, 0, e);
}

static void refuse_data(struct receiving *r, uint16_t status, const char *text)
{
    if (r->status != 0)
        return;
    r->status = status;
    comment(r->comment, text);
}

static int take_data(void *ctx, const uint8_t *bytes, size_t n, struct err *e)
{
    struct receiving *r = ctx;
    struct err why = {0};

    r->bytes += n;
    if (r->bytes > r->most) {
        refuse_data(r, STATUS_TOO_LARGE, "data set is larger than this node takes");
        /* The sender may finish for its status, but not go on for ever. */
        if (r->bytes / 2 > r->most)
            return err_set(e, ERR_LIMIT, "the peer sent far more than this node takes");
    }
    if (r->status != 0)
        return 0;
    int rc = file_write_all(r->sink.fd, bytes, n, &why);
    if (rc != 0)
        refuse_data(r, STATUS_OUT_OF_RESOURCES,
                    rc == ERR_FULL ? "disk full" : "cannot write to disk");
    else if (r->digest != NULL)
        digest_add(r->digest, bytes, n);
    return 0;
}

static int drop_data(void *ctx, const uint8_t *bytes, size_t n, struct err *e)
{
    struct receiving *r = ctx;

    (void)bytes;
    r->bytes += n;
    if (r->bytes / 2 > r->most)
        return err_set(e, ERR_LIMIT, "the peer sent far more than this node takes");
    return 0;
}

/* Is the request itself one that we take? The status to answer, 0 if so. */
static uint16_t check_request(const struct session *s, const struct association_context *context,
                              const struct dimse_command *rq, char text[COMMENT_BYTES])
{
    if (!is_storage(s, context->abstract_syntax) ||
        strcmp(rq->affected_class, context->abstract_syntax) != 0) {
        comment(text, "SOP class is not that of the presentation context");
        return STATUS_SOP_CLASS_NOT_SUPPORTED;
    }
    if (rq->affected_instance[0] == '\0') {
        comment(text, "no Affected SOP Instance UID");
        return STATUS_DATA_SET_MISMATCH;
    }
    return STATUS_SUCCESS;
}

static int write_head(struct receiving *r, const struct session *s,
                      const struct scp_store_rq *store, size_t *used)
{
    uint8_t bytes[PART10_HEAD_MAX];
    struct part10 head = {.data_set = 0};
    struct err why = {0};

    memcpy(head.sop_class, store->sop_class, UID_BYTES);
    memcpy(head.sop_instance, store->sop_instance, UID_BYTES);
    memcpy(head.transfer_syntax, store->transfer_syntax, UID_BYTES);
    memcpy(head.source_ae, s->peer.calling_ae, AE_BYTES);
    int rc = part10_encode(&head, bytes, used, &why);
    if (rc == 0)
        rc = file_write_all(r->sink.fd, bytes, *used, &why);
    if (rc != 0)
        refuse_data(r, STATUS_OUT_OF_RESOURCES,
                    rc == ERR_FULL ? "disk full" : "cannot write to disk");
    return rc;
}

/* Looks through what was received and compares it with the command. */
static void check_data(struct receiving *r, const struct session *s,
                       const struct scp_store_rq *store, uint64_t head, struct instance *instance)
{
    struct peek peek;
    struct err why = {0};

    if (peek_file(r->sink.fd, head, head + r->bytes, store->transfer_syntax, &s->serve->config.peek,
                  &peek, &why) != 0) {
        refuse_data(r, peek.status != 0 ? (uint16_t)peek.status : STATUS_PROCESSING_FAILURE,
                    why.text);
        return;
    }
    if (strcmp(peek.sop_class, store->sop_class) != 0) {
        refuse_data(r, STATUS_DATA_SET_MISMATCH, "SOP class of data set and command differ");
        return;
    }
    if (strcmp(peek.sop_instance, store->sop_instance) != 0) {
        refuse_data(r, STATUS_DATA_SET_MISMATCH, "SOP instance of data set and command differ");
        return;
    }
    memcpy(instance->sop_class, peek.sop_class, UID_BYTES);
    memcpy(instance->sop_instance, peek.sop_instance, UID_BYTES);
    memcpy(instance->study, peek.study, UID_BYTES);
    memcpy(instance->series, peek.series, UID_BYTES);
    memcpy(instance->transfer_syntax, store->transfer_syntax, UID_BYTES);
    memcpy(instance->calling_ae, s->peer.calling_ae, AE_BYTES);
    memcpy(instance->called_ae, s->peer.called_ae, AE_BYTES);
    memcpy(instance->address, s->peer.address, ADDRESS_BYTES);
    memcpy(instance->path, r->sink.path, PATH_BYTES);
    instance->bytes = head + r->bytes;
}

/* The file is open: receive into it, and let the handler decide. */
static int receive_instance(struct session *s, uint8_t context, struct receiving *r,
                            const struct scp_store_rq *store, struct err *e)
{
    struct instance instance = {.bytes = 0};
    uint8_t sha[DIGEST_BYTES];
    size_t head = 0;

    if (s->serve->config.digest) {
        r->digest = digest_new();
        if (r->digest == NULL)
            refuse_data(r, STATUS_OUT_OF_RESOURCES, "no memory");
    }
    if (r->status == 0)
        write_head(r, s, store, &head);
    int rc = message_read_data(s->association, context, take_data, r, e);
    if (rc == 0 && r->status == 0)
        check_data(r, s, store, head, &instance);
    if (r->digest != NULL) {
        digest_finish(r->digest, sha);
        digest_to_hex(sha, instance.sha256);
        r->digest = NULL;
    }
    s->counts.bytes += r->bytes;
    if (rc != 0) {
        enum association_end end = association_end_of(s->association);
        const char *why = end != ASSOCIATION_OPEN ? association_end_text(end) : "protocol error";
        s->handler->store_abort(s->handler->ctx, &s->peer, &r->sink, store, 0, why);
        return rc;
    }
    if (r->status != 0) {
        s->handler->store_abort(s->handler->ctx, &s->peer, &r->sink, store, r->status, r->comment);
        return 0;
    }
    r->status = s->handler->store_done(s->handler->ctx, &s->peer, &r->sink, &instance, r->comment);
    return 0;
}

static int serve_store(struct session *s, const struct association_context *context,
                       const struct dimse_command *rq, struct err *e)
{
    struct receiving r = {.most = s->serve->config.instance_bytes, .sink = {.fd = -1}};
    struct scp_store_rq store = {.message_id = rq->message_id};
    int rc;

    if (!rq->data_set)
        return err_set(e, ERR_INVALID, "the peer sent a C-STORE without a data set");
    memcpy(store.sop_class, rq->affected_class, UID_BYTES);
    memcpy(store.sop_instance, rq->affected_instance, UID_BYTES);
    memcpy(store.transfer_syntax, context->transfer_syntax, UID_BYTES);

    r.status = check_request(s, context, rq, r.comment);
    if (r.status == 0)
        r.status = s->handler->store_open(s->handler->ctx, &s->peer, &store, &r.sink, r.comment);
    if (r.status == 0) {
        rc = receive_instance(s, context->id, &r, &store, e);
    } else {
        rc = message_read_data(s->association, context->id, drop_data, &r, e);
        s->counts.bytes += r.bytes;
    }
    if (rc != 0)
        return rc;
    enum status_kind kind = status_kind(r.status);
    if (kind == STATUS_KIND_SUCCESS || kind == STATUS_KIND_WARNING)
        s->counts.stored++;
    else
        s->counts.failed++;
    r.comment[COMMENT_BYTES - 1] = '\0';
    return respond(s, context->id, rq, r.status, r.comment, e);
}

static int serve_report(struct session *s, const struct association_context *context,
                        const struct dimse_command *rq, struct err *e)
{
    struct commitment report;
    struct err why = {0};
    struct buf data;
    uint16_t status;
    int rc;

    if (!rq->data_set)
        return err_set(e, ERR_INVALID, "the peer sent a report without a data set");
    buf_init(&data, COMMITMENT_BYTES_MAX);
    rc = message_read_buffer(s->association, context->id, &data, e);
    if (rc != 0)
        goto out;
    why.text[0] = '\0';
    if (strcmp(context->abstract_syntax, SOP_COMMITMENT_PUSH) != 0 ||
        s->handler->commitment == NULL) {
        status = STATUS_NO_SUCH_SOP_CLASS;
    } else if (commitment_decode(buf_text(&data), data.len, context->transfer_syntax, &report,
                                 &why) != 0) {
        status = STATUS_PROCESSING_FAILURE;
    } else {
        status = s->handler->commitment(s->handler->ctx, &s->peer, &report);
        commitment_fini(&report);
    }
    rc = respond(s, context->id, rq, status, why.text, e);
out:
    buf_fini(&data);
    return rc;
}

static int serve_message(struct session *s, struct err *e)
{
    struct receiving dropped = {.most = s->serve->config.instance_bytes};
    struct dimse_command rq;
    uint8_t id;

    int rc = message_read_command(s->association, &id, &rq, e);
    if (rc != 0)
        return rc;
    const struct association_context *context = context_of(s, id);
    if (context == NULL)
        return err_set(e, ERR_INVALID, "the peer used a context that was not accepted");
    if (rq.field & DIMSE_RESPONSE)
        return err_set(e, ERR_INVALID, "the peer sent a response to no request");

    switch (rq.field) {
    case DIMSE_C_STORE_RQ:
        return serve_store(s, context, &rq, e);
    case DIMSE_N_EVENT_REPORT_RQ:
        return serve_report(s, context, &rq, e);
    default:
        break;
    }
    if (rq.data_set) {
        rc = message_read_data(s->association, id, drop_data, &dropped, e);
        if (rc != 0)
            return rc;
    }
    if (rq.field == DIMSE_C_CANCEL_RQ)
        return 0; /* there is nothing to cancel, and it has no answer */
    if (rq.field != DIMSE_C_ECHO_RQ)
        return respond(s, id, &rq, STATUS_UNRECOGNISED_OPERATION, NULL, e);
    if (strcmp(context->abstract_syntax, SOP_VERIFICATION) != 0)
        return respond(s, id, &rq, STATUS_SOP_CLASS_NOT_SUPPORTED, NULL, e);
    if (s->handler->echo != NULL)
        s->handler->echo(s->handler->ctx, &s->peer);
    return respond(s, id, &rq, STATUS_SUCCESS, NULL, e);
}

/* Message after message; returns how it ended. */
static const char *serve_messages(struct session *s)
{
    struct wire *wire = association_wire(s->association);
    struct err why;

    for (;;) {
        wire->deadline_ms = 0;
        if (!association_buffered(s->association)) {
            switch (wire_wait(wire, -1, s->serve->stop_fd)) {
            case WIRE_WAIT_WOKEN:
                association_abort(s->association);
                return "stopped";
            case WIRE_WAIT_TIMEOUT:
                association_abort(s->association);
                return association_end_text(ASSOCIATION_IDLE);
            case WIRE_WAIT_READY:
                break;
            }
        } else if (s->serve->stopped) {
            association_abort(s->association);
            return "stopped";
        }
        wire->deadline_ms = clock_mono_ms() + s->serve->config.message_ms;
        if (serve_message(s, &why) == 0)
            continue;

        enum association_end end = association_end_of(s->association);
        if (end == ASSOCIATION_RELEASED) {
            association_release_answer(s->association);
        } else if (end != ASSOCIATION_LOST && end != ASSOCIATION_ABORTED) {
            association_abort(s->association);
        }
        if (s->serve->stopped && end == ASSOCIATION_LOST)
            return "stopped";
        return association_end_text(end == ASSOCIATION_OPEN ? ASSOCIATION_PROTOCOL : end);
    }
}

void scp_serve(struct scp_serve *serve, struct connection *c, int fd, const char *address,
               uint16_t port, int64_t since_ms)
{
    struct session s = {.serve = serve, .handler = serve->handler};
    const struct scp_config *config = &serve->config;
    struct err why = {0};

    memcpy(s.peer.address, address, ADDRESS_BYTES);
    s.peer.port = port;
    if (association_receive(fd, config->tls, config->pdu_bytes, 0,
                            since_ms + config->negotiation_ms, &s.association, &why) != 0) {
        if (s.handler->connection_refused != NULL && !serve->stopped)
            s.handler->connection_refused(s.handler->ctx, address, "", why.text);
        return;
    }
    s.peer.id = scp_next_id(c);
    snprintf(s.peer.calling_ae, sizeof s.peer.calling_ae, "%s",
             association_calling_ae(s.association));
    snprintf(s.peer.called_ae, sizeof s.peer.called_ae, "%s", association_called_ae(s.association));
    snprintf(s.peer.implementation, sizeof s.peer.implementation, "%s",
             association_implementation(s.association));
    memcpy(s.peer.fingerprint, association_wire(s.association)->fingerprint,
           sizeof s.peer.fingerprint);

    enum scp_reject no = SCP_REJECT_NO_REASON;
    if (config->ae_title != NULL && config->ae_title[0] != '\0' &&
        strcmp(config->ae_title, s.peer.called_ae) != 0) {
        reject(&s, SCP_REJECT_CALLED_AE);
    } else if (serve->stopped || !scp_establish(c)) {
        reject(&s, SCP_REJECT_LOCAL_LIMIT);
    } else if (s.handler->authorise(s.handler->ctx, &s.peer, &no) != 0) {
        reject(&s, no);
    } else {
        if (negotiate(&s, &why) == 0) {
            association_wire(s.association)->idle_ms = config->idle_ms;
            s.counts.end = serve_messages(&s);
        } else {
            enum association_end end = association_end_of(s.association);
            s.counts.end = association_end_text(end);
            if (end == ASSOCIATION_OPEN)
                association_abort(s.association);
        }
        if (s.handler->association_end != NULL)
            s.handler->association_end(s.handler->ctx, &s.peer, &s.counts);
    }
    association_free(s.association);
}
