/*
 * dataset.h - a DICOM data set in memory: read a Part 10 file, look at it, build one, write it
 *
 * The only way from C to DCMTK's data sets. Nothing here throws, logs or exits. A file from
 * outside is checked for size and nesting depth before it is parsed; bulk data stays in the file
 * until it is asked for. Text is handed over as stored, in the data set's own character set.
 *
 * Threads: dicom_init() once, before any thread. Afterwards different data sets may be used at
 * once, one data set by one thread at a time.
 */
#ifndef SPINENODE_DICOM_DATASET_H
#define SPINENODE_DICOM_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct buf;
struct err;

struct dataset; /* a file: meta header and data set */
struct item;    /* a data set or a sequence item inside one; lives as long as its dataset */

/* Longest value, terminator included, that item_text() hands over. */
#define DATASET_TEXT_BYTES 1025

struct dataset_limits {
    uint64_t file_bytes; /* largest file */
    unsigned depth;      /* deepest nesting of sequences */
};

/* Fills DCMTK's data dictionary with the standard's attributes, out of a table in the program, and
 * SyntheticData (0008,001C), registers the JPEG, JPEG-LS and RLE decoders and silences DCMTK's own
 * log. DCMDICTPATH, where it is set, is read instead of the table (ERR_CONFIG if it cannot be).
 * May be called again: does nothing. Changes the environment while it runs, and back. */
int dicom_init(struct err *e);

/* Adds what DCMTK knows of vendors' private attributes, unless DCMDICTPATH is set: only this tells
 * what their values are in files that do not say it (Implicit VR); other values read as bytes in
 * hexadecimal. ERR_CONFIG: a dictionary cannot be read. May be called again: does nothing. */
int dicom_add_vendors(struct err *e);

/* For tests: each entry of DCMTK's dictionary, in the order in which it is looked through, a line
 * as scripts/dictionary_table writes it, added to out. Before dicom_init(): what DCMTK reads when
 * nobody interferes. ERR_CONFIG: nothing was read; ERR_NOMEM, ERR_LIMIT: as out says. */
int dictionary_text(struct buf *out, struct err *e);

/* Opens a Part 10 file; with no preamble, a bare data set too. limits NULL: 1 GiB, depth 32.
 * ERR_NOT_FOUND, ERR_IO; ERR_INVALID: not DICOM, truncated, or broken; ERR_LIMIT. */
int dataset_open(const char *path, const struct dataset_limits *limits, struct dataset **out,
                 struct err *e);

/* A new, empty one. NULL: no memory. */
struct dataset *dataset_new(void);
void dataset_free(struct dataset *d);

/* The data set's top level. Borrowed. */
struct item *dataset_root(const struct dataset *d);

/* UID of the syntax that the file was in. Static storage or d's. */
const char *dataset_transfer_syntax(const struct dataset *d);

/* May it be held beside many others? It has few elements, and its pixels stay in the file whatever
 * is done with it (they are neither compressed nor deflated). */
bool dataset_is_light(const struct dataset *d);

/* Is what lies at path still the file that d was opened from? Pixels of a light one are read from
 * there only when they are asked for. ERR_INVALID: it is another, or was written to; ERR_NOT_FOUND.
 */
int dataset_unchanged(const struct dataset *d, const char *path, struct err *e);

/* Adds the Part 10 file to out: Explicit VR Little Endian, definite lengths, no group lengths, meta
 * header with the node's implementation. SOP Class and Instance UID must be set. The same data
 * set gives the same bytes. */
int dataset_encode(struct dataset *d, struct buf *out, struct err *e);

/* A part of Pixel Data of 16 bits that are in nobody's data set: borrowed, not copied. */
struct dataset_words {
    const uint16_t *words;
    size_t count;
};

/* dataset_encode() into a new file at path (which must not exist: ERR_EXISTS), every write
 * checked, fsync'd; the folder's fsync is the caller's. On failure there is no file. pixels: parts
 * that, one behind the other, become Pixel Data (OW) behind all that d holds: ERR_INVALID if d
 * reaches as far itself. 0 parts: no pixels. */
int dataset_write(struct dataset *d, const struct dataset_words *pixels, unsigned parts,
                  const char *path, struct err *e);

/* ---- reading: a missing attribute, an empty value or one of another kind reads as "no" ---- */

/* Is the attribute there (maybe empty)? */
bool item_has(const struct item *it, uint32_t tag);

/* Number of values; 0 when missing or empty. */
unsigned item_count(const struct item *it, uint32_t tag);

/* The index-th value of a text attribute (numbers of binary VRs are printed), without leading and
 * trailing blanks, into out. False, and out "", if there is none or it does not fit. */
bool item_text(const struct item *it, uint32_t tag, unsigned index, char *out, size_t size);

/* The whole value with its backslashes, the same way. */
bool item_all_text(const struct item *it, uint32_t tag, char *out, size_t size);

/* The index-th value as a finite number: DS, IS and the binary VRs. */
bool item_number(const struct item *it, uint32_t tag, unsigned index, double *out);
bool item_integer(const struct item *it, uint32_t tag, unsigned index, int64_t *out);

/* Sequences: number of items, and the index-th (NULL if there is none). Borrowed. */
unsigned item_sequence_length(const struct item *it, uint32_t tag);
struct item *item_sequence_item(const struct item *it, uint32_t tag, unsigned index);

/* Has the code sequence at tag an item with this value (and scheme, unless NULL)? Long and URN
 * code values are not looked at. */
bool item_has_code(const struct item *it, uint32_t tag, const char *value, const char *scheme);

/* ---- writing: a value set again replaces the old one ---- */

/* Text VRs, values joined by backslashes; "" makes the attribute empty. */
int item_set_text(struct item *it, uint32_t tag, const char *value, struct err *e);

/* n numbers into a DS attribute: shortest decimal of at most 16 characters nearest to each. */
int item_set_decimals(struct item *it, uint32_t tag, const double *values, unsigned n,
                      struct err *e);

/* IS, or US/UL by the dictionary. */
int item_set_integer(struct item *it, uint32_t tag, int64_t value, struct err *e);

/* Appends an item to the sequence at tag (made if missing). Borrowed. */
int item_add(struct item *it, uint32_t tag, struct item **out, struct err *e);

/* Appends an item with Code Value, Coding Scheme Designator and Code Meaning (PS3.3 8.8). */
int item_add_code(struct item *it, uint32_t tag, const char *value, const char *scheme,
                  const char *meaning, struct err *e);

/* Copies the attribute with all below it; private attributes inside are left out. Missing in the
 * source: nothing happens. */
int item_copy(struct item *to, const struct item *from, uint32_t tag, struct err *e);

/* ---- names ---- */

/* "PatientID", "00100020", "0010,0020" or "(0010,0020)" → tag. False: no such attribute; vendors'
 * private ones have no keyword, since each file puts them elsewhere. */
bool tag_from_text(const char *text, uint32_t *tag);

/* Keyword of a tag, or "(gggg,eeee)". Into out, which is returned. */
char *tag_to_text(uint32_t tag, char *out, size_t size);

#ifdef __cplusplus
}
#endif
#endif
