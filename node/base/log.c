/* log.c - see log.h */
#include "node/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "node/base/err.h"

#define LINE_MAX_BYTES 2048

static const char *const level_words[] = {"debug", "info", "warning", "error"};
static const char *stage_name = "spinenode";
static enum log_level lowest_level = LOG_INFO;

void log_init(const char *stage, enum log_level lowest)
{
    stage_name = stage;
    lowest_level = lowest;
}

int log_level_parse(const char *word)
{
    for (int i = LOG_DEBUG; i <= LOG_ERROR; i++)
        if (strcmp(word, level_words[i]) == 0)
            return i;
    return -1;
}

void log_line(enum log_level level, const char *event, const char *format, ...)
{
    if (level < lowest_level)
        return;
    char line[LINE_MAX_BYTES];
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03ldZ %-7s %s[%d] %s ",
                          now.tv_nsec / 1000000, level_words[level], stage_name, (int)getpid(),
                          event);
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + n, sizeof line - n, format, args);
    va_end(args);
    if (more > 0)
        n += (size_t)more < sizeof line - n ? (size_t)more : sizeof line - n - 1;
    for (size_t i = 0; i < n; i++)
        if (line[i] == '\n' || line[i] == '\r')
            line[i] = ' ';
    while (n > 0 && line[n - 1] == ' ')
        n--;
    line[n++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, n);
    (void)written; /* nowhere left to complain */
}

char *log_quote(char *out, size_t size, const char *text)
{
    if (size < 3) {
        if (size > 0)
            out[0] = '\0';
        return out;
    }
    size_t n = 0;
    out[n++] = '"';
    for (; *text && n + 3 < size; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            out[n++] = '\\';
            out[n++] = (char)c;
        } else {
            out[n++] = c < 0x20 || c == 0x7f ? ' ' : (char)c;
        }
    }
    out[n++] = '"';
    out[n] = '\0';
    return out;
}

void log_failure(const char *event, const char *text)
{
    char reason[ERR_TEXT_MAX];
    log_line(LOG_ERROR, event, "reason=%s", log_quote(reason, sizeof reason, text));
}
