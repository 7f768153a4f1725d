/*
 * association.cc - the shim: associations by DCMTK, bytes by wire.c
 *
 * DCMTK sees a transport connection of ours, so all waiting happens in wire.c, under its deadlines.
 * An accepted socket goes in through dcmExternalSocketHandle, a global: a mutex is held from its
 * setting until DCMTK has created the connection, which is before anything waits for the peer.
 * An outgoing one is made by dial.c and takes the place of one to a door of ours, which is all that
 * DCMTK connects to.
 */
#include "dcmtk/config/osconfig.h"

#include "dcmtk/dcmnet/assoc.h"
#include "dcmtk/dcmnet/cond.h"
#include "dcmtk/dcmnet/dcmlayer.h"
#include "dcmtk/dcmnet/dcmtrans.h"
#include "dcmtk/dcmnet/dul.h"
#include "dcmtk/dcmnet/lst.h"
#include "dcmtk/oflog/oflog.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include <sys/socket.h>
#include <unistd.h>

#include "dicom/association.h"
#include "dicom/dial.h"
#include "dicom/part10.h"
#include "dicom/wire.h"
#include "node/base/clock.h"
#include "node/base/err.h"

struct association {
    T_ASC_Association *asc;
    struct wire wire;
    const struct tls *tls;
    const char *host; /* of a peer that we connect to, during association_open() */
    enum association_end end;
    bool linger;         /* the peer is to close first */
    uint64_t taken;      /* bytes that DCMTK has read */
    const uint8_t *pdvs; /* what of the last PDU is not handed out yet */
    size_t pdvs_left;
    char calling_ae[AE_BYTES];
    char called_ae[AE_BYTES];
    char implementation[AE_BYTES];
};

namespace
{

std::mutex handle_mutex;

/* What the next connection that DCMTK creates in this thread belongs to. */
struct pending {
    struct association *a;
    std::unique_lock<std::mutex> *lock;
    int fd; /* outgoing: connected to the peer */
};
thread_local pending next_connection;

class Connection : public DcmTransportConnection
{
  public:
    Connection(DcmNativeSocketType fd, struct association *a_) : DcmTransportConnection(fd), a(a_)
    {
    }
    ~Connection() override = default;

    OFCondition serverSideHandshake() override
    {
        return handshake(nullptr);
    }
    OFCondition clientSideHandshake() override
    {
        /* DCMTK has set socket options since the connection was made. */
        wire_connect(&a->wire, a->wire.fd);
        return handshake(a->host);
    }
    OFCondition renegotiate(const char *) override
    {
        return DUL_NETWORKCLOSED;
    }
    ssize_t read(void *buf, size_t n) override
    {
        ssize_t got = wire_read(&a->wire, buf, n);
        if (got > 0)
            a->taken += static_cast<uint64_t>(got);
        return got;
    }
    ssize_t write(void *buf, size_t n) override
    {
        /* The head of a P-DATA-TF PDU with one PDV comes alone; its body follows at once. */
        bool head = n == 12 && *static_cast<unsigned char *>(buf) == DUL_TYPEDATA;
        return wire_write(&a->wire, buf, n, head);
    }
    void close() override
    {
        wire_cancel(&a->wire);
    }
    void closeTransportConnection() override
    {
        wire_cancel(&a->wire);
    }
    unsigned long getPeerCertificateLength() override
    {
        return 0;
    }
    unsigned long getPeerCertificate(void *, unsigned long) override
    {
        return 0;
    }
    OFBool networkDataAvailable(int timeout) override
    {
        return wire_wait(&a->wire, timeout * INT64_C(1000), -1) == WIRE_WAIT_READY;
    }
    OFBool isTransparentConnection() override
    {
        return OFFalse; /* so that DCMTK never polls the descriptor itself */
    }
    OFString &dumpConnectionParameters(OFString &str) override
    {
        return str = "connection";
    }

  private:
    OFCondition handshake(const char *host)
    {
        if (a->tls == nullptr)
            return EC_Normal;
        return wire_handshake(&a->wire, a->tls, host) == 0 ? OFCondition(EC_Normal)
                                                           : OFCondition(DUL_NETWORKCLOSED);
    }

    struct association *a;
};

class Layer : public DcmTransportLayer
{
  public:
    DcmTransportConnection *createConnection(DcmNativeSocketType fd, OFBool) override
    {
        struct association *a = next_connection.a;
        /* Also closes what DCMTK has connected. */
        if (next_connection.fd >= 0 && dup2(next_connection.fd, fd) < 0)
            return nullptr;
        Connection *c = new (std::nothrow) Connection(fd, a);
        if (next_connection.lock != nullptr) {
            dcmExternalSocketHandle.set(0);
            next_connection.lock->unlock();
        }
        if (c != nullptr)
            wire_connect(&a->wire, fd);
        return c;
    }
};

T_ASC_Network *acceptor;
T_ASC_Network *requestor;

/* Once per process. The two networks and their layer live as long as the process. */
bool setup()
{
    static bool ready = [] {
        OFLog::configure(OFLogger::OFF_LOG_LEVEL);
        dcmDisableGethostbyaddr.set(OFTrue);
        dcmExternalSocketHandle.set(0); /* or DCMTK would open a listening socket of its own */
        /* How long DCMTK waits is decided by wire.c; this only has to be longer. */
        const int longest_s = 86400;
        if (ASC_initializeNetwork(NET_ACCEPTOR, 0, longest_s, &acceptor).bad() ||
            ASC_initializeNetwork(NET_REQUESTOR, 0, longest_s, &requestor).bad())
            return false;
        static Layer layer;
        return ASC_setTransportLayer(acceptor, &layer, 0).good() &&
               ASC_setTransportLayer(requestor, &layer, 0).good();
    }();
    return ready;
}

/* Trims, and lets through what may stand in a log line. */
void clean(char *out, size_t size, const char *text)
{
    while (*text == ' ')
        text++;
    size_t n = strnlen(text, size - 1);
    while (n > 0 && text[n - 1] == ' ')
        n--;
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] > 0x20 || text[i] == ' ' ? (text[i] < 0x7F ? text[i] : '?') : '?';
    out[n] = '\0';
}

int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "no memory for an association");
}

struct association *create(struct err *e)
{
    struct association *a = static_cast<struct association *>(calloc(1, sizeof *a));
    if (a == nullptr) {
        no_memory(e);
        return nullptr;
    }
    if (wire_init(&a->wire, e) != 0) {
        free(a);
        return nullptr;
    }
    return a;
}

/* Says how it ended, from what the wire and DCMTK say. */
int ended(struct association *a, const OFCondition &cond, struct err *e)
{
    switch (a->wire.end) {
    case WIRE_IDLE:
        a->end = ASSOCIATION_IDLE;
        return err_set(e, ERR_TIMEOUT, "the peer was silent for %lld ms",
                       static_cast<long long>(a->wire.idle_ms));
    case WIRE_DEADLINE:
        a->end = ASSOCIATION_SLOW;
        return err_set(e, ERR_TIMEOUT, "the peer took too long");
    case WIRE_TLS:
        a->end = ASSOCIATION_TLS;
        return err_set(e, ERR_NETWORK, "TLS failed: %s",
                       a->wire.tls_why != nullptr ? a->wire.tls_why : "no reason known");
    case WIRE_LOST:
        a->end = ASSOCIATION_LOST;
        return err_set(e, ERR_NETWORK, "the connection was lost");
    case WIRE_CLOSED:
        a->end = ASSOCIATION_LOST;
        return err_set(e, ERR_NETWORK, "the peer closed the connection");
    case WIRE_OPEN:
        break;
    }
    if (cond == DUL_PEERREQUESTEDRELEASE) {
        a->end = ASSOCIATION_RELEASED;
        return err_set(e, ERR_NETWORK, "the peer released the association");
    }
    if (cond == DUL_PEERABORTEDASSOCIATION) {
        a->end = ASSOCIATION_ABORTED;
        return err_set(e, ERR_NETWORK, "the peer aborted the association");
    }
    if (cond == EC_MemoryExhausted) {
        a->end = ASSOCIATION_LOST;
        return no_memory(e);
    }
    a->end = ASSOCIATION_PROTOCOL;
    return err_set(e, ERR_INVALID, "the peer broke the upper layer protocol (PS3.8)");
}

DUL_PRESENTATIONCONTEXT *context_at(struct association *a, size_t i)
{
    LST_HEAD **list = &a->asc->params->DULparams.requestedPresentationContext;
    if (*list == nullptr)
        return nullptr;
    auto *pc = reinterpret_cast<DUL_PRESENTATIONCONTEXT *>(LST_Head(list));
    if (pc != nullptr)
        LST_Position(list, reinterpret_cast<LST_NODE *>(pc));
    while (pc != nullptr && i-- > 0)
        pc = reinterpret_cast<DUL_PRESENTATIONCONTEXT *>(LST_Next(list));
    return pc;
}

/* All that may throw runs in here. */
template <typename F> int guarded(struct err *e, F &&f)
{
    try {
        return f();
    } catch (const std::bad_alloc &) {
        return no_memory(e);
    } catch (...) {
        return err_set(e, ERR_BUG, "DCMTK threw an exception");
    }
}

} // namespace

int association_receive(int fd, const struct tls *tls, uint32_t pdu_bytes, int64_t idle_ms,
                        int64_t deadline_ms, struct association **out, struct err *e)
{
    struct association *a = create(e);
    if (a == nullptr) {
        close(fd);
        return ERR_NOMEM;
    }
    if (pdu_bytes < ASSOCIATION_PDU_MIN || pdu_bytes > ASSOCIATION_PDU_MAX)
        pdu_bytes = ASSOCIATION_PDU_MAX;
    a->tls = tls;
    a->wire.idle_ms = idle_ms;
    a->wire.deadline_ms = deadline_ms;
    int rc = guarded(e, [&] {
        if (!setup()) {
            close(fd);
            return err_set(e, ERR_NOMEM, "cannot set up DCMTK's network layer");
        }
        OFCondition cond;
        {
            std::unique_lock<std::mutex> lock(handle_mutex);
            next_connection = {a, &lock, -1};
            dcmExternalSocketHandle.set(fd);
            cond = ASC_receiveAssociation(acceptor, &a->asc, static_cast<long>(pdu_bytes), nullptr,
                                          nullptr, tls != nullptr, DUL_NOBLOCK, 86400);
            next_connection = {nullptr, nullptr, -1};
            if (lock.owns_lock()) {
                /* It failed before it created the connection, and left the socket to us. */
                dcmExternalSocketHandle.set(0);
                a->wire.fd = fd;
            }
        }
        if (cond.bad())
            return ended(a, cond, e);
        char calling[AE_BYTES], called[AE_BYTES], responding[AE_BYTES];
        if (ASC_getAPTitles(a->asc->params, calling, sizeof calling, called, sizeof called,
                            responding, sizeof responding)
                .bad())
            return err_set(e, ERR_INVALID, "the association request has no AE titles");
        clean(a->calling_ae, sizeof a->calling_ae, calling);
        clean(a->called_ae, sizeof a->called_ae, called);
        clean(a->implementation, sizeof a->implementation,
              a->asc->params->theirImplementationVersionName);
        return 0;
    });
    if (rc != 0) {
        association_free(a);
        return rc;
    }
    *out = a;
    return 0;
}

size_t association_context_count(struct association *a)
{
    int n = ASC_countPresentationContexts(a->asc->params);
    return n > 0 ? static_cast<size_t>(n) : 0;
}

int association_context(struct association *a, size_t i, struct association_context *out)
{
    DUL_PRESENTATIONCONTEXT *pc = context_at(a, i);
    if (pc == nullptr)
        return ERR_NOT_FOUND;
    memset(out, 0, sizeof *out);
    out->id = pc->presentationContextID;
    snprintf(out->abstract_syntax, sizeof out->abstract_syntax, "%s", pc->abstractSyntax);
    out->accepted = pc->result == ASC_P_ACCEPTANCE;
    if (out->accepted)
        snprintf(out->transfer_syntax, sizeof out->transfer_syntax, "%s",
                 pc->acceptedTransferSyntax);
    switch (pc->proposedSCRole) {
    case DUL_SC_ROLE_SCU:
        out->role = ASSOCIATION_ROLE_SCU;
        break;
    case DUL_SC_ROLE_SCP:
        out->role = ASSOCIATION_ROLE_SCP;
        break;
    case DUL_SC_ROLE_SCUSCP:
        out->role = ASSOCIATION_ROLE_BOTH;
        break;
    default:
        out->role = ASSOCIATION_ROLE_DEFAULT;
        break;
    }
    return 0;
}

size_t association_proposed(struct association *a, size_t i,
                            char syntaxes[ASSOCIATION_SYNTAXES_MAX][UID_BYTES])
{
    DUL_PRESENTATIONCONTEXT *pc = context_at(a, i);
    if (pc == nullptr || pc->proposedTransferSyntax == nullptr)
        return 0;
    LST_HEAD **list = &pc->proposedTransferSyntax;
    auto *ts = reinterpret_cast<DUL_TRANSFERSYNTAX *>(LST_Head(list));
    if (ts != nullptr)
        LST_Position(list, reinterpret_cast<LST_NODE *>(ts));
    size_t n = 0;
    while (ts != nullptr && n < ASSOCIATION_SYNTAXES_MAX) {
        snprintf(syntaxes[n++], UID_BYTES, "%s", ts->transferSyntax);
        ts = reinterpret_cast<DUL_TRANSFERSYNTAX *>(LST_Next(list));
    }
    return n;
}

int association_accept_context(struct association *a, uint8_t id, const char *transfer_syntax,
                               enum association_role role, struct err *e)
{
    static const T_ASC_SC_ROLE roles[] = {ASC_SC_ROLE_DEFAULT, ASC_SC_ROLE_SCU, ASC_SC_ROLE_SCP,
                                          ASC_SC_ROLE_SCUSCP};
    return guarded(e, [&] {
        OFCondition cond =
            ASC_acceptPresentationContext(a->asc->params, id, transfer_syntax, roles[role]);
        return cond.good() ? 0 : err_set(e, ERR_INVALID, "cannot accept context %u", id);
    });
}

int association_refuse_context(struct association *a, uint8_t id, bool abstract, struct err *e)
{
    return guarded(e, [&] {
        OFCondition cond = ASC_refusePresentationContext(
            a->asc->params, id,
            abstract ? ASC_P_ABSTRACTSYNTAXNOTSUPPORTED : ASC_P_TRANSFERSYNTAXESNOTSUPPORTED);
        return cond.good() ? 0 : err_set(e, ERR_INVALID, "cannot refuse context %u", id);
    });
}

static void announce(T_ASC_Parameters *params)
{
    snprintf(params->ourImplementationClassUID, sizeof params->ourImplementationClassUID, "%s",
             UID_IMPLEMENTATION_CLASS);
    snprintf(params->ourImplementationVersionName, sizeof params->ourImplementationVersionName,
             "%s", UID_IMPLEMENTATION_VERSION);
}

int association_acknowledge(struct association *a, struct err *e)
{
    return guarded(e, [&] {
        announce(a->asc->params);
        OFCondition cond = ASC_acknowledgeAssociation(a->asc);
        return cond.good() ? 0 : ended(a, cond, e);
    });
}

int association_reject(struct association *a, int result, int source, int reason)
{
    return guarded(nullptr, [&] {
        T_ASC_RejectParameters rej;
        rej.result = static_cast<T_ASC_RejectParametersResult>(result);
        rej.source = static_cast<T_ASC_RejectParametersSource>(source);
        /* DCMTK codes the source into the reason. */
        rej.reason = static_cast<T_ASC_RejectParametersReason>(source << 8 | reason);
        a->linger = true;
        a->wire.deadline_ms = clock_mono_ms() + 1000;
        return ASC_rejectAssociation(a->asc, &rej).good() ? 0 : ERR_NETWORK;
    });
}

static int rejected(struct association *a, struct err *e)
{
    T_ASC_RejectParameters rej;
    if (ASC_getRejectParameters(a->asc->params, &rej).bad())
        return err_set(e, ERR_PEER_REFUSED, "the peer rejected the association");
    const char *why = "no reason given";
    bool transient = rej.result == ASC_RESULT_REJECTEDTRANSIENT;
    switch (rej.reason) {
    case ASC_REASON_SU_CALLINGAETITLENOTRECOGNIZED:
        why = "it does not know our AE title (calling)";
        break;
    case ASC_REASON_SU_CALLEDAETITLENOTRECOGNIZED:
        why = "its AE title is another one than we called";
        break;
    case ASC_REASON_SU_APPCONTEXTNAMENOTSUPPORTED:
        why = "application context not supported";
        break;
    case ASC_REASON_SP_ACSE_PROTOCOLVERSIONNOTSUPPORTED:
        why = "protocol version not supported";
        break;
    case ASC_REASON_SP_PRES_TEMPORARYCONGESTION:
        why = "temporary congestion";
        transient = true;
        break;
    case ASC_REASON_SP_PRES_LOCALLIMITEXCEEDED:
        why = "local limit exceeded";
        transient = true;
        break;
    case ASC_REASON_SU_NOREASON:
    case ASC_REASON_SP_ACSE_NOREASON:
        break;
    }
    return err_set(e, transient ? ERR_PEER_BUSY : ERR_PEER_REFUSED,
                   "the peer rejected the association: %s", why);
}

int association_open(const struct association_request *rq, struct association **out, struct err *e)
{
    if (rq->offer_count == 0 || rq->offer_count > ASSOCIATION_CONTEXTS_MAX)
        return err_set(e, ERR_LIMIT, "%zu presentation contexts: 1 to %d can be proposed",
                       rq->offer_count, ASSOCIATION_CONTEXTS_MAX);
    struct association *a = create(e);
    if (a == nullptr)
        return ERR_NOMEM;
    a->tls = rq->tls;
    a->host = rq->host;
    a->wire.quickack = true;
    a->wire.deadline_ms = clock_mono_ms() + rq->connect_ms;
    int fd = -1, door = -1;
    int rc = guarded(e, [&] {
        if (!setup())
            return err_set(e, ERR_NOMEM, "cannot set up DCMTK's network layer");
        uint16_t port = 0;
        char address[32];
        fd = dial(rq->host, rq->port, a->wire.deadline_ms, e);
        if (fd < 0)
            return fd;
        door = dial_door(&port, e);
        if (door < 0)
            return door;
        snprintf(address, sizeof address, "127.0.0.1:%u", port);
        T_ASC_Parameters *params = nullptr;
        if (ASC_createAssociationParameters(&params, ASSOCIATION_PDU_MAX).bad())
            return no_memory(e);
        announce(params);
        ASC_setAPTitles(params, rq->calling_ae, rq->called_ae, nullptr);
        ASC_setPresentationAddresses(params, "localhost", address);
        ASC_setTransportLayerType(params, rq->tls != nullptr);
        for (size_t i = 0; i < rq->offer_count; i++) {
            const char *syntax = rq->offers[i].transfer_syntax;
            if (ASC_addPresentationContext(params,
                                           static_cast<T_ASC_PresentationContextID>(2 * i + 1),
                                           rq->offers[i].abstract_syntax, &syntax, 1)
                    .bad()) {
                ASC_destroyAssociationParameters(&params);
                return no_memory(e);
            }
        }
        next_connection = {a, nullptr, fd};
        OFCondition cond = ASC_requestAssociation(requestor, params, &a->asc);
        next_connection = {nullptr, nullptr, -1};
        a->host = nullptr;
        if (a->asc == nullptr)
            ASC_destroyAssociationParameters(&params);
        if (cond == DUL_ASSOCIATIONREJECTED)
            return rejected(a, e);
        if (cond.bad() && a->wire.fd < 0)
            return err_set(e, ERR_NETWORK, "cannot connect through DCMTK: %s", cond.text());
        if (cond.bad())
            return ended(a, cond, e);
        if (ASC_countAcceptedPresentationContexts(a->asc->params) == 0) {
            association_abort(a);
            return err_set(e, ERR_PEER_REFUSED,
                           "the peer accepts none of the SOP classes that we propose");
        }
        a->wire.deadline_ms = 0;
        a->wire.idle_ms = rq->idle_ms;
        return 0;
    });
    if (fd >= 0)
        close(fd);
    if (door >= 0)
        close(door);
    if (rc != 0) {
        bool six = strchr(rq->host, ':') != nullptr;
        err_context(e, six ? "[%s]:%u" : "%s:%u", rq->host, rq->port);
        association_free(a);
        return rc;
    }
    *out = a;
    return 0;
}

const char *association_calling_ae(const struct association *a)
{
    return a->calling_ae;
}

const char *association_called_ae(const struct association *a)
{
    return a->called_ae;
}

const char *association_implementation(const struct association *a)
{
    return a->implementation;
}

struct wire *association_wire(struct association *a)
{
    return &a->wire;
}

bool association_buffered(struct association *a)
{
    return a->pdvs_left > 0 || a->wire.at < a->wire.have;
}

/* Reads the next P-DATA-TF PDU. Of DUL_NextPDV only the first PDV is taken, for where the PDU
 * begins: from the third on, DCMTK 3.6.7 moves its pointer by the length of the wrong PDV and reads
 * wherever that leads. */
static int read_pdu(struct association *a, struct err *e)
{
    const size_t pdu_head = 6, pdv_head = 6;
    DUL_PDV first;

    a->taken = 0;
    OFCondition cond = DUL_ReadPDVs(&a->asc->DULassociation, nullptr, DUL_BLOCK, 0);
    if (cond != DUL_PDATAPDUARRIVED)
        return ended(a, cond, e);
    cond = DUL_NextPDV(&a->asc->DULassociation, &first);
    if (cond.bad() || a->taken < pdu_head + pdv_head)
        return ended(a, DUL_ILLEGALPDU, e);
    a->pdvs = static_cast<const uint8_t *>(first.data) - pdv_head;
    a->pdvs_left = a->taken - pdu_head;
    return 0;
}

int association_read(struct association *a, struct association_pdv *out, struct err *e)
{
    return guarded(e, [&] {
        int rc = a->pdvs_left == 0 ? read_pdu(a, e) : 0;
        if (rc != 0)
            return rc;
        /* PS3.8 table 9-23: length of all that follows, context, control header, fragment. */
        const uint8_t *p = a->pdvs;
        size_t length = 0;
        if (a->pdvs_left >= 6)
            length = size_t(p[0]) << 24 | size_t(p[1]) << 16 | size_t(p[2]) << 8 | p[3];
        if (length < 2 || length > a->pdvs_left - 4)
            return ended(a, DUL_ILLEGALPDU, e);
        out->context = p[4];
        out->command = (p[5] & 1) != 0;
        out->last = (p[5] & 2) != 0;
        out->bytes = p + 6;
        out->n = length - 2;
        a->pdvs += 4 + length;
        a->pdvs_left -= 4 + length;
        return 0;
    });
}

int association_write(struct association *a, uint8_t context, bool command, bool last,
                      const void *bytes, size_t n, struct err *e)
{
    return guarded(e, [&] {
        DUL_PDV pdv;
        pdv.fragmentLength = n;
        pdv.presentationContextID = context;
        pdv.pdvType = command ? DUL_COMMANDPDV : DUL_DATASETPDV;
        pdv.lastPDV = last;
        pdv.data = const_cast<void *>(bytes);
        DUL_PDVLIST list;
        memset(&list, 0, sizeof list);
        list.count = 1;
        list.pdv = &pdv;
        OFCondition cond = DUL_WritePDVs(&a->asc->DULassociation, &list);
        return cond.good() ? 0 : ended(a, cond, e);
    });
}

enum association_end association_end_of(const struct association *a)
{
    return a->end;
}

const char *association_end_text(enum association_end end)
{
    switch (end) {
    case ASSOCIATION_OPEN:
        return "open";
    case ASSOCIATION_RELEASED:
        return "released";
    case ASSOCIATION_ABORTED:
        return "aborted by peer";
    case ASSOCIATION_LOST:
        return "connection lost";
    case ASSOCIATION_IDLE:
        return "idle too long";
    case ASSOCIATION_SLOW:
        return "message too slow";
    case ASSOCIATION_PROTOCOL:
        return "protocol error";
    case ASSOCIATION_TLS:
        return "TLS failed";
    }
    return "unknown";
}

/* What is still to be said, and the peer's closing, must not take long; a time that ran out before
 * must not prevent it. */
static void say_the_last(struct association *a)
{
    a->wire.deadline_ms = clock_mono_ms() + 1000;
    if (a->wire.end == WIRE_IDLE || a->wire.end == WIRE_DEADLINE)
        a->wire.end = WIRE_OPEN;
}

void association_release_answer(struct association *a)
{
    say_the_last(a);
    (void)guarded(nullptr, [&] {
        a->linger = true;
        return ASC_acknowledgeRelease(a->asc).good() ? 0 : ERR_NETWORK;
    });
}

int association_release(struct association *a, struct err *e)
{
    return guarded(e, [&] {
        OFCondition cond = ASC_releaseAssociation(a->asc);
        return cond.good() ? 0 : ended(a, cond, e);
    });
}

void association_abort(struct association *a)
{
    say_the_last(a);
    (void)guarded(nullptr, [&] {
        if (a->asc != nullptr && a->asc->DULassociation != nullptr)
            (void)ASC_abortAssociation(a->asc);
        return 0;
    });
}

void association_free(struct association *a)
{
    if (a == nullptr)
        return;
    (void)guarded(nullptr, [&] {
        if (a->linger && a->wire.end == WIRE_OPEN)
            (void)wire_wait(&a->wire, 1000, -1);
        if (a->asc != nullptr)
            (void)ASC_destroyAssociation(&a->asc);
        return 0;
    });
    wire_fini(&a->wire);
    free(a);
}
