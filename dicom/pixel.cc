/* pixel.cc - see pixel.h */
#include "dicom/pixel.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "dicom/dataset_impl.h"

#include <dcmtk/dcmdata/dccodec.h>

#include "node/base/err.h"

#include "dicom/dataset.h"
#include "dicom/tags.h"

/* Most entries of a Modality LUT: LUT Descriptor counts in 16 bits, 0 meaning 65536. */
#define LUT_MAX 65536

/* Reads an unsigned attribute within [low, high]; missing_ok keeps *out when it is not there. */
static int read_unsigned(const struct item *it, uint32_t tag, int64_t low, int64_t high,
                         bool missing_ok, unsigned *out, struct err *e)
{
    char name[64];
    int64_t value;
    if (item_count(it, tag) == 0 && missing_ok)
        return 0;
    if (!item_integer(it, tag, 0, &value) || value < low)
        return err_set(e, ERR_INVALID, "image has no valid %s",
                       tag_to_text(tag, name, sizeof name));
    if (value > high)
        return err_set(e, ERR_LIMIT, "image's %s is %lld, more than the limit of %lld",
                       tag_to_text(tag, name, sizeof name), (long long)value, (long long)high);
    *out = (unsigned)value;
    return 0;
}

int pixel_info(const struct dataset *d, struct pixel_info *out, struct err *e)
{
    const struct item *it = dataset_root(d);
    struct pixel_info info = {};
    unsigned representation = 0;
    info.frames = info.samples = 1;
    info.slope = 1;
    int rc = read_unsigned(it, TAG_ROWS, 1, PIXEL_MAX_SIDE, false, &info.rows, e);
    if (rc == 0)
        rc = read_unsigned(it, TAG_COLUMNS, 1, PIXEL_MAX_SIDE, false, &info.columns, e);
    if (rc == 0)
        rc = read_unsigned(it, TAG_NUMBER_OF_FRAMES, 1, PIXEL_MAX_FRAMES, true, &info.frames, e);
    if (rc == 0)
        rc = read_unsigned(it, TAG_SAMPLES_PER_PIXEL, 1, 4, true, &info.samples, e);
    if (rc == 0)
        rc = read_unsigned(it, TAG_BITS_ALLOCATED, 1, 64, false, &info.bits_allocated, e);
    if (rc == 0)
        rc =
            read_unsigned(it, TAG_BITS_STORED, 1, info.bits_allocated, false, &info.bits_stored, e);
    info.high_bit = info.bits_stored - 1;
    if (rc == 0)
        rc = read_unsigned(it, TAG_HIGH_BIT, (int64_t)info.bits_stored - 1,
                           (int64_t)info.bits_allocated - 1, true, &info.high_bit, e);
    if (rc == 0)
        rc = read_unsigned(it, TAG_PIXEL_REPRESENTATION, 0, 1, true, &representation, e);
    if (rc != 0)
        return rc;
    if ((uint64_t)info.rows * info.columns * info.frames > PIXEL_MAX_TOTAL)
        return err_set(e, ERR_LIMIT, "image has %u × %u pixels in %u frames, more than the limit",
                       info.rows, info.columns, info.frames);
    info.is_signed = representation == 1;
    item_text(it, TAG_PHOTOMETRIC_INTERPRETATION, 0, info.photometric, sizeof info.photometric);
    info.has_modality_lut = item_sequence_length(it, TAG_MODALITY_LUT_SEQUENCE) > 0;
    item_number(it, TAG_RESCALE_SLOPE, 0, &info.slope);
    item_number(it, TAG_RESCALE_INTERCEPT, 0, &info.intercept);
    if (info.slope == 0)
        return err_set(e, ERR_INVALID, "image's RescaleSlope is 0");
    *out = info;
    return 0;
}

static int check_decodable(const struct pixel_info *info, struct err *e)
{
    if (info->samples != 1 || strncmp(info->photometric, "MONOCHROME", 10) != 0)
        return err_set(e, ERR_REFUSED,
                       "colour image (%u samples per pixel): only grey images are processed",
                       info->samples);
    if ((info->bits_allocated != 8 && info->bits_allocated != 16) || info->bits_stored > 16)
        return err_set(e, ERR_UNSUPPORTED,
                       "image has %u bits allocated and %u stored: only 8 or 16 are read",
                       info->bits_allocated, info->bits_stored);
    return 0;
}

/* The frame's bytes in host order, bits_allocated each; room for them is made here, and is not
 * cleared before. */
static int read_frame(DcmItem *set, const struct pixel_info *info, unsigned frame,
                      std::unique_ptr<Uint16[]> *out, struct err *e)
{
    DcmElement *element = NULL;
    if (set->findAndGetElement(DCM_PixelData, element).bad())
        return err_set(e, ERR_INVALID, "image has no pixel data");
    DcmPixelData *data = dynamic_cast<DcmPixelData *>(element);
    if (!data)
        return err_set(e, ERR_INVALID, "image's pixel data is not of a pixel type");
    uint64_t pixels = (uint64_t)info->rows * info->columns;
    uint64_t bytes = pixels * (info->bits_allocated / 8);
    Uint32 frame_bytes = 0;
    if (data->getUncompressedFrameSize(set, frame_bytes).bad() || frame_bytes != bytes)
        return err_set(e, ERR_INVALID, "image's pixel module contradicts itself");
    E_TransferSyntax syntax = EXS_Unknown;
    const DcmRepresentationParameter *unused = NULL;
    data->getOriginalRepresentationKey(syntax, unused);
    DcmXfer xfer(syntax);
    if (!xfer.isEncapsulated() && data->getLength(syntax) < bytes * info->frames)
        return err_set(e, ERR_INVALID,
                       "image's pixel data is too short: %u bytes for %u × %u pixels in %u frames",
                       (unsigned)data->getLength(syntax), info->rows, info->columns, info->frames);
    size_t words = (size_t)(bytes + 3) / 2;
    out->reset(new Uint16[words]);
    (*out)[words - 1] = 0; /* the last frame's bytes may be odd */
    Uint32 fragment = 0;
    OFString colour;
    OFCondition done = data->getUncompressedFrame(set, frame, fragment, out->get(),
                                                  (Uint32)(words * sizeof(Uint16)), colour);
    if (done.good())
        return 0;
    if (xfer.isEncapsulated() && !DcmCodecList::canChangeCoding(syntax, EXS_LittleEndianExplicit))
        return err_set(e, ERR_UNSUPPORTED, "cannot decode images in transfer syntax %s",
                       xfer.getXferName());
    return err_set(e, ERR_INVALID, "image's pixel data cannot be decoded (%s)", done.text());
}

/* The Modality LUT (PS3.3 C.11.1.1): maps stored values from `first` on. */
struct table {
    int first;
    std::vector<float> values;
};

static int read_table(const struct item *it, bool is_signed, struct table *out, struct err *e)
{
    const struct item *lut = item_sequence_item(it, TAG_MODALITY_LUT_SEQUENCE, 0);
    DcmElement *descriptor = NULL;
    Uint16 entries = 0, first = 0, bits = 0;
    if (!lut || unwrap(lut)->findAndGetElement(DCM_LUTDescriptor, descriptor).bad() ||
        descriptor->getVM() != 3)
        return err_set(e, ERR_INVALID, "image's Modality LUT has no descriptor");
    double numbers[3];
    for (unsigned i = 0; i < 3; i++)
        if (!item_number(lut, TAG_LUT_DESCRIPTOR, i, &numbers[i]))
            return err_set(e, ERR_INVALID, "image's Modality LUT has no valid descriptor");
    entries = (Uint16)(int)numbers[0];
    first = (Uint16)(int)numbers[1];
    bits = (Uint16)(int)numbers[2];
    size_t n = entries ? entries : LUT_MAX;

    DcmElement *data = NULL;
    Uint16 *words = NULL;
    if (unwrap(lut)->findAndGetElement(DCM_LUTData, data).bad() ||
        data->getUint16Array(words).bad() || !words)
        return err_set(e, ERR_INVALID, "image's Modality LUT has no data");
    size_t stored = data->getLength() / sizeof(Uint16);
    bool packed = bits <= 8 && stored < n && stored >= (n + 1) / 2; /* two bytes to a word */
    if (stored < n && !packed)
        return err_set(e, ERR_INVALID, "image's Modality LUT has %zu entries, %zu are announced",
                       stored, n);
    out->first = is_signed ? (Sint16)first : first;
    out->values.resize(n);
    for (size_t i = 0; i < n; i++)
        out->values[i] = packed ? (float)(words[i / 2] >> (i % 2 * 8) & 0xff) : (float)words[i];
    return 0;
}

/* Every possible stored value's output, so that the pixels need one look each. */
static int build_map(const struct item *it, const struct pixel_info *info, std::vector<float> *map,
                     struct err *e)
{
    int count = 1 << info->bits_stored;
    int low = info->is_signed ? -(count / 2) : 0;
    struct table table;
    if (info->has_modality_lut) {
        int rc = read_table(it, info->is_signed, &table, e);
        if (rc != 0)
            return rc;
    }
    map->resize((size_t)count);
    for (int i = 0; i < count; i++) {
        int value = low + i;
        if (info->has_modality_lut) {
            long at = (long)value - table.first;
            at = std::max(0L, std::min(at, (long)table.values.size() - 1));
            (*map)[(size_t)i] = table.values[(size_t)at];
        } else {
            (*map)[(size_t)i] = (float)(value * info->slope + info->intercept);
        }
    }
    if (strcmp(info->photometric, "MONOCHROME1") == 0) {
        auto ends = std::minmax_element(map->begin(), map->end());
        float sum = *ends.first + *ends.second;
        for (float &value : *map)
            value = sum - value;
    }
    for (float value : *map)
        if (!std::isfinite(value))
            return err_set(e, ERR_NUMERIC, "image's rescale slope or intercept is out of range");
    return 0;
}

/* Are pixels their stored values, unsigned and right-aligned? Most scanners' are. */
static bool is_plain(const struct pixel_info *info)
{
    return info->bits_allocated == 16 && info->high_bit + 1 == info->bits_stored &&
           !info->is_signed && !info->has_modality_lut && info->slope == 1 &&
           info->intercept == 0 && strcmp(info->photometric, "MONOCHROME1") != 0;
}

/* Eight at a time, written out: the compiler takes one. */
typedef Uint16 u16x8 __attribute__((vector_size(16)));
typedef int32_t i32x8 __attribute__((vector_size(32)));
typedef float f32x8 __attribute__((vector_size(32)));

static void plain_values(const Uint16 *words, size_t n, Uint16 mask, float *out)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        u16x8 w;
        memcpy(&w, words + i, sizeof w);
        f32x8 x = __builtin_convertvector(__builtin_convertvector(w & mask, i32x8), f32x8);
        memcpy(out + i, &x, sizeof x);
    }
    for (; i < n; i++)
        out[i] = (float)(words[i] & mask);
}

/* map: from the lowest stored value on, which is negative where values are signed. */
static void mapped_values(const struct pixel_info *info, const Uint16 *words, size_t n,
                          const float *map, float *out)
{
    const Uint8 *bytes = reinterpret_cast<const Uint8 *>(words);
    unsigned shift = info->high_bit + 1 - info->bits_stored, mask = (1u << info->bits_stored) - 1;
    unsigned lowest = info->is_signed ? 1u << (info->bits_stored - 1) : 0;
    for (size_t i = 0; i < n; i++) {
        unsigned word = info->bits_allocated == 8 ? bytes[i] : words[i];
        out[i] = map[((word >> shift) + lowest) & mask];
    }
}

int pixel_decode(struct dataset *d, unsigned frame, float *out, size_t capacity, struct err *e)
{
    struct pixel_info info;
    int rc = pixel_info(d, &info, e);
    if (rc == 0)
        rc = check_decodable(&info, e);
    if (rc != 0)
        return rc;
    size_t n = (size_t)info.rows * info.columns;
    if (frame >= info.frames || capacity < n)
        return err_set(e, ERR_INVALID, "frame %u of %u asked for, into room for %zu of %zu pixels",
                       frame + 1, info.frames, capacity, n);
    return protect(e, "decoding an image", [&]() -> int {
        std::unique_ptr<Uint16[]> words;
        std::vector<float> map;
        int failed = read_frame(d->file.getDataset(), &info, frame, &words, e);
        if (failed == 0 && is_plain(&info)) {
            plain_values(words.get(), n, (Uint16)((1u << info.bits_stored) - 1), out);
            return 0;
        }
        if (failed == 0)
            failed = build_map(dataset_root(d), &info, &map, e);
        if (failed == 0)
            mapped_values(&info, words.get(), n, map.data(), out);
        return failed;
    });
}
