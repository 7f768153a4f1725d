/* dataset.cc - see dataset.h; reading. Writing is in dataset_write.cc */
#include "dicom/dataset.h"

#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <sys/stat.h>

#include "dicom/dataset_impl.h"

#include <dcmtk/dcmdata/dcrledrg.h>
#include <dcmtk/dcmjpeg/djdecode.h>
#include <dcmtk/dcmjpls/djdecode.h>
#include <dcmtk/oflog/oflog.h>

#include "node/base/err.h"

#include "dicom/peek.h"
#include "dicom/tags.h"

/* Values longer than this stay in the file until they are asked for. */
#define LAZY_BYTES 4096

/* Most elements, none longer than that, of a data set that may be held beside many others: some
 * hundred bytes each. An MR slice has a few hundred. */
#define LIGHT_ELEMENTS 4096

/* Deepest nesting that a caller may allow: DCMTK's parser recurses. */
#define DEPTH_MAX 64

static const struct dataset_limits default_limits = {UINT64_C(1) << 30, 32};

static int start(struct err *e)
{
    OFLog::configure(OFLogger::OFF_LOG_LEVEL);
    int rc = dictionary_load(e);
    if (rc != 0)
        return rc;
    /* Others may have stored what they did not know as UN; we know it. */
    dcmEnableUnknownVRConversion.set(OFTrue);
    DJDecoderRegistration::registerCodecs();
    DJLSDecoderRegistration::registerCodecs();
    DcmRLEDecoderRegistration::registerCodecs();
    return 0;
}

int dicom_init(struct err *e)
{
    static std::mutex guard;
    static bool done = false;
    return protect(e, "starting DICOM", [&]() -> int {
        std::lock_guard<std::mutex> hold(guard);
        if (done)
            return 0;
        int rc = start(e);
        done = rc == 0;
        return rc;
    });
}

/* A regular file of a size that we take, and nested no deeper than the parser stands. */
static int check_file(const char *path, const struct dataset_limits *limits, struct stat *st,
                      struct peek *found, struct err *e)
{
    if (stat(path, st) != 0)
        return err_errno(e, errno, "cannot open %s", path);
    if (!S_ISREG(st->st_mode))
        return err_set(e, ERR_INVALID, "%s is not a file", path);
    if ((uint64_t)st->st_size > limits->file_bytes)
        return err_set(e, ERR_LIMIT, "%s has %lld bytes, more than the limit of %llu", path,
                       (long long)st->st_size, (unsigned long long)limits->file_bytes);
    struct peek_limits peek_limits = {};
    peek_limits.depth = limits->depth < DEPTH_MAX ? limits->depth : DEPTH_MAX;
    return peek_part10(path, &peek_limits, found, e);
}

int dataset_open(const char *path, const struct dataset_limits *limits, struct dataset **out,
                 struct err *e)
{
    struct peek found = {};
    struct stat st = {};
    int rc = dicom_init(e);
    if (rc == 0)
        rc = check_file(path, limits ? limits : &default_limits, &st, &found, e);
    if (rc != 0)
        return rc;
    return protect(e, "reading a DICOM file", [&]() -> int {
        struct dataset *d = new struct dataset;
        d->elements = found.elements;
        d->file_was = st;
        OFCondition read = d->file.loadFile(path, EXS_Unknown, EGL_noChange, LAZY_BYTES);
        if (read.bad()) {
            delete d;
            return err_set(e, ERR_INVALID, "%s is no readable DICOM file (%s)", path, read.text());
        }
        *out = d;
        return 0;
    });
}

struct dataset *dataset_new(void)
{
    try {
        return new struct dataset;
    } catch (...) {
        return NULL;
    }
}

void dataset_free(struct dataset *d)
{
    try {
        delete d;
    } catch (...) {
    }
}

struct item *dataset_root(const struct dataset *d)
{
    return wrap(const_cast<struct dataset *>(d)->file.getDataset());
}

const char *dataset_transfer_syntax(const struct dataset *d)
{
    DcmXfer syntax(const_cast<struct dataset *>(d)->file.getDataset()->getOriginalXfer());
    const char *uid = syntax.getXferID();
    return uid ? uid : "";
}

int dataset_unchanged(const struct dataset *d, const char *path, struct err *e)
{
    const struct stat *was = &d->file_was;
    struct stat is;
    if (stat(path, &is) != 0)
        return err_errno(e, errno, "cannot look at the file again");
    if (is.st_dev != was->st_dev || is.st_ino != was->st_ino || is.st_size != was->st_size ||
        is.st_mtim.tv_sec != was->st_mtim.tv_sec || is.st_mtim.tv_nsec != was->st_mtim.tv_nsec)
        return err_set(e, ERR_INVALID, "the file has changed since the series was read");
    return 0;
}

bool dataset_is_light(const struct dataset *d)
{
    DcmXfer syntax(const_cast<struct dataset *>(d)->file.getDataset()->getOriginalXfer());
    return d->elements <= LIGHT_ELEMENTS && !syntax.isEncapsulated() &&
           syntax.getStreamCompression() == ESC_none;
}

/* The element, NULL if it is not there. */
static DcmElement *find(const struct item *it, uint32_t tag)
{
    DcmElement *element = NULL;
    return unwrap(it)->findAndGetElement(key_of(tag), element).good() ? element : NULL;
}

static bool is_sequence(DcmElement *element)
{
    return element->ident() == EVR_SQ;
}

bool item_has(const struct item *it, uint32_t tag)
{
    return protect_or(false, [&] { return find(it, tag) != NULL; });
}

unsigned item_count(const struct item *it, uint32_t tag)
{
    return protect_or(0u, [&]() -> unsigned {
        DcmElement *element = find(it, tag);
        if (!element || element->getLength() == 0)
            return 0;
        if (is_sequence(element))
            return (unsigned)static_cast<DcmSequenceOfItems *>(element)->card();
        return (unsigned)element->getVM();
    });
}

/* Without blanks and NULs at both ends, into out; false and "" if empty or too long. */
static bool trim_into(const OFString &text, char *out, size_t size)
{
    static const char blanks[] = " \t\r\n\f\0";
    const OFString padding(blanks, sizeof blanks - 1);
    size_t first = text.find_first_not_of(padding);
    if (first == OFString_npos)
        return false;
    size_t length = text.find_last_not_of(padding) + 1 - first;
    if (length >= size || memchr(text.data() + first, '\0', length))
        return false;
    memcpy(out, text.data() + first, length);
    out[length] = '\0';
    return true;
}

bool item_text(const struct item *it, uint32_t tag, unsigned index, char *out, size_t size)
{
    out[0] = '\0';
    return protect_or(false, [&]() -> bool {
        DcmElement *element = find(it, tag);
        OFString text;
        if (!element || is_sequence(element) || index >= element->getVM() ||
            element->getOFString(text, index, OFFalse).bad())
            return false;
        return trim_into(text, out, size);
    });
}

bool item_all_text(const struct item *it, uint32_t tag, char *out, size_t size)
{
    out[0] = '\0';
    return protect_or(false, [&]() -> bool {
        DcmElement *element = find(it, tag);
        OFString text;
        if (!element || is_sequence(element) || element->getOFStringArray(text, OFFalse).bad())
            return false;
        return trim_into(text, out, size);
    });
}

/* A number in text: all of it, without blanks at both ends. No locale is ever set. */
static bool parse_number(const OFString &text, double *out)
{
    char digits[64], *end = NULL;
    if (!trim_into(text, digits, sizeof digits) ||
        digits[strspn(digits, "+-0123456789.eE")] != '\0')
        return false;
    double value = strtod(digits, &end);
    if (end == digits || *end != '\0' || !std::isfinite(value))
        return false;
    *out = value;
    return true;
}

static bool element_number(DcmElement *element, unsigned index, double *out)
{
    Float64 f64;
    Float32 f32;
    Uint32 u32;
    Sint32 s32;
    Uint16 u16;
    Sint16 s16;
    OFString text;
    switch (element->ident()) {
    case EVR_FD:
        return element->getFloat64(f64, index).good() && std::isfinite(*out = f64);
    case EVR_FL:
        return element->getFloat32(f32, index).good() && std::isfinite(*out = f32);
    case EVR_UL:
        return element->getUint32(u32, index).good() && (*out = u32, true);
    case EVR_SL:
        return element->getSint32(s32, index).good() && (*out = s32, true);
    case EVR_US:
        return element->getUint16(u16, index).good() && (*out = u16, true);
    case EVR_SS:
        return element->getSint16(s16, index).good() && (*out = s16, true);
    case EVR_DS:
    case EVR_IS:
        return element->getOFString(text, index, OFFalse).good() && parse_number(text, out);
    default:
        return false;
    }
}

bool item_number(const struct item *it, uint32_t tag, unsigned index, double *out)
{
    return protect_or(false, [&]() -> bool {
        DcmElement *element = find(it, tag);
        double value = 0;
        if (!element || index >= element->getVM() || !element_number(element, index, &value))
            return false;
        *out = value;
        return true;
    });
}

bool item_integer(const struct item *it, uint32_t tag, unsigned index, int64_t *out)
{
    double value;
    if (!item_number(it, tag, index, &value) || value != std::floor(value) ||
        std::fabs(value) > 9007199254740992.0)
        return false;
    *out = (int64_t)value;
    return true;
}

unsigned item_sequence_length(const struct item *it, uint32_t tag)
{
    return protect_or(0u, [&]() -> unsigned {
        DcmElement *element = find(it, tag);
        if (!element || !is_sequence(element))
            return 0;
        return (unsigned)static_cast<DcmSequenceOfItems *>(element)->card();
    });
}

struct item *item_sequence_item(const struct item *it, uint32_t tag, unsigned index)
{
    return protect_or((struct item *)NULL, [&]() -> struct item * {
        DcmElement *element = find(it, tag);
        if (!element || !is_sequence(element))
            return NULL;
        DcmSequenceOfItems *sequence = static_cast<DcmSequenceOfItems *>(element);
        return index < sequence->card() ? wrap(sequence->getItem(index)) : NULL;
    });
}

bool item_has_code(const struct item *it, uint32_t tag, const char *value, const char *scheme)
{
    unsigned n = item_sequence_length(it, tag);
    for (unsigned i = 0; i < n; i++) {
        const struct item *code = item_sequence_item(it, tag, i);
        char text[DATASET_TEXT_BYTES];
        if (code && item_text(code, TAG_CODE_VALUE, 0, text, sizeof text) &&
            strcmp(text, value) == 0 &&
            (!scheme || (item_text(code, TAG_CODING_SCHEME_DESIGNATOR, 0, text, sizeof text) &&
                         strcmp(text, scheme) == 0)))
            return true;
    }
    return false;
}

/* "gggg,eeee" with or without comma and brackets. */
static bool tag_from_digits(const char *text, uint32_t *tag)
{
    char digits[9];
    size_t n = 0;
    for (const char *p = text; *p; p++) {
        if (*p == ',' || *p == '(' || *p == ')')
            continue;
        if (n == 8 || !strchr("0123456789abcdefABCDEF", *p))
            return false;
        digits[n++] = *p;
    }
    digits[n] = '\0';
    if (n != 8)
        return false;
    *tag = (uint32_t)strtoul(digits, NULL, 16);
    return true;
}

bool tag_from_text(const char *text, uint32_t *tag)
{
    if (tag_from_digits(text, tag))
        return true;
    return protect_or(false, [&]() -> bool {
        if (dicom_init(NULL) != 0)
            return false;
        const DcmDataDictionary &dictionary = dcmDataDict.rdlock();
        const DcmDictEntry *entry = dictionary.findEntry(text);
        /* A private one is found in another place in each file: where its creator has a block. */
        bool found = entry != NULL && entry->getPrivateCreator() == NULL;
        if (found)
            *tag = (uint32_t)entry->getGroup() << 16 | entry->getElement();
        dcmDataDict.rdunlock();
        return found;
    });
}

char *tag_to_text(uint32_t tag, char *out, size_t size)
{
    snprintf(out, size, "(%04x,%04x)", tag >> 16, tag & 0xffff);
    protect_or(0, [&] {
        DcmTag named(key_of(tag));
        if (strcmp(named.getTagName(), DcmTag_ERROR_TagName) != 0)
            snprintf(out, size, "%s", named.getTagName());
        return 0;
    });
    return out;
}
