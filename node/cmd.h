/*
 * cmd.h - the verbs of the command line
 *
 * Each takes the arguments that follow `spinenode`, its own name first, and returns the exit
 * status: 0 done, 1 failed (one line on standard error said why), 2 wrong usage (likewise). Each
 * knows --help. Results go to standard output, everything else to standard error.
 */
#ifndef SPINENODE_CMD_H
#define SPINENODE_CMD_H

#define EXIT_FAILED 1
#define EXIT_USAGE  2

int cmd_run(int argc, char **argv);
int cmd_check_config(int argc, char **argv);
int cmd_route(int argc, char **argv);
int cmd_infer(int argc, char **argv);
int cmd_jobs(int argc, char **argv);
int cmd_models(int argc, char **argv);
int cmd_version(int argc, char **argv);

/* "spinenode VERB: format" and a newline on standard error; returns EXIT_USAGE with a pointer to
 * --help, or EXIT_FAILED. */
int cmd_usage_error(const char *verb, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
int cmd_failed(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
