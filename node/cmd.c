/* cmd.c - reading arguments strictly, and saying what was wrong with them in one line */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/cmd.h"

static void say(const char *verb, const char *format, va_list args, const char *tail)
{
    fprintf(stderr, "spinenode %s: ", verb);
    vfprintf(stderr, format, args);
    fputs(tail, stderr);
    fputc('\n', stderr);
}

int cmd_usage_error(const char *verb, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char tail[96];
    snprintf(tail, sizeof tail, " (see spinenode %s --help)", verb);
    say(verb, format, args, tail);
    va_end(args);
    return EXIT_USAGE;
}

int cmd_failed(const char *verb, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(verb, format, args, "");
    va_end(args);
    return EXIT_FAILED;
}

int cmd_finish_output(const char *verb)
{
    errno = 0;
    if (fflush(stdout) != 0 || ferror(stdout))
        return cmd_failed(verb, "writing to standard output: %s",
                          errno != 0 ? strerror(errno) : "failed");
    return 0;
}

/* The option that arg names, or NULL. *value becomes what follows '=' in a long one. */
static const struct cmd_option *find(const struct cmd_option *options, const char *arg,
                                     const char **value)
{
    *value = NULL;
    for (const struct cmd_option *o = options; o->name != NULL; o++) {
        if (arg[1] != '-') {
            if (o->letter != 0 && arg[1] == o->letter && arg[2] == '\0')
                return o;
            continue;
        }
        size_t n = strlen(o->name);
        if (strncmp(arg + 2, o->name, n) != 0 || (arg[2 + n] != '\0' && arg[2 + n] != '='))
            continue;
        if (arg[2 + n] == '=')
            *value = arg + 2 + n + 1;
        return o;
    }
    return NULL;
}

int cmd_parse(int argc, char **argv, const struct cmd_option *options, const char *help,
              int *operands)
{
    const char *verb = argv[0];
    uint64_t seen = 0;
    int kept = 1;
    bool only_operands = false;
    for (int i = 1; i < argc; i++) {
        char *arg = argv[i];
        if (only_operands || arg[0] != '-' || arg[1] == '\0') {
            argv[kept++] = arg;
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            only_operands = true;
            continue;
        }
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            fputs(help, stdout);
            return cmd_finish_output(verb);
        }
        const char *value;
        const struct cmd_option *o = find(options, arg, &value);
        if (o == NULL)
            return cmd_usage_error(verb, "unknown option '%s'", arg);
        uint64_t bit = UINT64_C(1) << (o - options);
        if (seen & bit)
            return cmd_usage_error(verb, "--%s is given twice", o->name);
        seen |= bit;
        if (o->flag != NULL) {
            if (value != NULL)
                return cmd_usage_error(verb, "--%s takes no value", o->name);
            *o->flag = true;
            continue;
        }
        if (value == NULL && i + 1 < argc)
            value = argv[++i];
        if (value == NULL || *value == '\0')
            return cmd_usage_error(verb, "--%s needs a value", o->name);
        *o->value = value;
    }
    *operands = kept - 1;
    return CMD_GO;
}

int cmd_number(const char *verb, const char *option, const char *text, int64_t min, int64_t max,
               int64_t *out)
{
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || n < min || n > max)
        return cmd_usage_error(verb, "--%s: expected a whole number from %lld to %lld, not '%s'",
                               option, (long long)min, (long long)max, text);
    *out = n;
    return CMD_GO;
}
