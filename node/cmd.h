/*
 * cmd.h - the verbs of the command line, and how each reads its arguments
 *
 * Each verb takes the arguments that follow `spinenode`, its own name first, and returns the exit
 * status: 0 done, 1 failed (one line on standard error said why), 2 wrong usage (likewise). Each
 * knows --help. Results go to standard output, everything else to standard error.
 *
 * Arguments are read strictly: no abbreviations, nothing twice, nothing unknown, no value missing.
 */
#ifndef SPINENODE_CMD_H
#define SPINENODE_CMD_H

#include <stdbool.h>
#include <stdint.h>

#define EXIT_FAILED 1
#define EXIT_USAGE  2

int cmd_run(int argc, char **argv);
int cmd_check_config(int argc, char **argv);
int cmd_route(int argc, char **argv);
int cmd_infer(int argc, char **argv);
int cmd_jobs(int argc, char **argv);
int cmd_models(int argc, char **argv);
int cmd_quality(int argc, char **argv);
int cmd_version(int argc, char **argv);

/* One option. Exactly one of flag and value is set; both point at variables that hold the default.
 * The list ends with an entry without a name. */
struct cmd_option {
    const char *name; /* without the dashes */
    char letter;      /* of the short form; 0 = none */
    bool *flag;
    const char **value; /* `--name V`, `--name=V`, `-l V`; borrowed from argv */
};

/* cmd_parse: go on. Every other value is the exit status to return. */
#define CMD_GO (-1)

/* Reads argv[1…]. Options may stand anywhere before "--"; what is no option is moved, in order, to
 * argv[1…] and counted in *operands. --help and -h print help on standard output and give 0; a
 * mistake prints one line on standard error and gives EXIT_USAGE. */
int cmd_parse(int argc, char **argv, const struct cmd_option *options, const char *help,
              int *operands);

/* A whole number in [min, max]; anything else prints a line that names the option: EXIT_USAGE. */
int cmd_number(const char *verb, const char *option, const char *text, int64_t min, int64_t max,
               int64_t *out);

/* Print "spinenode VERB: format" on standard error; the first adds a pointer to --help. Return
 * EXIT_USAGE and EXIT_FAILED. */
int cmd_usage_error(const char *verb, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
int cmd_failed(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Flushes standard output; EXIT_FAILED with a line if anything could not be written (a full disk
 * must not look like success), else 0. */
int cmd_finish_output(const char *verb);

#endif
