/* digest.c - see digest.h */
#include "node/base/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "node/base/err.h"

struct digest; /* an EVP_MD_CTX under another name: nothing of ours to keep beside it */

static EVP_MD_CTX *context_of(struct digest *d)
{
    return (EVP_MD_CTX *)d;
}

struct digest *digest_new(void)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(context);
        context = NULL;
    }
    return (struct digest *)context;
}

void digest_add(struct digest *d, const void *bytes, size_t n)
{
    EVP_DigestUpdate(context_of(d), bytes, n);
}

void digest_add_text(struct digest *d, const char *text)
{
    digest_add(d, text, strlen(text) + 1);
}

void digest_finish(struct digest *d, uint8_t out[DIGEST_BYTES])
{
    memset(out, 0, DIGEST_BYTES);
    if (!d)
        return;
    EVP_DigestFinal_ex(context_of(d), out, NULL);
    EVP_MD_CTX_free(context_of(d));
}

void digest_to_hex(const uint8_t in[DIGEST_BYTES], char out[DIGEST_HEX])
{
    for (int i = 0; i < DIGEST_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", in[i]);
}

int digest_file(const char *path, char out[DIGEST_HEX], struct err *e)
{
    /* A FIFO would keep us waiting, a device might never end. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_errno(e, errno, "cannot open %s", path);
    struct stat st;
    int rc = fstat(fd, &st) == 0 ? 0 : err_errno(e, errno, "cannot look at %s", path);
    if (rc == 0 && !S_ISREG(st.st_mode))
        rc = err_set(e, ERR_INVALID, "%s is not a regular file", path);
    uint8_t sum[DIGEST_BYTES], chunk[65536];
    struct digest *d = digest_new();
    if (rc == 0 && !d)
        rc = err_set(e, ERR_NOMEM, "no memory for a digest of %s", path);
    while (rc == 0) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n == 0)
            break;
        if (n > 0)
            digest_add(d, chunk, (size_t)n);
        else if (errno != EINTR)
            rc = err_errno(e, errno, "cannot read %s", path);
    }
    digest_finish(d, sum);
    if (rc == 0)
        digest_to_hex(sum, out);
    close(fd);
    return rc;
}
