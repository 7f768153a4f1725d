/* uid.c - see uid.h */
#include "dicom/uid.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "node/base/digest.h"
#include "node/base/err.h"

/* A UUID is the first half of the digest. */
#define UUID_BYTES 16

/* Writes n (big endian) in decimal at the end of out[capacity], returns the first digit. */
static char *decimal(uint8_t n[UUID_BYTES], char *out, size_t capacity)
{
    char *p = out + capacity - 1;
    *p = '\0';
    bool more = true;
    while (more) {
        unsigned remainder = 0;
        more = false;
        for (int i = 0; i < UUID_BYTES; i++) {
            unsigned part = remainder << 8 | n[i];
            n[i] = (uint8_t)(part / 10);
            remainder = part % 10;
            more = more || n[i] != 0;
        }
        *--p = (char)('0' + remainder);
    }
    return p;
}

int uid_derive(char out[UID_BYTES], const char *salt, const char *const *parts, size_t n,
               struct err *e)
{
    struct digest *d = digest_new();
    if (!d)
        return err_set(e, ERR_NOMEM, "no memory to derive a UID");
    digest_add_text(d, salt);
    for (size_t i = 0; i < n; i++)
        digest_add_text(d, parts[i]);
    uint8_t sum[DIGEST_BYTES];
    digest_finish(d, sum);
    sum[6] = (uint8_t)((sum[6] & 0x0f) | 0x80); /* version 8: custom */
    sum[8] = (uint8_t)((sum[8] & 0x3f) | 0x80); /* variant of RFC 9562 */

    static const char prefix[] = "2.25.";
    char digits[40]; /* 2^128 has 39 */
    const char *first = decimal(sum, digits, sizeof digits);
    memcpy(out, prefix, sizeof prefix - 1);
    memcpy(out + sizeof prefix - 1, first, strlen(first) + 1);
    return 0;
}

bool uid_is_valid(const char *uid)
{
    size_t n = strlen(uid), start = 0;
    if (n == 0 || n >= UID_BYTES)
        return false;
    for (size_t i = 0; i <= n; i++) {
        if (uid[i] >= '0' && uid[i] <= '9')
            continue;
        if (uid[i] != '.' && uid[i] != '\0')
            return false;
        size_t length = i - start;
        if (length == 0 || (length > 1 && uid[start] == '0'))
            return false;
        start = i + 1;
    }
    return true;
}
