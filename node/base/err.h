/*
 * err.h - errors are values: a negative code and a text that a person can act on
 *
 * Functions return 0 or a negative ERR_* code. The text goes into a struct err that the caller
 * owns (usually on its stack) and that never allocates. A text says what was being done, to what,
 * why it failed and what the reader can do. No text holds a patient's name or identifier.
 */
#ifndef SPINENODE_BASE_ERR_H
#define SPINENODE_BASE_ERR_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Code, value, word in logs and metrics, transient: may the same call succeed later, unchanged? */
#define ERR_LIST(X)                                                                                \
    X(ERR_NOMEM, -1, "no_memory", true)                                                            \
    X(ERR_IO, -2, "io", true)                                                                      \
    X(ERR_FULL, -3, "full", true)                                                                  \
    X(ERR_NOT_FOUND, -4, "not_found", false)                                                       \
    X(ERR_EXISTS, -5, "exists", false)                                                             \
    X(ERR_INVALID, -6, "invalid", false)         /* input that breaks its format */                \
    X(ERR_UNSUPPORTED, -7, "unsupported", false) /* well formed; we do not do this */              \
    X(ERR_LIMIT, -8, "limit", false)             /* larger than a named maximum */                 \
    X(ERR_REFUSED, -9, "refused", false)         /* well formed; must not be processed */          \
    X(ERR_CONFIG, -10, "config", false)                                                            \
    X(ERR_USAGE, -11, "usage", false)                                                              \
    X(ERR_NETWORK, -12, "network", true)                                                           \
    X(ERR_TIMEOUT, -13, "timeout", true)                                                           \
    X(ERR_PEER_BUSY, -14, "peer_busy", true) /* status A7xx, transient association reject */       \
    X(ERR_PEER_REFUSED, -15, "peer_refused", false) /* A9xx, Cxxx, no accepted context … */      \
    X(ERR_NUMERIC, -16, "numeric", false)           /* NaN or Inf where a number must be */        \
    X(ERR_DEVICE, -17, "device", true)              /* the accelerator failed */                   \
    X(ERR_CANCELLED, -18, "cancelled", false)                                                      \
    X(ERR_BUG, -19, "bug", false)

enum err_code {
#define X(name, value, word, transient) name = value,
    ERR_LIST(X)
#undef X
};

/* Longest error text, terminator included; longer texts are cut. */
#define ERR_TEXT_MAX 480

struct err {
    int code; /* 0 or ERR_* */
    char text[ERR_TEXT_MAX];
};

/* Sets code and text, returns code. e may be NULL. */
int err_set(struct err *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same for a failed system call: appends ": " and strerror(errno_value); ENOSPC and EDQUOT
 * become ERR_FULL, ENOENT ERR_NOT_FOUND, EEXIST ERR_EXISTS, ENOMEM ERR_NOMEM, the rest ERR_IO. */
int err_errno(struct err *e, int errno_value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the text that is there, keeps and returns the code. */
int err_context(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* One word for logs and metrics ("ok" for 0, "unknown" for no code of ours). Static storage. */
const char *err_word(int code);

/* Could the very same call succeed later? */
bool err_is_transient(int code);

#ifdef __cplusplus
}
#endif
#endif
