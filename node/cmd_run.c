/* cmd_run.c - `spinenode run`: the node itself, in the foreground */
#include <stdio.h>

#include "node/base/err.h"

#include "node/cmd.h"
#include "node/config.h"
#include "node/supervise.h"

static const char help[] =
    "usage: spinenode run -c FILE\n"
    "\n"
    "Runs the node in the foreground until it is told to stop; logs to standard error. A service\n"
    "manager starts it and keeps it (config/spinenode.service).\n"
    "\n"
    "  SIGTERM, SIGINT  stop in order: what is under way is put down; a second one ends at once\n"
    "  SIGHUP           read FILE again; if it has a mistake, go on with the old and log why\n"
    "\n"
    "  -c, --config FILE  the configuration file (see `spinenode check-config`)\n"
    "  -h, --help         this text\n";

int cmd_run(int argc, char **argv)
{
    const char *path = NULL;
    const struct cmd_option options[] = {{"config", 'c', NULL, &path}, {NULL, 0, NULL, NULL}};
    int operands, status = cmd_parse(argc, argv, options, help, &operands);
    if (status != CMD_GO)
        return status;
    if (path == NULL)
        return cmd_usage_error(argv[0], "-c FILE is missing");
    if (operands != 0)
        return cmd_usage_error(argv[0], "unexpected argument '%s'", argv[1]);
    struct err e;
    struct config *c = NULL;
    struct transport *transport = NULL;
    if (config_load_to_run(path, &c, &transport, &e) != 0 || supervise(c, transport, &e) != 0)
        return cmd_failed(argv[0], "%s", e.text);
    return 0;
}
