/* fuzz_dimse.c - any bytes as a command set; what is taken must survive being written and read */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dicom/dimse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dimse_command first, second;
    uint8_t bytes[DIMSE_COMMAND_MAX];

    if (dimse_parse(data, size, &first, NULL) != 0)
        return 0;
    size_t n = dimse_encode(&first, bytes);
    if (dimse_parse(bytes, n, &second, NULL) != 0 || second.field != first.field ||
        second.status != first.status || strcmp(second.affected_class, first.affected_class) != 0 ||
        strcmp(second.affected_instance, first.affected_instance) != 0)
        abort();
    return 0;
}
