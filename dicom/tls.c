/*
 * tls.c - certificates, key and authorities from their files into what associations share
 *
 * Files are read whole, bounded, and only if they are regular ones (a pipe would wait for ever);
 * OpenSSL sees memory only and can ask nobody for a passphrase. The bytes of a key are wiped.
 */
#include "dicom/tls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "dicom/tls_context.h"
#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/file.h"

/* Most certificates in one file of authorities, and in our own chain. */
#define AUTHORITIES_MAX 1000
#define CHAIN_MAX       20

/* RSA and DH from 2048 bits, no SHA-1 in signatures: whatever the machine's openssl.cnf says. */
#define SECURITY_LEVEL 2

#define PEM_CERTIFICATES "it must hold certificates in PEM format"

static const char *reason(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());
    return text != NULL ? text : "for an unknown reason";
}

static int file_bytes(const char *path, bool secret, struct buf *out, struct err *e)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return err_set(e, ERR_CONFIG, "cannot read %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_CONFIG, "cannot read %s: it is no file", path);
    if (secret && (st.st_mode & S_IRWXO) != 0)
        return err_set(e, ERR_CONFIG,
                       "%s is open to everybody (mode %04o), which a key must not be: chmod o= it",
                       path, (unsigned)(st.st_mode & 07777));
    int rc = file_read(path, out, e);
    if (rc != 0 && rc != ERR_NOMEM && e != NULL)
        rc = e->code = ERR_CONFIG;
    return rc;
}

/* "2026-11-30" */
static void day_text(const ASN1_TIME *when, char out[16])
{
    struct tm tm;
    if (ASN1_TIME_to_tm(when, &tm) != 1 || strftime(out, 16, "%Y-%m-%d", &tm) == 0)
        snprintf(out, 16, "an unknown day");
}

static int64_t seconds_of(const ASN1_TIME *when)
{
    struct tm tm;
    return ASN1_TIME_to_tm(when, &tm) == 1 ? (int64_t)timegm(&tm) : INT64_MAX;
}

static int check_dates(const X509 *certificate, const char *path, struct err *e)
{
    char day[16];
    if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0) {
        day_text(X509_get0_notAfter(certificate), day);
        return err_set(e, ERR_CONFIG, "%s: the certificate expired on %s", path, day);
    }
    if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0) {
        day_text(X509_get0_notBefore(certificate), day);
        return err_set(e, ERR_CONFIG, "%s: the certificate is not valid before %s", path, day);
    }
    return 0;
}

/* One of ours: valid now; the first day on which one of them is no longer so is kept. */
static int add_own(struct tls *t, const X509 *certificate, const char *path, struct err *e)
{
    int rc = check_dates(certificate, path, e);
    int64_t until = seconds_of(X509_get0_notAfter(certificate));
    if (rc == 0 && (t->not_after == 0 || until < t->not_after))
        t->not_after = until;
    return rc;
}

static int load_chain(struct tls *t, const char *path, bool server, struct err *e)
{
    struct buf bytes;
    X509 *x = NULL;
    BIO *bio = NULL;
    buf_init(&bytes, TLS_FILE_MAX);
    int rc = file_bytes(path, false, &bytes, e);
    if (rc != 0)
        goto out;
    bio = BIO_new_mem_buf(buf_text(&bytes), (int)bytes.len);
    x = bio != NULL ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    if (x == NULL) {
        rc = err_set(e, ERR_CONFIG, "cannot use %s: " PEM_CERTIFICATES, path);
        goto out;
    }
    rc = add_own(t, x, path, e);
    if (rc == 0 &&
        X509_check_purpose(x, server ? X509_PURPOSE_SSL_SERVER : X509_PURPOSE_SSL_CLIENT, 0) != 1)
        rc = err_set(e, ERR_CONFIG,
                     "%s: the certificate is not made for a TLS %s (extended key usage)", path,
                     server ? "server" : "client");
    if (rc == 0 && SSL_CTX_use_certificate(t->context, x) != 1)
        rc = err_set(e, ERR_CONFIG, "cannot use %s: %s", path, reason());
    for (int n = 0; rc == 0; n++) {
        X509_free(x);
        x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        if (x == NULL)
            break;
        rc = n < CHAIN_MAX
                 ? add_own(t, x, path, e)
                 : err_set(e, ERR_CONFIG, "%s: more than %d certificates", path, CHAIN_MAX);
        if (rc == 0 && SSL_CTX_add1_chain_cert(t->context, x) != 1)
            rc = err_set(e, ERR_CONFIG, "cannot use %s: %s", path, reason());
    }
out:
    X509_free(x);
    BIO_free(bio);
    buf_fini(&bytes);
    return rc;
}

/* OpenSSL's own would ask at the terminal. */
static int no_passphrase(char *out, int size, int writing, void *ctx)
{
    bool *asked = ctx;
    (void)out;
    (void)size;
    (void)writing;
    *asked = true;
    return -1;
}

static int load_key(struct tls *t, const char *path, const char *certificate, struct err *e)
{
    struct buf bytes;
    BIO *bio = NULL;
    EVP_PKEY *key = NULL;
    bool asked = false;
    buf_init(&bytes, TLS_FILE_MAX);
    int rc = *path != '\0'
                 ? file_bytes(path, true, &bytes, e)
                 : err_set(e, ERR_CONFIG, "no file with the key of %s is given", certificate);
    if (rc != 0)
        goto out;
    bio = BIO_new_mem_buf(buf_text(&bytes), (int)bytes.len);
    key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &asked) : NULL;
    if (key == NULL)
        rc = err_set(e, ERR_CONFIG,
                     asked ? "cannot use %s: the key is encrypted; write it without a passphrase "
                             "(openssl pkey) and let only this node read it"
                           : "cannot use %s: it must hold a private key in PEM format",
                     path);
    else if (X509_check_private_key(SSL_CTX_get0_certificate(t->context), key) != 1)
        rc =
            err_set(e, ERR_CONFIG, "%s is not the key of the certificate in %s", path, certificate);
    else if (SSL_CTX_use_PrivateKey(t->context, key) != 1)
        rc = err_set(e, ERR_CONFIG, "cannot use %s: %s", path, reason());
out:
    EVP_PKEY_free(key);
    BIO_free(bio);
    if (bytes.data != NULL)
        OPENSSL_cleanse(bytes.data, bytes.cap);
    buf_fini(&bytes);
    return rc;
}

static int load_authorities(struct tls *t, const char *path, bool server, struct err *e)
{
    struct buf bytes;
    struct err expired = {0};
    BIO *bio = NULL;
    int count = 0, valid = 0;
    X509_STORE *store = SSL_CTX_get_cert_store(t->context);
    buf_init(&bytes, TLS_FILE_MAX);
    int rc = file_bytes(path, false, &bytes, e);
    if (rc == 0 && (bio = BIO_new_mem_buf(buf_text(&bytes), (int)bytes.len)) == NULL)
        rc = err_set(e, ERR_NOMEM, "no memory for TLS");
    while (rc == 0) {
        X509 *x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        if (x == NULL)
            break;
        valid += check_dates(x, path, &expired) == 0;
        if (++count > AUTHORITIES_MAX)
            rc = err_set(e, ERR_CONFIG, "%s: more than %d certificates", path, AUTHORITIES_MAX);
        /* A server says whom it trusts, so that a client with several certificates can choose. */
        else if (X509_STORE_add_cert(store, x) != 1 ||
                 (server && SSL_CTX_add_client_CA(t->context, x) != 1))
            rc = err_set(e, ERR_CONFIG, "cannot use %s: %s", path, reason());
        X509_free(x);
    }
    if (rc == 0 && count == 0)
        rc = err_set(e, ERR_CONFIG, "cannot use %s: " PEM_CERTIFICATES, path);
    else if (rc == 0 && valid == 0) /* some may be kept for a time after their successors came */
        rc = err_set(e, ERR_CONFIG, "%s", expired.text);
    BIO_free(bio);
    buf_fini(&bytes);
    return rc;
}

static int context_make(struct tls *t, bool server, struct err *e)
{
    t->context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (t->context == NULL)
        return err_set(e, ERR_NOMEM, "no memory for TLS");
    SSL_CTX_set_min_proto_version(t->context, TLS1_2_VERSION);
    SSL_CTX_set_options(t->context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                        SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(t->context, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                     SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_AUTO_RETRY |
                                     SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(t->context, SSL_SESS_CACHE_OFF);
    if (SSL_CTX_get_security_level(t->context) < SECURITY_LEVEL)
        SSL_CTX_set_security_level(t->context, SECURITY_LEVEL);
    if (SSL_CTX_set_cipher_list(t->context, "ECDHE+AESGCM") != 1)
        return err_set(e, ERR_CONFIG, "this OpenSSL has no ECDHE with AES-GCM");
    return 0;
}

static const char *given(const char *text)
{
    return text != NULL ? text : "";
}

static int tls_new(const struct tls_config *config, bool server, struct tls **out,
                   enum tls_file *at, struct err *e)
{
    const char *certificate = given(config->certificate), *key = given(config->key);
    const char *authorities = given(config->authorities), *name = given(config->peer_name);
    enum tls_file ignored;
    if (at == NULL)
        at = &ignored;
    *at = TLS_CERTIFICATE;
    struct tls *t = calloc(1, sizeof *t);
    if (t == NULL)
        return err_set(e, ERR_NOMEM, "no memory for TLS");
    ERR_clear_error();
    t->any_host = config->any_host;
    int rc = context_make(t, server, e);
    if (rc == 0 && *name != '\0' && (t->peer_name = strdup(name)) == NULL)
        rc = err_set(e, ERR_NOMEM, "no memory for TLS");
    if (rc == 0 && server && *certificate == '\0')
        rc = err_set(e, ERR_CONFIG, "a TLS server needs a certificate and a key");
    if (rc == 0 && *certificate != '\0') {
        rc = load_chain(t, certificate, server, e);
        if (rc == 0) {
            *at = TLS_KEY;
            rc = load_key(t, key, certificate, e);
        }
    }
    if (rc != 0)
        goto out;
    *at = TLS_AUTHORITIES;
    if (*authorities != '\0')
        rc = load_authorities(t, authorities, server, e);
    else if (!server || !config->anonymous_peers)
        rc = err_set(e, ERR_CONFIG,
                     "TLS needs a file with the authorities that peers are checked by");
    if (rc != 0)
        goto out;
    SSL_CTX_set_verify(t->context,
                       *authorities == '\0' ? SSL_VERIFY_NONE
                       : server && config->anonymous_peers
                           ? SSL_VERIFY_PEER
                           : SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                       NULL);
    *out = t;
    t = NULL;
out:
    ERR_clear_error();
    tls_free(t);
    return rc;
}

int tls_new_server(const struct tls_config *config, struct tls **out, enum tls_file *at,
                   struct err *e)
{
    return tls_new(config, true, out, at, e);
}

int tls_new_client(const struct tls_config *config, struct tls **out, enum tls_file *at,
                   struct err *e)
{
    return tls_new(config, false, out, at, e);
}

int64_t tls_not_after(const struct tls *t)
{
    return t->not_after;
}

void tls_free(struct tls *t)
{
    if (t == NULL)
        return;
    SSL_CTX_free(t->context);
    free(t->peer_name);
    free(t);
}
