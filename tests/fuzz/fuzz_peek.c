/*
 * fuzz_peek.c - any bytes as a data set, a file head, a commitment report, a C-FIND response
 *
 * The first byte chooses the transfer syntax.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dicom/commitment.h"
#include "dicom/find.h"
#include "dicom/part10.h"
#include "dicom/peek.h"
#include "dicom/status.h"
#include "node/base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const syntaxes[] = {SYNTAX_EXPLICIT_LE, SYNTAX_IMPLICIT_LE,
                                           SYNTAX_EXPLICIT_BE, SYNTAX_DEFLATED,
                                           "1.2.840.10008.1.2.4.70"};
    struct peek_limits limits = {.elements = 100000, .inflated_bytes = 1 << 24};
    struct find_query query = {.level = FIND_SERIES, .study = "1.2", .series = "1.2.3"};
    struct find_result result = {0};
    struct commitment report;
    struct part10 head;
    struct peek peek;

    if (size == 0)
        return 0;
    const char *syntax = syntaxes[data[0] % (sizeof syntaxes / sizeof syntaxes[0])];
    data++;
    size--;
    int rc = peek_memory(data, size, syntax, &limits, &peek, NULL);
    if ((rc == 0) != (peek.status == STATUS_SUCCESS))
        abort();
    if (rc == 0 && (!uid_is_safe(peek.sop_class) || !uid_is_safe(peek.sop_instance) ||
                    !uid_is_safe(peek.study) || !uid_is_safe(peek.series)))
        abort();
    if (rc != 0 && rc != ERR_INVALID && rc != ERR_LIMIT && rc != ERR_NOMEM)
        abort();
    if (part10_decode(data, size, &head, NULL) == 0 && head.data_set > size)
        abort();
    if (commitment_decode(data, size, syntax, &report, NULL) == 0)
        commitment_fini(&report);
    (void)find_decode(&query, data, size, &result, NULL);
    return 0;
}
