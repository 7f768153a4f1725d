/* dataset_write.cc - see dataset.h; setting values, encoding, files */
#include "dicom/dataset.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

#include "dicom/dataset_impl.h"

#include <dcmtk/dcmdata/dcostrmb.h>

#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/file.h"

#include "dicom/part10.h"
#include "dicom/sop.h"
#include "dicom/tags.h"

/* Largest data set that is encoded, and the piece in which it is. */
#define ENCODED_MAX   ((size_t)1 << 30)
#define ENCODED_CHUNK ((size_t)1 << 14)

/* Longest DS value (PS3.5 table 6.2-1). */
#define DS_MAX 16

static int set_result(OFCondition done, uint32_t tag, struct err *e)
{
    char name[64];
    if (done.good())
        return 0;
    return err_set(e, ERR_INVALID, "cannot set %s: %s", tag_to_text(tag, name, sizeof name),
                   done.text());
}

int item_set_text(struct item *it, uint32_t tag, const char *value, struct err *e)
{
    return protect(e, "setting an attribute", [&] {
        return set_result(unwrap(it)->putAndInsertString(DcmTag(key_of(tag)), value), tag, e);
    });
}

/* Shortest decimal of at most DS_MAX characters that reads back as value, or as near as fits;
 * without an exponent where it can be, as some readers stumble over it. */
static void print_decimal(double value, char out[DS_MAX + 1])
{
    char text[40], best[DS_MAX + 1] = "0";
    int digits = 1;
    for (int precision = 1; precision <= 17; precision++) {
        int n = snprintf(text, sizeof text, "%.*g", precision, value);
        if (n > DS_MAX)
            break;
        digits = precision;
        memcpy(best, text, (size_t)n + 1);
        if (strtod(best, NULL) == value)
            break;
    }
    if (strchr(best, 'e') && std::fabs(value) < 1e15) {
        int decimals = digits - 1 - (int)std::floor(std::log10(std::fabs(value)));
        int n = snprintf(text, sizeof text, "%.*f", decimals > 0 ? decimals : 0, value);
        if (n > 0 && n <= DS_MAX)
            memcpy(best, text, (size_t)n + 1);
    }
    snprintf(out, DS_MAX + 1, "%s", strcmp(best, "-0") == 0 ? "0" : best);
}

int item_set_decimals(struct item *it, uint32_t tag, const double *values, unsigned n,
                      struct err *e)
{
    return protect(e, "setting an attribute", [&]() -> int {
        OFString joined;
        for (unsigned i = 0; i < n; i++) {
            char text[DS_MAX + 1], name[64];
            if (!std::isfinite(values[i]))
                return err_set(e, ERR_NUMERIC, "cannot set %s: value %u is no finite number",
                               tag_to_text(tag, name, sizeof name), i + 1);
            print_decimal(values[i], text);
            if (i > 0)
                joined += '\\';
            joined += text;
        }
        return item_set_text(it, tag, joined.c_str(), e);
    });
}

int item_set_integer(struct item *it, uint32_t tag, int64_t value, struct err *e)
{
    return protect(e, "setting an attribute", [&]() -> int {
        DcmTag full(key_of(tag));
        char text[24], name[64];
        switch (full.getEVR()) {
        case EVR_US:
        case EVR_xs:
            if (value < 0 || value > UINT16_MAX)
                break;
            return set_result(unwrap(it)->putAndInsertUint16(full, (Uint16)value), tag, e);
        case EVR_UL:
            if (value < 0 || value > UINT32_MAX)
                break;
            return set_result(unwrap(it)->putAndInsertUint32(full, (Uint32)value), tag, e);
        default: /* IS: 32 bits signed */
            if (value < INT32_MIN || value > INT32_MAX)
                break;
            snprintf(text, sizeof text, "%lld", (long long)value);
            return item_set_text(it, tag, text, e);
        }
        return err_set(e, ERR_INVALID, "cannot set %s: %lld is out of its range",
                       tag_to_text(tag, name, sizeof name), (long long)value);
    });
}

int item_add(struct item *it, uint32_t tag, struct item **out, struct err *e)
{
    return protect(e, "adding an item", [&]() -> int {
        DcmItem *added = NULL;
        /* -2: append */
        OFCondition done = unwrap(it)->findOrCreateSequenceItem(DcmTag(key_of(tag)), added, -2);
        if (done.good())
            *out = wrap(added);
        return set_result(done, tag, e);
    });
}

int item_add_code(struct item *it, uint32_t tag, const char *value, const char *scheme,
                  const char *meaning, struct err *e)
{
    struct item *code = NULL;
    int rc = item_add(it, tag, &code, e);
    if (rc == 0)
        rc = item_set_text(code, TAG_CODE_VALUE, value, e);
    if (rc == 0)
        rc = item_set_text(code, TAG_CODING_SCHEME_DESIGNATOR, scheme, e);
    if (rc == 0)
        rc = item_set_text(code, TAG_CODE_MEANING, meaning, e);
    return rc;
}

/* Removes private attributes from it and all below; the depth was checked on reading. */
static void drop_private(DcmItem *it)
{
    for (unsigned long i = it->card(); i-- > 0;) {
        DcmElement *element = it->getElement(i);
        if (element->getTag().isPrivate()) {
            delete it->remove(i);
        } else if (element->ident() == EVR_SQ) {
            DcmSequenceOfItems *sequence = static_cast<DcmSequenceOfItems *>(element);
            for (unsigned long k = 0; k < sequence->card(); k++)
                drop_private(sequence->getItem(k));
        }
    }
}

int item_copy(struct item *to, const struct item *from, uint32_t tag, struct err *e)
{
    return protect(e, "copying an attribute", [&]() -> int {
        DcmElement *element = NULL;
        if (unwrap(from)->findAndGetElement(key_of(tag), element, OFFalse, OFTrue).bad())
            return 0;
        if (element->ident() == EVR_SQ) {
            DcmSequenceOfItems *sequence = static_cast<DcmSequenceOfItems *>(element);
            for (unsigned long i = 0; i < sequence->card(); i++)
                drop_private(sequence->getItem(i));
        }
        OFCondition done = unwrap(to)->insert(element, OFTrue /* replace */);
        if (done.bad())
            delete element;
        return set_result(done, tag, e);
    });
}

/* The data set behind the head, in pieces. */
static int encode_items(DcmDataset *set, struct buf *out, struct err *e)
{
    char *chunk = (char *)malloc(ENCODED_CHUNK);
    if (!chunk)
        return err_set(e, ERR_NOMEM, "no memory to encode a data set");
    int rc = protect(e, "encoding a data set", [&]() -> int {
        DcmOutputBufferStream stream(chunk, ENCODED_CHUNK);
        OFCondition state = EC_StreamNotifyClient;
        set->transferInit();
        while (state == EC_StreamNotifyClient) {
            state = set->write(stream, EXS_LittleEndianExplicit, EET_ExplicitLength, NULL,
                               EGL_withoutGL, EPD_withoutPadding);
            void *bytes = NULL;
            offile_off_t n = 0;
            if (state.good())
                stream.flush();
            stream.flushBuffer(bytes, n);
            buf_add(out, bytes, (size_t)n);
            if (buf_error(out))
                return err_set(e, buf_error(out), "encoding a data set: too large, or no memory");
        }
        set->transferEnd();
        return state.good() ? 0
                            : err_set(e, ERR_INVALID, "cannot encode data set: %s", state.text());
    });
    free(chunk);
    return rc;
}

int dataset_encode(struct dataset *d, struct buf *out, struct err *e)
{
    struct part10 head = {};
    snprintf(head.transfer_syntax, sizeof head.transfer_syntax, "%s", SYNTAX_EXPLICIT_LE);
    const struct item *root = dataset_root(d);
    if (!item_text(root, TAG_SOP_CLASS_UID, 0, head.sop_class, sizeof head.sop_class) ||
        !item_text(root, TAG_SOP_INSTANCE_UID, 0, head.sop_instance, sizeof head.sop_instance))
        return err_set(e, ERR_INVALID,
                       "cannot encode a data set without SOP Class and Instance UID");
    uint8_t *bytes = (uint8_t *)malloc(PART10_HEAD_MAX);
    if (!bytes)
        return err_set(e, ERR_NOMEM, "no memory to encode a data set");
    size_t used = 0;
    int rc = part10_encode(&head, bytes, &used, e);
    if (rc == 0)
        buf_add(out, bytes, used);
    free(bytes);
    return rc == 0 ? encode_items(d->file.getDataset(), out, e) : rc;
}

/* The words are written as they lie in memory. */
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "Explicit VR Little Endian");

/* Tag, VR and length of Pixel Data (PS3.5 7.1.2), to which a data set may not reach that is put
 * before it. */
static int add_pixel_head(struct dataset *d, const struct dataset_words *pixels, unsigned parts,
                          struct buf *out, struct err *e)
{
    size_t count = 0;
    for (unsigned i = 0; i < parts; i++) {
        count += pixels[i].count;
        if (pixels[i].count > ENCODED_MAX / 2 || count > ENCODED_MAX / 2)
            return err_set(e, ERR_LIMIT, "%zu words of pixel data are too many", count);
    }
    int rc = protect(e, "encoding pixel data", [&]() -> int {
        DcmDataset *set = d->file.getDataset();
        unsigned long n = set->card();
        if (n > 0 && !(set->getElement(n - 1)->getTag() < DCM_PixelData))
            return err_set(e, ERR_INVALID, "cannot put pixel data behind a data set that has some");
        return 0;
    });
    if (rc != 0)
        return rc;
    static const uint8_t head[] = {0xe0, 0x7f, 0x10, 0x00, 'O', 'W', 0, 0};
    uint32_t bytes = (uint32_t)(count * sizeof *pixels->words);
    buf_add(out, head, sizeof head);
    buf_add(out, &bytes, sizeof bytes);
    return buf_error(out) ? err_set(e, buf_error(out), "encoding pixel data: no memory") : 0;
}

static int write_file(int fd, const struct buf *bytes, const struct dataset_words *pixels,
                      unsigned parts, const char *path, struct err *e)
{
    int rc = file_write_all(fd, bytes->data, bytes->len, e);
    for (unsigned i = 0; rc == 0 && i < parts; i++)
        rc = file_write_all(fd, pixels[i].words, pixels[i].count * sizeof *pixels->words, e);
    if (rc != 0)
        return err_context(e, "%s", path);
    return fsync(fd) == 0 ? 0 : err_errno(e, errno, "cannot fsync %s", path);
}

int dataset_write(struct dataset *d, const struct dataset_words *pixels, unsigned parts,
                  const char *path, struct err *e)
{
    struct buf bytes;
    buf_init(&bytes, ENCODED_MAX);
    int fd = -1;
    int rc = dataset_encode(d, &bytes, e);
    if (rc == 0 && parts > 0)
        rc = add_pixel_head(d, pixels, parts, &bytes, e);
    if (rc != 0)
        goto out;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0) {
        rc = err_errno(e, errno, "cannot create %s", path);
        goto out;
    }
    rc = write_file(fd, &bytes, pixels, parts, path, e);
    if (close(fd) != 0 && rc == 0)
        rc = err_errno(e, errno, "cannot close %s", path);
    if (rc != 0)
        unlink(path);
out:
    buf_fini(&bytes);
    return rc;
}
