/* peek.c - one pass over a data set for its soundness and its four UIDs */
#include "dicom/peek.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dicom/part10.h"
#include "dicom/status.h"
#include "dicom/walk.h"
#include "node/base/err.h"

struct wanted {
    uint32_t tag;
    const char *name;
    char *out;
    bool seen;
};

static int take_uid(struct walk *w, const struct walk_event *event, struct wanted *uid,
                    struct peek *p, struct err *e)
{
    if (uid->seen) {
        p->status = STATUS_CANNOT_UNDERSTAND;
        return err_set(e, ERR_INVALID, "%s is there twice", uid->name);
    }
    uid->seen = true;
    int rc = walk_text(w, event, uid->out, UID_BYTES, e);
    if (rc != 0 && walk_status(w) != 0)
        return rc;
    if (rc == ERR_INVALID || rc == ERR_LIMIT || (rc == 0 && !uid_is_safe(uid->out))) {
        p->status = STATUS_DATA_SET_MISMATCH;
        uid->out[0] = '\0';
        return err_set(e, ERR_INVALID, "%s is not a UID", uid->name);
    }
    return rc;
}

static int peek_walk(struct walk *w, struct peek *out, struct err *e)
{
    struct peek p = {.status = STATUS_SUCCESS};
    struct wanted wanted[] = {
        {0x00080016, "SOPClassUID (0008,0016)", p.sop_class, false},
        {0x00080018, "SOPInstanceUID (0008,0018)", p.sop_instance, false},
        {0x0020000D, "StudyInstanceUID (0020,000D)", p.study, false},
        {0x0020000E, "SeriesInstanceUID (0020,000E)", p.series, false},
    };
    const size_t count = sizeof wanted / sizeof wanted[0];
    struct walk_event event;
    int rc;

    while ((rc = walk_next(w, &event, e)) > 0) {
        if (event.kind == WALK_SEQUENCE || event.kind == WALK_FRAGMENTS) {
            if (event.depth + 1 > p.depth)
                p.depth = event.depth + 1;
        }
        if (event.depth != 0)
            continue;
        for (size_t i = 0; i < count; i++) {
            if (event.tag != wanted[i].tag)
                continue;
            if (event.kind != WALK_ELEMENT) {
                p.status = STATUS_CANNOT_UNDERSTAND;
                rc = err_set(e, ERR_INVALID, "%s is not a UID", wanted[i].name);
                goto out;
            }
            rc = take_uid(w, &event, &wanted[i], &p, e);
            if (rc != 0)
                goto out;
        }
    }
    if (rc < 0)
        goto out;
    for (size_t i = 0; i < count; i++) {
        if (!wanted[i].seen) {
            p.status = STATUS_DATA_SET_MISMATCH;
            rc = err_set(e, ERR_INVALID, "%s is missing", wanted[i].name);
            goto out;
        }
    }
out:
    if (rc != 0 && p.status == STATUS_SUCCESS)
        p.status = walk_status(w) != 0 ? walk_status(w) : STATUS_PROCESSING_FAILURE;
    p.elements = walk_elements(w);
    *out = p;
    return rc;
}

static int encoding_of(const char *transfer_syntax, struct sop_encoding *encoding, struct peek *out,
                       struct err *e)
{
    if (sop_encoding(transfer_syntax, encoding))
        return 0;
    memset(out, 0, sizeof *out);
    out->status = STATUS_CANNOT_UNDERSTAND;
    return err_set(e, ERR_UNSUPPORTED, "transfer syntax %.64s is none that we read",
                   uid_is_safe(transfer_syntax) ? transfer_syntax : "(malformed)");
}

int peek_file(int fd, uint64_t offset, uint64_t end, const char *transfer_syntax,
              const struct peek_limits *limits, struct peek *out, struct err *e)
{
    struct sop_encoding encoding;
    struct walk *w;
    int rc = encoding_of(transfer_syntax, &encoding, out, e);
    if (rc == 0)
        rc = walk_open_file(fd, offset, end, encoding, limits, &w, e);
    if (rc != 0)
        return rc;
    rc = peek_walk(w, out, e);
    walk_close(w);
    return rc;
}

int peek_memory(const void *bytes, size_t n, const char *transfer_syntax,
                const struct peek_limits *limits, struct peek *out, struct err *e)
{
    struct sop_encoding encoding;
    struct walk *w;
    int rc = encoding_of(transfer_syntax, &encoding, out, e);
    if (rc == 0)
        rc = walk_open_memory(bytes, n, encoding, limits, &w, e);
    if (rc != 0)
        return rc;
    rc = peek_walk(w, out, e);
    walk_close(w);
    return rc;
}

int peek_part10(const char *path, const struct peek_limits *limits, struct peek *out, struct err *e)
{
    struct part10 head;
    struct stat st;
    int rc;

    memset(out, 0, sizeof *out);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "cannot open %s", path);
    if (fstat(fd, &st) != 0) {
        rc = err_errno(e, errno, "cannot look at %s", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = err_set(e, ERR_INVALID, "%s is not a file", path);
        goto out;
    }
    rc = part10_read(fd, &head, e);
    if (rc != 0) {
        out->status = STATUS_CANNOT_UNDERSTAND;
        err_context(e, "%s", path);
        goto out;
    }
    rc = peek_file(fd, head.data_set, (uint64_t)st.st_size, head.transfer_syntax, limits, out, e);
    if (rc == 0 &&
        ((head.sop_class[0] != '\0' && strcmp(head.sop_class, out->sop_class) != 0) ||
         (head.sop_instance[0] != '\0' && strcmp(head.sop_instance, out->sop_instance) != 0))) {
        out->status = STATUS_DATA_SET_MISMATCH;
        rc = err_set(e, ERR_INVALID, "the file's head names another instance than its data set");
    }
    if (rc != 0)
        err_context(e, "%s", path);
out:
    close(fd);
    return rc;
}
