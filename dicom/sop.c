/* sop.c - the SOP classes and transfer syntaxes of the default configuration */
#include "dicom/sop.h"

#include <string.h>

const char *const sop_storage_default[] = {
    SOP_MR,
    SOP_ENHANCED_MR,
    SOP_CR,
    SOP_DX_PRESENTATION,
    SOP_DX_PROCESSING,
    SOP_SECONDARY_CAPTURE,
    SOP_SECONDARY_CAPTURE_BYTE,
    SOP_SECONDARY_CAPTURE_WORD,
    SOP_SECONDARY_CAPTURE_COLOUR,
};
const size_t sop_storage_default_count = sizeof sop_storage_default / sizeof sop_storage_default[0];

const char *const sop_syntax_uncompressed[] = {
    SYNTAX_EXPLICIT_LE,
    SYNTAX_IMPLICIT_LE,
    SYNTAX_EXPLICIT_BE,
    SYNTAX_DEFLATED,
};
const size_t sop_syntax_uncompressed_count =
    sizeof sop_syntax_uncompressed / sizeof sop_syntax_uncompressed[0];

/* Transfer syntaxes whose pixel data are encapsulated all begin like this (PS3.6 annex A); the
 * rest of them, such as video by JPIP deflated, is not storable as a file of one data set. */
static const char *const encapsulated[] = {
    "1.2.840.10008.1.2.4.", /* JPEG, JPEG-LS, JPEG 2000, MPEG, HEVC, HTJ2K */
    "1.2.840.10008.1.2.5",  /* RLE */
};

bool sop_encoding(const char *transfer_syntax, struct sop_encoding *out)
{
    struct sop_encoding r = {.explicit_vr = true};

    if (strcmp(transfer_syntax, SYNTAX_IMPLICIT_LE) == 0) {
        r.explicit_vr = false;
    } else if (strcmp(transfer_syntax, SYNTAX_EXPLICIT_BE) == 0) {
        r.big_endian = true;
    } else if (strcmp(transfer_syntax, SYNTAX_DEFLATED) == 0) {
        r.deflated = true;
    } else if (strcmp(transfer_syntax, SYNTAX_EXPLICIT_LE) != 0 &&
               strncmp(transfer_syntax, encapsulated[0], strlen(encapsulated[0])) != 0 &&
               strcmp(transfer_syntax, encapsulated[1]) != 0) {
        return false;
    }
    *out = r;
    return true;
}

bool uid_is_safe(const char *uid)
{
    size_t n = 0;
    char before = '.';

    for (; uid[n] != '\0'; n++) {
        if (n == UID_BYTES - 1)
            return false;
        if (uid[n] == '.') {
            if (before == '.')
                return false;
        } else if (uid[n] < '0' || uid[n] > '9') {
            return false;
        }
        before = uid[n];
    }
    return n > 0 && before != '.';
}
