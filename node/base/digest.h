/* digest.h - SHA-256 (FIPS 180-4) of bytes and files, by OpenSSL; not part of the engine build */
#ifndef SPINENODE_BASE_DIGEST_H
#define SPINENODE_BASE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct err;
struct digest; /* a running digest */

#define DIGEST_BYTES 32
#define DIGEST_HEX   65 /* 64 hexadecimal digits, lower case, and the NUL */

struct digest *digest_new(void); /* NULL: no memory */
void digest_add(struct digest *d, const void *bytes, size_t n);
void digest_add_text(struct digest *d,
                     const char *text); /* the text and its NUL, so "a","b" != "ab" */
void digest_finish(struct digest *d, uint8_t out[DIGEST_BYTES]); /* frees d; d may be NULL: zeros */
void digest_to_hex(const uint8_t in[DIGEST_BYTES], char out[DIGEST_HEX]);

/* Of a whole regular file, read in pieces. ERR_INVALID: it is another kind of file; the errors of
 * opening and reading it. */
int digest_file(const char *path, char out[DIGEST_HEX], struct err *e);

#ifdef __cplusplus
}
#endif
#endif
