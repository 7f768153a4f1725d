/*
 * log.h - one line per state change, key=value, to standard error
 *
 *     2026-11-22T21:30:01.123Z info  receive[4711] instance_stored series=2.25.1 bytes=525312
 *
 * The node logs; libraries (base, model, dicom, cuda) do not. Never log a patient's name or
 * identifier, nor free text from a data set. Each line is one write(2), so that lines of several
 * processes never mix. Values with blanks or quotes are to be written through log_quote().
 */
#ifndef SPINENODE_BASE_LOG_H
#define SPINENODE_BASE_LOG_H

#include <stddef.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };

/* Names the stage that this process is and the lowest level to write. Borrowed: a literal. */
void log_init(const char *stage, enum log_level lowest);

/* "debug" | "info" | "warning" | "error" → level; -1 if the word is none of them. */
int log_level_parse(const char *word);

/* event: one word. format: key=value pairs, or "" for none. Thread-safe. */
void log_line(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(...)   log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)    log_line(LOG_INFO, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_error(...)   log_line(LOG_ERROR, __VA_ARGS__)

/* An error whose only pair is reason=TEXT, quoted. */
void log_failure(const char *event, const char *text);

/* Writes text in double quotes into out, escaping quotes, backslashes and control characters,
 * cut to fit. Returns out. */
char *log_quote(char *out, size_t size, const char *text);

#endif
