/*
 * main.c - `spinenode VERB …`: finds the verb and hands over
 *
 * The table below is all there is to a verb here: a name, a line for the help, a function.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cuda/engine_cuda.h"
#include "model/engine.h"
#include "node/cmd.h"

struct verb {
    const char *name;
    const char *line;
    int (*run)(int argc, char **argv);
};

static const struct verb verbs[] = {
    {"run", "run the node", cmd_run},
    {"check-config", "check a configuration file and print what it comes to", cmd_check_config},
    {"route", "say what the rules make of DICOM files, and why", cmd_route},
    {"infer", "run a model on a DICOM series or a tensor", cmd_infer},
    {"jobs", "show what the node does, repeat or cancel a job", cmd_jobs},
    {"models", "say what model files are and what they cost", cmd_models},
    {"quality", "say what the quality gate measures of a volume", cmd_quality},
    {"version", "say what this program is and what was built into it", cmd_version},
};

static void print_help(FILE *to)
{
    fputs("usage: spinenode VERB [ARGUMENT]...\n"
          "\n"
          "A PACS processing node: spine MR and x-ray series in, synthetic series out.\n"
          "\n"
          "verbs:\n",
          to);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        fprintf(to, "  %-13s %s\n", verbs[i].name, verbs[i].line);
    fputs("  help [VERB]   say how a verb is used (so does spinenode VERB --help)\n"
          "\n"
          "Exit status: 0 done, 1 failed, 2 wrong usage. The manual is spinenode(1).\n",
          to);
}

static const struct verb *find(const char *name)
{
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    }
    return NULL;
}

static int unknown(const char *name)
{
    fprintf(stderr, "spinenode: unknown verb '%s' (spinenode help lists them)\n", name);
    return EXIT_USAGE;
}

static int help(int argc, char **argv)
{
    if (argc > 2) {
        fputs("spinenode help: expected one verb at most\n", stderr);
        return EXIT_USAGE;
    }
    if (argc < 2) {
        print_help(stdout);
        return cmd_finish_output("help");
    }
    const struct verb *v = find(argv[1]);
    if (v == NULL)
        return unknown(argv[1]);
    char name[32], ask[] = "--help";
    snprintf(name, sizeof name, "%s", v->name);
    char *args[] = {name, ask, NULL};
    return v->run(2, args);
}

/* Ends here, without what libraries do when a process ends: taking DCMTK's dictionary apart, entry
 * by entry, is the longest. Only who looks for leaks wants to see it. */
static int leave(int status)
{
#ifndef __SANITIZE_ADDRESS__
    fflush(NULL);
    _exit(status);
#endif
    return status;
}

int main(int argc, char **argv)
{
#ifdef SPINENODE_CUDA
    engine_register(&engine_cuda, NULL); /* asks for a GPU only when it is to compile */
#endif
    /* A reader that went away is an error of write(2), not the end of the process. */
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
        strcmp(argv[1], "-h") == 0)
        return help(argc - 1, argv + 1);
    if (strcmp(argv[1], "--version") == 0)
        argv[1] += 2;
    const struct verb *v = find(argv[1]);
    return leave(v == NULL ? unknown(argv[1]) : v->run(argc - 1, argv + 1));
}
