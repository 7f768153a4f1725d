/* err.c - see err.h */
#include "node/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *format, ...)
{
    if (e) {
        va_list args;
        va_start(args, format);
        vsnprintf(e->text, sizeof e->text, format, args);
        va_end(args);
        e->code = code;
    }
    return code;
}

static int code_of_errno(int errno_value)
{
    switch (errno_value) {
    case ENOSPC:
    case EDQUOT:
        return ERR_FULL;
    case ENOENT:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case ENOMEM:
        return ERR_NOMEM;
    default:
        return ERR_IO;
    }
}

int err_errno(struct err *e, int errno_value, const char *format, ...)
{
    int code = code_of_errno(errno_value);
    if (e) {
        char reason[128];
        va_list args;
        va_start(args, format);
        int n = vsnprintf(e->text, sizeof e->text, format, args);
        va_end(args);
        if (n >= 0 && (size_t)n < sizeof e->text)
            snprintf(e->text + n, sizeof e->text - (size_t)n, ": %s",
                     strerror_r(errno_value, reason, sizeof reason));
        e->code = code;
    }
    return code;
}

int err_context(struct err *e, const char *format, ...)
{
    if (!e)
        return 0;
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    /* What does not fit is cut: the cause's end is worth less than where it happened. */
    if (n >= 0 && (size_t)n < sizeof text &&
        snprintf(text + n, sizeof text - (size_t)n, ": %s", e->text) < 0)
        text[n] = '\0';
    memcpy(e->text, text, sizeof text);
    return e->code;
}

const char *err_word(int code)
{
    switch (code) {
    case 0:
        return "ok";
#define X(name, value, word, transient)                                                            \
    case name:                                                                                     \
        return word;
        ERR_LIST(X)
#undef X
    default:
        return "unknown";
    }
}

bool err_is_transient(int code)
{
    switch (code) {
#define X(name, value, word, transient)                                                            \
    case name:                                                                                     \
        return transient;
        ERR_LIST(X)
#undef X
    default:
        return false;
    }
}
